//! What nodes report of named snapshots.

use std::collections::BTreeSet;

use holdfast_types::{
    ByteSize, Code, ContainerUid, Epoch, KeptBy, NodeId, SnapshotId, SnapshotName, SnapshotUuid,
    TimestampMs,
};

use super::RecordReport;
use crate::apply::Change;
use crate::{
    Container, KeptState, OperationState, Outcome, Refusal, Response, ScheduleFailed, Taken,
};

impl RecordReport {
    /// A wanted snapshot is there. One that nobody wants any more changes nothing.
    pub(super) fn snapshot_taken(
        &self,
        change: &mut Change<'_>,
        epoch: Epoch,
        id: SnapshotId,
        taken: TimestampMs,
        size: ByteSize,
    ) -> Response {
        let uid = ContainerUid(id.volume.0);
        let mut container = self.assigned(change, uid, epoch)?;
        if !container.on_chain(&id) {
            return Err(Refusal::new(Code::WrongBase, "the snapshot is not on the chain"));
        }
        let Some((name, kept)) = find(&mut container, id.uuid) else {
            return Ok(Outcome::Unchanged);
        };
        if kept.state != KeptState::Wanted {
            return Ok(Outcome::Unchanged);
        }
        let (operation, by) = (kept.operation, kept.by);
        kept.state = KeptState::Taken(Taken { id, taken, size, holders: [self.node].into() });
        if by == KeptBy::Schedule {
            container.schedule_failed = None;
        }
        container.revision = change.revision;
        change.touch_views(container.members().collect::<Vec<_>>());
        if by != KeptBy::Schedule {
            let message = format!("snapshot {name} of {} is taken", container.name);
            let fields = [("snapshot_uuid", id.uuid.to_string())];
            change.container_event("snapshot-taken", &container, Some(self.node), message, fields);
        }
        change.state.containers.insert(uid, container);
        if let Some(operation) = operation {
            change.end_operation(operation, OperationState::Done);
        }
        Ok(Outcome::Done)
    }

    /// A wanted snapshot cannot be taken: nobody waits for it any longer.
    pub(super) fn snapshot_failed(
        &self,
        change: &mut Change<'_>,
        uid: ContainerUid,
        epoch: Epoch,
        snapshot: SnapshotUuid,
        (code, message): (Code, String),
    ) -> Response {
        let mut container = self.assigned(change, uid, epoch)?;
        let Some((name, kept)) = find(&mut container, snapshot) else {
            return Ok(Outcome::Unchanged);
        };
        if kept.state != KeptState::Wanted {
            return Ok(Outcome::Unchanged);
        }
        let operation = kept.operation;
        let scheduled = (kept.by == KeptBy::Schedule).then_some(kept.created);
        container.kept.remove(&name);
        container.revision = change.revision;
        change.touch_views(container.members().collect::<Vec<_>>());
        let failed = scheduled.map(|at| ScheduleFailed { at, reason: message.clone() });
        let said = container.schedule_failed.as_ref().map(|failed| &failed.reason);
        // A schedule asks again in each of its periods.
        if failed.as_ref().is_none_or(|failed| said != Some(&failed.reason)) {
            let text = format!("snapshot {name} of {} was not taken: {message}", container.name);
            change.container_event("snapshot-failed", &container, Some(self.node), text, []);
        }
        container.schedule_failed = failed.or(container.schedule_failed);
        if container.restore.as_ref().is_some_and(|restore| restore.before == name) {
            container.fail_restore(change, code, message.clone());
        }
        change.state.containers.insert(uid, container);
        if let Some(operation) = operation {
            change.end_operation(operation, OperationState::Failed { code, message });
        }
        Ok(Outcome::Done)
    }

    /// Which named snapshots the node holds.
    pub(super) fn kept_held(
        &self,
        change: &mut Change<'_>,
        uid: ContainerUid,
        held: &[SnapshotUuid],
    ) -> Response {
        let mut container = change.state.container(uid)?.clone();
        if !container.holders.contains(&self.node) {
            let message = format!("{} has no copy there", container.name);
            return Err(Refusal::new(Code::WrongState, message));
        }
        let is_primary = container.node == self.node;
        let mut changed = false;
        let mut missed = Vec::new();
        for (name, kept) in &mut container.kept {
            let KeptState::Taken(taken) = &mut kept.state else { continue };
            let holds = held.contains(&kept.uuid);
            changed |= match holds {
                true => taken.holders.insert(self.node),
                false => taken.holders.remove(&self.node),
            };
            if is_primary && kept.missed == holds {
                kept.missed = !holds;
                changed = true;
                if !holds {
                    missed.push((name.clone(), taken.holders.clone()));
                }
            }
        }
        if !changed {
            return Ok(Outcome::Unchanged);
        }
        container.revision = change.revision;
        change.touch_views(container.members().collect::<Vec<_>>());
        change.tell_missed(&container, &missed);
        change.state.containers.insert(uid, container);
        Ok(Outcome::Done)
    }
}

