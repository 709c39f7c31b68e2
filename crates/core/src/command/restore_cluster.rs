//! A backup becomes a new cluster.

use holdfast_types::{ClusterId, Code, NodeId};
use serde::{Deserialize, Serialize};

use crate::apply::Change;
use crate::command::NewNode;
use crate::lineage::RestoredFrom;
use crate::{Evidence, Lineage, NodeLife, NodeRole, Outcome, Refusal, Response, State, Trust};

/// Makes a new cluster of a backup's state, with one node. Never proposed: `holdfast_raft` applies it to
/// the backup's state, and makes a log that begins with the result.
///
/// What the backup knows is kept, and nothing of it is believed to be there: every node of it is
/// absent and lost, and every container stays assigned to the node that it was on, under an epoch
/// that no other cluster has given out. So a container runs again when its node is back with its
/// pool, or a holder of a copy is (takeovers decide as ever, and hold what is older than promised);
/// one whose data is nowhere waits, held, until a person deletes it. None is made anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreCluster {
    /// The new cluster's identity. Nothing of the old cluster answers to it.
    pub cluster: ClusterId,
    /// The node that restores: itself again if the backup knows its name, else a new one.
    pub founder: NewNode,
    /// The backup.
    pub from: RestoredFrom,
}

impl RestoreCluster {
    /// The id that the founder has in a cluster restored from that state at that log index.
    pub fn founder_id(&self, backup: &State, index: u64) -> NodeId {
        let known = backup.nodes.values().find(|node| node.name == self.founder.name);
        known.map_or(NodeId(index), |node| node.id)
    }

    pub(crate) fn apply(self, change: &mut Change<'_>) -> Response {
        let id = self.founder_id(change.state, change.revision.0);
        let at = change.at;
        let Some(cluster) = change.state.cluster.as_mut() else {
            return Err(Refusal::new(Code::WrongState, "the backup is of no cluster"));
        };
        if cluster.id == self.cluster {
            let message = "a restored cluster needs an id of its own";
            return Err(Refusal::new(Code::InvalidArgument, message));
        }
        cluster.id = self.cluster;
        cluster.created = at;
        change.leap();
        let state = &mut *change.state;
        state.nodes.for_each_mut(|node| {
            node.role = NodeRole::Worker;
            node.life = NodeLife::Lost { at, evidence: Evidence::Restored };
        });
        let (absent, restored) = (state.nodes.keys().copied().collect(), Some(self.from.clone()));
        state.trust = Trust::default();
        state.lineage = Lineage { absent, restored, ..Lineage::default() };
        match state.nodes.contains_key(&id) {
            true => change.return_as(id, self.founder),
            false => self.founder.admit(change, id),
        }
        let message = format!(
            "cluster restored from a backup of cluster {} at entry {}; its nodes are absent until \
             they join again under their names",
            self.from.cluster, self.from.index
        );
        let fields = [
            ("from_cluster", self.from.cluster.to_string()),
            ("from_index", self.from.index.to_string()),
            ("taken_ms", self.from.taken.to_string()),
        ];
        change.node_event("cluster-restored", id, message, fields);
        Ok(Outcome::Node(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, admit, new_node, register};
    use crate::{AdmitNode, Command, Entry, apply};
    use holdfast_types::{Epoch, Incarnation, LEAP, RequestId, TimestampMs};
    use uuid::Uuid;

    const INDEX: u64 = 5_000;

    fn restore(name: &str) -> RestoreCluster {
        RestoreCluster {
            cluster: ClusterId(Uuid::from_u128(77)),
            founder: new_node(name),
            from: RestoredFrom {
                cluster: ClusterId(Uuid::from_u128(5)),
                index: 90,
                taken: TimestampMs(4),
            },
        }
    }

    fn restored(mut world: World, name: &str) -> (World, NodeId) {
        let entry = Entry {
            request: RequestId(Uuid::from_u128(1)),
            at: TimestampMs(9_000_000),
            command: Command::RestoreCluster(restore(name)),
        };
        let Ok(Outcome::Node(id)) = apply(&mut world.state, INDEX, entry) else { panic!() };
        world.index = INDEX;
        (world, id)
    }

    /// I8, I10, I13: nothing of the backup is up, every epoch is new, and nothing begins empty.
    #[test]
    fn everything_is_absent_and_nothing_is_made_anew() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 2, &[3]);
        let (world, id) = restored(world, "n9");
        assert_eq!(id, NodeId(INDEX));
        let state = &world.state;
        assert_eq!(state.cluster.as_ref().unwrap().id, ClusterId(Uuid::from_u128(77)));
        let up: Vec<_> = state.nodes.values().filter(|n| n.is_up()).collect();
        assert!(up.is_empty());
        assert!((1..=3).all(|n| state.nodes[&NodeId(n)].is_lost(Incarnation(1 + LEAP))));
        assert_eq!(state.lineage.absent.len(), 3);
        let web = &state.containers[&uid];
        assert_eq!((web.node, web.epoch(), web.made), (NodeId(2), Epoch(1 + LEAP), true));
        assert_eq!(state.lineage.restored.as_ref().unwrap().index, 90);
    }

