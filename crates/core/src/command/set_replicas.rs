//! A container's replicas belong elsewhere.

use std::collections::BTreeSet;

use holdfast_types::{Code, ContainerUid, Epoch, NodeId};
use serde::{Deserialize, Serialize};

use crate::apply::Change;
use crate::{Outcome, Refusal, Response};

/// Says where a container's replicas belong from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetReplicas {
    /// Which container.
    pub uid: ContainerUid,
    /// The assignment that this was planned for.
    pub epoch: Epoch,
    /// The nodes.
    pub replicas: BTreeSet<NodeId>,
}

impl SetReplicas {
    pub(crate) fn apply(self, change: &mut Change<'_>) -> Response {
        let mut container = change.state.container(self.uid)?.clone();
        if container.epoch() != self.epoch || container.is_deleting() {
            return Err(Refusal::new(Code::StaleEpoch, "the container has moved meanwhile"));
        }
        if self.replicas.contains(&container.node) {
            return Err(Refusal::new(Code::InvalidArgument, "the primary is no replica"));
        }
        for id in &self.replicas {
            change.state.node(*id)?;
        }
        if container.replicas == self.replicas {
            return Ok(Outcome::Unchanged);
        }
        container.holders.extend(&self.replicas);
        container.replicas = self.replicas;
        container.revision = change.revision;
        change.touch_views(container.holders.iter().copied().collect::<Vec<_>>());
        change.state.containers.insert(self.uid, container);
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::World;
    use crate::{Command, SetReplicas};
    use holdfast_types::{Code, Epoch, NodeId};

    /// I11: a plan for an older assignment is refused.
    #[test]
    fn a_plan_for_another_epoch_is_refused() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2]);
        let set = |epoch| {
            Command::SetReplicas(SetReplicas {
                uid,
                epoch: Epoch(epoch),
                replicas: [NodeId(3)].into(),
            })
        };
        assert_eq!(world.refused(set(2)), Code::StaleEpoch);
        world.ok(set(1));
        let holders = &world.state.containers[&uid].holders;
        assert!(holders.contains(&NodeId(2)) && holders.contains(&NodeId(3)));
    }
}