impl Change<'_> {
    /// What is not on the container's node can neither be restored nor go to new copies.
    pub(super) fn tell_missed(
        &mut self,
        container: &Container,
        missed: &[(SnapshotName, BTreeSet<NodeId>)],
    ) {
        if missed.is_empty() {
            return;
        }
        let named =
            |id: &NodeId| self.state.nodes.get(id).map(|n| n.name.to_string()).unwrap_or_default();
        let one = |(name, holders): &(SnapshotName, BTreeSet<NodeId>)| {
            let others: Vec<_> = holders.iter().map(&named).collect();
            match others.is_empty() {
                true => format!("{name} (no node has it)"),
                false => format!("{name} (only {} has it)", others.join(", ")),
            }
        };
        let message = format!(
            "node {}, where {} is now, has no copy of its snapshots {}",
            named(&container.node),
            container.name,
            missed.iter().map(one).collect::<Vec<_>>().join(", ")
        );
        self.container_event("snapshot-missed", container, Some(container.node), message, []);
    }
}

fn find(container: &mut Container, uuid: SnapshotUuid) -> Option<(SnapshotName, &mut crate::Kept)> {
    let mut all = container.kept.iter_mut();
    all.find(|(_, kept)| kept.uuid == uuid).map(|(name, kept)| (name.clone(), kept))
}

#[cfg(test)]
mod tests {
    use crate::testing::{
        World, branch, lost, register, remove, report, take_over, taken, want, want_by,
    };
    use crate::{KeptState, OperationState, Outcome};
    use holdfast_types::{Code, ContainerUid, Epoch, KeptBy, NodeId, Report, SnapshotUuid};

    fn held(uid: ContainerUid, held: Vec<SnapshotUuid>) -> Report {
        Report::KeptHeld { uid, held }
    }

    fn events(world: &World, kind: &str) -> usize {
        world.state.events.iter().filter(|e| e.kind == kind).count()
    }

