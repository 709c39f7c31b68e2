//! The guardian's decisions, as plain functions of what it knows.
//!
//! ```text
//!            thaw                 deadline, relinquish, clock jump
//!  Fenced ----------> Live ------------------------------------> Fencing
//!    ^                 | ^                                          |
//!    |                 +-+ renew (never backwards)                  |
//!    +--------------------------------------------------------------+
//!          (frozen, or killed by half of the budget) and links down
//! ```

use crate::protocol::{Grant, MAX_DEADLINE_AHEAD_NS, Phase, Refusal};

/// What a grant comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Move the lease's end to here.
    Extend(u64),
    /// The lease in force ends no earlier already.
    Unchanged(u64),
    /// Begin a lease that ends here.
    Begin(u64),
}

/// When it is, and since when grants count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Clock {
    /// CLOCK_BOOTTIME.
    pub(super) now_ns: u64,
    /// Grants asked for at this instant or before are void: the node relinquished then, or the
    /// machine was found to have been paused. 0 if neither ever happened.
    pub(super) void_until_ns: u64,
}

/// Whether a renewal is to be granted.
pub(super) fn renew(phase: Phase, clock: Clock, grant: Grant) -> Result<Verdict, Refusal> {
    match phase {
        Phase::Fencing { .. } => Err(Refusal::Fencing),
        Phase::Fenced => Err(Refusal::Fenced),
        // The lease's end counts from the clock, not from when the timer was looked at.
        Phase::Live { deadline_ns: end_ns } if clock.now_ns >= end_ns => Err(Refusal::Fencing),
        Phase::Live { deadline_ns: end_ns } => {
            check(clock, grant)?;
            if grant.deadline_ns > end_ns {
                Ok(Verdict::Extend(grant.deadline_ns))
            } else {
                Ok(Verdict::Unchanged(end_ns))
            }
        }
    }
}

/// Whether a thaw is to be granted.
pub(super) fn thaw(phase: Phase, clock: Clock, grant: Grant) -> Result<Verdict, Refusal> {
    match phase {
        Phase::Fenced => {
            check(clock, grant)?;
            Ok(Verdict::Begin(grant.deadline_ns))
        }
        Phase::Live { .. } | Phase::Fencing { .. } => renew(phase, clock, grant),
    }
}

fn check(clock: Clock, grant: Grant) -> Result<(), Refusal> {
    let Clock { now_ns, void_until_ns } = clock;
    if grant.deadline_ns <= now_ns {
        Err(Refusal::DeadlinePassed)
    } else if grant.deadline_ns - now_ns > MAX_DEADLINE_AHEAD_NS {
        Err(Refusal::DeadlineTooFar)
    } else if grant.sent_ns <= void_until_ns || grant.sent_ns > now_ns {
        Err(Refusal::StaleGrant)
    } else {
        Ok(())
    }
}

/// What is known of a fence under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    /// `cgroup.freeze` holds 1, so nothing that enters the ancestor runs.
    pub(super) freeze_written: bool,
    /// Everything below the ancestor is frozen.
    pub(super) frozen: bool,
    /// SIGKILL is pending for all that is not frozen.
    pub(super) killed: bool,
    /// The link group is down.
    pub(super) links_down: bool,
}

/// What a fence under way needs next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Look again soon.
    Wait,
    /// Kill what is not frozen.
    KillUnfrozen,
    /// Kill everything: the links will not go down while their containers are there.
    KillAll,
    /// Everything has stopped.
    Complete,
}

/// The next step of a fence that was due at `due_ns` and has `budget_ns` (`F`).
///
/// Half of the budget is for freezing; what follows lets the kill be done before the dead man's
/// timer ends the guardian.
pub(super) fn next_step(due_ns: u64, budget_ns: u64, now_ns: u64, seen: Seen) -> Step {
    let stopped = seen.freeze_written && (seen.frozen || seen.killed);
    let late = now_ns >= due_ns.saturating_add(budget_ns / 2);
    match (stopped, seen.links_down) {
        (true, true) => Step::Complete,
        _ if !late || seen.killed => Step::Wait,
        (_, true) => Step::KillUnfrozen,
        (_, false) => Step::KillAll,
    }
}