    /// A node that joins under its old name has its old id, and what its pool holds is its own.
    #[test]
    fn a_node_that_joins_under_its_name_is_itself_again() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 2, &[3]);
        let (mut world, id) = restored(world, "n1");
        assert_eq!(id, NodeId(1), "the founder is known by its name too");
        assert_eq!(world.ok(admit("n2")), Outcome::Node(NodeId(2)));
        assert!(!world.state.nodes[&NodeId(2)].is_up());
        assert_eq!(world.ok(register(2)), Outcome::Registered(Incarnation(2 + LEAP)));
        assert!(world.state.nodes[&NodeId(2)].is_up());
        assert!(world.state.containers[&uid].chain.goes_on_from(Epoch(1)));
        assert_eq!(world.refused(admit("n2")), Code::AlreadyExists, "once");
        assert_eq!(world.ok(admit("n4")), Outcome::Node(NodeId(INDEX + 4)));
        assert_eq!(world.state.lineage.absent, [NodeId(3)].into());
    }

    /// Every member took over whatever pool of the old cluster it was given, at each of its starts.
    #[test]
    fn only_who_is_of_the_backup_or_founds_has_a_pool_of_the_old_cluster() {
        let (mut world, founder) = restored(World::three_nodes(), "n9");
        let Outcome::Node(joined) = world.ok(admit("n4")) else { panic!() };
        let old = Some(restore("n9").from.cluster);
        let heirs = |world: &World| [NodeId(2), founder, joined].map(|id| world.state.heir_of(id));
        assert_eq!(heirs(&world), [old, old, None]);
        world.ok(register(founder.0));
        assert_eq!(heirs(&world), [old, None, None], "it has its pool");
        assert_eq!(World::three_nodes().state.heir_of(NodeId(1)), None);
    }

    /// A machine that joined again as a voter was still taken for the witness that it had been, and one
    /// that came back as a witness for no witness.
    #[test]
    fn a_node_that_joins_again_is_what_it_was_asked_to_be_this_time() {
        let mut world = World::three_nodes();
        for id in [1, 2] {
            world.state.nodes.get_mut(&NodeId(id)).unwrap().asked = Some(NodeRole::Witness);
        }
        let (mut world, _) = restored(world, "n1");
        let again = |name, role, asked| {
            let node = NewNode { role, asked, ..new_node(name) };
            Command::AdmitNode(AdmitNode { node })
        };
        world.ok(again("n2", NodeRole::Voter, None));
        world.ok(again("n3", NodeRole::Witness, Some(NodeRole::Witness)));
        let witness = [1, 2, 3].map(|id| world.state.nodes[&NodeId(id)].is_witness());
        assert_eq!(witness, [false, false, true]);
        assert_eq!(world.state.nodes[&NodeId(3)].asked, Some(NodeRole::Witness));
    }

    #[test]
    fn a_restored_cluster_has_an_id_of_its_own() {
        let mut world = World::three_nodes();
        let same = ClusterId(Uuid::from_u128(5));
        let command = RestoreCluster { cluster: same, ..restore("n9") };
        assert_eq!(world.refused(Command::RestoreCluster(command)), Code::InvalidArgument);
    }
}
