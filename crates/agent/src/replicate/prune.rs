//! Which snapshots a primary keeps: its newest, and for every replica the newest that it has, so
//! that a delta remains possible (DESIGN section 4, *Replicate*).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use holdfast_storage::{Hold, Pool, SnapshotKind, VolumeState};
use holdfast_types::{Epoch, NodeId, Seq, SnapshotUuid, VolumeUid};
use tracing::warn;

use crate::error::AgentError;

/// A replica, and the newest snapshot that the cluster knows it to have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Acked {
    pub(crate) node: NodeId,
    pub(crate) floor: Option<SnapshotUuid>,
}

/// What replicas acknowledged in this life of the agent.
#[derive(Default)]
pub(crate) struct Bases {
    acked: Mutex<BTreeMap<NodeId, SnapshotUuid>>,
    /// What each replica is being sent, or was when its transfer was interrupted.
    under_way: Mutex<BTreeMap<NodeId, Hold>>,
    /// The newest snapshot that this life of the agent found.
    found: OnceLock<(Epoch, Seq)>,
}

impl Bases {
    /// A replica has this snapshot, verified and durable.
    pub(crate) fn acknowledge(&self, node: NodeId, snapshot: SnapshotUuid) {
        self.acked.lock().unwrap_or_else(PoisonError::into_inner).insert(node, snapshot);
        self.holds().remove(&node);
    }

    /// A transfer of this snapshot to the replica begins: it stays, so that the transfer can go on
    /// when it is interrupted, until the replica acknowledges something or is sent another one.
    pub(crate) fn hold(&self, node: NodeId, snapshot: Hold) {
        self.holds().insert(node, snapshot);
    }

    /// Lets go of what was interrupted: the room is needed.
    pub(crate) fn let_go(&self) {
        self.holds().clear();
    }

    fn holds(&self) -> MutexGuard<'_, BTreeMap<NodeId, Hold>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the replica last acknowledged.
    pub(crate) fn of(&self, node: NodeId) -> Option<SnapshotUuid> {
        self.acked.lock().unwrap_or_else(PoisonError::into_inner).get(&node).copied()
    }

    /// Removes the snapshots that nobody needs. What is held by a transfer stays until the next.
    pub(crate) fn prune(
        &self,
        pool: &dyn Pool,
        volume: VolumeUid,
        copies: &[Acked],
    ) -> Result<(), AgentError> {
        self.holds().retain(|node, _| copies.iter().any(|copy| copy.node == *node));
        let state = pool.volume(volume)?.state;
        let newest = || state.newest().map_or((Epoch(0), Seq(0)), |s| s.id.order());
        let found = *self.found.get_or_init(newest);
        remove(pool, superfluous(&state, copies, found, |node| self.of(node)));
        Ok(())
    }
}

/// Gives up every snapshot of a primary copy that is only there to ship by delta, for the room that
/// it keeps what was overwritten since in. The next copy is shipped as a delta against the image, or
/// whole. The data itself is in the live part, and in a replica: the caller knows of one (I18).
/// Returns how many went.
pub(crate) fn give_up(pool: &dyn Pool, volume: VolumeUid) -> Result<usize, AgentError> {
    let state = pool.volume(volume)?.state;
    if state.live.is_none() {
        return Ok(0);
    }
    let chain = state.snapshots.iter().filter(|s| s.kind == SnapshotKind::Chain);
    Ok(remove(pool, chain.map(|s| s.id.uuid).collect()))
}

/// Removes them, but for those that are in use or cannot be. Returns how many went.
fn remove(pool: &dyn Pool, snapshots: Vec<SnapshotUuid>) -> usize {
    let removed = |uuid: &SnapshotUuid| match pool.remove_snapshot(*uuid) {
        Ok(_) => true,
        Err(holdfast_storage::Error::InUse(_)) => false,
        Err(error) => {
            warn!(snapshot = %uuid, %error, "a snapshot that nobody needs stays");
            false
        }
    };
    snapshots.iter().filter(|uuid| removed(uuid)).count()
}

/// A replica that has not spoken in this life may have anything, or a part of it by an interrupted
/// transfer, from the cluster's floor on that
/// was there when this life began: what was taken since it would have acknowledged. A floor that
/// is not here any more was followed by something that is.
fn superfluous(
    state: &VolumeState,
    copies: &[Acked],
    found: (Epoch, Seq),
    acked: impl Fn(NodeId) -> Option<SnapshotUuid>,
) -> Vec<SnapshotUuid> {
    let order = |uuid: SnapshotUuid| state.find(uuid).map(|s| s.id.order());
    let mut keep: BTreeSet<SnapshotUuid> = state.newest().map(|s| s.id.uuid).into_iter().collect();
    let mut keep_from = None;
    for copy in copies {
        match (acked(copy.node), copy.floor) {
            (Some(uuid), _) => {
                keep.insert(uuid);
            }
            (None, floor) => {
                let floor = floor.and_then(order).unwrap_or((Epoch(0), Seq(0)));
                keep_from = [keep_from, Some(floor)].into_iter().flatten().min();
            }
        }
    }
    let chain = state.snapshots.iter().filter(|s| s.kind == SnapshotKind::Chain);
    let needed = |s: &&holdfast_storage::SnapshotInfo| {
        let older = keep_from.is_some_and(|from| (from..=found).contains(&s.id.order()));
        older || keep.contains(&s.id.uuid)
    };
    chain.filter(|s| !needed(s)).map(|s| s.id.uuid).collect()
}

