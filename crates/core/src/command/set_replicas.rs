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
        for gone in container.replicas.iter().filter(|id| !self.replicas.contains(id)) {
            if let Some(clone) = change.state.unmade_clone_on(&container, *gone) {
                let message = format!("container {} is still being made from it", clone.name);
                return Err(Refusal::new(Code::InUse, message));
            }
        }
        container.holders.extend(&self.replicas);
        container.replicas = self.replicas.into();
        container.revision = change.revision;
        change.touch_views(container.holders.iter().copied().collect::<Vec<_>>());
        change.state.containers.insert(self.uid, container);
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{World, clone, report};
    use crate::{Command, SetReplicas};
    use holdfast_types::{Code, Epoch, NodeId, Report, RunState};

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

    /// Its node was told to remove the copy that the clone was still to begin as.
    #[test]
    fn a_clone_lost_its_origin_before_it_was_made() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2]);
        let held = vec![world.taken(uid, "s1", 1, 5)];
        world.ok(report(2, 1, Report::KeptHeld { uid, held }));
        let set = |replicas: &[u64]| {
            let replicas = replicas.iter().map(|n| NodeId(*n)).collect();
            Command::SetReplicas(SetReplicas { uid, epoch: Epoch(1), replicas })
        };
        let crate::Outcome::Operation { container: copy, .. } =
            world.ok(clone(uid, "s1", "copy", 2))
        else {
            panic!("no container");
        };
        assert_eq!(world.refused(set(&[3])), Code::InUse);
        world.ok(set(&[2, 3]));
        let run = Report::Run { uid: copy, epoch: Epoch(1), state: RunState::Running };
        world.ok(report(2, 1, run));
        world.ok(set(&[3]));
        // It holds the snapshot until it has said that its copy is gone.
        assert_eq!(world.refused(clone(uid, "s1", "other", 2)), Code::NoPlacement);
    }
}
