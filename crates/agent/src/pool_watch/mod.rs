//! Watches how full the pool is and how it does, says so before it hurts, and makes room.

mod fullness;
mod health;
mod interrupted;
mod kept;
mod level;
mod reserve;
mod trim;

use std::sync::Arc;
use std::time::Duration;

use holdfast_proto::internal;
use holdfast_storage::Capacity;
use holdfast_types::ByteSize;
use tracing::warn;

use crate::agent::Parts;
use crate::context::Context;
use crate::error::{AgentError, blocking};
use crate::replicate::tell;

pub(crate) use self::fullness::Fullness;
use self::health::Health;
use self::level::{Half, Level};
use self::reserve::Keeper;
use self::trim::Trimmer;

const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A pool that is full is looked at as often: the reserve must come before the end.
const LOOK_FULL_EVERY: Duration = Duration::from_millis(250);

/// Watches for ever.
pub(crate) async fn run(context: Arc<Context>) {
    let mut watch = Watch::default();
    let mut trimmer = Trimmer::default();
    loop {
        let mut pause = LOOK_EVERY;
        if let Some(parts) = context.parts() {
            watch.look(&context, &parts).await;
            trimmer.look(&context, watch.level());
            // Between two looks of others nothing but the reserve is looked after.
            while watch.level() == Level::Full && pause > LOOK_FULL_EVERY {
                pause -= LOOK_FULL_EVERY;
                tokio::time::sleep(LOOK_FULL_EVERY).await;
                watch.keep_reserve(&context, &parts).await;
            }
        }
        tokio::time::sleep(pause).await;
    }
}

/// What was seen, and what of it was told.
#[derive(Default)]
struct Watch {
    data: Mark,
    metadata: Mark,
    keeper: Keeper,
    /// What is still to be told of the reserve.
    news: Vec<(&'static str, String)>,
    health: Health,
    /// That the pool cannot be measured, or its reserve kept, is in the log.
    logged: bool,
}

/// A half of the pool.
#[derive(Debug, Default)]
struct Mark {
    level: Level,
    told: Level,
}

impl Mark {
    async fn now(&mut self, context: &Context, half: Half, percent: u8, threshold_percent: u8) {
        self.level = Level::of(percent, threshold_percent, self.level);
        if self.level != self.told {
            let (kind, message) = half.event(percent, self.level);
            if tell(context, None, kind, message).await {
                self.told = self.level;
            }
        }
    }
}

impl Watch {
    /// That of the fuller half.
    fn level(&self) -> Level {
        self.data.level.max(self.metadata.level)
    }

    /// What fails keeps nothing after it from being done: a pool that has failed answers nothing, and
    /// then most of all operators must hear of it, and the cluster place nothing there.
    async fn look(&mut self, context: &Context, parts: &Arc<Parts>) {
        // First, because it is a matter of moments; to tell of something may take long.
        let kept = self.keep_reserve(context, parts).await;
        if let Err(error) = self.health.look(context, parts).await {
            warn!(error = %error.line(), "the pool's health cannot be asked for");
        }
        match kept {
            Some(capacity) => self.measured(context, parts, &capacity).await,
            None => {
                if let Some(last) = context.capacity() {
                    context.set_capacity(internal::Capacity { admits: false, ..last });
                }
            }
        }
        if let Err(error) = self.drop_interrupted(parts).await {
            warn!(error = %error.line(), "interrupted transfers cannot be looked for");
        }
        if let Err(error) = self.give_up_kept(context, parts).await {
            warn!(error = %error.line(), "no copy of a snapshot can be given up");
        }
    }

