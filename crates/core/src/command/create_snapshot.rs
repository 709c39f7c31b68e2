//! A named snapshot is to be taken.

use holdfast_types::{
    Code, ContainerUid, KeptBy, MAX_KEPT, OperationId, SnapshotName, SnapshotUuid,
};
use serde::{Deserialize, Serialize};

use crate::apply::Change;
use crate::{Kept, KeptState, OperationKind, Outcome, Refusal, Response};

/// Has the container's node take a snapshot, and every holder keep it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateSnapshot {
    /// Of which container.
    pub uid: ContainerUid,
    /// The name.
    pub name: SnapshotName,
    /// The identity that it will have.
    pub uuid: SnapshotUuid,
    /// On whose behalf.
    pub by: KeptBy,
    /// What the client follows, if there is one.
    pub operation: Option<OperationId>,
}

impl CreateSnapshot {
    pub(crate) fn apply(self, change: &mut Change<'_>) -> Response {
        let mut container = change.state.container(self.uid)?.clone();
        if container.is_deleting() {
            let message = format!("container {} is being deleted", container.name);
            return Err(Refusal::new(Code::WrongState, message));
        }
        let kept = Kept {
            uuid: self.uuid,
            by: self.by,
            created: change.at,
            operation: self.operation,
            state: KeptState::Wanted,
            missed: false,
        };
        container.want(self.name, kept)?;
        container.revision = change.revision;
        change.touch_views(container.members().collect::<Vec<_>>());
        if let Some(operation) = self.operation {
            let (name, kind) = (container.name.clone(), OperationKind::Snapshot);
            change.begin_operation_as(operation, self.uid, name, kind);
        }
        change.state.containers.insert(self.uid, container);
        Ok(match self.operation {
            Some(operation) => Outcome::Operation { container: self.uid, operation },
            None => Outcome::Done,
        })
    }
}

impl crate::Container {
    /// Adds a named snapshot, if there is room for one and the name is free.
    pub(crate) fn want(&mut self, name: SnapshotName, kept: Kept) -> Result<(), Refusal> {
        if self.kept.contains_key(&name) {
            let message = format!("container {} has a snapshot {name} already", self.name);
            return Err(Refusal::new(Code::AlreadyExists, message));
        }
        if self.kept.len() >= MAX_KEPT {
            let message = format!("container {} has {MAX_KEPT} snapshots: remove one", self.name);
            return Err(Refusal::new(Code::TooManySnapshots, message));
        }
        self.kept.insert(name, kept);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{World, want};
    use crate::{Command, KeptState, OperationKind};
    use holdfast_types::{Code, DesiredState, MAX_KEPT, NodeId};

    #[test]
    fn a_wanted_snapshot_is_named_to_every_holder() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2]);
        let before = world.state.nodes[&NodeId(2)].view_revision;
        world.ok(want(uid, "s1", 1));
        assert_eq!(world.kept(uid, "s1").state, KeptState::Wanted);
        let view = world.state.node_view(NodeId(1)).unwrap();
        assert!(view.assigned[0].kept[0].wanted);
        let view = world.state.node_view(NodeId(2)).unwrap();
        assert_eq!(view.replicas[0].kept[0].uuid, world.kept(uid, "s1").uuid);
        assert!(world.state.nodes[&NodeId(2)].view_revision > before);
        let operations = world.state.operations.values();
        assert_eq!(operations.filter(|o| o.kind == OperationKind::Snapshot).count(), 1);
    }

    #[test]
    fn names_are_unique_and_their_number_is_bounded() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2]);
        world.ok(want(uid, "s0", 0));
        assert_eq!(world.refused(want(uid, "s0", 1)), Code::AlreadyExists);
        for n in 1..MAX_KEPT as u64 {
            world.ok(want(uid, &format!("s{n}"), n));
        }
        assert_eq!(world.refused(want(uid, "more", 999)), Code::TooManySnapshots);
        let Command::CreateSnapshot(create) = want(uid, "more", 999) else { unreachable!() };
        let other = world.container("db", 1, &[2]);
        world.ok(Command::CreateSnapshot(crate::CreateSnapshot { uid: other, ..create }));
        world.desire(other, DesiredState::Deleted);
        assert_eq!(world.refused(want(other, "late", 1000)), Code::WrongState);
    }
}
