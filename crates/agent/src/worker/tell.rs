//! What the cluster is told about the container.

use std::time::Duration;

use holdfast_reconcile::Duty;
use holdfast_types::{AssignedView, ByteSize, Code, Epoch, Report, Revision, RunState};
use tracing::warn;

use super::Worker;
use crate::error::{AgentError, blocking};
use crate::{act, report};

/// How long a removed copy's view may take to forget it.
const FORGOTTEN: Duration = Duration::from_millis(250);

/// What is known once the cluster was told of sizes: which ones, and in answer to what.
pub(super) fn resize_told(view: &AssignedView) -> (Epoch, Vec<ByteSize>, Revision) {
    (view.chain.epoch, view.spec.sizes(), view.resize_asked)
}

impl Worker {
    pub(super) async fn report_run(
        &mut self,
        epoch: Epoch,
        state: RunState,
    ) -> Result<(), AgentError> {
        let report = Report::Run { uid: self.uid, epoch, state: state.clone() };
        match report::send(&self.context, &report).await {
            Ok(()) => {}
            // The cluster has moved on: the view will say so.
            Err(error) if error.code() == Code::StaleEpoch => {}
            Err(error) => return Err(error),
        }
        self.reported = Some((epoch, state));
        Ok(())
    }

    pub(super) async fn report_resized(
        &mut self,
        assigned: &AssignedView,
        report: Report,
    ) -> Result<(), AgentError> {
        match report::send(&self.context, &report).await {
            Ok(()) => {}
            // The cluster has moved on: the view will say so.
            Err(error) if error.code() == Code::StaleEpoch => {}
            Err(error) => return Err(error),
        }
        self.resized = Some(resize_told(assigned));
        Ok(())
    }

    pub(super) async fn report_removed(&mut self) -> Result<(), AgentError> {
        let report = Report::CopyRemoved { uid: self.uid };
        report::send(&self.context, &report).await?;
        // The next view no longer names it; until then there is nothing to do.
        tokio::time::sleep(FORGOTTEN).await;
        Ok(())
    }

    /// Tells the cluster of kept data, once in a life of this worker and after each demotion.
    pub(super) async fn tell_diverged(&mut self, duty: Duty<'_>) {
        if self.diverged_told || matches!(duty, Duty::Remove(_) | Duty::None(_)) {
            return;
        }
        let (parts, uid) = (self.parts.clone(), self.uid);
        let found = match blocking(move || act::diverged(&*parts.pool, uid)).await {
            Ok(found) => found,
            Err(error) => {
                warn!(container = %uid, error = %error.line(), "kept data cannot be listed");
                return;
            }
        };
        for (snapshot, changed_bytes) in found {
            let report = Report::DivergedKept {
                uid,
                epoch: snapshot.id.epoch,
                snapshot: snapshot.id.uuid,
                changed_bytes,
            };
            if report::send(&self.context, &report).await.is_err() {
                return;
            }
        }
        self.diverged_told = true;
    }
}
