//! The founder makes the cluster.

use holdfast_types::{CidrV4, ClusterId, Code, LeaseSettings, NodeId};
use serde::{Deserialize, Serialize};

use crate::apply::Change;
use crate::command::NewNode;
use crate::{Cluster, Outcome, Refusal, Response};

/// The id of the node that makes the cluster; later ones take the log index of their admission,
/// which is always higher.
const FOUNDER: NodeId = NodeId(1);

/// Makes the cluster, with its founder as node 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitCluster {
    /// The cluster's identity.
    pub cluster: ClusterId,
    /// The lease constants.
    pub lease: LeaseSettings,
    /// The overlay's address range.
    pub overlay: CidrV4,
    /// The founder.
    pub founder: NewNode,
}

impl InitCluster {
    pub(crate) fn apply(self, change: &mut Change<'_>) -> Response {
        if let Some(cluster) = &change.state.cluster {
            let message = format!("the cluster {} is there already", cluster.id);
            return Err(Refusal::new(Code::AlreadyExists, message));
        }
        self.lease.check().map_err(|e| Refusal::new(e.code(), e.to_string()))?;
        change.state.cluster = Some(Cluster {
            id: self.cluster,
            lease: self.lease,
            overlay: self.overlay,
            created: change.at,
        });
        self.founder.admit(change, FOUNDER);
        Ok(Outcome::Node(FOUNDER))
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{World, init};
    use holdfast_types::Code;

    #[test]
    fn a_cluster_is_made_once() {
        let mut world = World::default();
        world.ok(init());
        assert_eq!(world.refused(init()), Code::AlreadyExists);
    }
}