    /// Tells everybody how full it is.
    async fn measured(&mut self, context: &Context, parts: &Parts, capacity: &Capacity) {
        let threshold = capacity.threshold_percent;
        self.data.now(context, Half::Data, capacity.data_percent(), threshold).await;
        let metadata = capacity.metadata_percent().unwrap_or(0);
        self.metadata.now(context, Half::Metadata, metadata, threshold).await;
        let name = parts.name.clone();
        let said = message(&parts.driver, capacity, self.level());
        let admits = said.admits && self.health.takes_writes();
        context.set_capacity(internal::Capacity { name, admits, ..said });
        context.fullness.fills(self.level() >= Level::Filling);
        context.fullness.looked(self.level() == Level::Full, capacity.is_exhausted());
    }

    /// What came of a transfer that a full pool has interrupted is the first to go: it cannot go on
    /// before there is room.
    async fn drop_interrupted(&mut self, parts: &Arc<Parts>) -> Result<(), AgentError> {
        if self.level() < Level::Full {
            return Ok(());
        }
        let pool = parts.pool.clone();
        let dropped = blocking(move || Ok::<_, AgentError>(interrupted::drop_all(&*pool)));
        for uid in dropped.await? {
            let message = format!(
                "what had come of an interrupted copy of {uid} was dropped to make room in the full \
                 pool: it is shipped from its beginning once there is"
            );
            self.news.push(("transfer-dropped", message));
        }
        Ok(())
    }

    /// Who has no lease does not know whether the others are up, and cannot say what went.
    async fn give_up_kept(
        &mut self,
        context: &Context,
        parts: &Arc<Parts>,
    ) -> Result<(), AgentError> {
        let Some(view) = context.view().filter(|_| context.is_leased()) else { return Ok(()) };
        if !context.fullness.nothing_else_goes() {
            return Ok(());
        }
        let pool = parts.pool.clone();
        let Some(gone) = blocking(move || kept::give_up(&*pool, &view)).await? else {
            return Ok(());
        };
        let message = format!(
            "this node's copy of the snapshot {} of {} was given up to make room in the full pool; \
             it is shipped again once there is room",
            gone.name, gone.container
        );
        self.news.push(("kept-dropped", message));
        Ok(())
    }

