//! A backup's state becomes the beginning of a new cluster's log.

use std::path::Path;

use holdfast_core::{Command, Entry, NewNode, RestoreCluster, RestoredFrom, State, apply};
use holdfast_types::{ClusterId, RequestId, TimestampMs};

use crate::config::Identity;
use crate::error::RaftError;
use crate::generation;
use crate::recover::is_unfinished;
use crate::seed::{INDEX_LEAP, Seed, TERM_LEAP};

/// What a backup is to become.
#[derive(Debug, Clone)]
pub struct Restoring {
    /// The new cluster.
    pub cluster: ClusterId,
    /// Its first node.
    pub founder: NewNode,
    /// The backup.
    pub from: RestoredFrom,
    /// The term of its last entry.
    pub term: u64,
    /// Wall time.
    pub at: TimestampMs,
}

/// Makes a log in `dir`, where there is none, that begins with the backup's state; returns whose it
/// is. Before the directory is whole there is none.
pub async fn restore(
    dir: &Path,
    asked: Restoring,
    mut state: State,
) -> Result<Identity, RaftError> {
    if dir.exists() || is_unfinished(dir) || generation::is_superseded(dir) {
        return Err(RaftError::AlreadyInitialized);
    }
    let Restoring { cluster, founder, from, term, at } = asked;
    // From the state's own revision on: what is in it was never given out above that.
    let index = from.index.max(state.revision.0).saturating_add(INDEX_LEAP);
    let address = founder.address.clone();
    let command = RestoreCluster { cluster, founder, from };
    let identity = Identity { cluster, node: command.founder_id(&state, index) };
    let command = Command::RestoreCluster(command);
    let entry = Entry { request: RequestId::generate(), at, command };
    apply(&mut state, index, entry)
        .map_err(|refusal| RaftError::NothingToRecover { what: refusal.message })?;
    let term = term.saturating_add(TERM_LEAP);
    Seed { identity, generation: 0, address, index, term, state }.plant(dir).await?;
    Ok(identity)
}
