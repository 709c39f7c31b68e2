//! The parts of several nodes in Raft change at once: a vote passes from one to another, or two
//! nodes get a vote together, so that no even number of votes lies between.

use std::collections::BTreeMap;

use holdfast_types::{Code, NodeId};
use serde::{Deserialize, Serialize};

use crate::apply::Change;
use crate::{NodeRole, Outcome, Refusal, Response};

/// Records the parts of nodes in Raft. The leader brings Raft in line with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetRoles {
    /// Each node's part from now on.
    pub roles: BTreeMap<NodeId, NodeRole>,
    /// Why, in one line.
    pub reason: String,
}

impl SetRoles {
    pub(crate) fn apply(self, change: &mut Change<'_>) -> Response {
        let mut changed = Vec::new();
        for (id, role) in &self.roles {
            let node = change.state.node(*id)?;
            if node.role.has_log() != role.has_log() {
                // Whether there is a log was settled when the node joined.
                let message =
                    format!("node {} is a {} and cannot become a {role}", node.name, node.role);
                return Err(Refusal::new(Code::WrongState, message));
            }
            if node.role != *role {
                changed.push((*id, *role));
            }
        }
        let role_of = |id: &NodeId, now: NodeRole| self.roles.get(id).copied().unwrap_or(now);
        if !change.state.nodes.values().any(|n| role_of(&n.id, n.role).votes()) {
            return Err(Refusal::new(Code::WrongState, "somebody must vote"));
        }
        if changed.is_empty() {
            return Ok(Outcome::Unchanged);
        }
        for (id, role) in changed {
            let Some(node) = change.state.nodes.get_mut(&id) else { continue };
            node.role = role;
            node.revision = change.revision;
            let message = format!("node {} is now a {role}: {}", node.name, self.reason);
            let fields = [("role", role.to_string()), ("reason", self.reason.clone())];
            change.node_event("node-role", id, message, fields);
        }
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::World;
    use crate::{Command, NodeRole, Outcome, SetRoles};
    use holdfast_types::{Code, NodeId};

    fn set(roles: &[(u64, NodeRole)]) -> Command {
        let roles = roles.iter().map(|(id, role)| (NodeId(*id), *role)).collect();
        Command::SetRoles(SetRoles { roles, reason: "n2 is silent".into() })
    }

    #[test]
    fn a_vote_passes_from_one_node_to_another_in_one_entry() {
        let mut world = World::three_nodes();
        world.ok(set(&[(3, NodeRole::Standby)]));
        let swap = set(&[(2, NodeRole::Standby), (3, NodeRole::Voter)]);
        assert_eq!(world.ok(swap.clone()), Outcome::Done);
        assert_eq!(world.ok(swap), Outcome::Unchanged);
        let roles: Vec<_> = world.state.nodes.values().map(|n| n.role).collect();
        assert_eq!(roles, [NodeRole::Voter, NodeRole::Standby, NodeRole::Voter]);
        let event = world.state.events.back().unwrap();
        assert_eq!(event.message, "node n3 is now a voter: n2 is silent");
        assert_eq!(event.fields["reason"], "n2 is silent");
    }

    #[test]
    fn nobody_is_left_without_a_voter_and_a_worker_has_no_log() {
        let mut world = World::three_nodes();
        let none = [1, 2, 3].map(|id| (id, NodeRole::Standby));
        assert_eq!(world.refused(set(&none)), Code::WrongState);
        assert_eq!(world.refused(set(&[(2, NodeRole::Worker)])), Code::WrongState);
        assert_eq!(world.refused(set(&[(9, NodeRole::Voter)])), Code::NotFound);
        assert!(world.state.nodes.values().all(|n| n.role == NodeRole::Voter));
    }
}