    /// Measures, and does what is due about the reserve. How full the pool is, is known also if that
    /// cannot be done.
    async fn keep_reserve(&mut self, context: &Context, parts: &Arc<Parts>) -> Option<Capacity> {
        let (pool, level) = (parts.pool.clone(), self.level());
        let mut keeper = std::mem::take(&mut self.keeper);
        let kept = blocking(move || {
            let kept = pool.capacity().map(|c| (c, keeper.keep(&*pool, &c, level)));
            Ok::<_, AgentError>((keeper, kept))
        });
        let kept = kept.await.and_then(|(keeper, kept)| {
            self.keeper = keeper;
            Ok(kept?)
        });
        let (measured, failed) = match kept {
            Ok((capacity, Ok(news))) => {
                self.news.extend(news.event(capacity.data_percent()));
                (Some(capacity), None)
            }
            Ok((capacity, Err(error))) => (Some(capacity), Some(error.into())),
            Err(error) => (None, Some(error)),
        };
        if let Some(error) = failed.as_ref().filter(|_| !self.logged) {
            let what = if measured.is_some() { "its reserve kept" } else { "measured" };
            warn!(error = %error.line(), "the pool cannot be {what}");
        }
        self.logged = failed.is_some();
        while let Some((kind, message)) = self.news.first().cloned() {
            if !tell(context, None, kind, message).await {
                break;
            }
            self.news.remove(0);
        }
        measured
    }
}

/// One mark for both: where no snapshots are taken, nothing new is admitted either.
fn message(driver: &str, capacity: &Capacity, level: Level) -> internal::Capacity {
    internal::Capacity {
        name: String::new(),
        driver: driver.to_owned(),
        size_bytes: capacity.size.bytes(),
        used_bytes: capacity.used.bytes(),
        promised_bytes: capacity.promised.bytes(),
        metadata_used_bytes: capacity.metadata.map(|(used, _)| used.bytes()),
        metadata_size_bytes: capacity.metadata.map(|(_, size)| size.bytes()),
        admits: level != Level::Full && capacity.admit(ByteSize(0)).is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_leader::FakeLeader;
    use crate::pair::{Node, SENDER};
    use crate::replicate::TransferLimits;
    use crate::testing::UID;
    use holdfast_storage::fake::{Damage, FakePool};
    use holdfast_storage::{Pool, PoolIdentity};
    use holdfast_types::{ClusterId, Epoch};
    use uuid::Uuid;

    const MIB: usize = 1 << 20;

    /// A node with a pool of 200 MiB that was looked at once, and has its reserve.
    async fn looked_at() -> (Node, FakeLeader, Arc<Parts>, Watch) {
        let cluster = ClusterId(Uuid::from_u128(1));
        let identity = PoolIdentity { cluster, pool: Uuid::from_u128(2) };
        let pool = FakePool::new(identity, ByteSize::mib(200));
        let node = Node::on(pool, SENDER, TransferLimits::default());
        let leader = FakeLeader::of(&node.context).await;
        let parts = node.context.parts().unwrap();
        let mut watch = Watch::default();
        watch.look(&node.context, &parts).await;
        assert!(node.context.capacity().unwrap().admits && leader.kinds().is_empty());
        (node, leader, parts, watch)
    }

    /// I20: the look ended where the pool could not be measured. Nobody heard that it had failed,
    /// and by its last figures it went on being chosen.
    #[tokio::test]
    async fn a_pool_that_has_failed_is_told_of_and_admits_nothing() {
        let (node, leader, parts, mut watch) = looked_at().await;
        let sound = node.context.capacity().unwrap();
        node.pool.damage(Damage::Failed);
        for _ in 0..2 {
            watch.look(&node.context, &parts).await;
        }
        assert_eq!(leader.kinds(), ["pool-damaged"]);
        let closed = internal::Capacity { admits: false, ..sound };
        assert_eq!(node.context.capacity(), Some(closed));
    }

    /// It was told of as damaged, and by what it still said of itself it went on being chosen.
    #[tokio::test]
    async fn a_pool_that_cannot_be_written_admits_nothing() {
        let (node, leader, parts, mut watch) = looked_at().await;
        node.pool.damage(Damage::ReadOnly);
        watch.look(&node.context, &parts).await;
        assert_eq!(leader.kinds(), ["pool-damaged"]);
        assert!(!node.context.capacity().unwrap().admits);
    }

    /// I20: a pool that could not be written kept its reserve, and with it the figures of before.
    #[tokio::test]
    async fn a_reserve_that_cannot_be_given_away_keeps_no_figures_back() {
        let (node, leader, parts, mut watch) = looked_at().await;
        node.pool.create(UID.into(), ByteSize::mib(200), Epoch(1)).unwrap();
        node.pool.activate(UID.into(), Epoch(1)).unwrap();
        node.pool.write(UID.into(), 0, &vec![7; 191 * MIB]).unwrap();
        node.pool.damage(Damage::ReadOnly);
        watch.look(&node.context, &parts).await;
        assert_eq!(leader.kinds(), ["pool-damaged", "pool-full"]);
        assert_eq!(node.pool.reserved(), ByteSize::mib(4), "it is still there");
        assert_eq!(node.context.capacity().unwrap().used_bytes, ByteSize::mib(195).bytes());
    }

    /// I20: between the marks a pool that was full neither admits nor replicates, as it said.
    #[test]
    fn a_pool_that_was_full_admits_again_when_it_replicates_again() {
        let capacity = Capacity {
            size: ByteSize(100),
            used: ByteSize(89),
            promised: ByteSize(0),
            metadata: None,
            threshold_percent: 90,
        };
        assert!(!message("xfs", &capacity, Level::of(89, 90, Level::Full)).admits);
        assert!(message("xfs", &capacity, Level::of(89, 90, Level::Filling)).admits);
    }
}
