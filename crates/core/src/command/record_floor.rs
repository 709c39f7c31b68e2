//! The coarse floor of replication: what holders were known to have.

use holdfast_types::{ContainerUid, NodeId, SnapshotId, TimestampMs};
use serde::{Deserialize, Serialize};

use crate::apply::Change;
use crate::{Copy, Outcome, Response};

/// Raises the floor for some copies. Holders report; the leader batches (at most one a second).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordFloor {
    /// For each copy: container, holder, newest verified snapshot, and the moment for which it was
    /// the whole content.
    pub copies: Vec<(ContainerUid, NodeId, SnapshotId, TimestampMs)>,
}

impl RecordFloor {
    pub(crate) fn apply(self, change: &mut Change<'_>) -> Response {
        let mut outcome = Outcome::Unchanged;
        for (uid, node, newest, as_of) in self.copies {
            let Some(container) = change.state.containers.get(&uid) else { continue };
            let known = container.copies.get(&node);
            let same_snapshot = known.is_some_and(|copy| copy.newest.uuid == newest.uuid);
            let older = known.is_some_and(|copy| copy.newest.order() > newest.order());
            if older || newest.epoch > container.epoch() {
                continue;
            }
            let mut container = container.clone();
            container.copies.insert(node, Copy { newest, as_of });
            let holders: Vec<_> = container.holders.iter().copied().collect();
            change.state.containers.insert(uid, container);
            outcome = Outcome::Done;
            if same_snapshot {
                change.touch();
            } else {
                // Others keep this snapshot as a base from now on, so their views change.
                change.touch_views(holders);
            }
        }
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{World, floor};
    use holdfast_types::{NodeId, Seq};

    #[test]
    fn the_floor_only_rises() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2]);
        world.ok(floor(uid, 2, 1, 5));
        world.ok(floor(uid, 2, 1, 4));
        assert_eq!(world.state.containers[&uid].copies[&NodeId(2)].newest.seq, Seq(5));
    }

    /// I11: a floor from an epoch that the log does not know is ignored.
    #[test]
    fn a_floor_from_the_future_is_ignored() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2]);
        world.ok(floor(uid, 2, 9, 1));
        assert!(world.state.containers[&uid].copies.is_empty());
    }
}
