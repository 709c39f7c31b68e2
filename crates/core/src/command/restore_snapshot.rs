//! A stopped container is to begin anew as one of its snapshots.

use holdfast_types::{
    Code, ContainerUid, DesiredState, KeptBy, OperationId, RunState, SnapshotName, SnapshotUuid,
};
use serde::{Deserialize, Serialize};

use crate::apply::Change;
use crate::{Container, Kept, KeptState, OperationKind, Outcome, Refusal, Response, Restore};

/// Has the container's node keep what is there now as a snapshot, and then begin anew as another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreSnapshot {
    /// Which container.
    pub uid: ContainerUid,
    /// The snapshot to begin as.
    pub from: SnapshotName,
    /// The name for what is there now.
    pub before: SnapshotName,
    /// The identity that this snapshot will have.
    pub before_uuid: SnapshotUuid,
    /// What the client follows.
    pub operation: OperationId,
}

impl RestoreSnapshot {
    pub(crate) fn apply(self, change: &mut Change<'_>) -> Response {
        let mut container = change.state.container(self.uid)?.clone();
        self.check(change, &container)?;
        let kept = Kept {
            uuid: self.before_uuid,
            by: KeptBy::Restore,
            created: change.at,
            operation: None,
            state: KeptState::Wanted,
            missed: false,
        };
        container.want(self.before.clone(), kept)?;
        let restore = Restore { operation: self.operation, from: self.from, before: self.before };
        container.restore = Some(restore);
        container.revision = change.revision;
        change.touch_views(container.members().collect::<Vec<_>>());
        let (name, kind) = (container.name.clone(), OperationKind::Restore);
        change.begin_operation_as(self.operation, self.uid, name, kind);
        change.state.containers.insert(self.uid, container);
        Ok(Outcome::Operation { container: self.uid, operation: self.operation })
    }

