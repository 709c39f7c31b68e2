//! Why the daemon does not start, or ends. Shown as one line: `holdfastd: HF-CODE: message`.

use std::io;
use std::path::PathBuf;

use holdfast_raft::RaftError;
use holdfast_types::Code;

use crate::machine::MachineError;

/// Why the daemon does not start, or ends.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The configuration is wrong.
    #[error("{}: {what}", file.display())]
    Config {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The configuration contradicts what the data directory says.
    #[error("{} says that {what}", file.display())]
    Mismatch {
        /// The file in the data directory.
        file: PathBuf,
        /// What it says.
        what: String,
    },
    /// The cluster has let this node go.
    #[error(
        "{why}; for the machine to be a node again, move identity, removed and raft* out of {}, leave \
         pool* there, and let it join anew",
        file.parent().unwrap_or(file).display()
    )]
    Removed {
        /// The file that says so.
        file: PathBuf,
        /// The cluster's words.
        why: String,
    },
    /// Not root.
    #[error("must run as root: it mounts volumes and runs containers")]
    NotRoot,
    /// What was asked for makes no sense here, or was not confirmed.
    #[error("{what}")]
    Refused {
        /// The stable code.
        code: Code,
        /// Why.
        what: String,
    },
    /// Another daemon has the data directory.
    #[error("{} is held by another holdfastd", file.display())]
    Locked {
        /// The lock.
        file: PathBuf,
    },
    /// A file of ours is damaged. Nothing was guessed.
    #[error("{} is damaged: {what}", file.display())]
    Corrupt {
        /// The file.
        file: PathBuf,
        /// What was found.
        what: String,
    },
    /// The disk answered with an error.
    #[error("{}: {source}", path.display())]
    Disk {
        /// The file or directory.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address or socket.
        address: String,
        /// The system's words.
        source: io::Error,
    },
    /// Consensus cannot start, or has failed.
    #[error(transparent)]
    Raft(#[from] RaftError),
    /// The machine cannot do its part.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// A task of ours ended that never should.
    #[error("{task} ended unexpectedly")]
    Ended {
        /// Which.
        task: &'static str,
    },
}

impl DaemonError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::Config { .. } | Self::Mismatch { .. } => Code::Config,
            Self::Removed { .. } => Code::NodeRemoved,
            Self::NotRoot => Code::NotRoot,
            Self::Refused { code, .. } => *code,
            Self::Locked { .. } => Code::InUse,
            Self::Corrupt { .. } => Code::Corrupt,
            Self::Disk { .. } => Code::DiskIo,
            Self::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                Code::AddressInUse
            }
            Self::Listen { .. } => Code::Config,
            Self::Raft(e) => e.code(),
            Self::Machine(e) => e.code,
            Self::Ended { .. } => Code::Internal,
        }
    }
}
