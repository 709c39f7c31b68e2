//! A new log that begins with a given state, with this node as its only voter.
//!
//! What a recovery and a restore have in common. The directory that is made has a snapshot and an
//! empty log after it, as if everything before had been purged; its first term and index are
//! far above whatever else anybody may have seen, so that no view, revision or leader of before is
//! ever taken for a newer one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use holdfast_core::State;
use openraft::BasicNode;
use openraft::impls::leader_id_std::LeaderId;
use openraft::storage::RaftLogStorage;
use openraft::vote::RaftLeaderIdExt;

use crate::config::Identity;
use crate::error::RaftError;
use crate::snapshot::SnapshotFile;
use crate::store::{Health, LogStore};
use crate::types::{LogId, Membership, SnapshotMeta, Vote};
use crate::{dir, generation};

/// How far an index leaps: more than a lost majority can have written since.
pub(crate) const INDEX_LEAP: u64 = 1_000_000_000_000;

/// How far a term leaps.
pub(crate) const TERM_LEAP: u64 = 1_000_000;

/// What a log begins with.
pub(crate) struct Seed {
    pub(crate) identity: Identity,
    pub(crate) generation: u64,
    /// Where others reach the node.
    pub(crate) address: String,
    /// Of the entry that the state is as of.
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) state: State,
}

impl Seed {
    /// Makes the directory, durably, once all of it is there. What was begun there before goes.
    pub(crate) async fn plant(self, at: &Path) -> Result<(), RaftError> {
        let building = at.with_extension("building");
        remove(&building)?;
        generation::write(&building, self.generation)?;
        dir::claim(&building, self.identity)?;
        let id = self.log_id();
        let health = Health::new();
        let path = dir::snapshot_file(&building);
        let (file, _) = SnapshotFile::open(path, self.identity.cluster, health.clone())?;
        file.build(self.meta(id)?, &self.state)?;
        let mut log = LogStore::open(&dir::log_dir(&building), health)?;
        let mut closed = log.closed();
        let disk = |e: io::Error| RaftError::disk(&building, &e);
        log.save_vote(&Vote::new(self.term, self.identity.node.0)).await.map_err(disk)?;
        log.purge(id).await.map_err(disk)?;
        drop(log);
        // An error says that the thread is gone, and its files with it.
        drop(closed.wait_for(|closed| *closed).await);
        dir::sync_dir(&building)?;
        rename(&building, at)
    }

    fn log_id(&self) -> LogId {
        let leader = LeaderId::new_committed(self.term, self.identity.node.0);
        LogId::new(leader, self.index)
    }

    fn meta(&self, id: LogId) -> Result<SnapshotMeta, RaftError> {
        let me = self.identity.node.0;
        let nodes = BTreeMap::from([(me, BasicNode::new(&self.address))]);
        let members = openraft::Membership::new(vec![BTreeSet::from([me])], nodes)
            .map_err(|e| RaftError::Internal { what: e.to_string() })?;
        let last_membership = Membership::new(Some(id), members);
        Ok(SnapshotMeta { last_log_id: Some(id), last_membership })
    }
}

/// Lays a state down in `dir`, where no node was ever started: one that is started there is the only
/// voter of a cluster that has agreed on all of it, up to and with the entry at `index`.
pub async fn seed(
    dir: &Path,
    identity: Identity,
    address: String,
    index: u64,
    state: State,
) -> Result<(), RaftError> {
    if dir.exists() {
        return Err(RaftError::AlreadyInitialized);
    }
    Seed { identity, generation: 0, address, index, term: 1, state }.plant(dir).await
}

/// Renames a directory, durably.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), RaftError> {
    fs::rename(from, to).map_err(|e| RaftError::disk(from, &e))?;
    dir::sync_dir(to.parent().unwrap_or(Path::new("/")))
}

fn remove(dir: &Path) -> Result<(), RaftError> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(RaftError::disk(dir, &e)),
        _ => Ok(()),
    }
}
