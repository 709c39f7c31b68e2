//! When a failed call goes elsewhere, when it is tried again, and what the user is told at last.
//! Pure: the clock and the sockets are the [`Session`](super::Session)'s.
//!
//! ```text
//!            useful answer or definitive error ──────────────► the caller
//!  round ───┤
//!            every address failed ── all unreachable ────────► the caller, at once
//!                                 └─ some answered, time left ─ backoff ─► next round
//! ```

use std::time::Duration;

use holdfast_proto::RemoteError;
use holdfast_types::Code;

/// "No quorum" must reach a person within 5 s: no new answer is waited for after this, counted
/// from the beginning of the call, once one node has said it.
pub const NO_QUORUM_LIMIT: Duration = Duration::from_millis(4_500);

/// A node that is silent for this long (beyond what the call itself may take) gets competition.
/// Two silent nodes and the answer of a third still fit in [`NO_QUORUM_LIMIT`].
pub const HEDGE_AFTER: Duration = Duration::from_millis(400);

/// The pause before the second round; doubled for each further one, up to [`BACKOFF_MAX`].
pub const BACKOFF_FIRST: Duration = Duration::from_millis(100);

/// The longest pause between rounds.
pub const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// How one call goes about its retries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// When the call ends whatever happens, from its beginning.
    pub deadline: Duration,
    /// How long one address may be silent before the next one is asked as well.
    pub hedge_after: Duration,
}

/// One attempt that brought no useful answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What was answered, or what went wrong.
    pub error: RemoteError,
    /// Whether there was somebody to answer. False when no connection could be made.
    pub reached: bool,
}

/// What to do after a round in which every address failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Ask all of them again after this pause.
    Again(Duration),
    /// Tell the caller.
    GiveUp(RemoteError),
}

impl Policy {
    /// The policy of a call that lasts `wait` by itself (a long poll) and must end within
    /// `wait + timeout`.
    pub fn new(timeout: Duration, wait: Duration) -> Self {
        Self { deadline: wait.saturating_add(timeout), hedge_after: wait + HEDGE_AFTER }
    }

    /// When to stop waiting, from the beginning of the call, given what has failed so far.
    pub fn limit(&self, failures: &[Failure]) -> Duration {
        let no_quorum = failures.iter().any(|f| f.error.code == Code::NoQuorum);
        if no_quorum { self.deadline.min(NO_QUORUM_LIMIT) } else { self.deadline }
    }

    /// After round number `round` (from 0) ended `elapsed` after the call's beginning with nothing
    /// but `failures`, its last ones being those of this round.
    pub fn after_round(&self, round: u32, elapsed: Duration, failures: &[Failure]) -> Next {
        let pause = BACKOFF_FIRST.saturating_mul(1 << round.min(10)).min(BACKOFF_MAX);
        let in_time = elapsed + pause < self.limit(failures);
        let somebody_there = failures.iter().any(|f| f.reached);
        if in_time && somebody_there { Next::Again(pause) } else { Next::GiveUp(summary(failures)) }
    }
}

impl Failure {
    /// Whether another node, or the same one a moment later, may well answer otherwise. Anything
    /// else is the cluster's answer, whoever gave it.
    pub fn transient(&self) -> bool {
        !self.reached
            || matches!(self.error.code, Code::Unavailable | Code::NotLeader | Code::NoQuorum)
    }
}

/// The one error that says most about why nothing worked.
pub fn summary(failures: &[Failure]) -> RemoteError {
    let rank = |f: &Failure| match f.error.code {
        Code::NoQuorum => 4,
        Code::Timeout => 3,
        Code::NotLeader => 2,
        _ if f.reached => 1,
        _ => 0,
    };
    let best = failures.iter().map(rank).max().unwrap_or(0);
    let mut telling = failures.iter().filter(|f| rank(f) == best).map(|f| &f.error);
    let Some(first) = telling.next() else {
        return RemoteError {
            code: Code::Config,
            message: "no address to connect to".into(),
            leader: None,
        };
    };
    let mut all = first.clone();
    if best == 0 {
        for other in telling.filter(|e| e.message != first.message) {
            all.message = format!("{}; {}", all.message, other.message);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy =
        Policy { deadline: Duration::from_secs(10), hedge_after: Duration::from_millis(400) };

    fn failure(code: Code, reached: bool) -> Failure {
        let error = RemoteError { code, message: format!("{code} {reached}"), leader: None };
        Failure { error, reached }
    }

    #[test]
    fn a_definitive_answer_is_nobody_elses_business() {
        for code in [Code::NotFound, Code::AlreadyExists, Code::Timeout, Code::PoolFull] {
            assert!(!failure(code, true).transient(), "{code}");
        }
        for code in [Code::Unavailable, Code::NotLeader, Code::NoQuorum] {
            assert!(failure(code, true).transient(), "{code}");
        }
        assert!(failure(Code::Timeout, false).transient());
    }

    #[test]
    fn nobody_there_is_said_at_once_and_names_everyone() {
        let mut second = failure(Code::Unavailable, false);
        second.error.message = "cannot reach n2".into();
        let failures = [failure(Code::Unavailable, false), second];
        let Next::GiveUp(error) = POLICY.after_round(0, Duration::ZERO, &failures) else {
            panic!("retried although nobody listens");
        };
        assert_eq!(error.code, Code::Unavailable);
        assert!(error.message.ends_with("; cannot reach n2"), "{error}");
    }

    #[test]
    fn no_quorum_is_retried_in_its_time_and_then_told() {
        let failures = [failure(Code::NoQuorum, true), failure(Code::Unavailable, false)];
        let early = POLICY.after_round(0, Duration::from_millis(20), &failures);
        assert_eq!(early, Next::Again(BACKOFF_FIRST));
        let late = POLICY.after_round(3, Duration::from_millis(4_100), &failures);
        let Next::GiveUp(error) = late else { panic!("went on past 5 s: {late:?}") };
        assert_eq!(error.code, Code::NoQuorum);
        assert!(POLICY.limit(&failures) < Duration::from_secs(5));
        assert_eq!(POLICY.limit(&[]), Duration::from_secs(10));
    }

    #[test]
    fn pauses_grow_and_stop_growing() {
        let failures = [failure(Code::NotLeader, true)];
        let pause = |round| POLICY.after_round(round, Duration::ZERO, &failures);
        assert_eq!(pause(1), Next::Again(BACKOFF_FIRST * 2));
        assert_eq!(pause(60), Next::Again(BACKOFF_MAX));
    }
}
