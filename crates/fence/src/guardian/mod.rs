//! The guardian process (DESIGN section 5, rules 3, 5 and 7).
//!
//! One thread, no allocation of note, everything held open. What it decides is in `lease`; here is
//! what it does about it. The order in every grant: the dead man's timers first, then the rest; and
//! in every fence: the freeze, the links, the kill, and only when all has been seen to have
//! stopped the timers again.

mod ancestor;
mod deadman;
mod hardening;
mod init;
mod lease;
mod links;
mod options;
mod rtc;
mod serve;
mod sockets;

use std::io;

pub use options::{DEFAULT_FENCE_BUDGET_MS, DEFAULT_RTC, LastResort, ServeError, ServeOptions};
pub use serve::serve;

use crate::clock::{NS_PER_MS, NS_PER_S, boottime_ns};
use crate::protocol::{
    FenceCause, FenceRecord, Grant, Hardening, Phase, Refusal, Request, Response, Status,
};
use ancestor::Ancestor;
use deadman::{Alarm, DeadMan};
use init::Init;
use lease::{Clock, Seen, Step, Verdict};
use links::LinkGroup;
use rtc::Rtc;

/// While fenced, the freeze and the links are put in force again this often: a veth that a
/// stopped agent set up late does not stay up.
const REASSERT_NS: u64 = NS_PER_S;

/// Everything that the guardian holds.
#[derive(Debug)]
struct Guardian {
    budget_ms: u64,
    last_resort: LastResort,
    ancestor: Ancestor,
    links: LinkGroup,
    dead_man: DeadMan,
    /// Fires at the lease's end.
    lease_end: Alarm,
    init: Init,
    rtc: Option<Rtc>,
    rtc_due_ns: u64,
    reassert_due_ns: u64,
    phase: Phase,
    fence: FenceRecord,
    last_resort_taken: bool,
    /// Grants asked for until then are void.
    void_until_ns: u64,
    shutting_down: bool,
    instance_ns: u64,
    thaws: u64,
    renewals: u64,
    fences: u64,
    hardening: Hardening,
}

/// What becomes of a request.
enum Answer {
    /// This, now.
    Now(Response),
    /// `Stopped`, when the fence under way is complete.
    WhenStopped,
}

impl Guardian {
    fn budget_ns(&self) -> u64 {
        self.budget_ms * NS_PER_MS
    }

    /// Looks at the clocks and at a fence under way, and does what is due.
    fn tick(&mut self) -> io::Result<()> {
        let now_ns = boottime_ns();
        if let Phase::Live { deadline_ns } = self.phase
            && now_ns >= deadline_ns
        {
            self.begin_fence(FenceCause::Deadline, deadline_ns)?;
        }
        if self.clocks_parted(now_ns) {
            self.void_until_ns = now_ns;
            if matches!(self.phase, Phase::Live { .. }) {
                self.begin_fence(FenceCause::ClockJump, now_ns)?;
            }
        }
        match self.phase {
            Phase::Live { .. } => Ok(()),
            Phase::Fencing { due_ns } => self.go_on_fencing(due_ns),
            Phase::Fenced => {
                self.reassert(now_ns);
                Ok(())
            }
        }
    }

    /// The next tick compares the clocks, due or not.
    fn compare_clocks_next(&mut self) {
        self.rtc_due_ns = 0;
    }

    /// How long the next [`Guardian::tick`] may wait when nothing else happens.
    fn tick_in_ms(&self) -> Option<u64> {
        match self.phase {
            Phase::Fencing { .. } => Some(5),
            Phase::Live { .. } => self.rtc.is_some().then_some(rtc::TICK_NS / NS_PER_MS),
            Phase::Fenced if self.rtc.is_some() => Some(rtc::TICK_NS / NS_PER_MS),
            Phase::Fenced => Some(REASSERT_NS / NS_PER_MS),
        }
    }

