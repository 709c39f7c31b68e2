//! How a restore ended.

use holdfast_types::{Code, ContainerUid, Epoch, OperationId};

use super::RecordReport;
use crate::apply::Change;
use crate::{Container, OperationState, Outcome, Response};

impl RecordReport {
    /// A restore ended. One that is not under way changes nothing.
    pub(super) fn restored(
        &self,
        change: &mut Change<'_>,
        uid: ContainerUid,
        epoch: Epoch,
        operation: OperationId,
        failure: Option<(Code, String)>,
    ) -> Response {
        let mut container = self.assigned(change, uid, epoch)?;
        let Some(restore) = container.restore.clone().filter(|r| r.operation == operation) else {
            return Ok(Outcome::Unchanged);
        };
        container.revision = change.revision;
        match failure {
            Some((code, message)) => container.fail_restore(change, code, message),
            None => {
                container.restore = None;
                let name = &container.name;
                let message = format!(
                    "container {name} is as in its snapshot {}; what it was is kept as {}",
                    restore.from, restore.before
                );
                change.container_event(
                    "container-restored",
                    &container,
                    Some(self.node),
                    message,
                    [],
                );
                change.end_operation(operation, OperationState::Done);
            }
        }
        change.touch_views(container.members().collect::<Vec<_>>());
        change.state.containers.insert(uid, container);
        Ok(Outcome::Done)
    }
}

impl Container {
    /// The restore comes to nothing. What was to be kept before it is not wanted any more.
    pub(crate) fn fail_restore(&mut self, change: &mut Change<'_>, code: Code, message: String) {
        let Some(restore) = self.restore.take() else { return };
        if self.is_wanted(&restore.before) {
            self.kept.remove(&restore.before);
        }
        let name = &self.name;
        let text = format!("container {name} was not restored to {}: {message}", restore.from);
        change.container_event("restore-failed", self, Some(self.node), text, []);
        change.end_operation(restore.operation, OperationState::Failed { code, message });
    }
}
