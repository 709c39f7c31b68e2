//! The calls that the compiler cannot check.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::{ForkResult, Pid};

/// Forks. The process must have one thread only, as the guardian and the launcher do: then the
/// child may do anything.
pub(crate) fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: with a single thread no lock is held by another thread at the time of the fork, so
    // the child may allocate and call anything. No thread is ever started in this program.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Some(child)),
        ForkResult::Child => Ok(None),
    }
}

/// From `linux/sched.h`. The libc crate's constant of that name is an `int`, in which the bit is
/// lost: the child would be born in its parent's cgroup.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Forks like [`fork`], the child being born in a cgroup: not for an instant is it outside of it,
/// and if that is frozen it does not begin (`CLONE_INTO_CGROUP`, clone(2)).
pub(crate) fn fork_into(cgroup: BorrowedFd<'_>) -> io::Result<Option<Pid>> {
    // SAFETY: all-zero is what clone3 takes for "not used".
    let mut how: libc::clone_args = unsafe { std::mem::zeroed() };
    how.flags = CLONE_INTO_CGROUP;
    how.exit_signal = libc::SIGCHLD as u64;
    how.cgroup = u64::try_from(cgroup.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let size = std::mem::size_of::<libc::clone_args>();
    // SAFETY: the structure lives through the call and its size is told. Without CLONE_VM and with
    // no stack given this is a fork; with a single thread the child may do anything, as above.
    match unsafe { libc::syscall(libc::SYS_clone3, &raw mut how, size) } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        pid => Ok(Some(Pid::from_raw(
            libc::pid_t::try_from(pid).map_err(|_| io::ErrorKind::InvalidData)?,
        ))),
    }
}

/// Runs the calling process under SCHED_FIFO (sched(7)).
pub(crate) fn set_fifo(priority: i32) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: the pointer is to a live, initialised structure that the call only reads.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Gives SIGPIPE its default action back, which Rust's runtime ignores: a program that is executed
/// inherits that, and would not expect it.
pub(crate) fn default_sigpipe() -> io::Result<()> {
    // SAFETY: the default action is no handler, so there is no code that could run at a bad time.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }?;
    Ok(())
}
