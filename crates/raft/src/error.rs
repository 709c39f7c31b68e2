//! Everything that can go wrong here, one variant for each thing a caller can act on.

use std::io;
use std::path::{Path, PathBuf};

use holdfast_types::{ClusterId, Code, FeatureLevel, NodeId};

use crate::leadership::Peer;

/// Why consensus refused, or could not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RaftError {
    /// This node does not lead. Retry at `leader`, or after a pause if none is known.
    #[error("this node does not lead; {}", leader_hint(.leader))]
    NotLeader {
        /// The leader that this node heard from lately.
        leader: Option<Peer>,
    },
    /// The leader is of a version that answers no questions of readers elsewhere: what is to be read
    /// must be asked of it whole.
    #[error("the leader is of an older version, which other nodes cannot read through")]
    OldLeader,
    /// No leader with a majority behind it answered in time. An entry that was proposed may
    /// still commit: retry it with the same request id.
    #[error("no quorum: a majority of the voters did not answer in time")]
    NoQuorum,
    /// The deadline passed. An entry that was proposed may still commit.
    #[error("the deadline passed before the outcome was known")]
    Timeout,
    /// The encoded entry or snapshot is larger than allowed.
    #[error("{size_bytes} bytes are more than the limit of {limit_bytes}")]
    TooLarge {
        /// As encoded.
        size_bytes: usize,
        /// What is allowed.
        limit_bytes: usize,
    },
    /// The data directory belongs to another cluster.
    #[error("{} belongs to cluster {found}, not {expected}", file.display())]
    WrongCluster {
        /// The identity file.
        file: PathBuf,
        /// The configured cluster.
        expected: ClusterId,
        /// The cluster that the file names.
        found: ClusterId,
    },
    /// The data directory belongs to another node.
    #[error("{} belongs to node {found}, not {expected}", file.display())]
    WrongNode {
        /// The identity file.
        file: PathBuf,
        /// The configured node.
        expected: NodeId,
        /// The node that the file names.
        found: NodeId,
    },
    /// A file of ours is damaged. Nothing was guessed; the node must rejoin under a new id.
    #[error("{} is damaged: {what}", file.display())]
    Corrupt {
        /// The file.
        file: PathBuf,
        /// What was found.
        what: String,
    },
    /// The disk answered with an error. The file is not trusted again in this process.
    #[error("{}: {what}{}", path.display(), advice(what))]
    DiskIo {
        /// The file or directory.
        path: PathBuf,
        /// The system's words.
        what: String,
    },
    /// Another process, or an earlier node of this one, still has the data directory open.
    #[error("{} is in use by another process", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// sled's flushes do not reach our `fdatasync` in this binary.
    #[error("sync_file_range is not redirected to fdatasync in this binary: the log is not safe")]
    FlushNotRedirected,
    /// The node was initialised before, or has heard from a cluster.
    #[error("this node is already a member of a cluster")]
    AlreadyInitialized,
    /// The node must be added as a learner before it becomes a voter.
    #[error("node {node} is not a member")]
    NotMember {
        /// The node.
        node: NodeId,
    },
    /// Another change of the membership is under way.
    #[error("another change of the membership is under way")]
    MembershipBusy,
    /// The change of the membership makes no sense.
    #[error("the membership cannot change so: {what}")]
    Membership {
        /// Why.
        what: String,
    },
    /// The cluster was recovered from a lost majority without this node.
    #[error("the cluster was recovered without this node, whose log counts for nothing any more")]
    Superseded,
    /// A recovery of this log was begun and not finished.
    #[error("a recovery was begun here and not finished: holdfast cluster recover goes on with it")]
    RecoveryUnfinished {
        /// What waits to be put in its place.
        path: PathBuf,
    },
    /// A recovery or a restore makes no sense here.
    #[error("{what}")]
    NothingToRecover {
        /// Why.
        what: String,
    },
    /// This version cannot read what its cluster says.
    #[error("this version of holdfast is too old: {what}; install the one that the cluster runs")]
    VersionTooOld {
        /// What it cannot read.
        what: String,
    },
    /// Some node could not read the entry. It was not proposed.
    #[error(
        "this needs feature level {needs}, and the cluster has {level}: a node runs an older version"
    )]
    FeatureLevel {
        /// What the entry needs.
        needs: FeatureLevel,
        /// What is in force.
        level: FeatureLevel,
    },
    /// A setting is out of range.
    #[error("{what}")]
    Config {
        /// Which, and why.
        what: String,
    },
    /// The node was shut down.
    #[error("consensus has stopped on this node")]
    Stopped,
    /// One of our own invariants does not hold.
    #[error("consensus failed: {what}")]
    Internal {
        /// What was found.
        what: String,
    },
}

impl RaftError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::NotLeader { .. } | Self::OldLeader => Code::NotLeader,
            Self::NoQuorum => Code::NoQuorum,
            Self::Timeout => Code::Timeout,
            Self::TooLarge { .. } => Code::TooLarge,
            Self::WrongCluster { .. } => Code::WrongCluster,
            Self::WrongNode { .. } | Self::Config { .. } => Code::Config,
            Self::Corrupt { .. } => Code::Corrupt,
            Self::DiskIo { .. } => Code::DiskIo,
            Self::InUse { .. } => Code::InUse,
            Self::NotMember { .. } => Code::NotFound,
            Self::AlreadyInitialized
            | Self::MembershipBusy
            | Self::Membership { .. }
            | Self::NothingToRecover { .. } => Code::WrongState,
            Self::Superseded => Code::Superseded,
            Self::RecoveryUnfinished { .. } => Code::RecoveryUnfinished,
            Self::VersionTooOld { .. } => Code::VersionTooOld,
            Self::FeatureLevel { .. } => Code::FeatureLevel,
            Self::Stopped => Code::Unavailable,
            Self::FlushNotRedirected | Self::Internal { .. } => Code::Internal,
        }
    }

    /// Whether it is for want of room on the disk.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self, Self::DiskIo { what, .. } if is_full(what))
    }

    pub(crate) fn disk(path: &Path, error: &io::Error) -> Self {
        Self::DiskIo { path: path.to_owned(), what: error.to_string() }
    }

    pub(crate) fn corrupt(file: &Path, what: impl Into<String>) -> Self {
        Self::Corrupt { file: file.to_owned(), what: what.into() }
    }
}

impl From<RaftError> for io::Error {
    fn from(error: RaftError) -> Self {
        Self::other(error)
    }
}

/// What to do about a failure of the disk, where that is plain from the system's words.
fn advice(what: &str) -> &'static str {
    match is_full(what) {
        true => "; free space on that filesystem, then start the daemon again: nothing is lost",
        false => "",
    }
}

fn is_full(what: &str) -> bool {
    // As std prints ENOSPC and EDQUOT, and as sled does.
    let full = ["os error 28", "os error 122", "StorageFull", "QuotaExceeded"];
    full.iter().any(|words| what.contains(words))
}

fn leader_hint(leader: &Option<Peer>) -> String {
    match leader {
        Some(peer) => format!("node {} at {} does", peer.node, peer.addr),
        None => "no leader is known".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_says_what_to_do() {
        let full = io::Error::from_raw_os_error(28);
        let (plain, sled) = (full.to_string(), sled::Error::Io(full).to_string());
        for what in [plain, sled] {
            let error = RaftError::DiskIo { path: "/d".into(), what };
            assert!(error.to_string().contains("free space"), "{error}");
        }
        let broken = RaftError::disk(Path::new("/d"), &io::Error::from_raw_os_error(5));
        assert!(!broken.to_string().contains("free space"), "{broken}");
    }
}
