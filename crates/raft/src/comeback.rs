//! Before a node takes part again: whom it knows from its log, to ask whether it still has a part.

use holdfast_types::NodeId;
use openraft::EntryPayload;
use openraft::storage::{RaftLogReader, RaftLogStorage, RaftStateMachine};

use crate::error::RaftError;
use crate::leadership::Peer;
use crate::machine::Machine;
use crate::store::LogStore;

/// Entries read at once, from the end.
const BATCH: u64 = 256;

/// The members by the newest membership in the log, else by the snapshot's.
pub(crate) async fn members(
    log: &mut LogStore,
    machine: &mut Machine,
) -> Result<Vec<Peer>, RaftError> {
    let broken = |e: std::io::Error| RaftError::Internal { what: e.to_string() };
    let heads = log.get_log_state().await.map_err(broken)?;
    let begins = heads.last_purged_log_id.map_or(0, |id| id.index + 1);
    let mut end = heads.last_log_id.map_or(0, |id| id.index + 1);
    let mut reader = log.get_log_reader().await;
    while end > begins {
        let from = end.saturating_sub(BATCH).max(begins);
        let entries = reader.try_get_log_entries(from..end).await.map_err(broken)?;
        for entry in entries.into_iter().rev() {
            if let EntryPayload::Membership(members) = entry.payload {
                return Ok(members.nodes().map(peer).collect());
            }
        }
        end = from;
    }
    let (_, membership) = machine.applied_state().await.map_err(broken)?;
    Ok(membership.nodes().map(peer).collect())
}

fn peer((id, node): (&u64, &openraft::BasicNode)) -> Peer {
    Peer { node: NodeId(*id), addr: node.addr.clone() }
}