    fn answer(&mut self, request: Request) -> io::Result<Answer> {
        let response = match request {
            Request::Status => Response::Status(Box::new(self.status())),
            Request::Renew(_) | Request::Thaw(_) if self.shutting_down => {
                Response::Refused(Refusal::ShuttingDown)
            }
            Request::Renew(grant) => self.grant(lease::renew, grant)?,
            Request::Thaw(grant) => self.grant(lease::thaw, grant)?,
            Request::Relinquish => return self.relinquish(FenceCause::Relinquished),
            Request::Kill { child } => match self.ancestor.kill_child(&child) {
                Ok(outcome) => Response::Killed(outcome),
                Err(error) => Response::Refused(Refusal::Kernel(error.to_string())),
            },
        };
        Ok(Answer::Now(response))
    }

    fn grant(
        &mut self,
        judge: fn(Phase, Clock, Grant) -> Result<Verdict, Refusal>,
        grant: Grant,
    ) -> io::Result<Response> {
        let clock = Clock { now_ns: boottime_ns(), void_until_ns: self.void_until_ns };
        let deadline_ns = match judge(self.phase, clock, grant) {
            Err(refusal) => return Ok(Response::Refused(refusal)),
            Ok(Verdict::Unchanged(deadline_ns)) => deadline_ns,
            Ok(Verdict::Extend(deadline_ns)) => {
                self.arm(deadline_ns)?;
                self.phase = Phase::Live { deadline_ns };
                self.renewals += 1;
                deadline_ns
            }
            Ok(Verdict::Begin(deadline_ns)) => return self.begin_lease(deadline_ns),
        };
        Ok(Response::Granted { deadline_ns })
    }

    /// The dead man before the lease: whatever happens in between, everything stops in time.
    fn arm(&mut self, deadline_ns: u64) -> io::Result<()> {
        self.dead_man.arm(lease::dead_man_at(deadline_ns, self.budget_ns()))?;
        self.lease_end.set(deadline_ns)
    }

