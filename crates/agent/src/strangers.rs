//! What must not come out of a freeze: whatever runs, or is about to, and is not this node's by
//! the newest view (DESIGN section 5 rule 5).
//!
//! A start is on its way for a while: the volume is mounted, a launcher forks below the ancestor,
//! LXC builds the container. A lease can end, and the container move, at each of these points, and
//! the freeze only holds the start back. So each is written down *before* the gate is looked at
//! for the last time: either the thaw sees it here, or it sees the closed gate.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_runtime::{Runtime, RuntimeError, Status};
use holdfast_storage::Pool;
use holdfast_types::{ContainerUid, Epoch, NodeView, Protection};
use tracing::{info, warn};

use crate::error::AgentError;

/// The starts under way in this life of the daemon.
#[derive(Clone, Default)]
pub(crate) struct Starts {
    underway: Arc<Mutex<BTreeMap<ContainerUid, Epoch>>>,
}

/// One start; it is over when this is dropped.
pub(crate) struct Underway {
    starts: Starts,
    uid: ContainerUid,
}

impl Starts {
    /// Writes down that a start begins, and only then asks for the last time whether it may. A
    /// container has one worker, so one start at a time.
    pub(crate) fn begin(
        &self,
        uid: ContainerUid,
        epoch: Epoch,
        may: impl FnOnce() -> bool,
    ) -> Option<Underway> {
        self.lock().insert(uid, epoch);
        let underway = Underway { starts: self.clone(), uid };
        may().then_some(underway)
    }

