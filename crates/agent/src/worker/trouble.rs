//! After a failure: what failed, and when it is tried again.

use std::time::Duration;

use holdfast_reconcile::Duty;
use holdfast_runtime::RuntimeError;
use holdfast_types::{DesiredState, Epoch};
use tokio::time::Instant;
use tracing::warn;

use super::Worker;
use crate::error::AgentError;

/// A container whose init ends sooner than this has failed to start.
pub(super) const MUST_LAST: Duration = Duration::from_secs(10);
/// The first wait after a failure; doubled up to the longest.
const FIRST_BACKOFF: Duration = Duration::from_millis(250);
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

/// Something failed, and is tried again later.
pub(super) struct Trouble {
    pub(super) about: Option<(Epoch, DesiredState)>,
    /// Set when it was the start that failed: the cluster is told.
    pub(super) reason: Option<String>,
    pub(super) retry_at: Instant,
    backoff: Duration,
}

impl Worker {
    /// An init that ended by itself soon after its start counts as a failed start.
    pub(super) fn notice_end(&mut self, duty: Duty<'_>, running: bool) {
        let Some((epoch, at)) = self.started.filter(|_| !running) else { return };
        self.started = None;
        let wanted = about(duty) == Some((epoch, DesiredState::Running));
        if wanted && at.elapsed() < MUST_LAST {
            let reason = format!("init ended {} ms after its start", at.elapsed().as_millis());
            self.reported = None;
            self.back_off(duty, Some(reason));
        }
    }

    pub(super) fn fail(&mut self, duty: Duty<'_>, reason: Option<String>, error: &AgentError) {
        warn!(container = %self.uid, error = %error.line(), "failed; tried again later");
        if reason.is_some() {
            self.reported = None;
        }
        self.back_off(duty, reason);
    }

    pub(super) fn back_off(&mut self, duty: Duty<'_>, reason: Option<String>) {
        let before = self.trouble.as_ref().map(|t| t.backoff * 2);
        let backoff = before.unwrap_or(FIRST_BACKOFF).min(LONGEST_BACKOFF);
        let retry_at = Instant::now() + backoff;
        self.trouble = Some(Trouble { about: about(duty), reason, retry_at, backoff });
    }
}

/// Whether it was the container that could not start, and not the lease that ended meanwhile.
pub(super) fn counts(error: &AgentError) -> bool {
    !matches!(error, AgentError::Runtime(RuntimeError::Frozen(_)))
}

/// The assignment that a failure belongs to.
pub(super) fn about(duty: Duty<'_>) -> Option<(Epoch, DesiredState)> {
    match duty {
        Duty::Assigned(view) => Some((view.chain.epoch, view.desired)),
        Duty::Replica(_) | Duty::Remove(_) | Duty::None(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use holdfast_types::ContainerUid;

    use super::*;

    /// A fence during a start failed the operation that waited for it.
    #[test]
    fn a_start_into_a_fence_is_no_failure_of_the_container() {
        let uid = ContainerUid(uuid::Uuid::from_u128(1));
        assert!(!counts(&AgentError::Runtime(RuntimeError::Frozen(uid))));
        assert!(counts(&AgentError::Ended));
    }
}
