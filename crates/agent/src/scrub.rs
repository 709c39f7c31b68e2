//! Reads this node's replicas over and over, slowly, and compares them with what they were.
//!
//! One copy after the other, each to its end; then all rest. A copy that has rotted is marked so by
//! the pool, which keeps it from being chosen, and told of ([`rotten`](crate::rotten)); its primary
//! ships it anew, because this node no longer has what it is asked for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use holdfast_storage::{Error, Pool, Rot, Scrubbed};
use holdfast_types::{ByteSize, VolumeUid};
use tokio::time::Instant;
use tracing::warn;

use crate::agent::Parts;
use crate::context::Context;
use crate::error::{AgentError, blocking};

/// Blocks of 4 MiB in one look.
const BLOCKS: u32 = 4;

/// A node that has just started has better things to do.
const FIRST_LOOK: Duration = Duration::from_secs(60);

/// How long another look at the same copy is waited for.
const BUSY: Duration = Duration::from_secs(30);

/// How long to wait before looking for something to look at.
const IDLE: Duration = Duration::from_secs(10);

/// How long a copy that could not be looked at is left alone.
const AGAIN: Duration = Duration::from_secs(300);

/// How thoroughly copies are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScrubPace {
    /// How much is read in a second at most; zero is never.
    pub rate: ByteSize,
    /// How long a copy is left alone after it was read to its end.
    pub every: Duration,
}

/// What a look at all copies found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScrubSummary {
    /// Copies that were read.
    pub copies: u32,
    /// All copies here.
    pub total: u32,
    /// Bytes that were read.
    pub read: ByteSize,
    /// Bytes of it that had a hash to be compared with.
    pub compared: ByteSize,
    /// Copies that have rotted.
    pub rotten: u32,
}

/// Looks for ever.
pub(crate) async fn run(context: Arc<Context>) {
    let pace = context.config.scrub;
    if pace.rate.bytes() == 0 {
        return;
    }
    tokio::time::sleep(FIRST_LOOK).await;
    let mut rests = Rests::default();
    loop {
        let Some(parts) = context.parts() else {
            tokio::time::sleep(IDLE).await;
            continue;
        };
        let Some(uid) = rests.due(&copies(&parts).await, Instant::now()) else {
            tokio::time::sleep(IDLE).await;
            continue;
        };
        let pool = parts.pool.clone();
        let looked = blocking(move || Ok::<_, AgentError>(pool.scrub(uid, BLOCKS)?)).await;
        rests.looked(uid, looked.as_ref().ok(), Instant::now(), pace.every);
        match looked {
            Ok(look) => {
                if let Some(rot) = look.rot {
                    context.rotten.found(uid, rot).await;
                }
                tokio::time::sleep(rest(look.read, pace.rate)).await;
            }
            Err(error) => {
                warn!(volume = %uid, error = %error.line(), "a copy could not be looked at");
            }
        }
    }
}

/// Which copies are left alone: since when, and for how long.
#[derive(Debug, Default)]
struct Rests(BTreeMap<VolumeUid, (Instant, Duration)>);

impl Rests {
    /// The first copy that is not left alone now; what is gone is forgotten.
    fn due(&mut self, copies: &[VolumeUid], now: Instant) -> Option<VolumeUid> {
        self.0.retain(|uid, (since, pause)| {
            copies.contains(uid) && now.duration_since(*since) < *pause
        });
        copies.iter().find(|uid| !self.0.contains_key(uid)).copied()
    }

    /// A copy was looked at, or could not be: that may be over in a moment.
    fn looked(&mut self, uid: VolumeUid, look: Option<&Scrubbed>, now: Instant, every: Duration) {
        match look {
            Some(look) if look.whole || look.read == 0 || look.rot.is_some() => {
                self.0.insert(uid, (now, every));
            }
            Some(_) => {}
            None => {
                self.0.insert(uid, (now, every.clamp(IDLE, AGAIN)));
            }
        }
    }
}

/// Looks at every copy once, to its end, as fast as the disk goes; says after each how far it is.
pub(crate) async fn all(
    context: &Arc<Context>,
    mut said: impl FnMut(ScrubSummary),
) -> Result<(), AgentError> {
    let parts = context.parts().ok_or(AgentError::Starting)?;
    let volumes = copies(&parts).await;
    let total = u32::try_from(volumes.len()).unwrap_or(u32::MAX);
    let mut summary = ScrubSummary { total, ..ScrubSummary::default() };
    said(summary);
    for uid in volumes {
        let pool = parts.pool.clone();
        let looked = match blocking(move || whole(&*pool, uid)).await {
            Err(AgentError::Storage(Error::NoVolume(_) | Error::NoSnapshot(_))) => {
                // It was deleted since it was listed.
                summary.total -= 1;
                said(summary);
                continue;
            }
            looked => looked?,
        };
        summary.copies += 1;
        summary.read.0 += looked.read.0;
        summary.compared.0 += looked.compared.0;
        if let Some(rot) = looked.rot {
            summary.rotten += 1;
            context.rotten.found(uid, rot).await;
            context.rotten.tell(context, &parts).await;
        }
        said(summary);
    }
    Ok(())
}

struct Looked {
    read: ByteSize,
    compared: ByteSize,
    rot: Option<Rot>,
}

