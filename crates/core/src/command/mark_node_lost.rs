//! A node is lost (DESIGN section 5 rule 4).

use holdfast_types::{Code, Incarnation, NodeId};
use serde::{Deserialize, Serialize};

use crate::apply::Change;
use crate::{Evidence, NodeLife, Outcome, Refusal, Response};

/// Declares one life of a node lost. Only this lets its containers be taken over, and from now on
/// that life is granted nothing; the node must register anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkNodeLost {
    /// Which node.
    pub node: NodeId,
    /// Which life of it. A node that has registered anew meanwhile is not lost.
    pub incarnation: Incarnation,
    /// On what grounds.
    pub evidence: Evidence,
}

impl MarkNodeLost {
    pub(crate) fn apply(self, change: &mut Change<'_>) -> Response {
        let mut node = change.state.node(self.node)?.clone();
        if node.incarnation != self.incarnation {
            let message = format!(
                "node {} has registered anew as {}#{}",
                node.name, node.name, node.incarnation
            );
            return Err(Refusal::new(Code::StaleIncarnation, message));
        }
        if !node.is_up() {
            return Ok(Outcome::Unchanged);
        }
        let message = format!("node {}#{} is lost: {}", node.name, node.incarnation, self.evidence);
        node.life = NodeLife::Lost { at: change.at, evidence: self.evidence.clone() };
        node.revision = change.revision;
        change.state.nodes.insert(self.node, node);
        change.touch_all_views();
        let fields = [
            ("incarnation", self.incarnation.to_string()),
            ("evidence", self.evidence.to_string()),
        ];
        let fields = fields.into_iter().chain(self.evidence.figures());
        change.node_event("node-lost", self.node, message, fields);
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::MarkNodeLost;
    use crate::testing::{World, lost, register};
    use crate::{Command, Evidence};
    use holdfast_types::{Code, Incarnation, NodeId};

    /// Rule 4: the loss names a life; a node that registered anew in the meantime is not lost.
    #[test]
    fn a_node_that_registered_anew_is_not_lost() {
        let mut world = World::three_nodes();
        world.ok(register(2));
        assert_eq!(world.refused(lost(2, 1)), Code::StaleIncarnation);
        assert!(world.state.nodes[&NodeId(2)].is_up());
        world.ok(lost(2, 2));
        assert!(!world.state.nodes[&NodeId(2)].is_up());
    }

    /// Every loss records its evidence, for scripts as well.
    #[test]
    fn the_event_of_a_loss_by_silence_says_how_long_it_was() {
        let mut world = World::three_nodes();
        world.ok(Command::MarkNodeLost(MarkNodeLost {
            node: NodeId(2),
            incarnation: Incarnation(1),
            evidence: Evidence::Silence { silent_ms: 4_300, required_ms: 4_281 },
        }));
        let event = world.state.events.back().unwrap();
        assert_eq!((event.kind.as_str(), &event.fields["silent_ms"][..]), ("node-lost", "4300"));
        assert_eq!(event.fields["required_ms"], "4281");
    }
}
