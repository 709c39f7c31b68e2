//! A node established a fact.

use holdfast_types::{
    ByteSize, Code, ContainerUid, Epoch, ImageUid, Incarnation, NodeId, Report, RunState,
    SnapshotUuid,
};
use serde::{Deserialize, Serialize};

use crate::apply::Change;
use crate::{Container, Diverged, OperationKind, OperationState, Outcome, Refusal, Response};

/// Records what a node reports of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordReport {
    /// Who reports.
    pub node: NodeId,
    /// Which life of it; a lost one is not heard.
    pub incarnation: Incarnation,
    /// What it reports.
    pub report: Report,
}

impl RecordReport {
    pub(crate) fn apply(self, change: &mut Change<'_>) -> Response {
        let node = change.state.node(self.node)?;
        if node.incarnation != self.incarnation || !node.is_up() {
            let message =
                format!("{}#{} is not the node's present life", node.name, self.incarnation);
            return Err(Refusal::new(Code::StaleIncarnation, message));
        }
        match self.report.clone() {
            Report::Run { uid, epoch, state } => self.run(change, uid, epoch, state),
            Report::CopyRemoved { uid } => self.copy_removed(change, uid),
            Report::ImageHeld { uid } => {
                let missing = || Refusal::new(Code::NotFound, "the image is gone");
                let image = change.state.images.get_mut(&uid).ok_or_else(missing)?;
                if !image.held_by.insert(self.node) {
                    return Ok(Outcome::Unchanged);
                }
                image.revision = change.revision;
                change.touch_all_views();
                Ok(Outcome::Done)
            }
            Report::ImageLost { uid } => self.image_lost(change, uid),
            Report::DivergedKept { uid, epoch, snapshot, changed_bytes } => {
                self.diverged(change, uid, epoch, snapshot, changed_bytes)
            }
            Report::Resized { uid, epoch, sizes } => self.resized(change, uid, epoch, &sizes),
            Report::ResizeFailed { uid, epoch, code, reason } => {
                self.resize_failed(change, uid, epoch, code, &reason)
            }
            Report::SnapshotTaken { epoch, id, taken, size } => {
                self.snapshot_taken(change, epoch, id, taken, size)
            }
            Report::SnapshotFailed { uid, epoch, snapshot, code, message } => {
                self.snapshot_failed(change, uid, epoch, snapshot, (code, message))
            }
            Report::KeptHeld { uid, held } => self.kept_held(change, uid, &held),
            Report::Restored { uid, epoch, operation, failure } => {
                self.restored(change, uid, epoch, operation, failure)
            }
            Report::Notice { kind, uid, message } => {
                let named = uid.and_then(|uid| change.state.containers.get(&uid));
                let container = named.map(|c| (c.uid, c.name.clone()));
                change.event(&kind, Some(self.node), container, message, []);
                Ok(Outcome::Done)
            }
        }
    }

    /// The last copy stays listed, rotten as it is: nobody could ship another.
    fn image_lost(&self, change: &mut Change<'_>, uid: ImageUid) -> Response {
        let Some(image) = change.state.images.get_mut(&uid) else { return Ok(Outcome::Unchanged) };
        if image.held_by.len() < 2 || !image.held_by.remove(&self.node) {
            return Ok(Outcome::Unchanged);
        }
        image.revision = change.revision;
        change.touch_all_views();
        Ok(Outcome::Done)
    }