    fn check(&self, change: &Change<'_>, container: &Container) -> Result<(), Refusal> {
        let name = &container.name;
        let wrong = |message| Err(Refusal::new(Code::WrongState, message));
        if container.is_deleting() {
            return wrong(format!("container {name} is being deleted"));
        }
        if container.restore.is_some() {
            return wrong(format!("container {name} is being restored already"));
        }
        if container.desired != DesiredState::Stopped || container.run != RunState::Stopped {
            return wrong(format!("container {name} is not stopped: holdfast stop {name}"));
        }
        let taken = container.kept_taken(&self.from)?;
        if taken.holders.contains(&container.node) {
            return Ok(());
        }
        let named = |id| change.state.nodes.get(id).map(|n| n.name.to_string()).unwrap_or_default();
        let others: Vec<_> = taken.holders.iter().map(named).collect();
        let holders = if others.is_empty() { "nobody".to_owned() } else { others.join(", ") };
        wrong(format!(
            "node {}, where {name} is, has no copy of snapshot {}: {holders} has",
            named(&container.node),
            self.from
        ))
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{World, lost, register, remove, report, restore, take_over};
    use crate::{KeptState, OperationState};
    use holdfast_types::{Code, ContainerUid, DesiredState, Epoch, NodeId, Report, RunState};

    /// A stopped container with a snapshot `s1` that node 1 holds, at (1, 5).
    fn stopped() -> (World, ContainerUid) {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2]);
        world.running(uid, 1);
        world.taken(uid, "s1", 1, 5);
        assert_eq!(world.refused(restore(uid, "s1", "before")), Code::WrongState);
        world.desire(uid, DesiredState::Stopped);
        assert_eq!(world.refused(restore(uid, "s1", "before")), Code::WrongState);
        let stopped = Report::Run { uid, epoch: Epoch(1), state: RunState::Stopped };
        world.ok(report(1, 1, stopped));
        (world, uid)
    }

    fn ended(world: &World, uid: ContainerUid) -> Vec<OperationState> {
        let of_it = world.state.operations.values().filter(|o| o.uid == uid);
        let restores = of_it.filter(|o| o.kind == crate::OperationKind::Restore);
        restores.map(|o| o.state.clone()).collect()
    }

    #[test]
    fn a_restore_first_keeps_what_is_there_and_ends_once() {
        let (mut world, uid) = stopped();
        assert_eq!(world.refused(restore(uid, "s2", "before")), Code::NotFound);
        world.ok(restore(uid, "s1", "before"));
        assert_eq!(world.refused(restore(uid, "s1", "again")), Code::WrongState);
        assert_eq!(world.refused(remove(uid, "s1")), Code::InUse);
        assert_eq!(world.kept(uid, "before").state, KeptState::Wanted);
        let view = world.state.node_view(NodeId(1)).unwrap().assigned[0].restore.unwrap();
        assert_eq!(view.from, world.kept(uid, "s1").uuid);
        let done =
            Report::Restored { uid, epoch: Epoch(1), operation: view.operation, failure: None };
        world.ok(report(1, 1, done.clone()));
        world.ok(report(1, 1, done));
        assert_eq!(ended(&world, uid), [OperationState::Done]);
        world.ok(remove(uid, "s1"));
    }

    /// A start waits for a restore that has begun, and does not end it.
    #[test]
    fn a_start_supersedes_no_restore() {
        let (mut world, uid) = stopped();
        world.ok(restore(uid, "s1", "before"));
        world.taken_as(uid, "before", 1, 8);
        world.desire(uid, DesiredState::Running);
        assert_eq!(ended(&world, uid), [OperationState::Running]);
        world.desire(uid, DesiredState::Deleted);
        assert!(matches!(ended(&world, uid)[..], [OperationState::Failed { .. }]));
    }

    /// What was there could not be kept, so the restore never began; and nothing else could.
    #[test]
    fn a_restore_that_waits_for_ever_kept_a_container_from_starting() {
        let (mut world, uid) = stopped();
        world.ok(restore(uid, "s1", "before"));
        let before = world.kept(uid, "before").uuid;
        world.desire(uid, DesiredState::Running);
        assert!(matches!(ended(&world, uid)[..], [OperationState::Failed { .. }]));
        let view = &world.state.node_view(NodeId(1)).unwrap().assigned[0];
        assert_eq!((view.restore, view.kept.len()), (None, 1));
        // It was taken after all, and too late.
        let late = world.ok(report(1, 1, crate::testing::taken(uid, before, 1, 8)));
        assert_eq!(late, crate::Outcome::Unchanged);
    }

    /// The next primary goes on with a restore, and first keeps what *it* has; or the restore ends
    /// if the snapshot is off the chain now.
    #[test]
    fn a_takeover_goes_on_with_a_restore_or_ends_it() {
        let (mut world, uid) = stopped();
        world.ok(restore(uid, "s1", "before"));
        let (mut later, mut earlier) = (world.clone(), world);
        let held = vec![later.kept(uid, "s1").uuid];
        later.ok(report(2, 1, Report::KeptHeld { uid, held }));
        later.taken_as(uid, "before", 1, 8);
        let uuid = later.kept(uid, "before").uuid;
        for (world, branch) in [(&mut later, 6), (&mut earlier, 4)] {
            world.ok(lost(1, 1));
            world.ok(crate::testing::branch(take_over(uid, 1, 1, 2), branch));
        }
        assert_eq!(later.kept(uid, "before").state, KeptState::Wanted);
        assert_ne!(later.kept(uid, "before").uuid, uuid);
        assert_eq!(ended(&later, uid), [OperationState::Running]);
        assert!(matches!(ended(&earlier, uid)[..], [OperationState::Failed { .. }]));
        assert_eq!(earlier.state.containers[&uid].restore, None);
        let named = &earlier.state.containers[&uid].kept;
        assert!(!named.contains_key(&"before".parse().unwrap()), "nobody waits for it");
        earlier.ok(register(1));
        assert_eq!(earlier.refused(restore(uid, "s1", "again")), Code::WrongState);
    }
}
