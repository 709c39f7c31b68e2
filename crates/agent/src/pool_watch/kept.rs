//! What a full pool gives up last of all without a person's word: copies of named snapshots that
//! another node holds as well (DESIGN section 7, *Full pools*).

use holdfast_storage::{Pool, SnapshotKind};
use holdfast_types::{ContainerName, NodeView, SnapshotName, SnapshotUuid, TimestampMs};

use crate::error::AgentError;

/// A copy that can be spared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spare {
    pub(super) container: ContainerName,
    pub(super) name: SnapshotName,
    snapshot: SnapshotUuid,
    taken: TimestampMs,
}

/// Removes the oldest copy that can be spared, if there is one.
pub(super) fn give_up(pool: &dyn Pool, view: &NodeView) -> Result<Option<Spare>, AgentError> {
    let Some(spare) = oldest(pool, view) else { return Ok(None) };
    match pool.remove_snapshot(spare.snapshot) {
        Ok(_) => Ok(Some(spare)),
        // It is being read: there will be another look.
        Err(holdfast_storage::Error::InUse(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Only of a replica, never its newest snapshot nor another copy's base; and only what a node that
/// is up says that it holds (I18).
fn oldest(pool: &dyn Pool, view: &NodeView) -> Option<Spare> {
    let is_up = |node| view.peers.iter().any(|peer| peer.node == node && peer.up);
    // What a clone is still to begin as goes with nothing else: it was placed here because of it.
    let awaited = |uuid: SnapshotUuid| {
        let mut clones = view.assigned.iter().filter(|clone| clone.image.uuid == uuid);
        clones.any(|clone| pool.volume(clone.uid.into()).is_err())
    };
    let mut spare = Vec::new();
    for replica in &view.replicas {
        let Ok(volume) = pool.volume(replica.uid.into()) else { continue };
        let newest = volume.state.newest().map(|snapshot| snapshot.id.uuid);
        if volume.state.live.is_some() {
            continue;
        }
        for kept in replica.kept.iter().filter(|kept| kept.holders.iter().any(|n| is_up(*n))) {
            let is_base = Some(kept.uuid) == newest || replica.keep.contains(&kept.uuid);
            let needed = is_base || awaited(kept.uuid);
            let Some(info) = volume.state.find(kept.uuid).filter(|_| !needed) else { continue };
            if matches!(info.kind, SnapshotKind::Kept { .. }) {
                spare.push(Spare {
                    container: replica.name.clone(),
                    name: kept.name.clone(),
                    snapshot: kept.uuid,
                    taken: info.taken,
                });
            }
        }
    }
    spare.into_iter().min_by_key(|spare| spare.taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{UID, snapshotted};
    use holdfast_storage::fake::FakePool;
    use holdfast_types::{
        AssignedView, ByteSize, Chain, ClusterId, Epoch, Incarnation, KeptView, LeaseSettings,
        NodeId, PeerView, ReplicaView, Revision,
    };
    use uuid::Uuid;

    const PRIMARY: NodeId = NodeId(1);

    fn uuid(n: u64) -> SnapshotUuid {
        SnapshotUuid(Uuid::from_u128(u128::from(n)))
    }

    /// A replica with the named snapshots 1 to 3, and 4 after them.
    fn pool() -> FakePool {
        let pool = snapshotted();
        for n in 1..4 {
            let label = format!("s{n}");
            pool.label_snapshot(uuid(n), SnapshotKind::Kept { label }).unwrap();
        }
        pool.demote(UID.into(), Some(uuid(4)), None).unwrap();
        pool
    }

    fn view(up: bool, holders: &[u64]) -> NodeView {
        let kept = |n: u64| KeptView {
            name: format!("s{n}").parse().unwrap(),
            uuid: uuid(n),
            wanted: false,
            held: true,
            holders: holders.iter().filter(|h| **h == n).map(|_| PRIMARY).collect(),
        };
        let replica = ReplicaView {
            uid: UID,
            name: "web".parse().unwrap(),
            chain: Chain::begin(Epoch(1)),
            primary: PRIMARY,
            keep: vec![uuid(1)],
            origin: None,
            kept: (1..=3).map(kept).collect(),
        };
        let peer = PeerView {
            node: PRIMARY,
            name: "n1".parse().unwrap(),
            address: "n1:1".into(),
            underlay: [192, 0, 2, 1].into(),
            up,
            worker: false,
        };
        NodeView {
            revision: Revision(1),
            assignment_revision: Revision(1),
            cluster: ClusterId(Uuid::from_u128(1)),
            node: NodeId(2),
            incarnation: Incarnation(1),
            lease: LeaseSettings::default(),
            overlay: "10.0.0.0/16".parse().unwrap(),
            peers: vec![peer],
            assigned: Vec::new(),
            replicas: vec![replica],
            deleting: Vec::new(),
            images: Vec::new(),
        }
    }

    /// I18: what is given up is on the primary, which is up, and is no base of another copy.
    #[test]
    fn only_what_the_primary_has_as_well_is_given_up() {
        let pool = pool();
        let gone = |view: &NodeView| give_up(&pool, view).unwrap().map(|s| s.name.to_string());
        assert_eq!(gone(&view(false, &[1, 2, 3])), None, "the primary is not up");
        assert_eq!(gone(&view(true, &[])), None, "the primary has none");
        assert_eq!(gone(&view(true, &[1])), None, "it is a base");
        assert_eq!(gone(&view(true, &[1, 2, 3])), Some("s2".into()), "the oldest that may");
        assert_eq!(gone(&view(true, &[1, 2])), None, "it is gone");
        assert_eq!(gone(&view(true, &[1, 2, 3])), Some("s3".into()));
        let state = pool.volume(UID.into()).unwrap().state;
        assert!(state.find(uuid(1)).is_some() && state.find(uuid(4)).is_some());
        pool.remove_snapshot(uuid(4)).unwrap();
        let mut last = view(true, &[1]);
        last.replicas[0].keep.clear();
        assert_eq!(gone(&last), None, "the last copy");
    }

    /// It was made of nothing: its node gave up the snapshot between the placement and the clone.
    #[test]
    fn a_full_pool_gave_up_what_a_clone_was_to_begin_as() {
        let pool = pool();
        let mut with_clone = view(true, &[2]);
        let origin = pool.volume(UID.into()).unwrap().state.find(uuid(2)).unwrap().id;
        let uid = holdfast_types::ContainerUid(Uuid::from_u128(77));
        let clone = AssignedView { uid, image: origin, ..crate::testing::assigned() };
        with_clone.assigned.push(clone);
        assert_eq!(give_up(&pool, &with_clone).unwrap(), None);
        pool.create(uid.into(), ByteSize::mib(64), Epoch(1)).unwrap();
        let gone = give_up(&pool, &with_clone).unwrap();
        assert_eq!(gone.map(|spare| spare.name.to_string()), Some("s2".into()), "it is made");
    }
}