    /// Rule 5: the timers, the links, the thaw.
    fn begin_lease(&mut self, deadline_ns: u64) -> io::Result<Response> {
        self.arm(deadline_ns)?;
        self.phase = Phase::Live { deadline_ns };
        let started = self.links.set(true).and_then(|()| {
            // Setting links up may have waited for the kernel's lock. If it took longer than to
            // the dead man, this line is never reached.
            if boottime_ns() >= deadline_ns {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.ancestor.thaw()
        });
        if let Err(error) = started {
            self.begin_fence(FenceCause::ThawFailed, boottime_ns())?;
            return Ok(Response::Refused(Refusal::Kernel(error.to_string())));
        }
        self.thaws += 1;
        Ok(Response::Granted { deadline_ns })
    }

    /// Ends a lease now, if there is one. Answers to heartbeats that are still on their way are
    /// void: the takeover may begin as soon as this is answered.
    fn relinquish(&mut self, cause: FenceCause) -> io::Result<Answer> {
        self.void_until_ns = boottime_ns();
        match self.phase {
            Phase::Fenced => Ok(Answer::Now(Response::Stopped(self.fence))),
            Phase::Fencing { .. } => Ok(Answer::WhenStopped),
            Phase::Live { .. } => {
                self.begin_fence(cause, boottime_ns())?;
                Ok(Answer::WhenStopped)
            }
        }
    }

    fn begin_fence(&mut self, cause: FenceCause, due_ns: u64) -> io::Result<()> {
        // A fence that was not due yet gets no longer than its own budget either.
        self.dead_man.arm(lease::dead_man_at(due_ns, self.budget_ns()))?;
        self.start_fence(cause, due_ns);
        self.lease_end.clear()?;
        self.go_on_fencing(due_ns)
    }

    fn start_fence(&mut self, cause: FenceCause, due_ns: u64) {
        self.phase = Phase::Fencing { due_ns };
        self.fences += 1;
        self.fence = FenceRecord::begun(cause, due_ns);
    }

    fn go_on_fencing(&mut self, due_ns: u64) -> io::Result<()> {
        // Failures here are not the end: they are tried again at the next tick, and the kill and
        // the dead man come after.
        if self.fence.freeze_written_ns.is_none() && self.ancestor.freeze().is_ok() {
            self.fence.freeze_written_ns = Some(boottime_ns());
        }
        if self.fence.links_down_ns.is_none() && self.links.set(false).is_ok() {
            self.fence.links_down_ns = Some(boottime_ns());
        }
        if self.fence.frozen_ns.is_none() && self.is_frozen() {
            self.fence.frozen_ns = Some(boottime_ns());
        }
        match lease::next_step(due_ns, self.budget_ns(), boottime_ns(), self.seen()) {
            Step::Wait => Ok(()),
            Step::KillUnfrozen => self.kill(Ancestor::kill_unfrozen),
            Step::KillAll => self.kill(Ancestor::kill_all),
            Step::Complete => {
                self.dead_man.disarm()?;
                let now_ns = boottime_ns();
                self.fence.complete_ns = Some(now_ns);
                self.reassert_due_ns = now_ns.saturating_add(REASSERT_NS);
                self.phase = Phase::Fenced;
                Ok(())
            }
        }
    }

    fn is_frozen(&self) -> bool {
        // Only after the freeze was ordered does "frozen" mean that it stays so.
        let ordered = self.fence.freeze_written_ns.is_some();
        ordered && self.ancestor.events().is_ok_and(|events| events.frozen)
    }

    fn seen(&self) -> Seen {
        Seen {
            freeze_written: self.fence.freeze_written_ns.is_some(),
            frozen: self.fence.frozen_ns.is_some(),
            killed: self.fence.killed_ns.is_some(),
            links_down: self.fence.links_down_ns.is_some(),
        }
    }

    /// Delivers SIGKILL: through the cgroup, or else to the init and with it to everything.
    fn kill(&mut self, how: fn(&Ancestor) -> io::Result<()>) -> io::Result<()> {
        if how(&self.ancestor).or_else(|_| self.init.kill()).is_ok() {
            self.fence.killed_ns = Some(boottime_ns());
        } else if !self.last_resort_taken {
            self.last_resort_taken = true;
            self.last_resort.take()?;
        }
        Ok(())
    }

    fn reassert(&mut self, now_ns: u64) {
        if now_ns >= self.reassert_due_ns {
            // It is in force already; what fails now is tried again at the next tick.
            if self.ancestor.freeze().and_then(|()| self.links.set(false)).is_ok() {
                self.reassert_due_ns = now_ns.saturating_add(REASSERT_NS);
            }
        }
    }

    /// Rule 7. A read that fails is no observation, and `status` says so; the next that succeeds is
    /// compared with what was seen before.
    fn clocks_parted(&mut self, now_ns: u64) -> bool {
        if now_ns < self.rtc_due_ns {
            return false;
        }
        self.rtc_due_ns = now_ns.saturating_add(rtc::TICK_NS);
        let Some(rtc) = self.rtc.as_mut() else { return false };
        let jumped = rtc.jumped(now_ns);
        self.hardening.rtc = jumped.is_ok();
        jumped.unwrap_or(false)
    }

    fn status(&self) -> Status {
        Status {
            phase: self.phase,
            instance_ns: self.instance_ns,
            guardian_pid: rustix::process::getpid().as_raw_nonzero().get(),
            init_pid: self.init.pid(),
            fence_budget_ms: self.budget_ms,
            thaws: self.thaws,
            renewals: self.renewals,
            fences: self.fences,
            last_fence: Some(self.fence),
            hardening: self.hardening,
            // Unknown counts as yes.
            populated: self.ancestor.events().map_or(true, |events| events.populated),
        }
    }
}
