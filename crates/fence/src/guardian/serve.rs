//! The guardian's life: start frozen, then wait and act, until told to end.

use std::io;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::ancestor::Ancestor;
use super::deadman::{Alarm, DeadMan};
use super::init::{self, Init};
use super::links::LinkGroup;
use super::options::{ServeError, ServeOptions};
use super::rtc::Rtc;
use super::sockets::{ClientId, Received, Sockets};
use super::{Answer, Guardian, hardening};
use crate::clock::{NS_PER_MS, boottime_ns};
use crate::protocol::{FenceCause, FenceRecord, Hardening, Phase, Refusal, Response};
use crate::unified::{membership_of, own_membership};

/// How long another guardian that is just dying may still hold the ancestor.
const TAKE_OVER_WAIT: Duration = Duration::from_secs(2);

/// How many answers may be owed for one fence.
const MAX_WAITING: usize = 64;

/// Runs the guardian until SIGTERM or SIGINT, or until something fails that it cannot do without.
/// Whenever this returns and the process ends, everything protected ends with it.
pub fn serve(options: &ServeOptions) -> Result<(), ServeError> {
    let signals = take_signals().map_err(ServeError::step("blocking signals"))?;
    let mut guardian = start(options)?;
    let sockets = Sockets::listen(&options.socket)
        .map_err(|source| ServeError::Socket { path: options.socket.clone(), source })?;
    let mut server = Server { sockets, waiting: Vec::new(), signals };
    let outcome = server.run(&mut guardian);
    end(&mut guardian);
    outcome
}

fn start(options: &ServeOptions) -> Result<Guardian, ServeError> {
    if !rustix::process::geteuid().is_root() {
        return Err(ServeError::NotRoot);
    }
    if !(50..=10_000).contains(&options.fence_budget_ms) {
        return Err(ServeError::Budget(options.fence_budget_ms));
    }
    hardening::never_dump().map_err(ServeError::step("forbidding cores"))?;
    let mut hardening = Hardening {
        oom_exempt: hardening::exempt_from_oom(),
        realtime: hardening::go_realtime(),
        mounts_propagate: init::root_is_shared(),
        ..Hardening::default()
    };
    // The init first: it inherits what is open.
    let init_alarm = Alarm::new().map_err(ServeError::step("making a timer"))?;
    let init = Init::start(&init_alarm).map_err(ServeError::step("making the namespaces"))?;
    let ancestor = open_ancestor(&options.ancestor)?;
    let links =
        LinkGroup::open(options.link_group).map_err(ServeError::step("opening a route socket"))?;
    let dead_man = DeadMan::new(init_alarm).map_err(ServeError::step("making a timer"))?;
    let lease_end = Alarm::new().map_err(ServeError::step("making a timer"))?;
    hardening.memory_locked = hardening::lock_memory();
    let now_ns = boottime_ns();
    let rtc = Rtc::open(&options.rtc, now_ns);
    hardening.rtc = rtc.is_some();
    let mut guardian = Guardian {
        budget_ms: options.fence_budget_ms,
        last_resort: options.last_resort,
        ancestor,
        links,
        dead_man,
        lease_end,
        init,
        rtc,
        rtc_due_ns: 0,
        reassert_due_ns: 0,
        phase: Phase::Fencing { due_ns: now_ns },
        fence: FenceRecord::begun(FenceCause::Start, now_ns),
        last_resort_taken: false,
        void_until_ns: 0,
        shutting_down: false,
        instance_ns: now_ns,
        thaws: 0,
        renewals: 0,
        fences: 1,
        hardening,
    };
    guardian.fence_at_start().map_err(ServeError::step("fencing at start"))?;
    Ok(guardian)
}

impl Guardian {
    /// It starts frozen (rule 3). What an earlier guardian left behind is killed: nothing of it
    /// has a lease.
    fn fence_at_start(&mut self) -> io::Result<()> {
        self.ancestor.freeze()?;
        self.ancestor.kill_all()?;
        self.links.set(false)?;
        let now_ns = boottime_ns();
        self.fence.freeze_written_ns = Some(now_ns);
        self.fence.killed_ns = Some(now_ns);
        self.fence.links_down_ns = Some(now_ns);
        self.tick()
    }
}

fn open_ancestor(path: &Path) -> Result<Ancestor, ServeError> {
    // Before anything is made: a wrong path changes nothing.
    let membership = membership_of(path).ok_or_else(|| ServeError::NoCgroup(path.to_owned()))?;
    if own_membership().is_none_or(|own| own.starts_with(membership)) {
        return Err(ServeError::Inside(path.to_owned()));
    }
    let give_up_ns = boottime_ns() + TAKE_OVER_WAIT.as_secs() * 1_000 * NS_PER_MS;
    loop {
        match Ancestor::open(path) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if boottime_ns() >= give_up_ns {
                    return Err(ServeError::Busy(path.to_owned()));
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(source) => return Err(ServeError::Ancestor { path: path.to_owned(), source }),
            Ok(ancestor) => return Ok(ancestor),
        }
    }
}