    fn run(
        &self,
        change: &mut Change<'_>,
        uid: ContainerUid,
        epoch: Epoch,
        run: RunState,
    ) -> Response {
        let mut container = self.assigned(change, uid, epoch)?;
        if container.run == run {
            return Ok(Outcome::Unchanged);
        }
        let (kind, message) = match &run {
            RunState::Pending | RunState::Starting => {
                ("container-starting", "is starting".to_owned())
            }
            RunState::Running => ("container-running", format!("runs in epoch {epoch}")),
            RunState::Stopped => ("container-stopped", "stopped".to_owned()),
            RunState::Failed { reason } => ("container-failed", format!("failed: {reason}")),
        };
        container.made |= matches!(run, RunState::Running | RunState::Stopped);
        container.run = run.clone();
        container.revision = change.revision;
        let message = format!("container {} {message}", container.name);
        let fields = [("epoch", epoch.to_string())];
        change.container_event(kind, &container, Some(self.node), message, fields);
        let stays_stopped = container.desired == holdfast_types::DesiredState::Stopped;
        change.state.containers.insert(uid, container);
        change.end_operations(uid, |kind| ended(kind, &run, stays_stopped));
        Ok(Outcome::Done)
    }

    /// The container, if it is assigned to the reporting node in that epoch.
    pub(super) fn assigned(
        &self,
        change: &Change<'_>,
        uid: ContainerUid,
        epoch: Epoch,
    ) -> Result<Container, Refusal> {
        let container = change.state.container(uid)?;
        if container.node == self.node && container.epoch() == epoch {
            return Ok(container.clone());
        }
        let message = format!("{} is not assigned there in epoch {epoch}", container.name);
        Err(Refusal::new(Code::StaleEpoch, message))
    }

    /// A report of an older wish says nothing of the present one.
    fn resized(
        &self,
        change: &mut Change<'_>,
        uid: ContainerUid,
        epoch: Epoch,
        sizes: &[ByteSize],
    ) -> Response {
        let mut container = self.assigned(change, uid, epoch)?;
        let wanted = container.spec.sizes();
        let reached = sizes.len() == wanted.len() && sizes.iter().zip(&wanted).all(|(a, b)| a >= b);
        if !container.resizing || !reached {
            return Ok(Outcome::Unchanged);
        }
        (container.resizing, container.short) = (false, false);
        container.revision = change.revision;
        let message = format!("{} now", disks(&container));
        change.container_event("container-resized", &container, Some(self.node), message, []);
        change.touch_views([self.node]);
        change.state.containers.insert(uid, container);
        change.end_operations(uid, |kind| {
            (kind == OperationKind::Resize).then_some(OperationState::Done)
        });
        Ok(Outcome::Done)
    }

    fn resize_failed(
        &self,
        change: &mut Change<'_>,
        uid: ContainerUid,
        epoch: Epoch,
        code: Code,
        reason: &str,
    ) -> Response {
        let mut container = self.assigned(change, uid, epoch)?;
        if !container.resizing {
            return Ok(Outcome::Unchanged);
        }
        (container.resizing, container.short) = (false, true);
        container.revision = change.revision;
        let message = format!(
            "{} now, but a filesystem grows only when it is started again: {reason}",
            disks(&container)
        );
        let told = message.clone();
        change.container_event("container-resize-failed", &container, Some(self.node), told, []);
        change.touch_views([self.node]);
        change.state.containers.insert(uid, container);
        change.end_operations(uid, |kind| {
            let message = message.clone();
            (kind == OperationKind::Resize).then_some(OperationState::Failed { code, message })
        });
        Ok(Outcome::Done)
    }

    fn copy_removed(&self, change: &mut Change<'_>, uid: ContainerUid) -> Response {
        let Ok(container) = change.state.container(uid) else { return Ok(Outcome::Unchanged) };
        let mut container = container.clone();
        let member = container.members().any(|id| id == self.node);
        if !container.is_deleting() && member {
            let message = format!("{} belongs on that node", container.name);
            return Err(Refusal::new(Code::WrongState, message));
        }
        if !container.holders.remove(&self.node) {
            return Ok(Outcome::Unchanged);
        }
        change.touch_views([self.node]);
        change.forget_copy(container, self.node);
        Ok(Outcome::Done)
    }

