//! The launcher: runs one program under the fence (DESIGN section 5, rule 3).
//!
//! The program's process is *born* below the ancestor and in the init's pid and mount namespaces:
//! there is no instant at which it runs and a freeze of the ancestor misses it. The launcher itself
//! stays outside, so that everything in the ancestor is in the namespace and dies with its init,
//! and so that a launcher whose program is frozen still hears its caller.
//! Otherwise it is like nsenter(1): stdio and environment are passed on, signals and the exit
//! status too.
//!
//! Outside of the ancestor the launcher itself is seen by nobody. One that outlived its caller (a
//! daemon that was killed) could start a container long after it moved on: the next daemon looks
//! below the ancestor for what is not its own before it lets anything thaw, and would find nothing.
//! So the program is executed only if the caller is found alive *after* its process was born below
//! the ancestor. Then whoever comes after that caller finds it there.

use std::ffi::{CString, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use holdfast_types::Code;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::execvp;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal as Death, pidfd_open};

use crate::ChildPath;
use crate::sys;
use crate::unified::{membership_of, own_membership};

/// What to run, and where.
#[derive(Debug, Clone)]
pub struct EnterOptions {
    /// The init of the protected namespaces, as the guardian's status tells.
    pub init_pid: i32,
    /// Who starts it: the parent of the calling process. Nothing is begun once it is dead.
    pub caller_pid: i32,
    /// The ancestor cgroup.
    pub ancestor: PathBuf,
    /// The cgroup below it to run in; made if need be.
    pub child: ChildPath,
    /// The program and its arguments.
    pub command: Vec<OsString>,
}

/// Why the program was not run.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// No program was named, or an argument holds a NUL.
    #[error("no program to run, or an argument that holds a NUL character")]
    Command,
    /// The ancestor is no directory of the unified hierarchy.
    #[error("{0} is not below the unified cgroup mount, or has no guardian")]
    Ancestor(PathBuf),
    /// The process is not the init of a pid namespace, or gone.
    #[error("process {0} is not the init of a pid namespace below this one")]
    NotInit(i32),
    /// The process that is to be served did not start this one, or is gone.
    #[error("process {0} is not the caller, or is gone")]
    Caller(i32),
    /// A step failed.
    #[error("{what} failed")]
    Step {
        /// Which step.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl EnterError {
    /// The stable code of this failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Command | Self::Ancestor(_) => Code::InvalidArgument,
            Self::NotInit(_) | Self::Caller(_) | Self::Step { .. } => Code::Guardian,
        }
    }

    fn step(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Step { what, source }
    }
}

/// Runs the program and returns its exit status: 128 + n if signal n ended it, 127 if it could
/// not be executed. The calling process changes its mount namespace, and must have one thread.
pub fn enter(options: &EnterOptions) -> Result<i32, EnterError> {
    let command = c_strings(&options.command)?;
    let caller = open_caller(options.caller_pid)?;
    let init = open_init(options.init_pid)?;
    let (cgroup, membership) = open_cgroup(options)?;
    setns(&init, CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS)
        .map_err(|error| EnterError::step("entering the namespaces")(error.into()))?;
    let watched = watched_signals();
    let before = watched
        .thread_swap_mask(SigmaskHow::SIG_BLOCK)
        .map_err(|error| EnterError::step("blocking signals")(error.into()))?;
    let launcher = pidfd_of_self().map_err(EnterError::step("opening the launcher"))?;
    match sys::fork_into(cgroup.as_fd()).map_err(EnterError::step("starting in the cgroup"))? {
        None => {
            std::process::exit(be_program([&launcher, &caller], &membership, &before, &command))
        }
        Some(child) => watch(child, &watched).map_err(EnterError::step("waiting")),
    }
}

fn c_strings(command: &[OsString]) -> Result<Vec<CString>, EnterError> {
    let strings: Result<Vec<_>, _> =
        command.iter().map(|text| CString::new(text.clone().into_vec())).collect();
    strings.ok().filter(|list| !list.is_empty()).ok_or(EnterError::Command)
}

