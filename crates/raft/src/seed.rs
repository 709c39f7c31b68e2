//! A directory that begins with a state, instead of with nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use holdfast_core::State;
use openraft::BasicNode;

use crate::config::Identity;
use crate::dir;
use crate::error::RaftError;
use crate::snapshot::SnapshotFile;
use crate::store::Health;
use crate::types::{LogId, Membership, SnapshotMeta};

/// Nobody led before: the node elects itself in the same term.
const TERM: u64 = 1;

/// Lays `state` down in a directory in which no node was ever started. A node that is started there
/// is the only member of a cluster, reached by others at `addr`, that has agreed on all of it, up to
/// and with the entry at `index`. Blocks.
pub fn seed(
    dir: &Path,
    identity: Identity,
    addr: &str,
    index: u64,
    state: &State,
) -> Result<(), RaftError> {
    let file = dir::snapshot_file(dir);
    if dir::read_identity(dir)?.is_some() || file.exists() || dir::log_dir(dir).exists() {
        return Err(RaftError::AlreadyInitialized);
    }
    dir::claim(dir, identity)?;
    let node = identity.node.0;
    let members = openraft::Membership::new(
        vec![BTreeSet::from([node])],
        BTreeMap::from([(node, BasicNode::new(addr))]),
    );
    let members = members.map_err(|e| RaftError::Internal { what: e.to_string() })?;
    let last = LogId::new_term_index(TERM, index);
    let last_membership = Membership::new(Some(last), members);
    let meta = SnapshotMeta { last_log_id: Some(last), last_membership };
    let (snapshots, _) = SnapshotFile::open(file, identity.cluster, Health::new())?;
    snapshots.build(meta, state).map(drop)
}
