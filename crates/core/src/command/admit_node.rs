//! A node is let in.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use holdfast_types::{Code, Incarnation, NodeId, NodeName};
use serde::{Deserialize, Serialize};

use crate::apply::Change;
use crate::{MAX_VOTERS, Node, NodeLife, NodeRole, Outcome, Refusal, Response};

/// A node that is to be part of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewNode {
    /// Its name.
    pub name: NodeName,
    /// Where its API listens, `host:port`.
    pub address: String,
    /// Its address below the overlay.
    pub underlay: Ipv4Addr,
    /// Its part in Raft.
    pub role: NodeRole,
    /// The part that a person asked for.
    #[serde(default)]
    pub asked: Option<NodeRole>,
}

/// Lets a node in. Its id is this entry's log index, so it is never reused. It has no vote yet if others
/// that joined at the same time have all that there are; a witness is not let in then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdmitNode {
    /// The node.
    pub node: NewNode,
}

impl AdmitNode {
    pub(crate) fn apply(mut self, change: &mut Change<'_>) -> Response {
        change.state.cluster()?;
        let returns = change.state.absent_named(&self.node.name).map(|absent| absent.id);
        let absent = |id| change.state.lineage.absent.contains(id);
        for other in change.state.nodes.values().filter(|other| !absent(&other.id)) {
            let taken = |what: &str| {
                let message = format!("another node ({}) has that {what}", other.name);
                Err(Refusal::new(Code::AlreadyExists, message))
            };
            if other.name == self.node.name {
                return taken("name");
            }
            if other.address == self.node.address {
                return taken("address");
            }
        }
        let voters = change.state.nodes.values().filter(|node| node.role.votes()).count();
        if self.node.role == NodeRole::Witness && voters >= MAX_VOTERS {
            let message = format!("{voters} nodes vote already: a witness would be of no use");
            return Err(Refusal::new(Code::WrongState, message));
        }
        if self.node.role.votes() && voters >= MAX_VOTERS {
            self.node.role = NodeRole::Standby;
        }
        if let Some(id) = returns {
            change.return_as(id, self.node);
            return Ok(Outcome::Node(id));
        }
        let id = NodeId(change.revision.0);
        self.node.admit(change, id);
        Ok(Outcome::Node(id))
    }
}

impl NewNode {
    pub(crate) fn admit(self, change: &mut Change<'_>, id: NodeId) {
        let message = format!("node {} joined as {}", self.name, self.role);
        let node = Node {
            id,
            name: self.name,
            address: self.address,
            underlay: self.underlay,
            role: self.role,
            incarnation: Incarnation(0),
            life: NodeLife::New,
            assignment_revision: change.revision,
            view_revision: change.revision,
            labels: BTreeMap::new(),
            revision: change.revision,
            asked: self.asked,
        };
        change.state.nodes.insert(id, node);
        change.touch_all_views();
        change.node_event("node-admitted", id, message, []);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Command;
    use crate::testing::{World, admit, init, new_node};
    use holdfast_types::Code;

    /// Two that joined at once were the seventh and the eighth voter, and no vote ever moved again.
    #[test]
    fn there_are_never_more_voters_than_there_may_be() {
        let mut world = World::default();
        world.ok(init());
        for n in 2..=8 {
            world.ok(admit(&format!("n{n}")));
        }
        let voters = world.state.nodes.values().filter(|n| n.role.votes()).count();
        assert_eq!(voters, MAX_VOTERS);
        let last = world.state.nodes.values().last().unwrap();
        assert_eq!(last.role, NodeRole::Standby);
        // Its machine would have been told that it is a standby, and have made a pool.
        let (role, asked) = (NodeRole::Witness, Some(NodeRole::Witness));
        let node = NewNode { role, asked, ..new_node("n9") };
        let witness = Command::AdmitNode(AdmitNode { node });
        assert_eq!(world.refused(witness), Code::WrongState);
    }

    #[test]
    fn ids_are_never_reused_and_names_are_unique() {
        let mut world = World::default();
        world.ok(init());
        world.ok(admit("n2"));
        assert_eq!(world.refused(admit("n2")), Code::AlreadyExists);
        world.ok(admit("n3"));
        let ids: Vec<_> = world.state.nodes.keys().map(|id| id.0).collect();
        assert_eq!(ids, [1, 2, 4]);
    }
}
