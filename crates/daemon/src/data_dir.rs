//! The data directory: one daemon at a time, and nothing guessed about what is in it.
//!
//! ```text
//! <data_dir>/lock        held while the daemon runs
//! <data_dir>/identity    who this machine is
//! <data_dir>/removed     there once the cluster has let this node go
//! <data_dir>/raft/       consensus: its own identity, log, snapshot
//! <data_dir>/raft.*      logs kept after a disaster, or waiting to be put in place (`holdfast_raft::recover`)
//! ```

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use holdfast_core::NodeRole;
use holdfast_raft::RaftNode;
use rustix::fs::{FlockOperation, flock};
use tracing::warn;

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
        // Also one that was there: keys are in it.
        let owner_only = fs::Permissions::from_mode(0o700);
        fs::set_permissions(path, owner_only).map_err(disk)?;
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
        if let Some(why) = self.removed()? {
            return Err(DaemonError::Removed { file: self.removed_file(), why });
        }
        let file = Identity::file(&self.path);
        let consensus = RaftNode::identity(&self.raft())?;
        let Some(identity) = Identity::read(&self.path)? else {
            return match consensus {
                None => Ok(None),
                Some(_) => {
                    let what = "it is missing beside a log. Move raft* away and keep it: it may be \
                                all that survives of a cluster (leave pool*). Where a restore was cut \
                                short, restore again then; a node that lost its identity is removed \
                                from its cluster (holdfast node rm), and joins anew";
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
        // Written after the log was opened for the first time.
        let has_log = RaftNode::has_log(&self.raft());
        match (identity.role, consensus) {
            (NodeRole::Worker, _) => {}
            (_, Some(found))
                if has_log && (found.cluster, found.node) == (identity.cluster, identity.node) => {}
            (_, Some(found)) if has_log => {
                let (cluster, node) = (found.cluster, found.node);
                let file = self.raft().join("identity");
                let what = format!("its log is of node {node} of cluster {cluster}");
                return Err(DaemonError::Mismatch { file, what });
            }
            // An empty log under an old id could vote twice.
            (_, Some(_) | None) => {
                let what = "the log of this node is gone, and with it the votes that it cast: remove \
                            it from the cluster (holdfast node rm), move identity and raft* \
                            away (leave pool*), and let it join anew";
                return Err(DaemonError::Corrupt { file: self.raft(), what: what.into() });
            }
        }
        if RaftNode::is_superseded(&self.raft()) {
            return self.step_down(identity).map(Some);
        }
        Ok(Some(identity))
    }

    /// Notes that the cluster has removed this node: it takes no part any more, also after a restart.
    pub(crate) fn note_removed(&self, why: &str) -> Result<(), DaemonError> {
        let file = self.removed_file();
        let write = || {
            let mut out = File::create(&file)?;
            out.write_all(format!("{why}\n").as_bytes())?;
            out.sync_all()?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(|source| DaemonError::Disk { path: file.clone(), source })
    }

    fn removed(&self) -> Result<Option<String>, DaemonError> {
        let file = self.removed_file();
        match fs::read(&file) {
            Ok(why) => Ok(Some(String::from_utf8_lossy(&why).trim().to_owned())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(DaemonError::Disk { path: file, source }),
        }
    }

    fn removed_file(&self) -> PathBuf {
        self.path.join("removed")
    }

    /// The cluster was recovered from a lost majority without this node: it goes on as a worker. Its
    /// log is kept for whoever looks for what was lost. Safe to be cut short anywhere.
    fn step_down(&self, identity: Identity) -> Result<Identity, DaemonError> {
        let identity = Identity { role: NodeRole::Worker, ..identity };
        identity.write(&self.path)?;
        let (from, mut number) = (self.raft(), 1);
        let kept = |number| self.path.join(format!("raft.superseded-{number}"));
        while kept(number).exists() {
            number += 1;
        }
        let to = kept(number);
        let moved = fs::rename(&from, &to)
            .and_then(|()| File::open(&self.path)?.sync_all())
            .map_err(|source| DaemonError::Disk { path: from, source });
        moved?;
        warn!(kept = %to.display(), "the cluster was recovered without this node's log: it has no \
            vote any more, and goes on as a worker");
        Ok(identity)
    }

    /// Removes a log that no cluster knows of, and first what says whose it is.
    pub(crate) fn discard_raft(&self) -> Result<(), DaemonError> {
        let file = Identity::file(&self.path);
        match fs::remove_file(&file).and_then(|()| File::open(&self.path)?.sync_all()) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(DaemonError::Disk { path: file, source }),
        }
        let path = self.raft();
        match fs::remove_dir_all(&path) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(DaemonError::Disk { path, source }),
        }
    }
}
