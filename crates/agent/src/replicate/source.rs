//! The primary's side of one volume: takes snapshots when something was written, vouches for the
//! newest one when nothing was, and keeps one target task for each replica.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use holdfast_storage::SnapshotInfo;
use holdfast_types::{AssignedView, ContainerUid, NodeId};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::context::Context;
use crate::error::{AgentError, blocking};
use crate::replicate::Shipment;
use crate::replicate::prune::{Acked, Bases};
use crate::replicate::snapshot::Snapshooter;
use crate::replicate::target;

/// The newest snapshot, and the BOOTTIME for which it is the whole content.
#[derive(Debug, Clone)]
pub(crate) struct Latest {
    pub(crate) snapshot: SnapshotInfo,
    pub(crate) as_of_ms: u64,
}

/// How long to wait while there is nothing to take a snapshot of.
const IDLE: Duration = Duration::from_millis(200);

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
        quiet: false,
    };
    while let Some(assigned) = source.assigned() {
        let begun = Instant::now();
        let period = match source.round(&assigned).await {
            Ok(true) => {
                source.quiet = false;
                Duration::from_millis(assigned.spec.replicate_every_ms)
            }
            Ok(false) => IDLE,
            Err(error) => {
                if !std::mem::replace(&mut source.quiet, true) {
                    warn!(container = %uid, error = %error.line(), "no snapshot could be taken");
                }
                Duration::from_secs(1)
            }
        };
        // Whichever comes first; both lead to another round.
        let _ = tokio::time::timeout_at(begun + period, shipment.now.notified()).await;
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

    /// One round. Returns false while the volume is not ready to be shipped.
    async fn round(&mut self, assigned: &AssignedView) -> Result<bool, AgentError> {
        let Some(parts) = self.context.parts() else { return Ok(false) };
        self.keep_targets(assigned);
        let mountpoint = self.context.mountpoint(self.uid);
        let (freezer, epoch, uid) = (self.context.freezer(), assigned.chain.epoch, self.uid);
        // Read before the volume is looked at: what counts it later came to rest later.
        let rests = self.shipment.rests.load(Ordering::SeqCst);
        let mut snapshooter = std::mem::take(&mut self.snapshooter);
        let (pool, running) = (parts.pool.clone(), parts.clone());
        let work = move || {
            let result =
                snapshooter.round(&*pool, (uid, epoch, rests), &mountpoint, &freezer, || {
                    running.runtime.status(uid).is_ok_and(holdfast_runtime::Status::is_running)
                });
            Ok::<_, AgentError>((snapshooter, result))
        };
        let (snapshooter, result) = blocking(work).await?;
        self.snapshooter = snapshooter;
        let Some(latest) = result? else { return Ok(false) };
        debug!(container = %self.uid, seq = %latest.snapshot.id.seq, "current");
        self.latest.send_replace(Some(latest));
        self.prune(assigned).await?;
        Ok(true)
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
                let target = target::Target {
                    context: self.context.clone(),
                    uid: self.uid,
                    node,
                    latest: self.latest.subscribe(),
                    bases: self.bases.clone(),
                    clock: None,
                };
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
