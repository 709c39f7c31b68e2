//! A container's disk is to grow.

use holdfast_types::{ByteSize, Code, ContainerUid, VolumeName};
use serde::{Deserialize, Serialize};

use crate::apply::Change;
use crate::{OperationKind, OperationState, Outcome, Refusal, Response};

/// Makes a container's disk larger. The operation ends when its node says that volume and
/// filesystem have grown; replicas follow with the next delta.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resize {
    /// Which container.
    pub uid: ContainerUid,
    /// Which of its data volumes; the root, if none is named.
    #[serde(default)]
    pub volume: Option<VolumeName>,
    /// The size that it is to have.
    pub size: ByteSize,
}

impl Resize {
    pub(crate) fn apply(self, change: &mut Change<'_>) -> Response {
        let mut container = change.state.container(self.uid)?.clone();
        if container.is_deleting() {
            let message = format!("container {} is being deleted", container.name);
            return Err(Refusal::new(Code::WrongState, message));
        }
        let name = container.name.clone();
        let (what, present) = match &self.volume {
            None => (format!("the disk of {name}"), &mut container.spec.disk),
            Some(wanted) => {
                let volume = container.spec.volumes.iter_mut().find(|v| v.name == *wanted);
                let missing = || format!("container {name} has no volume {wanted}");
                let volume = volume.ok_or_else(|| Refusal::new(Code::NotFound, missing()))?;
                (format!("volume {wanted} of {name}"), &mut volume.size)
            }
        };
        let before = *present;
        if self.size < before {
            let message = format!(
                "{what} has {before}, and {} is less: the filesystem on it only grows; create a \
                 smaller container and copy what is to be kept",
                self.size
            );
            return Err(Refusal::new(Code::InvalidSize, message));
        }
        *present = self.size;
        container.spec.check().map_err(|e| Refusal::new(e.code(), e.to_string()))?;
        if self.size > before || container.short {
            container.resizing = true;
            container.resize_asked = change.revision;
        }
        container.revision = change.revision;
        let operation = change.begin_operation(self.uid, name, OperationKind::Resize);
        if !container.resizing {
            change.end_operations(self.uid, |kind| {
                (kind == OperationKind::Resize).then_some(OperationState::Done)
            });
        }
        change.touch_views([container.node]);
        change.state.containers.insert(self.uid, container);
        Ok(Outcome::Operation { container: self.uid, operation })
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{World, lost, report, take_over};
    use crate::{Command, OperationKind, OperationState, Outcome, Resize};
    use holdfast_types::{ByteSize, Code, ContainerUid, DesiredState, Epoch, NodeId, Report};

    fn resize(uid: ContainerUid, gib: u64) -> Command {
        Command::Resize(Resize { uid, volume: None, size: ByteSize::gib(gib) })
    }

    fn resized(uid: ContainerUid, epoch: u64, gib: u64) -> Report {
        Report::Resized { uid, epoch: Epoch(epoch), sizes: vec![ByteSize::gib(gib)] }
    }

    fn is_resizing(world: &World) -> bool {
        let kinds = world.state.operations.values().filter(|o| o.kind == OperationKind::Resize);
        kinds.filter(|o| o.state == OperationState::Running).count() > 0
    }

    #[test]
    fn a_disk_only_grows() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2]);
        world.ok(resize(uid, 4));
        let refusal = world.try_apply(resize(uid, 3)).unwrap_err();
        assert_eq!(refusal.code, Code::InvalidSize);
        assert!(refusal.message.contains("only grows"), "{}", refusal.message);
        assert_eq!(world.refused(resize(uid, 17 << 10)), Code::InvalidSize);
        assert_eq!(world.state.containers[&uid].spec.disk, ByteSize::gib(4));
    }

    /// The operation ends with the word of the node that runs it, about the size asked for last.
    #[test]
    fn a_resize_ends_when_the_filesystem_has_grown() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2]);
        world.ok(resize(uid, 4));
        world.ok(resize(uid, 8));
        world.desire(uid, DesiredState::Stopped);
        assert!(world.state.node_view(NodeId(1)).unwrap().assigned[0].resizing);
        assert_eq!(world.ok(report(1, 1, resized(uid, 1, 4))), Outcome::Unchanged);
        assert_eq!(world.refused(report(2, 1, resized(uid, 1, 8))), Code::StaleEpoch);
        assert!(is_resizing(&world));
        world.ok(report(1, 1, resized(uid, 1, 8)));
        assert!(!is_resizing(&world));
        assert!(!world.state.node_view(NodeId(1)).unwrap().assigned[0].resizing);
        world.ok(resize(uid, 8));
        assert!(!is_resizing(&world), "it has that size");
    }

    #[test]
    fn a_data_volume_grows_by_its_name() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2]);
        let spec = |world: &mut World| world.state.containers.get_mut(&uid).unwrap().spec.clone();
        let mut with = spec(&mut world);
        with.volumes = vec!["data=2GiB:/srv".parse().unwrap()];
        world.state.containers.get_mut(&uid).unwrap().spec = with;
        let of = |name: &str, gib| {
            let volume = Some(name.parse().unwrap());
            Command::Resize(Resize { uid, volume, size: ByteSize::gib(gib) })
        };
        assert_eq!(world.refused(of("logs", 4)), Code::NotFound);
        assert_eq!(world.refused(of("data", 1)), Code::InvalidSize);
        world.ok(of("data", 4));
        let sizes = |gib: u64| vec![ByteSize::gib(1), ByteSize::gib(gib)];
        assert_eq!(spec(&mut world).sizes(), sizes(4));
        let told = |sizes| report(1, 1, Report::Resized { uid, epoch: Epoch(1), sizes });
        assert_eq!(world.ok(told(sizes(2))), Outcome::Unchanged);
        assert_eq!(world.ok(told(vec![ByteSize::gib(4)])), Outcome::Unchanged);
        world.ok(told(sizes(4)));
        assert!(!is_resizing(&world));
    }

    #[test]
    fn a_filesystem_that_does_not_grow_fails_the_operation() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2]);
        world.ok(resize(uid, 4));
        let failed = Report::ResizeFailed {
            uid,
            epoch: Epoch(1),
            code: Code::NotRoot,
            reason: "it may not".into(),
        };
        world.ok(report(1, 1, failed.clone()));
        let state = world.state.operations.values().find(|o| o.kind == OperationKind::Resize);
        let state = state.map(|o| o.state.clone());
        assert!(matches!(state, Some(OperationState::Failed { code: Code::NotRoot, .. })));
        assert_eq!(world.ok(report(1, 1, failed)), Outcome::Unchanged);
    }

    /// It was told that the filesystem did not grow, asked again, and heard that it had.
    #[test]
    fn a_failed_resize_that_is_asked_for_again_was_said_to_be_done() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2]);
        world.ok(resize(uid, 4));
        let asked = |world: &World| {
            let view = &world.state.node_view(NodeId(1)).unwrap().assigned[0];
            (view.resizing, view.resize_asked)
        };
        let first = asked(&world).1;
        let (code, reason) = (Code::NotRoot, "it may not".to_owned());
        world.ok(report(1, 1, Report::ResizeFailed { uid, epoch: Epoch(1), code, reason }));
        world.ok(resize(uid, 4));
        assert!(is_resizing(&world));
        assert!(asked(&world).0 && asked(&world).1 > first, "its node is to try again");
        world.ok(report(1, 1, resized(uid, 1, 4)));
        assert!(!is_resizing(&world));
        world.ok(resize(uid, 4));
        assert!(!is_resizing(&world), "it has that size");
    }

    /// Whoever takes over owes what the lost node did not say.
    #[test]
    fn a_takeover_in_the_middle_goes_on_with_it() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2]);
        world.ok(resize(uid, 4));
        world.ok(lost(1, 1));
        world.ok(take_over(uid, 1, 1, 2));
        assert!(world.state.node_view(NodeId(2)).unwrap().assigned[0].resizing);
        world.ok(report(2, 1, resized(uid, 2, 4)));
        assert!(!is_resizing(&world));
    }
}
