//! A named snapshot is kept no longer.

use holdfast_types::{Code, ContainerUid, KeptBy, SnapshotName};
use serde::{Deserialize, Serialize};

use crate::apply::Change;
use crate::{KeptState, OperationState, Outcome, Refusal, Response};

/// Removes a named snapshot. Its holders let it go, and what keeps it for replication decides when
/// it is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveSnapshot {
    /// Of which container.
    pub uid: ContainerUid,
    /// The name.
    pub name: SnapshotName,
    /// On whose behalf it must be kept: a schedule removes its own alone. A person removes any.
    pub only: Option<KeptBy>,
}

impl RemoveSnapshot {
    pub(crate) fn apply(self, change: &mut Change<'_>) -> Response {
        let mut container = change.state.container(self.uid)?.clone();
        let (name, whose) = (&self.name, &container.name);
        let kept = container.kept_named(name)?.clone();
        if self.only.is_some_and(|by| by != kept.by) {
            let message = format!("snapshot {name} of {whose} is not the schedule's to remove");
            return Err(Refusal::new(Code::WrongState, message));
        }
        if container.restore.as_ref().is_some_and(|r| r.from == *name || r.before == *name) {
            let message = format!("container {whose} is being restored: snapshot {name} is needed");
            return Err(Refusal::new(Code::InUse, message));
        }
        change.state.refuse_while_cloned(&container, |uuid| uuid == kept.uuid)?;
        if let Some(operation) = kept.operation.filter(|_| kept.state == KeptState::Wanted) {
            let message = "it was removed before it was taken".to_owned();
            let failed = OperationState::Failed { code: Code::WrongState, message };
            change.end_operation(operation, failed);
        }
        if kept.by != KeptBy::Schedule {
            let message = format!("snapshot {name} of {whose} is removed");
            change.container_event("snapshot-removed", &container, None, message, []);
        }
        container.kept.remove(&self.name);
        container.revision = change.revision;
        change.touch_views(container.holders.iter().copied().collect::<Vec<_>>());
        change.state.containers.insert(self.uid, container);
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{World, clone, remove, want, want_by};
    use crate::{Command, OperationState, RemoveSnapshot};
    use holdfast_types::{Code, DesiredState, KeptBy, NodeId};

    #[test]
    fn a_removed_snapshot_is_named_to_nobody_and_its_name_is_free() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2]);
        assert_eq!(world.refused(remove(uid, "s1")), Code::NotFound);
        world.ok(want(uid, "s1", 1));
        world.ok(remove(uid, "s1"));
        assert!(world.state.node_view(NodeId(1)).unwrap().assigned[0].kept.is_empty());
        assert!(!world.state.operations.values().any(|o| {
            o.kind == crate::OperationKind::Snapshot && o.state == OperationState::Running
        }));
        world.ok(want(uid, "s1", 2));
    }

    /// A schedule never removes what a person or a restore keeps.
    #[test]
    fn a_schedule_removes_its_own_alone() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2]);
        let by_schedule = |name: &str| {
            let name = name.parse().unwrap();
            Command::RemoveSnapshot(RemoveSnapshot { uid, name, only: Some(KeptBy::Schedule) })
        };
        world.ok(want(uid, "mine", 1));
        world.ok(want_by(uid, "auto", 2, KeptBy::Schedule));
        assert_eq!(world.refused(by_schedule("mine")), Code::WrongState);
        world.ok(by_schedule("auto"));
    }

    /// A clone needs its origin until it has a volume of its own.
    #[test]
    fn what_is_being_cloned_stays() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2]);
        world.taken(uid, "s1", 1, 5);
        assert_eq!(world.refused(clone(uid, "s1", "web2", 3)), Code::NoPlacement);
        world.ok(clone(uid, "s1", "web2", 1));
        assert_eq!(world.refused(remove(uid, "s1")), Code::InUse);
        let delete = crate::SetDesired { uid, desired: DesiredState::Deleted };
        assert_eq!(world.refused(Command::SetDesired(delete.clone())), Code::InUse);
        let web2 = world.state.names[&"web2".parse().unwrap()];
        world.running(web2, 1);
        world.ok(remove(uid, "s1"));
        world.ok(Command::SetDesired(delete));
    }
}
