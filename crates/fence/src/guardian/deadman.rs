//! The guardian's own death, set ahead of time (DESIGN section 5, rule 3).
//!
//! Two kernel timers on CLOCK_BOOTTIME are set together, to just before `s + T + F`. The first sends SIGKILL to the guardian
//! itself, stopped or starved or not; its pid namespace's init dies with it. The second is a
//! descriptor shared with that init, which exits when it fires: it holds when the guardian cannot
//! die because it waits in the kernel for a lock (cgroup or rtnetlink) that somebody else keeps.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::signal::{SigEvent, SigevNotify, Signal};
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use crate::clock::NS_PER_S;

/// A descriptor that polls readable from a set instant of CLOCK_BOOTTIME on.
#[derive(Debug)]
pub(super) struct Alarm(OwnedFd);

impl Alarm {
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(Self(timerfd_create(TimerfdClockId::Boottime, flags)?))
    }

    /// Sets the instant; an earlier setting is forgotten.
    pub(super) fn set(&self, at_ns: u64) -> io::Result<()> {
        // An all-zero time would disarm.
        let (seconds, nanos) = split(at_ns.max(1));
        self.settime(Timespec { tv_sec: seconds, tv_nsec: nanos })
    }

    pub(super) fn clear(&self) -> io::Result<()> {
        self.settime(Timespec { tv_sec: 0, tv_nsec: 0 })
    }

    /// Whether it has fired since it was set last.
    pub(super) fn fired(&self) -> bool {
        matches!(rustix::io::read(&self.0, &mut [0u8; 8][..]), Ok(8))
    }

    fn settime(&self, at: Timespec) -> io::Result<()> {
        let value = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: at };
        timerfd_settime(&self.0, TimerfdTimerFlags::ABSTIME, &value)?;
        Ok(())
    }
}

impl AsFd for Alarm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Both timers. Armed from the grant until a fence is verified complete.
#[derive(Debug)]
pub(super) struct DeadMan {
    guardian: Timer,
    init: Alarm,
}

impl DeadMan {
    /// `init` is the alarm that the pid namespace's init watches.
    pub(super) fn new(init: Alarm) -> io::Result<Self> {
        let kill = SigEvent::new(SigevNotify::SigevSignal { signal: Signal::SIGKILL, si_value: 0 });
        Ok(Self { guardian: Timer::new(ClockId::CLOCK_BOOTTIME, kill)?, init })
    }

    /// Everything protected dies at `at_ns`, unless armed anew or disarmed before.
    pub(super) fn arm(&mut self, at_ns: u64) -> io::Result<()> {
        self.init.set(at_ns)?;
        self.set_guardian(at_ns.max(1))
    }

    /// Only after everything is known to have stopped.
    pub(super) fn disarm(&mut self) -> io::Result<()> {
        self.set_guardian(0)?;
        self.init.clear()
    }

    fn set_guardian(&mut self, at_ns: u64) -> io::Result<()> {
        let (seconds, nanos) = split(at_ns);
        let at = Expiration::OneShot(TimeSpec::new(seconds, nanos));
        Ok(self.guardian.set(at, TimerSetTimeFlags::TFD_TIMER_ABSTIME)?)
    }
}

/// Seconds and nanoseconds; centuries at most, so both fit.
fn split(at_ns: u64) -> (i64, i64) {
    let part = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    (part(at_ns / NS_PER_S), part(at_ns % NS_PER_S))
}