/// From wherever it is to the end, and on to where it was: all members of a set.
fn whole(pool: &dyn Pool, uid: VolumeUid) -> Result<Looked, AgentError> {
    let size = ByteSize(pool.volume(uid)?.state.shape().bytes());
    let mut looked = Looked { read: ByteSize(0), compared: ByteSize(0), rot: None };
    while looked.read < size && looked.rot.is_none() {
        let look = look(pool, uid)?;
        looked.read.0 += look.read;
        looked.compared.0 += look.compared;
        looked.rot = look.rot;
        if look.read == 0 {
            break;
        }
    }
    Ok(looked)
}

/// The look that goes on in the background may be at the same copy, and another snapshot may have
/// taken the place of the newest.
fn look(pool: &dyn Pool, uid: VolumeUid) -> Result<Scrubbed, AgentError> {
    let deadline = std::time::Instant::now() + BUSY;
    loop {
        match pool.scrub(uid, BLOCKS) {
            Err(Error::InUse(_) | Error::NoSnapshot(_)) if std::time::Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(20));
            }
            looked => return Ok(looked?),
        }
    }
}

/// What there is to look at: not what is being written here.
async fn copies(parts: &Arc<Parts>) -> Vec<VolumeUid> {
    let parts = parts.clone();
    let list = blocking(move || {
        let volumes = parts.pool.volumes().into_iter();
        let replicas = volumes.filter(|v| v.state.live.is_none() && v.state.newest().is_some());
        Ok::<_, AgentError>(replicas.map(|v| v.state.uid).collect())
    });
    list.await.unwrap_or_default()
}

/// How long to rest after having read so much.
fn rest(read: u64, rate: ByteSize) -> Duration {
    Duration::from_millis(read.saturating_mul(1000) / rate.bytes().max(1))
}

#[cfg(test)]
mod tests {
    use holdfast_storage::fake::FakePool;
    use holdfast_storage::{AlreadyQuiet, Member, PoolIdentity, Shape};
    use holdfast_types::{ClusterId, Epoch, SnapshotUuid, TimestampMs};
    use uuid::Uuid;

    use super::*;
    use crate::pair::{Node, RECEIVER};
    use crate::replicate::TransferLimits;

    fn uid(n: u128) -> VolumeUid {
        VolumeUid(Uuid::from_u128(n))
    }

    /// A container that was deleted ended the look at all others.
    #[tokio::test]
    async fn a_copy_that_is_deleted_meanwhile_is_passed_over() {
        let identity = PoolIdentity { cluster: ClusterId(Uuid::nil()), pool: Uuid::nil() };
        let pool = FakePool::new(identity, ByteSize::gib(1));
        for n in 1..=3 {
            pool.create(uid(n), ByteSize::mib(8), Epoch(1)).unwrap();
            let uuid = SnapshotUuid::generate();
            let id = pool.volume(uid(n)).unwrap().state.next_snapshot(uuid).unwrap();
            pool.snapshot(&id, TimestampMs(1), &mut AlreadyQuiet).unwrap();
            pool.demote(uid(n), Some(uuid), None).unwrap();
        }
        let node = Node::on(pool, RECEIVER, TransferLimits::default());
        let mut told = Vec::new();
        let said = |so_far: ScrubSummary| {
            told.push((so_far.copies, so_far.total));
            node.pool.remove_volume(uid(2)).unwrap();
        };
        all(&node.context, said).await.unwrap();
        assert_eq!(told, [(0, 3), (1, 3), (1, 2), (2, 2)]);
    }

    /// What failed for a moment was left alone for as long as what was read to its end.
    #[test]
    fn a_copy_that_could_not_be_looked_at_is_tried_again_soon() {
        let (every, begun) = (Duration::from_secs(7 * 24 * 3600), Instant::now());
        let copies = [uid(1), uid(2)];
        let mut rests = Rests::default();
        assert_eq!(rests.due(&copies, begun), Some(uid(1)));
        rests.looked(uid(1), None, begun, every);
        assert_eq!(rests.due(&copies, begun), Some(uid(2)), "the others do not wait");
        let part = Scrubbed { read: 1, ..Scrubbed::default() };
        rests.looked(uid(2), Some(&part), begun, every);
        assert_eq!(rests.due(&copies, begun), Some(uid(2)), "it is read to its end");
        rests.looked(uid(2), Some(&Scrubbed { whole: true, ..part }), begun, every);
        assert_eq!(rests.due(&copies, begun + AGAIN - IDLE), None);
        assert_eq!(rests.due(&copies, begun + AGAIN), Some(uid(1)));
        rests.looked(uid(1), Some(&Scrubbed { whole: true, ..part }), begun + AGAIN, every);
        assert_eq!(rests.due(&copies, begun + every - IDLE), None);
        assert_eq!(rests.due(&copies, begun + every), Some(uid(2)));
    }

    /// The root's size alone was taken for that of the set.
    #[test]
    fn data_volumes_are_looked_at_too() {
        let identity = PoolIdentity { cluster: ClusterId(Uuid::nil()), pool: Uuid::nil() };
        let pool = FakePool::new(identity, ByteSize::gib(1));
        let uid = VolumeUid::generate();
        let data = Member::new("data".parse().unwrap(), ByteSize::mib(64));
        let shape = Shape { root: ByteSize::mib(8), data: vec![data] };
        pool.create_set(uid, &shape, Epoch(1)).unwrap();
        assert_eq!(whole(&pool, uid).unwrap().read, ByteSize::mib(72));
    }

    #[test]
    fn the_rate_is_kept() {
        assert_eq!(rest(16 << 20, ByteSize::mib(8)), Duration::from_secs(2));
        assert_eq!(rest(0, ByteSize::mib(8)), Duration::ZERO);
    }
}
