//! What heartbeats carry besides asking for a lease: pools and holdings. It lives in the leader's
//! memory, and each leadership begins with none: nodes then send everything once.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use holdfast_planner::{HeldCopy, NodeObservation, PoolObservation};
use holdfast_types::{
    ByteSize, HeldSnapshot, Incarnation, NodeId, SnapshotId, TimestampMs, VolumeUid,
};

/// What one heartbeat told.
#[derive(Debug, Clone, Default)]
pub struct Sighting {
    /// Whether it lists everything that the node holds.
    pub full: bool,
    /// Copies that changed, or all of them.
    pub held: Vec<HeldSnapshot>,
    /// Copies that are gone.
    pub removed: Vec<VolumeUid>,
    /// The pool, when it changed.
    pub pool: Option<PoolObservation>,
    /// No pool was made on the node yet.
    pub without_pool: bool,
    /// The node's physical memory, when everything is sent.
    pub memory: Option<ByteSize>,
}

/// The newest sighting of each node.
#[derive(Debug, Default)]
pub struct Sightings {
    nodes: Mutex<BTreeMap<NodeId, Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    incarnation: Incarnation,
    pool: Option<PoolObservation>,
    without_pool: bool,
    memory: Option<ByteSize>,
    /// Snapshot, and the BOOTTIME in milliseconds for which it was the whole content.
    held: BTreeMap<VolumeUid, (SnapshotId, u64)>,
}

impl Sightings {
    /// Takes in a heartbeat. Returns whether the node must send everything, because this leader
    /// has nothing of this life of it to add the changes to.
    pub fn heard(&self, id: NodeId, life: Incarnation, sighting: Sighting, now_ms: u64) -> bool {
        let mut nodes = self.lock();
        if sighting.full {
            nodes.insert(id, Seen { incarnation: life, ..Default::default() });
        }
        let Some(seen) = nodes.get_mut(&id).filter(|seen| seen.incarnation == life) else {
            return true;
        };
        for copy in sighting.held {
            let as_of_ms = now_ms.saturating_sub(copy.age_ms);
            seen.held.insert(copy.id.volume, (copy.id, as_of_ms));
        }
        for volume in sighting.removed {
            seen.held.remove(&volume);
        }
        seen.without_pool = sighting.without_pool;
        if sighting.pool.is_some() {
            seen.pool = sighting.pool;
        }
        if sighting.memory.is_some() {
            seen.memory = sighting.memory;
        }
        false
    }

    /// Everything seen, with ages turned into wall time.
    pub fn observe(
        &self,
        now_ms: u64,
        wall: TimestampMs,
        leased: impl Fn(NodeId) -> bool,
    ) -> BTreeMap<NodeId, NodeObservation> {
        let nodes = self.lock();
        let one = |(id, seen): (&NodeId, &Seen)| {
            let copy = |(volume, (newest, as_of_ms)): (&VolumeUid, &(SnapshotId, u64))| {
                let as_of = wall.before(now_ms.saturating_sub(*as_of_ms));
                (*volume, HeldCopy { newest: *newest, as_of })
            };
            let held = seen.held.iter().map(copy).collect();
            let (leased, pool) = (leased(*id), seen.pool.clone());
            let (without_pool, memory) = (seen.without_pool, seen.memory);
            (*id, NodeObservation { leased, pool, without_pool, memory, held })
        };
        nodes.iter().map(one).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Seen>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_types::{Epoch, Seq, SnapshotUuid};
    use uuid::Uuid;

    fn held(seq: u64, age_ms: u64) -> HeldSnapshot {
        let id = SnapshotId {
            volume: VolumeUid(Uuid::from_u128(1)),
            epoch: Epoch(1),
            seq: Seq(seq),
            uuid: SnapshotUuid(Uuid::from_u128(u128::from(seq))),
            parent: None,
        };
        HeldSnapshot { id, age_ms }
    }

    #[test]
    fn changes_without_a_base_ask_for_everything() {
        let sightings = Sightings::default();
        let change = || Sighting { held: vec![held(2, 5)], ..Default::default() };
        let full = Sighting { full: true, held: vec![held(1, 50)], ..Default::default() };
        assert!(sightings.heard(NodeId(1), Incarnation(1), change(), 1_000));
        assert!(!sightings.heard(NodeId(1), Incarnation(1), full, 1_000));
        assert!(!sightings.heard(NodeId(1), Incarnation(1), change(), 1_100));
        assert!(sightings.heard(NodeId(1), Incarnation(2), change(), 1_200), "another life");
        let seen = sightings.observe(1_500, TimestampMs(90_000), |_| true);
        let copy = &seen[&NodeId(1)].held[&VolumeUid(Uuid::from_u128(1))];
        assert_eq!((copy.newest.seq, copy.as_of), (Seq(2), TimestampMs(90_000 - 405)));
    }
}