    #[test]
    fn taken_once_it_ends_its_operation() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2]);
        world.ok(want(uid, "s1", 1));
        let uuid = world.kept(uid, "s1").uuid;
        assert_eq!(world.refused(report(2, 1, taken(uid, uuid, 1, 5))), Code::StaleEpoch);
        world.ok(report(1, 1, taken(uid, uuid, 1, 5)));
        assert_eq!(world.ok(report(1, 1, taken(uid, uuid, 1, 5))), Outcome::Unchanged);
        let done = |o: &&crate::Operation| o.state == OperationState::Done;
        assert_eq!(world.state.operations.values().filter(done).count(), 1);
        let view = |n| world.state.node_view(NodeId(n)).unwrap();
        let mine = &view(1).assigned[0].kept[0];
        assert_eq!((mine.held, &mine.holders[..]), (true, &[NodeId(1)][..]));
        assert!(!view(2).replicas[0].kept[0].held);
    }

    /// The name was given to another snapshot while its first one was being taken.
    #[test]
    fn a_snapshot_that_is_no_longer_wanted_takes_no_name() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2]);
        world.ok(want(uid, "s1", 1));
        let first = world.kept(uid, "s1").uuid;
        world.ok(remove(uid, "s1"));
        world.ok(want(uid, "s1", 2));
        assert_eq!(world.ok(report(1, 1, taken(uid, first, 1, 5))), Outcome::Unchanged);
        assert_eq!(world.kept(uid, "s1").state, KeptState::Wanted);
    }

    #[test]
    fn a_snapshot_that_cannot_be_taken_fails_its_operation() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2]);
        world.ok(want(uid, "s1", 1));
        let failed = Report::SnapshotFailed {
            uid,
            epoch: Epoch(1),
            snapshot: world.kept(uid, "s1").uuid,
            code: Code::PoolFull,
            message: "full".into(),
        };
        world.ok(report(1, 1, failed.clone()));
        assert_eq!(world.ok(report(1, 1, failed)), Outcome::Unchanged);
        assert!(world.state.containers[&uid].kept.is_empty());
        assert!(
            world.state.operations.values().any(|o| {
                matches!(&o.state, OperationState::Failed { code: Code::PoolFull, .. })
            })
        );
    }

    /// A worn pool takes none of a schedule's snapshots, period after period.
    #[test]
    fn a_schedule_that_cannot_go_on_is_told_of_once() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2]);
        for n in 1..=2 {
            let name = format!("auto-{n}");
            world.ok(want_by(uid, &name, n, KeptBy::Schedule));
            let snapshot = world.kept(uid, &name).uuid;
            let (code, message) = (Code::PoolWorn, "worn".to_owned());
            let epoch = Epoch(1);
            let failed = Report::SnapshotFailed { uid, epoch, snapshot, code, message };
            world.ok(report(1, 1, failed));
        }
        assert_eq!(events(&world, "snapshot-failed"), 1);
        let failed = world.state.containers[&uid].schedule_failed.clone().unwrap();
        assert_eq!(failed.reason, "worn");
        world.ok(want_by(uid, "auto-3", 3, KeptBy::Schedule));
        world.taken_as(uid, "auto-3", 1, 5);
        assert_eq!(world.state.containers[&uid].schedule_failed, None);
    }

    /// Holders say what they hold, and the view says it back to them.
    #[test]
    fn holders_are_as_they_say() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2]);
        let uuid = world.taken(uid, "s1", 1, 5);
        assert_eq!(world.refused(report(3, 1, held(uid, vec![uuid]))), Code::WrongState);
        world.ok(report(2, 1, held(uid, vec![uuid])));
        assert_eq!(world.ok(report(2, 1, held(uid, vec![uuid]))), Outcome::Unchanged);
        assert_eq!(world.holders(uid, "s1"), [1, 2]);
        world.ok(report(2, 1, held(uid, vec![])));
        assert_eq!(world.holders(uid, "s1"), [1]);
    }

    /// I21, I22: a takeover from before a snapshot says what it leaves behind, and what was only
    /// wanted is taken anew, under another identity: the lost node may have taken it.
    #[test]
    fn a_takeover_says_what_it_leaves_behind() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2]);
        world.taken(uid, "old", 1, 3);
        world.taken(uid, "new", 2, 5);
        world.ok(want(uid, "soon", 7));
        let soon = world.kept(uid, "soon").uuid;
        world.ok(lost(1, 1));
        world.ok(branch(take_over(uid, 1, 1, 2), 4));
        assert!(world.kept(uid, "old").taken().is_some());
        assert!(matches!(world.kept(uid, "new").state, KeptState::LeftBehind(_)));
        assert_eq!(world.kept(uid, "soon").state, KeptState::Wanted);
        assert_ne!(world.kept(uid, "soon").uuid, soon);
        assert_eq!(events(&world, "snapshots-left-behind"), 1);
        let view = world.state.node_view(NodeId(2)).unwrap();
        let names: Vec<_> = view.assigned[0].kept.iter().map(|k| k.name.as_str()).collect();
        assert_eq!(names, ["old", "soon"]);
        // The new primary never got the old one: said once, until it has it.
        assert_eq!(events(&world, "snapshot-missed"), 1);
        let old = world.kept(uid, "old").uuid;
        assert_eq!(world.ok(report(2, 1, held(uid, vec![]))), Outcome::Unchanged);
        world.ok(report(2, 1, held(uid, vec![old])));
        assert_eq!(events(&world, "snapshot-missed"), 1);
        world.ok(report(2, 1, held(uid, vec![])));
        assert_eq!(events(&world, "snapshot-missed"), 2);
        world.ok(register(1));
        world.ok(remove(uid, "new"));
    }

    /// Each takeover of a container with many snapshots pushed that many events out of the state.
    #[test]
    fn a_takeover_said_of_each_snapshot_that_it_is_missed() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2]);
        world.taken(uid, "a", 1, 2);
        world.taken(uid, "b", 2, 3);
        world.ok(lost(1, 1));
        world.ok(branch(take_over(uid, 1, 1, 2), 4));
        let missed: Vec<_> =
            world.state.events.iter().filter(|e| e.kind == "snapshot-missed").collect();
        assert_eq!(missed.len(), 1);
        let text = &missed[0].message;
        assert!(text.ends_with("a (only n1 has it), b (only n1 has it)"), "{text}");
    }
}