/// When the dead man's timers go off for a lease that ends at `due_ns`. What they set off takes
/// some microseconds, more on a busy host: a tenth of the budget `F` is kept for it, so that
/// everything has stopped at `s + T + F`, not only begun to.
pub(super) fn dead_man_at(due_ns: u64, budget_ns: u64) -> u64 {
    due_ns.saturating_add(budget_ns - budget_ns / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIVE: Phase = Phase::Live { deadline_ns: 1_000 };
    const FENCING: Phase = Phase::Fencing { due_ns: 900 };

    fn at(now_ns: u64) -> Clock {
        Clock { now_ns, void_until_ns: 0 }
    }

    fn until(deadline_ns: u64) -> Grant {
        Grant { sent_ns: 5, deadline_ns }
    }

    /// I9, rule 5: after a fence only a thaw starts a lease.
    #[test]
    fn a_renewal_never_ends_a_fence() {
        assert_eq!(renew(Phase::Fenced, at(10), until(2_000)), Err(Refusal::Fenced));
        assert_eq!(renew(FENCING, at(950), until(2_000)), Err(Refusal::Fencing));
        assert_eq!(thaw(FENCING, at(950), until(2_000)), Err(Refusal::Fencing));
        assert_eq!(thaw(Phase::Fenced, at(10), until(2_000)), Ok(Verdict::Begin(2_000)));
    }

    /// I8, rule 3: a renewal that arrives after the deadline, before the timer was seen, is late.
    #[test]
    fn a_renewal_at_the_deadline_is_too_late() {
        assert_eq!(renew(LIVE, at(999), until(2_000)), Ok(Verdict::Extend(2_000)));
        assert_eq!(renew(LIVE, at(1_000), until(2_000)), Err(Refusal::Fencing));
        assert_eq!(thaw(LIVE, at(1_000), until(2_000)), Err(Refusal::Fencing));
    }

    #[test]
    fn the_deadline_never_moves_backwards() {
        assert_eq!(renew(LIVE, at(10), until(500)), Ok(Verdict::Unchanged(1_000)));
        assert_eq!(thaw(LIVE, at(10), until(500)), Ok(Verdict::Unchanged(1_000)));
    }

    #[test]
    fn absurd_deadlines_are_refused() {
        let far = 10 + MAX_DEADLINE_AHEAD_NS;
        assert_eq!(thaw(Phase::Fenced, at(10), until(10)), Err(Refusal::DeadlinePassed));
        assert_eq!(thaw(Phase::Fenced, at(10), until(far)), Ok(Verdict::Begin(far)));
        assert_eq!(thaw(Phase::Fenced, at(10), until(far + 1)), Err(Refusal::DeadlineTooFar));
        assert_eq!(renew(LIVE, at(10), until(u64::MAX)), Err(Refusal::DeadlineTooFar));
        assert_eq!(renew(LIVE, at(10), until(9)), Err(Refusal::DeadlinePassed));
    }

    /// I8, rule 7: an answer that was on its way while the node relinquished or was paused.
    #[test]
    fn a_grant_from_before_a_relinquishment_or_a_pause_is_void() {
        let clock = Clock { now_ns: 200, void_until_ns: 100 };
        for (sent_ns, counts) in [(99, false), (100, false), (101, true), (200, true), (201, false)]
        {
            let grant = Grant { sent_ns, deadline_ns: 2_000 };
            for outcome in [thaw(Phase::Fenced, clock, grant), renew(LIVE, clock, grant)] {
                assert_eq!(outcome.is_ok(), counts, "{sent_ns}");
                assert!(counts || outcome == Err(Refusal::StaleGrant));
            }
        }
    }

    /// I8, rule 3: frozen, else killed, else dead, in this order and all within the budget.
    #[test]
    fn the_dead_man_comes_after_the_kill_and_within_the_budget() {
        for budget_ns in [50_000_000, 500_000_000, 10_000_000_000] {
            let at_ns = dead_man_at(1_000, budget_ns);
            assert!(at_ns > 1_000 + budget_ns / 2 && at_ns < 1_000 + budget_ns);
        }
    }

    /// I8: complete means frozen or killed, *and* links down, *and* the freeze in force for what
    /// enters later; anything less goes on to the kill.
    #[test]
    fn a_fence_is_complete_only_when_everything_has_stopped() {
        for bits in 0..16u8 {
            let seen = Seen {
                freeze_written: bits & 1 != 0,
                frozen: bits & 2 != 0,
                killed: bits & 4 != 0,
                links_down: bits & 8 != 0,
            };
            let all = seen.freeze_written && (seen.frozen || seen.killed) && seen.links_down;
            for now_ns in [100, 149, 150, 500] {
                let step = next_step(100, 100, now_ns, seen);
                assert_eq!(step == Step::Complete, all, "{seen:?} at {now_ns}");
                let kills = matches!(step, Step::KillUnfrozen | Step::KillAll);
                assert_eq!(kills, !all && !seen.killed && now_ns >= 150, "{seen:?} at {now_ns}");
            }
        }
    }
}