    fn strangers(&self, view: &NodeView) -> Vec<ContainerUid> {
        let underway = self.lock();
        let strange = underway.iter().filter(|(uid, epoch)| !owns(view, **uid, Some(**epoch)));
        strange.map(|(uid, _)| *uid).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ContainerUid, Epoch>> {
        self.underway.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.starts.lock().remove(&self.uid);
    }
}

/// Kills every protected container that runs or is being started and is not this node's by the
/// view: it was not assigned here, or what runs is of another assignment. Fails while one may still
/// come: nothing may thaw then.
pub(crate) fn kill(
    pool: &dyn Pool,
    runtime: &dyn Runtime,
    starts: &Starts,
    view: &NodeView,
) -> Result<(), AgentError> {
    let running = runtime.list()?.into_iter().filter_map(|(uid, status)| match status {
        Status::Running { protection: Protection::Protected, .. } => Some(uid),
        _ => None,
    });
    for uid in running.chain(runtime.entered()?) {
        let live = pool.volume(uid.into()).ok().and_then(|v| v.state.live);
        let epoch = live.map(|live| live.epoch);
        if !owns(view, uid, epoch) {
            info!(container = %uid, ?epoch, "killed before the thaw: it is not ours any more");
            end(runtime, uid)?;
        }
    }
    for uid in starts.strangers(view) {
        info!(container = %uid, "its start is cut short before the thaw: it is not ours any more");
        end(runtime, uid)?;
    }
    // A start that was cut short says so in a moment; the next grant asks again.
    match starts.strangers(view).first() {
        None => Ok(()),
        Some(uid) => Err(AgentError::NotHere { uid: *uid, reason: "is still being started" }),
    }
}

/// Once SIGKILL is delivered it has stopped, also while the kernel holds a task back.
fn end(runtime: &dyn Runtime, uid: ContainerUid) -> Result<(), AgentError> {
    match runtime.kill(uid) {
        Err(error @ RuntimeError::Unkillable { .. }) => warn!(%error, "killed, and not gone yet"),
        other => drop(other?),
    }
    Ok(())
}

fn owns(view: &NodeView, uid: ContainerUid, epoch: Option<Epoch>) -> bool {
    let same =
        |chain: &holdfast_types::Chain, epoch| chain.epoch == epoch || chain.goes_on_from(epoch);
    let mut mine = view.assigned.iter().filter(|a| a.uid == uid);
    mine.any(|a| epoch.is_some_and(|epoch| same(&a.chain, epoch)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_runtime::StartRequest;
    use holdfast_runtime::fake::FakeRuntime;
    use holdfast_storage::PoolIdentity;
    use holdfast_storage::fake::FakePool;
    use holdfast_types::{
        AssignedView, ByteSize, Chain, ClusterId, ContainerSpec, DesiredState, Incarnation,
        MacAddr, NodeId, Revision, Seq, SnapshotId, SnapshotUuid,
    };
    use uuid::Uuid;

    const UID: ContainerUid = ContainerUid(Uuid::from_u128(7));

    fn pool() -> FakePool {
        let id = PoolIdentity { cluster: ClusterId(Uuid::from_u128(1)), pool: Uuid::from_u128(2) };
        let pool = FakePool::new(id, ByteSize::gib(1));
        pool.create(UID.into(), ByteSize::mib(64), Epoch(1)).unwrap();
        pool
    }

    /// A view by which this node runs the container on this chain, or has nothing to do with it.
    fn view(chain: Option<Chain>) -> NodeView {
        let address = "10.77.0.2".parse().unwrap();
        let image = SnapshotId {
            volume: UID.into(),
            epoch: Epoch(1),
            seq: Seq(1),
            uuid: SnapshotUuid(Uuid::from_u128(3)),
            parent: None,
        };
        let assigned = chain.map(|chain| AssignedView {
            uid: UID,
            name: "web".parse().unwrap(),
            spec: ContainerSpec::default(),
            chain,
            desired: DesiredState::Running,
            resizing: false,
            resize_asked: holdfast_types::Revision::default(),
            made: false,
            image,
            address,
            mac: MacAddr::from_ipv4(address),
            replicas: Vec::new(),
            kept: Vec::new(),
            restore: None,
        });
        NodeView {
            revision: Revision(9),
            assignment_revision: Revision(9),
            cluster: ClusterId(Uuid::from_u128(1)),
            node: NodeId(1),
            incarnation: Incarnation(2),
            lease: Default::default(),
            overlay: "10.77.0.0/16".parse().unwrap(),
            peers: Vec::new(),
            assigned: assigned.into_iter().collect(),
            replicas: Vec::new(),
            deleting: Vec::new(),
            images: Vec::new(),
        }
    }

    fn request() -> StartRequest {
        StartRequest {
            uid: UID,
            hostname: "web".parse().unwrap(),
            protection: Protection::Protected,
            rootfs: "/".into(),
            mounts: Vec::new(),
            limits: Default::default(),
            command: Vec::new(),
            env: Default::default(),
            network: None,
        }
    }

    /// I8: a start that a freeze held back would end it after the thaw, with the container running
    /// elsewhere already.
    #[test]
    fn a_start_of_a_container_that_moved_holds_the_thaw_back() {
        let (pool, runtime, starts) = (pool(), FakeRuntime::new(), Starts::default());
        let underway = starts.begin(UID, Epoch(1), || true);
        assert!(kill(&pool, &runtime, &starts, &view(None)).is_err());
        let mine = view(Some(Chain::begin(Epoch(1))));
        assert!(kill(&pool, &runtime, &starts, &mine).is_ok(), "what is ours may go on");
        drop(underway);
        assert!(kill(&pool, &runtime, &starts, &view(None)).is_ok());
    }

    /// I8, rule 6: a thaw between the last look at the gate and the start would not know of it.
    #[test]
    fn a_start_is_written_down_before_the_gate_is_looked_at_for_the_last_time() {
        let starts = Starts::default();
        let known = || starts.strangers(&view(None)) == [UID];
        assert!(starts.begin(UID, Epoch(1), known).is_some());
        assert!(starts.begin(UID, Epoch(1), || false).is_none(), "the gate was closed");
        assert!(starts.strangers(&view(None)).is_empty(), "and it is over");
    }

    /// I8: so it is with one that a daemon began which is dead by now.
    #[test]
    fn a_program_of_ours_below_the_fence_is_killed_with_its_container() {
        let (pool, runtime, starts) = (pool(), FakeRuntime::new(), Starts::default());
        runtime.enter(UID);
        let mine = view(Some(Chain::begin(Epoch(1))));
        kill(&pool, &runtime, &starts, &mine).unwrap();
        assert_eq!(runtime.entered().unwrap(), [UID].into());
        kill(&pool, &runtime, &starts, &view(None)).unwrap();
        assert!(runtime.entered().unwrap().is_empty());
    }

    /// Rule 5: what it still owns thaws, also if the cluster went on in another epoch for it.
    #[test]
    fn what_is_still_owned_is_not_killed() {
        let (pool, runtime, starts) = (pool(), FakeRuntime::new(), Starts::default());
        runtime.start(&request()).unwrap();
        let mut chain = Chain::begin(Epoch(1));
        chain.go_on();
        kill(&pool, &runtime, &starts, &view(Some(chain))).unwrap();
        assert!(runtime.status(UID).unwrap().is_running());
        kill(&pool, &runtime, &starts, &view(Some(Chain::begin(Epoch(3))))).unwrap();
        assert!(!runtime.status(UID).unwrap().is_running());
    }
}
