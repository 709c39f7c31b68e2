//! What the guardian is told when it starts, and why it may not start.

use std::io;
use std::num::NonZeroU32;
use std::path::PathBuf;

use holdfast_types::Code;
use rustix::process::Pid;

/// How the guardian is to run.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Where it listens.
    pub socket: PathBuf,
    /// The ancestor cgroup, an absolute path in the unified hierarchy; made if need be.
    pub ancestor: PathBuf,
    /// The link group of the protected containers' host-side veths.
    pub link_group: NonZeroU32,
    /// `F` of DESIGN section 5.
    pub fence_budget_ms: u64,
    /// What to do when a kill could not be delivered.
    pub last_resort: LastResort,
    /// The real-time clock's seconds in sysfs.
    pub rtc: PathBuf,
}

/// `F` unless told otherwise.
pub const DEFAULT_FENCE_BUDGET_MS: u64 = 500;

/// The first real-time clock of the machine (`Documentation/ABI/testing/rtc-cdev`'s neighbour,
/// `sysfs-class-rtc`).
pub const DEFAULT_RTC: &str = "/sys/class/rtc/rtc0/since_epoch";

/// What to do when the kernel took no SIGKILL for what is still running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastResort {
    /// Nothing more: the guardian's own timer ends it, and its namespace with it.
    None,
    /// Kill this process: in the lab, the node's own init.
    KillPid(Pid),
    /// Reboot the machine at once. The packaged systemd unit asks for it; nothing else may.
    Reboot,
}

impl LastResort {
    /// Reads `none`, `kill-pid=PID` or `reboot`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "none" => Some(Self::None),
            "reboot" => Some(Self::Reboot),
            _ => {
                let pid: i32 = text.strip_prefix("kill-pid=")?.parse().ok()?;
                // 1 would be the machine's init when the guardian runs outside of the lab.
                (pid > 1).then(|| Pid::from_raw(pid).map(Self::KillPid)).flatten()
            }
        }
    }

    pub(super) fn take(self) -> io::Result<()> {
        match self {
            Self::None => Ok(()),
            Self::KillPid(pid) => {
                Ok(rustix::process::kill_process(pid, rustix::process::Signal::KILL)?)
            }
            Self::Reboot => {
                nix::sys::reboot::reboot(nix::sys::reboot::RebootMode::RB_AUTOBOOT)?;
                Ok(())
            }
        }
    }
}

/// Why the guardian did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Not root.
    #[error("the guardian must run as root")]
    NotRoot,
    /// The fence budget is out of range.
    #[error("a fence budget of {0} ms is out of range: use 50 to 10000")]
    Budget(u64),
    /// The ancestor is not below a cgroup2 mount, or is the whole hierarchy.
    #[error("{0} is no absolute path of a cgroup below a cgroup2 mount")]
    NoCgroup(PathBuf),
    /// The ancestor is not usable.
    #[error("the ancestor cgroup {path} cannot be used (it takes Linux 5.14 or newer)")]
    Ancestor {
        /// The directory.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Another guardian holds the ancestor.
    #[error("another guardian holds {0}")]
    Busy(PathBuf),
    /// The guardian would freeze itself.
    #[error("the guardian itself runs below the ancestor {0}")]
    Inside(PathBuf),
    /// The socket cannot be made.
    #[error("cannot listen at {path}")]
    Socket {
        /// The socket.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A step that the guardian cannot do without failed. Everything protected dies with it.
    #[error("{what} failed")]
    Step {
        /// Which step.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The protected pid namespace's init died, and everything in it.
    #[error("the protected namespace's init died, and everything protected with it")]
    InitDied,
}

impl ServeError {
    /// The stable code of this failure.
    pub fn code(&self) -> Code {
        match self {
            Self::NotRoot => Code::NotRoot,
            Self::Budget(_) | Self::Inside(_) | Self::NoCgroup(_) => Code::Config,
            Self::Busy(_) => Code::InUse,
            Self::Ancestor { .. } | Self::Socket { .. } | Self::Step { .. } | Self::InitDied => {
                Code::Guardian
            }
        }
    }

    pub(super) fn step(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Step { what, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_resort_is_spelt_out() {
        assert_eq!(LastResort::parse("none"), Some(LastResort::None));
        assert!(matches!(LastResort::parse("kill-pid=42"), Some(LastResort::KillPid(_))));
        for bad in ["", "kill-pid=", "kill-pid=0", "kill-pid=1", "kill-pid=-1", "reboot now"] {
            assert_eq!(LastResort::parse(bad), None, "{bad}");
        }
    }
}