/// A replica keeps its newest snapshot, and what is another copy's newest. What has rotted is kept
/// until something sound is there.
pub(crate) fn prune_replica(
    pool: &dyn Pool,
    volume: VolumeUid,
    keep: &[SnapshotUuid],
) -> Result<(), AgentError> {
    let state = pool.volume(volume)?.state;
    let newest = state.newest().map(|s| s.id.uuid);
    let chain = state.snapshots.iter().filter(|s| s.kind == SnapshotKind::Chain);
    let needed = |uuid: &SnapshotUuid| match state.is_rotten(*uuid) {
        true => newest.is_none(),
        false => Some(*uuid) == newest || keep.contains(uuid),
    };
    for snapshot in chain.filter(|s| !needed(&s.id.uuid)) {
        match pool.remove_snapshot(snapshot.id.uuid) {
            Ok(_) | Err(holdfast_storage::Error::InUse(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_storage::fake::FakePool;
    use holdfast_storage::{AlreadyQuiet, PoolIdentity, SnapshotInfo};
    use holdfast_types::{ByteSize, Epoch, Seq, SnapshotId, TimestampMs};
    use uuid::Uuid;

    const VOLUME: VolumeUid = VolumeUid(Uuid::from_u128(1));
    const FOUND: (Epoch, Seq) = (Epoch(1), Seq(5));

    fn uuid(seq: u64) -> SnapshotUuid {
        SnapshotUuid(Uuid::from_u128(u128::from(seq)))
    }

    fn state(seqs: &[u64]) -> VolumeState {
        let mut state = VolumeState::empty(VOLUME, ByteSize::gib(1));
        let info = |seq: &u64| SnapshotInfo {
            id: SnapshotId {
                volume: VOLUME,
                epoch: Epoch(1),
                seq: Seq(*seq),
                uuid: uuid(*seq),
                parent: None,
            },
            size: ByteSize::gib(1),
            data: Vec::new(),
            taken: TimestampMs(0),
            kind: SnapshotKind::Chain,
        };
        state.snapshots = seqs.iter().map(info).collect();
        state
    }

    fn copy(node: u64, floor: Option<u64>) -> Acked {
        Acked { node: NodeId(node), floor: floor.map(uuid) }
    }

    /// I18: what is some replica's newest stays, however old; what is nobody's goes.
    #[test]
    fn bases_of_replicas_stay() {
        let state = state(&[1, 2, 3, 4, 5]);
        let acked = |node: NodeId| (node == NodeId(2)).then(|| uuid(2));
        assert_eq!(
            superfluous(&state, &[copy(2, Some(1))], FOUND, acked),
            [uuid(1), uuid(3), uuid(4)]
        );
    }

    /// After a restart the floor is a lower bound: everything from it on may be a base.
    #[test]
    fn a_silent_replica_keeps_everything_from_its_floor_on() {
        let state = state(&[1, 2, 3, 4, 5]);
        assert_eq!(superfluous(&state, &[copy(2, Some(3))], FOUND, |_| None), [uuid(1), uuid(2)]);
        let found = (Epoch(1), Seq(3));
        assert_eq!(superfluous(&state, &[copy(2, None)], found, |_| None), [uuid(4)], "in part");
    }

    /// The cluster's floor lags: what it names had gone here, and with it the replica's real base.
    #[test]
    fn a_floor_that_is_not_here_keeps_what_was_found() {
        let state = state(&[4, 5, 6]);
        let found = (Epoch(1), Seq(5));
        assert!(superfluous(&state, &[copy(2, Some(3))], found, |_| None).is_empty());
    }

    /// A replica that stays silent kept every snapshot since the restart of the agent.
    #[test]
    fn a_silent_replica_keeps_nothing_that_was_taken_since() {
        let state = state(&[3, 4, 5, 6, 7]);
        let found = (Epoch(1), Seq(4));
        let gone = superfluous(&state, &[copy(2, Some(3))], found, |_| None);
        assert_eq!(gone, [uuid(5), uuid(6)]);
    }

    #[test]
    fn kept_and_diverged_snapshots_are_not_ours_to_remove() {
        let mut state = state(&[1, 2]);
        state.snapshots[0].kind = SnapshotKind::Diverged { label: "tail".into() };
        assert!(superfluous(&state, &[], FOUND, |_| None).is_empty());
    }

    /// I18, I20: what a full pool gives up is a primary's, is in no transfer, and is no person's.
    #[test]
    fn only_a_primarys_idle_bases_are_given_up() {
        let cluster = holdfast_types::ClusterId(Uuid::from_u128(1));
        let identity = PoolIdentity { cluster, pool: Uuid::from_u128(2) };
        let pool = FakePool::new(identity, ByteSize::gib(1));
        pool.create(VOLUME, ByteSize::mib(64), Epoch(1)).unwrap();
        let take = |seq: u64| {
            let id = pool.volume(VOLUME).unwrap().state.next_snapshot(uuid(seq)).unwrap();
            pool.snapshot(&id, TimestampMs(0), &mut AlreadyQuiet).unwrap();
        };
        (1..=3).for_each(take);
        pool.label_snapshot(uuid(1), SnapshotKind::Kept { label: "mine".into() }).unwrap();
        let shipping = pool.hold(uuid(3)).unwrap();
        assert_eq!(give_up(&pool, VOLUME).unwrap(), 1);
        drop(shipping);
        assert_eq!(give_up(&pool, VOLUME).unwrap(), 1);
        take(4);
        let newest = pool.volume(VOLUME).unwrap().state.newest().unwrap().id;
        assert_eq!((newest.seq, newest.uuid), (Seq(4), uuid(4)), "numbers go on");
        pool.demote(VOLUME, Some(uuid(4)), None).unwrap();
        assert_eq!(give_up(&pool, VOLUME).unwrap(), 0, "a replica's only copy");
    }
}
