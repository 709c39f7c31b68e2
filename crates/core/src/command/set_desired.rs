//! A container is to run, to stop or to go.

use holdfast_types::{Code, ContainerUid, DesiredState, OperationId, RunState};
use serde::{Deserialize, Serialize};

use crate::apply::Change;
use crate::{Container, OperationKind, OperationState, Outcome, Refusal, Response};

/// Sets what a container should be doing. Deletion is final (I14).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetDesired {
    /// Which container.
    pub uid: ContainerUid,
    /// What it should be doing.
    pub desired: DesiredState,
}

impl SetDesired {
    pub(crate) fn apply(self, change: &mut Change<'_>) -> Response {
        let mut container = change.state.container(self.uid)?.clone();
        if container.is_deleting() {
            let message = format!("container {} is being deleted", container.name);
            return Err(Refusal::new(Code::WrongState, message));
        }
        if self.desired == DesiredState::Deleted {
            change.state.refuse_while_cloned(&container, |_| true)?;
        }
        container.desired = self.desired;
        container.revision = change.revision;
        if self.desired == DesiredState::Running {
            self.end_restore(change, &mut container);
        }
        if self.desired == DesiredState::Running && matches!(container.run, RunState::Failed { .. })
        {
            // Asked again: its node is to try again.
            container.run = RunState::Pending;
        }
        let kind = match self.desired {
            DesiredState::Running => OperationKind::Start,
            DesiredState::Stopped => OperationKind::Stop,
            DesiredState::Deleted => OperationKind::Delete,
        };
        let operation = self.begin(change, &container.name, kind, settled(&container.run, kind));
        if self.desired == DesiredState::Deleted {
            container.restore = None;
            container.schedule = None;
            change.state.names.remove(&container.name);
            change.touch_views(container.holders.iter().copied().collect::<Vec<_>>());
            let message = format!("container {} is being deleted", container.name);
            change.container_event("container-deleting", &container, None, message, []);
        }
        change.touch_assignments([container.node]);
        change.state.containers.insert(self.uid, container);
        Ok(Outcome::Operation { container: self.uid, operation })
    }

    /// A restore that has begun comes before the start; one that still waits for its first snapshot
    /// may wait for ever, and gives way.
    fn end_restore(&self, change: &mut Change<'_>, container: &mut Container) {
        let waits = container.restore.as_ref().is_some_and(|r| container.is_wanted(&r.before));
        if waits {
            let message = "it was to start before what is there could be kept".to_owned();
            container.fail_restore(change, Code::WrongState, message);
            change.touch_views(container.members().collect::<Vec<_>>());
        }
    }

    /// What else was asked for is over, but for what goes on beside it.
    fn begin(
        &self,
        change: &mut Change<'_>,
        name: &holdfast_types::ContainerName,
        kind: OperationKind,
        settled: bool,
    ) -> OperationId {
        change.end_operations(self.uid, |other| {
            other.gives_way_to(kind).then(|| OperationState::Failed {
                code: Code::WrongState,
                message: format!("superseded by a request to {} it", kind.as_str()),
            })
        });
        let id = change.begin_operation(self.uid, name.clone(), kind);
        if settled {
            change.end_operations(self.uid, |k| (k == kind).then_some(OperationState::Done));
        }
        id
    }
}

/// Whether the container already is what was asked for.
fn settled(run: &RunState, kind: OperationKind) -> bool {
    matches!(
        (run, kind),
        (RunState::Running, OperationKind::Start) | (RunState::Stopped, OperationKind::Stop)
    )
}

#[cfg(test)]
mod tests {
    use crate::testing::World;
    use crate::{Command, OperationState, SetDesired};
    use holdfast_types::{Code, DesiredState};

    /// I14: what is being deleted cannot be wanted again, and its name is free at once.
    #[test]
    fn deletion_is_final_and_frees_the_name() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2]);
        world.desire(uid, DesiredState::Deleted);
        let again = Command::SetDesired(SetDesired { uid, desired: DesiredState::Running });
        assert_eq!(world.refused(again), Code::WrongState);
        let other = world.container("web", 1, &[2]);
        assert_ne!(uid, other);
    }

    #[test]
    fn a_newer_request_supersedes_an_unfinished_one() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2]);
        world.desire(uid, DesiredState::Stopped);
        let states: Vec<_> = world.state.operations.values().map(|o| o.state.clone()).collect();
        assert!(states.iter().any(|s| matches!(s, OperationState::Failed { .. })));
        assert!(states.contains(&OperationState::Running));
    }
}
