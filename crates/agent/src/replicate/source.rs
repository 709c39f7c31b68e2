//! The primary's side of one volume: takes snapshots when something was written, vouches for the
//! newest one when nothing was, and keeps one target task for each replica. In a pool past its
//! threshold it takes none, and gives up those that are only there as bases (DESIGN section 7).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use holdfast_storage::{SnapshotInfo, SnapshotKind};
use holdfast_types::{
    AssignedView, ContainerName, ContainerUid, CopyView, NodeId, Protection, SnapshotUuid,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::clock::boottime_ms;
use crate::context::Context;
use crate::error::{AgentError, blocking};
use crate::replicate::news::{Turn, Words, tell};
use crate::replicate::prune::{Acked, Bases, give_up};
use crate::replicate::snapshot::{Round, Snapshooter, Subject};
use crate::replicate::target;
use crate::replicate::{Shipment, kept, pace};

/// The newest snapshot, and the BOOTTIME for which it is the whole content.
#[derive(Debug, Clone)]
pub(crate) struct Latest {
    pub(crate) snapshot: SnapshotInfo,
    pub(crate) as_of_ms: u64,
}

/// How long to wait while there is nothing to take a snapshot of.
const IDLE: Duration = Duration::from_millis(200);

/// After a named snapshot was taken, and while there is no lease, the next round comes as soon as this.
const AGAIN: Duration = Duration::from_secs(1);

/// Replicates for as long as the container is assigned here.
pub(crate) async fn run(context: Arc<Context>, uid: ContainerUid) {
    let shipment = context.shipments.of(uid);
    let mut source = Source {
        context: context.clone(),
        uid,
        shipment: shipment.clone(),
        snapshooter: Snapshooter::default(),
        latest: watch::Sender::new(None),
        bases: Arc::default(),
        targets: BTreeMap::new(),
        withheld: Turn::default(),
        torn: Turn::default(),
        given_up: 0,
        refusals: 0,
        quiet: false,
    };
    while let Some(assigned) = source.assigned() {
        let begun = Instant::now();
        let period = match source.round(&assigned).await {
            Ok(Some(period)) => {
                source.quiet = false;
                period
            }
            Ok(None) => IDLE,
            Err(error) => {
                if !std::mem::replace(&mut source.quiet, true) {
                    warn!(container = %uid, error = %error.line(), "no snapshot could be taken");
                }
                Duration::from_secs(1)
            }
        };
        source.pause(begun + period).await;
    }
    context.shipments.forget(uid);
}

struct Source {
    context: Arc<Context>,
    uid: ContainerUid,
    shipment: Arc<Shipment>,
    snapshooter: Snapshooter,
    latest: watch::Sender<Option<Latest>>,
    bases: Arc<Bases>,
    targets: BTreeMap<NodeId, JoinHandle<()>>,
    withheld: Turn,
    torn: Turn,
    /// Snapshots that went to make room, and nobody was told of yet.
    given_up: usize,
    /// How many rounds in a row came to nothing.
    refusals: u32,
    quiet: bool,
}

impl Drop for Source {
    fn drop(&mut self) {
        self.targets.values().for_each(JoinHandle::abort);
    }
}

impl Source {
    fn assigned(&self) -> Option<AssignedView> {
        let view = self.context.view()?;
        view.assigned.iter().find(|a| a.uid == self.uid).cloned()
    }

    /// Waits until the next round is due, or asked for, or a named snapshot is wanted.
    async fn pause(&self, until: Instant) {
        let mut views = self.context.watch_view();
        let pausing = async {
            loop {
                tokio::select! {
                    () = self.shipment.now.notified() => return,
                    _ = views.changed() => {}
                }
                let pool = self.context.parts().map(|parts| parts.pool.clone());
                if let (Some(pool), Some(assigned)) = (pool, self.assigned())
                    && kept::wanted(&*pool, &assigned).is_some()
                {
                    return;
                }
            }
        };
        // Whichever comes first; both lead to another round.
        let _ = tokio::time::timeout_at(until, pausing).await;
    }

    /// One round. Returns when the next is due; none while the volume is not ready to be shipped.
    async fn round(&mut self, assigned: &AssignedView) -> Result<Option<Duration>, AgentError> {
        let Some(parts) = self.context.parts() else { return Ok(None) };
        self.tell_given_up(&assigned.name).await;
        let every = Duration::from_millis(assigned.spec.replicate_every_ms);
        self.keep_targets(assigned);
        let places = self.context.places(self.uid);
        let (freezer, epoch, uid) = (self.context.freezer(), assigned.chain.epoch, self.uid);
        // Read before the volume is looked at: what counts it later came to rest later.
        let rests = self.shipment.rests.load(Ordering::SeqCst);
        let mut snapshooter = std::mem::take(&mut self.snapshooter);
        let may_take = !self.context.fullness.is_full();
        let may_sync = !self.context.fullness.is_exhausted();
        let (pool, running) = (parts.pool.clone(), parts.clone());
        let wanted = kept::wanted(&*pool, assigned);
        let work = move || {
            let places = &places;
            let subject = Subject { uid, epoch, rests, places, may_take, may_sync, wanted };
            let result = snapshooter.round(&*pool, subject, &freezer, || {
                running.runtime.status(uid).is_ok_and(holdfast_runtime::Status::is_running)
            });
            Ok::<_, AgentError>((snapshooter, result))
        };
        let (snapshooter, result) = blocking(work).await?;
        self.snapshooter = snapshooter;
        let full = AgentError::PoolFull;
        let refused = match &result {
            Ok(Round::NotReady | Round::Current(_)) => None,
            Ok(Round::Withheld) => Some(&full),
            Err(error) => Some(error),
        };
        self.refusals = if refused.is_some() { self.refusals.saturating_add(1) } else { 0 };
        if let (Some(snapshot), Some(error)) = (wanted, refused)
            && kept::is_told(error, self.refusals)
        {
            kept::tell_refused(&self.context, uid, epoch, snapshot, error).await;
        }
        let latest = match result? {
            Round::NotReady => return Ok(None),
            Round::Withheld => {
                return self.withhold(assigned).await.map(|()| Some(every));
            }
            Round::Current(latest) => latest,
        };
        // Under a lease that lives now nobody took over before. Without one somebody may have, and
        // what is here is the newest of an epoch that is over (I22).
        if assigned.spec.protection == Protection::Protected && !self.context.is_leased() {
            return Ok(Some(every.min(AGAIN)));
        }
        let (pool, mine) = (parts.pool.clone(), assigned.clone());
        let taken = blocking(move || kept::keep(&*pool, &mine)).await?;
        self.tell_withheld(&assigned.name, false).await;
        debug!(container = %self.uid, seq = %latest.snapshot.id.seq, "current");
        let uuid = latest.snapshot.id.uuid;
        let before = self.latest.send_replace(Some(latest));
        self.prune(assigned).await?;
        if !taken.is_empty() {
            kept::tell_taken(&self.context, epoch, taken).await;
            // The next may be wanted already, and what was not heard is told again.
            return Ok(Some(every.min(AGAIN)));
        }
        // An unchanged volume is not compared with anything.
        match before.is_some_and(|before| before.snapshot.id.uuid == uuid) {
            true => Ok(Some(every)),
            false => self.pace(assigned, uuid).await.map(Some),
        }
    }

    /// When the next snapshot is due, now that this one was taken.
    async fn pace(
        &mut self,
        assigned: &AssignedView,
        uuid: SnapshotUuid,
    ) -> Result<Duration, AgentError> {
        let parts = self.context.parts().ok_or(AgentError::Starting)?;
        let cost = move || {
            let pieces = parts.pool.fragmentation(uuid)?;
            Ok::<_, holdfast_storage::Error>((pieces, parts.pool.worn_percent()))
        };
        let (pieces, worn_percent) = blocking(cost).await?;
        let period = pace::interval(&assigned.spec, &pieces);
        let every = Duration::from_millis(assigned.spec.replicate_every_ms);
        let (name, extents) = (&assigned.name, pieces.extents);
        let begun = format!(
            "{name} lies in {extents} pieces: it is snapshotted every {:.1} s instead of every {:.1} \
             s, because comparing takes long",
            period.as_secs_f64(),
            every.as_secs_f64()
        );
        let over = format!("{name} lies in {extents} pieces: it is snapshotted as asked for again");
        let words = Words {
            begun: ("replication-stretched", &begun),
            over: ("replication-on-time", &over),
        };
        let torn = pace::torn(&pieces, self.torn.told()) && period > every;
        self.torn.now(&self.context, self.uid, torn, words).await;
        Ok(pace::sparing(&assigned.spec, period, worn_percent))
    }

    /// The pool is past its threshold, and the container has written.
    async fn withhold(&mut self, assigned: &AssignedView) -> Result<(), AgentError> {
        self.shipment.withheld_at_ms.send_replace(boottime_ms());
        self.tell_withheld(&assigned.name, true).await;
        let Some(parts) = self.context.parts() else { return Ok(()) };
        let (uid, pool) = (self.uid, parts.pool.clone());
        let is_base = |s: &SnapshotInfo| s.kind == SnapshotKind::Chain;
        let has_bases =
            pool.volume(uid.into()).is_ok_and(|v| v.state.snapshots.iter().any(is_base));
        let copied = |copy: &CopyView| copy.newest.is_some() || self.bases.of(copy.node).is_some();
        // What no replica has yet is the only verified copy (I18); and who has no lease cannot say
        // what went.
        let may = has_bases && self.context.is_leased() && assigned.replicas.iter().any(copied);
        if !may || !self.context.fullness.make_room() {
            return Ok(());
        }
        self.bases.let_go();
        let gone = blocking(move || give_up(&*pool, uid.into())).await?;
        if gone == 0 {
            self.context.fullness.made_none();
            return Ok(());
        }
        self.latest.send_replace(None);
        self.given_up += gone;
        Ok(())
    }

    /// Says what went to make room; what could not be said is said next time.
    async fn tell_given_up(&mut self, name: &ContainerName) {
        if self.given_up == 0 {
            return;
        }
        let message = format!(
            "{} snapshots of {name} were given up to make room in the full pool: the next copy is \
             shipped against the image, or whole",
            self.given_up
        );
        if tell(&self.context, self.uid, "bases-dropped", message).await {
            self.given_up = 0;
        }
    }

    async fn tell_withheld(&mut self, name: &ContainerName, is_so: bool) {
        let begun = format!("replication of {name} stands still: the pool is full");
        let over = format!("replication of {name} goes on");
        let words =
            Words { begun: ("replication-stopped", &begun), over: ("replication-resumed", &over) };
        self.withheld.now(&self.context, self.uid, is_so, words).await;
    }

    fn keep_targets(&mut self, assigned: &AssignedView) {
        let wanted: Vec<_> = assigned.replicas.iter().map(|copy| copy.node).collect();
        self.targets.retain(|node, task| {
            let keep = wanted.contains(node) && !task.is_finished();
            if !keep {
                task.abort();
            }
            keep
        });
        for node in wanted {
            self.targets.entry(node).or_insert_with(|| {
                let (context, latest) = (self.context.clone(), self.latest.subscribe());
                let target =
                    target::Target::new(context, self.uid, node, latest, self.bases.clone());
                tokio::spawn(target.run())
            });
        }
    }

    async fn prune(&self, assigned: &AssignedView) -> Result<(), AgentError> {
        let Some(parts) = self.context.parts() else { return Ok(()) };
        let (bases, uid) = (self.bases.clone(), self.uid);
        let copies: Vec<Acked> = assigned
            .replicas
            .iter()
            .map(|copy| Acked { node: copy.node, floor: copy.newest })
            .collect();
        blocking(move || bases.prune(&*parts.pool, uid.into(), &copies)).await
    }
}
