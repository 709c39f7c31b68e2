//! The data directory: one daemon at a time, and nothing guessed about what is in it.
//!
//! ```text
//! <data_dir>/lock        held while the daemon runs
//! <data_dir>/identity    who this machine is
//! <data_dir>/raft/       consensus: its own identity, log, snapshot
//! ```

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use holdfast_core::NodeRole;
use holdfast_raft::RaftNode;
use rustix::fs::{FlockOperation, flock};

use crate::config::Config;
use crate::error::DaemonError;
use crate::identity::Identity;

/// The data directory, locked until dropped.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes the directory if need be, and takes its lock.
    pub(crate) fn open(path: &Path) -> Result<Self, DaemonError> {
        let disk = |source: io::Error| DaemonError::Disk { path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(disk)?;
        let file = path.join("lock");
        let disk = |source: io::Error| DaemonError::Disk { path: file.clone(), source };
        let lock = File::options().create(true).append(true).open(&file).map_err(disk)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(DaemonError::Locked { file }),
            Err(e) => Err(disk(e.into())),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where consensus keeps its files.
    pub(crate) fn raft(&self) -> PathBuf {
        self.path.join("raft")
    }

    /// Who this machine is, if it is part of a cluster, once everything agrees on it.
    pub(crate) fn identity(&self, config: &Config) -> Result<Option<Identity>, DaemonError> {
        let file = Identity::file(&self.path);
        let consensus = RaftNode::identity(&self.raft())?;
        let Some(identity) = Identity::read(&self.path)? else {
            return match consensus {
                None => Ok(None),
                Some(_) => {
                    let what = "it is missing beside a log; a node that lost it joins anew, with \
                                an empty data directory and under a new name";
                    Err(DaemonError::Corrupt { file, what: what.into() })
                }
            };
        };
        let mismatch = |what: String| Err(DaemonError::Mismatch { file: file.clone(), what });
        if identity.name != config.name {
            return mismatch(format!("this is node {}, not {}", identity.name, config.name));
        }
        if identity.address != config.advertise {
            let (old, new) = (&identity.address, &config.advertise);
            return mismatch(format!("the cluster knows this node at {old}, not at {new}"));
        }
        match (identity.role, consensus) {
            (NodeRole::Worker, _) => {}
            (_, Some(found))
                if (found.cluster, found.node) == (identity.cluster, identity.node) => {}
            (_, Some(found)) => {
                let (cluster, node) = (found.cluster, found.node);
                let file = self.raft().join("identity");
                let what = format!("its log is of node {node} of cluster {cluster}");
                return Err(DaemonError::Mismatch { file, what });
            }
            // An empty log under an old id could vote twice.
            (_, None) => {
                let what = "the log of this node is gone; it joins anew, with an empty data \
                            directory and under a new name";
                return Err(DaemonError::Corrupt { file: self.raft(), what: what.into() });
            }
        }
        Ok(Some(identity))
    }

    /// Removes a log that no cluster knows of.
    pub(crate) fn discard_raft(&self) -> Result<(), DaemonError> {
        let path = self.raft();
        match fs::remove_dir_all(&path) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(DaemonError::Disk { path, source }),
        }
    }
}
