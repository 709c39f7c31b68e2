//! A node's role in Raft changed.

use holdfast_types::NodeId;
use serde::{Deserialize, Serialize};

use crate::apply::Change;
use crate::{NodeRole, Outcome, Response};

/// Records a node's part in Raft.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetRole {
    /// Which node.
    pub node: NodeId,
    /// Its part from now on.
    pub role: NodeRole,
}

impl SetRole {
    pub(crate) fn apply(self, change: &mut Change<'_>) -> Response {
        let mut node = change.state.node(self.node)?.clone();
        if node.role == self.role {
            return Ok(Outcome::Unchanged);
        }
        if self.role != NodeRole::Worker {
            node.no_part(&change.state.lineage.given_up)?;
        }
        node.role = self.role;
        node.revision = change.revision;
        let message = format!("node {} is now a {}", node.name, node.role);
        change.state.nodes.insert(self.node, node);
        change.touch();
        change.node_event("node-role", self.node, message, []);
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::World;
    use crate::{Command, NodeRole, Outcome, SetRole};
    use holdfast_types::NodeId;

    #[test]
    fn setting_the_same_role_changes_nothing() {
        let mut world = World::three_nodes();
        let set = |role| Command::SetRole(SetRole { node: NodeId(2), role });
        assert_eq!(world.ok(set(NodeRole::Voter)), Outcome::Unchanged);
        assert_eq!(world.ok(set(NodeRole::Standby)), Outcome::Done);
    }
}