    fn diverged(
        &self,
        change: &mut Change<'_>,
        uid: ContainerUid,
        epoch: Epoch,
        snapshot: SnapshotUuid,
        changed_bytes: u64,
    ) -> Response {
        let container = change.state.container(uid)?.clone();
        if !container.holders.contains(&self.node) {
            let message = format!("node {} has no copy of {}", self.node, container.name);
            return Err(Refusal::new(Code::Forbidden, message));
        }
        if change.state.diverged.contains_key(&snapshot) {
            return Ok(Outcome::Unchanged);
        }
        let kept = Diverged {
            uid,
            container: container.name.clone(),
            node: self.node,
            epoch,
            changed_bytes,
            kept: change.at,
        };
        change.state.diverged.insert(snapshot, kept);
        let message = format!(
            "what {} wrote in epoch {epoch} and never shipped is kept ({changed_bytes} bytes differ)",
            container.name
        );
        let fields = [("snapshot_uuid", snapshot.to_string()), ("epoch", epoch.to_string())];
        change.container_event("diverged-kept", &container, Some(self.node), message, fields);
        Ok(Outcome::Done)
    }
}

/// What there is of it, for people.
fn disks(container: &Container) -> String {
    let mut text = format!("the disk of {} has {}", container.name, container.spec.disk);
    for volume in &container.spec.volumes {
        text.push_str(&format!(", volume {} {}", volume.name, volume.size));
    }
    text
}

/// How an operation ends when its container is reported in that state, if it does.
fn ended(kind: OperationKind, run: &RunState, stays_stopped: bool) -> Option<OperationState> {
    match (kind, run) {
        (OperationKind::Create | OperationKind::Start, RunState::Running) => {
            Some(OperationState::Done)
        }
        (OperationKind::Create, RunState::Stopped) if stays_stopped => Some(OperationState::Done),
        (OperationKind::Stop, RunState::Stopped) => Some(OperationState::Done),
        (OperationKind::Create | OperationKind::Start, RunState::Failed { reason }) => {
            Some(OperationState::Failed { code: Code::Runtime, message: reason.clone() })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{World, lost, report, take_over};
    use crate::{OperationState, Outcome};
    use holdfast_types::{Code, DesiredState, Epoch, Report, RunState};

    fn running(uid: holdfast_types::ContainerUid, epoch: u64) -> Report {
        Report::Run { uid, epoch: Epoch(epoch), state: RunState::Running }
    }

    #[test]
    fn running_ends_the_create() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2]);
        world.ok(report(1, 1, running(uid, 1)));
        assert!(world.state.operations.values().all(|o| o.state == OperationState::Done));
    }

    /// I11: a report from an older epoch, another node or a lost life changes nothing.
    #[test]
    fn stale_reports_are_refused() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2]);
        assert_eq!(world.refused(report(2, 1, running(uid, 1))), Code::StaleEpoch);
        world.ok(lost(1, 1));
        assert_eq!(world.refused(report(1, 1, running(uid, 1))), Code::StaleIncarnation);
        world.ok(take_over(uid, 1, 1, 2));
        assert_eq!(world.refused(report(2, 1, running(uid, 1))), Code::StaleEpoch);
        world.ok(report(2, 1, running(uid, 2)));
    }

    /// I14, L4: a deleted container is forgotten when the last holder's copy is gone, not before.
    #[test]
    fn the_last_copy_removed_ends_the_delete() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2]);
        world.desire(uid, DesiredState::Deleted);
        world.ok(report(1, 1, Report::CopyRemoved { uid }));
        assert!(world.state.containers.contains_key(&uid));
        world.ok(report(2, 1, Report::CopyRemoved { uid }));
        assert!(world.state.containers.is_empty() && world.state.addresses.is_empty());
        assert_eq!(world.ok(report(2, 1, Report::CopyRemoved { uid })), Outcome::Unchanged);
    }

    /// I18: a member's word that it removed its copy of a living container is refused.
    #[test]
    fn a_members_copy_is_not_given_up() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2]);
        assert_eq!(world.refused(report(2, 1, Report::CopyRemoved { uid })), Code::WrongState);
    }
}
