//! Process 1 of the protected pid namespace.
//!
//! It runs nothing and reaps what is orphaned. Its one purpose is to end: when it does, the kernel
//! kills every process of the namespace and of those nested in it (pid_namespaces(7)). It ends
//! with the guardian (its death signal, and a descriptor of it as a second look), and by the
//! alarm that the guardian sets to just before `s + T + F`.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{Pid, PidfdFlags, Signal as Kill, pidfd_open, pidfd_send_signal};

use super::deadman::Alarm;
use super::hardening;
use crate::sys;

/// The guardian's hold on its namespace's init.
#[derive(Debug)]
pub(super) struct Init {
    pid: Pid,
    pidfd: OwnedFd,
}

impl Init {
    /// Makes the namespaces and their init; returns when it is ready. To be called before any
    /// descriptor is opened that the init should not inherit.
    pub(super) fn start(alarm: &Alarm) -> io::Result<Self> {
        let guardian = pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?;
        let (ready, says_ready) = io::pipe()?;
        unshare(CloneFlags::CLONE_NEWPID)?;
        let Some(child) = sys::fork()? else {
            drop(ready);
            let outcome = be_init(&guardian, alarm, says_ready);
            // Whatever the reason: nothing protected outlives this line.
            std::process::exit(i32::from(outcome.is_err()));
        };
        drop(says_ready);
        let pid = Pid::from_raw(child.as_raw()).ok_or(io::ErrorKind::InvalidData)?;
        let init = Self { pid, pidfd: pidfd_open(pid, PidfdFlags::empty())? };
        let mut said = String::new();
        io::Read::read_to_string(&mut &ready, &mut said)?;
        if said == READY { Ok(init) } else { Err(io::Error::other(said)) }
    }

    /// Its process id in the guardian's pid namespace.
    pub(super) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// SIGKILL to it, and with it to the whole namespace.
    pub(super) fn kill(&self) -> io::Result<()> {
        match pidfd_send_signal(&self.pidfd, Kill::KILL) {
            // It is dead, and so is the namespace.
            Err(rustix::io::Errno::SRCH) => Ok(()),
            outcome => Ok(outcome?),
        }
    }

    /// Waits until it, and so every process of the namespace, is gone; `false` if not in time.
    pub(super) fn wait_gone(&self, timeout: Duration) -> io::Result<bool> {
        let timeout = timeout.try_into().map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        Ok(poll(&mut fds, Some(&timeout))? > 0)
    }
}

impl AsFd for Init {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

const READY: &str = "ready";

fn be_init(guardian: &OwnedFd, alarm: &Alarm, mut says_ready: io::PipeWriter) -> io::Result<()> {
    let signals = match set_up(guardian) {
        Ok(signals) => signals,
        Err(error) => {
            io::Write::write_all(&mut says_ready, error.to_string().as_bytes())?;
            return Err(error);
        }
    };
    io::Write::write_all(&mut says_ready, READY.as_bytes())?;
    drop(says_ready);
    loop {
        let mut fds = [
            PollFd::new(guardian, PollFlags::IN),
            PollFd::new(alarm, PollFlags::IN),
            PollFd::new(&signals, PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if !fds[0].revents().is_empty() {
            return Ok(());
        }
        if alarm.fired() {
            return Ok(());
        }
        while signals.read_signal()?.is_some() {}
        reap()?;
    }
}

fn set_up(guardian: &OwnedFd) -> io::Result<SignalFd> {
    rustix::process::set_parent_process_death_signal(Some(Kill::KILL))?;
    // The guardian may have died before the line above. getppid() cannot tell from in here.
    let mut fds = [PollFd::new(guardian, PollFlags::IN)];
    if poll(&mut fds, Some(&rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 }))? > 0 {
        return Err(io::Error::other("the guardian died"));
    }
    rustix::process::setsid()?;
    rustix::process::chdir("/")?;
    unshare(CloneFlags::CLONE_NEWNS)?;
    // Mounts made later on the host appear in here; none made in here appears there.
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    mount(
        "proc",
        "/proc",
        "proc",
        MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
        None,
    )?;
    rustix::thread::set_name(c"holdfast-init")?;
    hardening::lock_memory();
    SigSet::all().thread_set_mask()?;
    let mut orphans = SigSet::empty();
    orphans.add(Signal::SIGCHLD);
    Ok(SignalFd::with_flags(&orphans, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}

fn reap() -> io::Result<()> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(()),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether the root mount is shared, so that mounts made on the host reach the init's namespace.
pub(super) fn root_is_shared() -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let roots = mounts.lines().filter_map(|line| line.split_once(" - "));
    let root = roots.map(|(mount, _)| mount).rfind(|mount| mount.split(' ').nth(4) == Some("/"));
    root.is_some_and(|mount| mount.split(' ').any(|field| field.starts_with("shared:")))
}
