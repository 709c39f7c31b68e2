//! Which snapshots a primary keeps: its newest, and for every replica the newest that it has, so
//! that a delta remains possible (DESIGN section 4, *Replicate*).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use holdfast_storage::{Pool, SnapshotKind, VolumeState};
use holdfast_types::{NodeId, SnapshotUuid, VolumeUid};

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
}

impl Bases {
    /// A replica has this snapshot, verified and durable.
    pub(crate) fn acknowledge(&self, node: NodeId, snapshot: SnapshotUuid) {
        self.acked.lock().unwrap_or_else(PoisonError::into_inner).insert(node, snapshot);
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
        let state = pool.volume(volume)?.state;
        for uuid in superfluous(&state, copies, |node| self.of(node)) {
            match pool.remove_snapshot(uuid) {
                Ok(_) | Err(holdfast_storage::Error::InUse(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// A replica that has not spoken in this life may have anything from the cluster's floor on.
fn superfluous(
    state: &VolumeState,
    copies: &[Acked],
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
            (None, Some(floor)) => {
                let floor = order(floor);
                keep_from = [keep_from, floor].into_iter().flatten().min();
            }
            // Nothing there yet: the image's snapshot is the base.
            (None, None) => {}
        }
    }
    let chain = state.snapshots.iter().filter(|s| s.kind == SnapshotKind::Chain);
    let needed = |s: &&holdfast_storage::SnapshotInfo| {
        keep.contains(&s.id.uuid) || keep_from.is_some_and(|from| s.id.order() >= from)
    };
    chain.filter(|s| !needed(s)).map(|s| s.id.uuid).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_storage::SnapshotInfo;
    use holdfast_types::{ByteSize, Epoch, Seq, SnapshotId, TimestampMs};
    use uuid::Uuid;

    const VOLUME: VolumeUid = VolumeUid(Uuid::from_u128(1));

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
        assert_eq!(superfluous(&state, &[copy(2, Some(1))], acked), [uuid(1), uuid(3), uuid(4)]);
    }

    /// After a restart the floor is a lower bound: everything from it on may be a base.
    #[test]
    fn a_silent_replica_keeps_everything_from_its_floor_on() {
        let state = state(&[1, 2, 3, 4, 5]);
        assert_eq!(superfluous(&state, &[copy(2, Some(3))], |_| None), [uuid(1), uuid(2)]);
        assert_eq!(superfluous(&state, &[copy(2, None)], |_| None).len(), 4);
    }

    #[test]
    fn kept_and_diverged_snapshots_are_not_ours_to_remove() {
        let mut state = state(&[1, 2]);
        state.snapshots[0].kind = SnapshotKind::Diverged { label: "tail".into() };
        assert!(superfluous(&state, &[], |_| None).is_empty());
    }
}
