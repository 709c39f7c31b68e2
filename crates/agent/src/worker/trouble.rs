//! After a failure: what failed, and when it is tried again.

use std::time::Duration;

use holdfast_reconcile::{Action, Duty};
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

/// What is not urgent and failed. Each waits for itself alone.
#[derive(Default)]
pub(super) struct Chores {
    failed: Vec<Chore>,
}

struct Chore {
    action: Action,
    retry_at: Instant,
    backoff: Duration,
}

impl Chores {
    /// It failed: it rests, longer each time. What was not asked for since it last rested is
    /// forgotten, so that no more is remembered than there is to do.
    pub(super) fn failed(&mut self, action: Action, now: Instant) {
        let before = self.failed.iter().find(|c| c.action == action).map(|c| c.backoff * 2);
        let backoff = before.unwrap_or(FIRST_BACKOFF).min(LONGEST_BACKOFF);
        self.failed.retain(|c| c.action != action && c.retry_at + LONGEST_BACKOFF > now);
        self.failed.push(Chore { action, retry_at: now + backoff, backoff });
    }

    /// It is done.
    pub(super) fn done(&mut self, action: &Action) {
        self.failed.retain(|c| c.action != *action);
    }

    /// What is not to be tried now.
    pub(super) fn resting(&self, now: Instant) -> Vec<Action> {
        self.failed.iter().filter(|c| c.retry_at > now).map(|c| c.action.clone()).collect()
    }

    /// When each may be tried again.
    pub(super) fn retries(&self) -> impl Iterator<Item = Instant> + '_ {
        self.failed.iter().map(|c| c.retry_at)
    }
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

/// Whether the cluster is told: the container cannot run for it, and it is not the lease that ended
/// meanwhile. What comes before the start is often only not there yet.
pub(super) fn is_told(action: &Action, error: &AgentError) -> bool {
    let is_fence = matches!(error, AgentError::Runtime(RuntimeError::Frozen(_)));
    let comes_to_stay = *action == Action::Start || !error.code().retryable();
    action.is_needed_to_run() && comes_to_stay && !is_fence
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
    use holdfast_storage::Error;
    use holdfast_types::{ContainerUid, SnapshotId, SnapshotUuid};

    use super::*;

    /// A fence during a start failed the operation that waited for it.
    #[test]
    fn a_start_into_a_fence_is_no_failure_of_the_container() {
        let uid = ContainerUid(uuid::Uuid::from_u128(1));
        let frozen = AgentError::Runtime(RuntimeError::Frozen(uid));
        assert!(!is_told(&Action::Start, &frozen));
        assert!(is_told(&Action::Start, &AgentError::Ended));
        assert!(is_told(&Action::Start, &AgentError::Starting), "it does not start as it is");
    }

    /// A pool that is worn promotes nothing any more, which only its node's log said.
    #[test]
    fn a_promotion_failed_for_ever_and_was_not_told() {
        let branch = SnapshotId {
            volume: holdfast_types::VolumeUid(uuid::Uuid::from_u128(1)),
            epoch: Epoch(1),
            seq: holdfast_types::Seq(1),
            uuid: SnapshotUuid(uuid::Uuid::from_u128(2)),
            parent: None,
        };
        let promote = Action::Promote { branch, epoch: Epoch(2) };
        let worn = AgentError::Storage(Error::Worn { percent: 95 });
        assert!(is_told(&promote, &worn));
        assert!(!is_told(&promote, &AgentError::Starting), "it will be there");
        assert!(!is_told(&Action::Stop, &worn));
    }

    /// The name of a snapshot that cannot be written kept the container itself from starting.
    #[test]
    fn a_chore_that_fails_rests_alone() {
        let (mut chores, now) = (Chores::default(), Instant::now());
        let let_go = |n| Action::LetGo { snapshot: SnapshotUuid(uuid::Uuid::from_u128(n)) };
        chores.failed(let_go(1), now);
        assert_eq!(chores.resting(now), [let_go(1)]);
        assert!(chores.resting(now + FIRST_BACKOFF).is_empty(), "it is tried again");
        let again = now + FIRST_BACKOFF;
        chores.failed(let_go(1), again);
        assert_eq!(chores.retries().collect::<Vec<_>>(), [again + FIRST_BACKOFF * 2]);
        chores.failed(let_go(2), again);
        chores.done(&let_go(1));
        assert_eq!(chores.resting(again), [let_go(2)]);
        let much_later = again + LONGEST_BACKOFF * 3;
        chores.failed(let_go(3), much_later);
        assert_eq!(chores.retries().count(), 1, "what is over is forgotten");
    }
}
