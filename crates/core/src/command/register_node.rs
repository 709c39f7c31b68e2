//! A node's daemon begins a new life.

use holdfast_types::NodeId;
use serde::{Deserialize, Serialize};

use crate::apply::Change;
use crate::{Container, NodeLife, Outcome, Response};

/// Registers a node's daemon: a new incarnation, up. It is no evidence that the one before is dead.
///
/// A life that was lost may have had its containers' replicas sealed for a takeover that did not
/// come, and a seal is for ever: what the node still owns goes on in the next epoch, or nothing of
/// it could be shipped again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterNode {
    /// Which node.
    pub node: NodeId,
}

impl RegisterNode {
    pub(crate) fn apply(self, change: &mut Change<'_>) -> Response {
        let mut node = change.state.node(self.node)?.clone();
        let was_lost = node.is_lost(node.incarnation);
        node.incarnation = node.incarnation.next();
        node.life = NodeLife::Up;
        node.revision = change.revision;
        let incarnation = node.incarnation;
        let message = format!("node {} is up as {}#{incarnation}", node.name, node.name);
        change.state.nodes.insert(self.node, node);
        // The node has what it was to be taken over with: nothing is left for a person to decide.
        let goes_on = |c: &Container| was_lost && c.is_protected() && !c.is_deleting();
        let its_own = change.state.containers.of_node(self.node).filter(|c| c.node == self.node);
        let concerned = its_own.filter(|c| c.hold.is_some() || goes_on(c)).map(|c| c.uid);
        for uid in concerned.collect::<Vec<_>>() {
            let Some(mut container) = change.state.containers.get_mut(&uid) else { continue };
            container.hold = None;
            if goes_on(&container) {
                container.chain.go_on();
                container.revision = change.revision;
            }
        }
        change.touch_assignments(was_lost.then_some(self.node));
        change.touch_all_views();
        change.node_event("node-up", self.node, message, []);
        Ok(Outcome::Registered(incarnation))
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{World, lost, register, take_over};
    use crate::{Command, HoldCause, HoldTakeover, Outcome, RegisterNode};
    use holdfast_types::{Code, Epoch, Incarnation, NodeId};

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
        world.ok(Command::HoldTakeover(HoldTakeover {
            uid,
            epoch: Epoch(1),
            reason,
            cause: HoldCause::Brake,
            for_person: true,
            offered: None,
            without: std::collections::BTreeSet::new(),
        }));
        world.ok(Command::RegisterNode(RegisterNode { node: NodeId(1) }));
        assert_eq!(world.state.containers[&uid].hold, None);
    }

    /// L3: replicas that were sealed for a takeover that did not come refuse the old epoch for
    /// ever. I10: a takeover that was decided before the return is refused.
    #[test]
    fn a_node_that_returns_before_the_takeover_goes_on_in_the_next_epoch() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2]);
        world.ok(register(1));
        assert_eq!(world.state.containers[&uid].epoch(), Epoch(1), "it was not lost");
        world.ok(lost(1, 2));
        let before = world.state.nodes[&NodeId(1)].assignment_revision;
        world.ok(register(1));
        let container = &world.state.containers[&uid];
        assert_eq!((container.node, container.epoch()), (NodeId(1), Epoch(2)));
        assert!(container.chain.goes_on_from(Epoch(1)));
        assert!(world.state.nodes[&NodeId(1)].assignment_revision > before);
        assert_eq!(world.refused(take_over(uid, 1, 2, 2)), Code::StaleEpoch);
    }
}
