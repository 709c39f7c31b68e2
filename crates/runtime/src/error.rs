//! What can go wrong with a running container.

use std::io;
use std::path::PathBuf;

use holdfast_types::{Code, ContainerUid};

/// Why a runtime call failed.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// A needed program is not installed.
    #[error("{tool} is not installed: install the Debian package {package}")]
    MissingTool {
        /// The program.
        tool: String,
        /// The package that has it.
        package: &'static str,
    },
    /// No cgroup hierarchy that can do what is needed.
    #[error("cgroups are not usable here: {0}")]
    Cgroups(&'static str),
    /// A value that cannot be passed on.
    #[error("{what} cannot be used: {why}")]
    Invalid {
        /// Which value.
        what: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The root filesystem has no program to start.
    #[error("{} does not exist in the container's root: it has no init to start", path.display())]
    NoInit {
        /// The program that was to be init.
        path: PathBuf,
    },
    /// Init could not be started, or ended at once.
    #[error("container {uid} did not start: {last_lines}")]
    StartFailed {
        /// The container.
        uid: ContainerUid,
        /// The last lines of its log and console.
        last_lines: String,
    },
    /// A call overran its deadline and was killed; what it was to do may be done or not.
    #[error("{what} did not finish within {after_ms} ms: {last_lines}")]
    Timeout {
        /// What was run.
        what: &'static str,
        /// The deadline.
        after_ms: u64,
        /// The last lines of what it said.
        last_lines: String,
    },
    /// A helper program failed.
    #[error("{what} failed: {last_lines}")]
    Helper {
        /// What was run.
        what: &'static str,
        /// The last lines of what it said.
        last_lines: String,
    },
    /// The call needs a running container.
    #[error("container {0} is not running")]
    NotRunning(ContainerUid),
    /// The call needs a container that is not frozen, by itself or with all of its side.
    #[error("container {0} is frozen, or would be at once")]
    Frozen(ContainerUid),
    /// The call needs a stopped container.
    #[error("container {0} is running")]
    StillRunning(ContainerUid),
    /// Tasks of the container are still there though they were killed: they are in an
    /// uninterruptible sleep, so its volume is not free yet.
    #[error("container {uid} still has tasks {after_ms} ms after it was killed")]
    Unkillable {
        /// The container.
        uid: ContainerUid,
        /// How long was waited.
        after_ms: u64,
    },
    /// The guardian is not there, so nothing protected can be entered.
    #[error("the guardian cannot be entered: {0}")]
    Guardian(String),
    /// The kernel refused.
    #[error("{what}: {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl RuntimeError {
    /// The stable code of this failure.
    pub fn code(&self) -> Code {
        match self {
            Self::MissingTool { .. } => Code::MissingTool,
            Self::Cgroups(_) => Code::Config,
            Self::Invalid { .. } => Code::InvalidArgument,
            Self::NoInit { .. } => Code::BadImage,
            Self::StartFailed { .. } | Self::Helper { .. } | Self::Io { .. } => Code::Runtime,
            Self::Timeout { .. } | Self::Unkillable { .. } => Code::Timeout,
            Self::NotRunning(_) | Self::Frozen(_) | Self::StillRunning(_) => Code::WrongState,
            Self::Guardian(_) => Code::Guardian,
        }
    }
}

/// Attaches the attempt and the file to a kernel error.
pub(crate) fn io_error(
    what: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(io::Error) -> RuntimeError {
    let path = path.into();
    move |source| RuntimeError::Io { what, path, source }
}
