//! A node's daemon begins a new life.

use holdfast_types::NodeId;
use serde::{Deserialize, Serialize};

use crate::apply::Change;
use crate::{NodeLife, Outcome, Response};

/// Registers a node's daemon: a new incarnation, up. It is no evidence that the one before is dead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterNode {
    /// Which node.
    pub node: NodeId,
}

impl RegisterNode {
    pub(crate) fn apply(self, change: &mut Change<'_>) -> Response {
        let mut node = change.state.node(self.node)?.clone();
        node.incarnation = node.incarnation.next();
        node.life = NodeLife::Up;
        let incarnation = node.incarnation;
        let message = format!("node {} is up as {}#{incarnation}", node.name, node.name);
        change.state.nodes.insert(self.node, node);
        // The node has what it was to be taken over with: nothing is left for a person to decide.
        for container in change.state.containers.values_mut().filter(|c| c.node == self.node) {
            container.hold = None;
        }
        change.touch_all_views();
        change.node_event("node-up", self.node, message, []);
        Ok(Outcome::Registered(incarnation))
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::World;
    use crate::{Command, HoldTakeover, Outcome, RegisterNode};
    use holdfast_types::{Epoch, Incarnation, NodeId};

    #[test]
    fn each_registration_is_a_new_life() {
        let mut world = World::three_nodes();
        let register = Command::RegisterNode(RegisterNode { node: NodeId(2) });
        assert_eq!(world.ok(register), Outcome::Registered(Incarnation(2)));
    }

    #[test]
    fn a_hold_ends_when_the_node_comes_back() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2]);
        let reason = "too old".to_owned();
        world.ok(Command::HoldTakeover(HoldTakeover { uid, epoch: Epoch(1), reason }));
        world.ok(Command::RegisterNode(RegisterNode { node: NodeId(1) }));
        assert_eq!(world.state.containers[&uid].hold, None);
    }
}