/// A descriptor of the parent, if that still is who called.
fn open_caller(pid: i32) -> Result<OwnedFd, EnterError> {
    let not_caller = || EnterError::Caller(pid);
    let number = Pid::from_raw(pid).ok_or_else(not_caller)?;
    let caller = pidfd_open(number, PidfdFlags::empty()).map_err(|_| not_caller())?;
    // While it is the parent nobody else has its number; so that is whom the descriptor means.
    if rustix::process::getppid() == Some(number) { Ok(caller) } else { Err(not_caller()) }
}

/// A descriptor of the init, which keeps meaning that process if its number is used again.
fn open_init(pid: i32) -> Result<OwnedFd, EnterError> {
    let not_init = || EnterError::NotInit(pid);
    let number = Pid::from_raw(pid).filter(|_| pid > 1).ok_or_else(not_init)?;
    let init = pidfd_open(number, PidfdFlags::empty()).map_err(|_| not_init())?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).map_err(|_| not_init())?;
    // proc(5): its number in each nested pid namespace, from this one inwards.
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    if numbers.split_whitespace().skip(1).last() == Some("1") { Ok(init) } else { Err(not_init()) }
}

/// The cgroup, made if need be, and what `/proc/self/cgroup` says to its members.
fn open_cgroup(options: &EnterOptions) -> Result<(File, PathBuf), EnterError> {
    // A wrong path that is no cgroup, or that is the whole hierarchy, is refused before anything
    // is made of it.
    if membership_of(&options.ancestor).is_none() || !options.ancestor.is_dir() {
        return Err(EnterError::Ancestor(options.ancestor.clone()));
    }
    let child = options.ancestor.join(options.child.as_path());
    let membership =
        membership_of(&child).ok_or_else(|| EnterError::Ancestor(options.ancestor.clone()))?;
    fs::create_dir_all(&child).map_err(EnterError::step("making the cgroup"))?;
    let cgroup = File::open(&child).map_err(EnterError::step("opening the cgroup"))?;
    Ok((cgroup, membership))
}

fn pidfd_of_self() -> io::Result<OwnedFd> {
    // Not /proc/self: that is the init's by now, and numbers other processes.
    Ok(pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?)
}

/// `needed` are processes without which the program is not executed.
fn be_program(needed: [&OwnedFd; 2], membership: &Path, mask: &SigSet, command: &[CString]) -> i32 {
    let run = || -> io::Result<()> {
        rustix::process::set_parent_process_death_signal(Some(Death::KILL))?;
        let mut fds = needed.map(|process| PollFd::new(process, PollFlags::IN));
        if poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? > 0 {
            return Err(io::Error::other("the launcher or its caller died"));
        }
        // The kernel put this process there. Nothing is executed unless it says so as well.
        if own_membership().as_deref() != Some(membership) {
            return Err(io::Error::other("the process is not below the ancestor"));
        }
        mask.thread_set_mask()?;
        sys::default_sigpipe()?;
        match execvp(&command[0], command)? {}
    };
    match run() {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("{}: cannot run {:?}: {error}", Code::Guardian, command[0]);
            127
        }
    }
}

fn watched_signals() -> SigSet {
    let mut set = SigSet::empty();
    for signal in [
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGQUIT,
        Signal::SIGWINCH,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
    ] {
        set.add(signal);
    }
    set
}

/// Passes signals on until the program ends.
fn watch(child: nix::unistd::Pid, watched: &SigSet) -> io::Result<i32> {
    let signals = nix::sys::signalfd::SignalFd::new(watched)?;
    loop {
        let Some(info) = signals.read_signal()? else { continue };
        let signal = i32::try_from(info.ssi_signo).ok().and_then(|n| Signal::try_from(n).ok());
        // One that the terminal sent (SI_KERNEL) reached the program by itself.
        let by_terminal = info.ssi_code == nix::libc::SI_KERNEL;
        match signal {
            Some(Signal::SIGCHLD) => match waitpid(child, Some(WaitPidFlag::WNOHANG))? {
                WaitStatus::Exited(_, status) => return Ok(status),
                WaitStatus::Signaled(_, signal, _) => return Ok(128 + signal as i32),
                _ => {}
            },
            Some(signal) if !by_terminal => match kill(child, signal) {
                Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
                Err(error) => return Err(error.into()),
            },
            _ => {}
        }
    }
}