fn take_signals() -> io::Result<SignalFd> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGTERM);
    mask.add(Signal::SIGINT);
    mask.thread_block()?;
    Ok(SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}

/// Nothing is left to chance: the namespace is killed here, not only by this process's end.
fn end(guardian: &mut Guardian) {
    let killed = guardian.ancestor.kill_all().and(guardian.init.kill());
    let links_down = guardian.links.set(false);
    if killed.and(links_down).is_ok() {
        // Not in time means uninterruptible sleep with SIGKILL pending: stopped, for our purpose.
        let budget = Duration::from_millis(guardian.budget_ms);
        let _gone_in_time = guardian.init.wait_gone(budget);
    }
}

struct Server {
    sockets: Sockets,
    /// Who is to be told when the fence under way is complete.
    waiting: Vec<(ClientId, u64)>,
    signals: SignalFd,
}

impl Server {
    fn run(&mut self, guardian: &mut Guardian) -> Result<(), ServeError> {
        loop {
            self.tick(guardian)?;
            if guardian.shutting_down && guardian.phase == Phase::Fenced {
                return Ok(());
            }
            self.wait(guardian)?;
            if self.told_to_end().map_err(ServeError::step("reading signals"))? {
                guardian.shutting_down = true;
                guardian.relinquish(FenceCause::Shutdown).map_err(ServeError::step("fencing"))?;
            }
            self.sockets.accept();
            for client in self.sockets.ids() {
                self.serve_one(guardian, client)?;
            }
        }
    }

    /// Does what is due, and tells who waited for it before anybody may ask for a thaw.
    fn tick(&mut self, guardian: &mut Guardian) -> Result<(), ServeError> {
        guardian.tick().map_err(ServeError::step("fencing"))?;
        self.tell_waiting(guardian);
        Ok(())
    }

    /// Sleeps until something happens or a tick is due.
    fn wait(&self, guardian: &Guardian) -> Result<(), ServeError> {
        let timeout = guardian.tick_in_ms().map(|ms| Timespec {
            tv_sec: (ms / 1_000) as i64,
            tv_nsec: (ms % 1_000 * NS_PER_MS) as i64,
        });
        let mut fds = vec![
            PollFd::new(&guardian.init, PollFlags::IN),
            PollFd::new(&guardian.lease_end, PollFlags::IN),
            PollFd::new(&self.signals, PollFlags::IN),
        ];
        if matches!(guardian.phase, Phase::Fencing { .. }) {
            fds.push(PollFd::from_borrowed_fd(guardian.ancestor.events_fd(), PollFlags::PRI));
        }
        fds.extend(self.sockets.fds().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(ServeError::step("waiting")(error.into())),
        }
        if fds[0].revents().is_empty() { Ok(()) } else { Err(ServeError::InitDied) }
    }

    fn told_to_end(&self) -> io::Result<bool> {
        let mut told = false;
        while self.signals.read_signal()?.is_some() {
            told = true;
        }
        Ok(told)
    }

    fn serve_one(&mut self, guardian: &mut Guardian, client: ClientId) -> Result<(), ServeError> {
        let call = match self.sockets.receive(client) {
            Received::Call(call) => call,
            Received::Nothing => return Ok(()),
            Received::Closed => {
                self.waiting.retain(|(other, _)| *other != client);
                return Ok(());
            }
            Received::Malformed(why) => {
                let refusal = Response::Refused(Refusal::Malformed(why));
                self.sockets.reply(client, 0, refusal);
                return Ok(());
            }
        };
        // Before each request what the clocks demand: one that waited in the socket while the
        // machine was paused is not taken for a fresh one.
        guardian.compare_clocks_next();
        self.tick(guardian)?;
        match guardian.answer(call.request).map_err(ServeError::step("a request"))? {
            Answer::Now(response) => self.sockets.reply(client, call.seq, response),
            Answer::WhenStopped if self.waiting.len() < MAX_WAITING => {
                self.waiting.push((client, call.seq));
            }
            Answer::WhenStopped => {
                self.sockets.reply(client, call.seq, Response::Refused(Refusal::Fencing));
            }
        }
        self.tell_waiting(guardian);
        Ok(())
    }

    fn tell_waiting(&mut self, guardian: &Guardian) {
        if guardian.phase == Phase::Fenced {
            for (client, seq) in self.waiting.drain(..) {
                self.sockets.reply(client, seq, Response::Stopped(guardian.fence));
            }
        }
    }
}
