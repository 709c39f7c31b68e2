//! What a peer's message must be before openraft sees it.
//!
//! openraft takes for granted that its peers send what it would send itself: entries in a row, a
//! leader's vote, numbers that can be added to. What is otherwise would panic there, or land in the
//! log. A message that passes may still be refused by Raft's own rules, and is then no damage.

use holdfast_types::Code;
use openraft::EntryPayload;
use openraft::raft::{AppendEntriesRequest, TransferLeaderRequest, VoteRequest};

use super::incoming::Refusal;
use crate::MAX_ENTRY_BYTES;
use crate::codec::encode;
use crate::types::{LogEntry, LogId, Members, SnapshotMeta, TypeConfig, Vote};

/// Terms and indexes stay below: no cluster gets there by counting, and none can count on from the
/// end of the numbers.
const MOST: u64 = 1 << 62;

type Verdict = Result<(), Refusal>;

/// Which call a body is for.
#[cfg(any(test, fuzzing))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Append,
    Vote,
    /// Its body is a vote's.
    #[cfg(test)]
    PreVote,
    Transfer,
    Install,
}

/// Whether a body is a message that a peer could send; only Raft's own rules apply to it then.
#[cfg(any(test, fuzzing))]
pub(crate) fn well_formed(call: Call, body: &[u8]) -> bool {
    use crate::codec::decode;
    let passed = match call {
        Call::Append => decode(body).ok().map(|rpc| append(&rpc)),
        Call::Vote => decode(body).ok().map(|rpc| vote(&rpc)),
        #[cfg(test)]
        Call::PreVote => decode(body).ok().map(|rpc| vote(&rpc)),
        Call::Transfer => decode(body).ok().map(|rpc| transfer(&rpc)),
        Call::Install => {
            decode::<(Vote, SnapshotMeta)>(body).ok().map(|(vote, meta)| install(&vote, &meta))
        }
    };
    matches!(passed, Some(Ok(())))
}

/// Entries from a leader, or its heartbeat.
pub(super) fn append(rpc: &AppendEntriesRequest<TypeConfig>) -> Verdict {
    leader(&rpc.vote)?;
    let mut before = rpc.prev_log_id;
    for id in [before, rpc.leader_commit].into_iter().flatten() {
        known_to(&rpc.vote, &id)?;
    }
    for entry in &rpc.entries {
        known_to(&rpc.vote, &entry.log_id)?;
        follows(before.as_ref(), &entry.log_id)?;
        payload(entry)?;
        before = Some(entry.log_id);
    }
    Ok(())
}

/// A candidate's question.
pub(super) fn vote(rpc: &VoteRequest<TypeConfig>) -> Verdict {
    if rpc.vote.committed {
        return Err((Code::InvalidArgument, "a candidate's vote is not won yet".into()));
    }
    in_range(rpc.vote.leader_id.term)?;
    rpc.last_log_id.map_or(Ok(()), |id| known_to(&rpc.vote, &id))
}

/// A leader's wish that this node leads.
pub(super) fn transfer(rpc: &TransferLeaderRequest<TypeConfig>) -> Verdict {
    leader(rpc.from_leader())?;
    rpc.last_log_id().map_or(Ok(()), |id| known_to(rpc.from_leader(), id))
}

/// What a leader says of a snapshot before it sends it.
pub(super) fn install(vote: &Vote, meta: &SnapshotMeta) -> Verdict {
    leader(vote)?;
    let Some(last) = &meta.last_log_id else {
        return Err((Code::InvalidArgument, "a snapshot of nothing".into()));
    };
    known_to(vote, last)?;
    match meta.last_membership.log_id() {
        Some(id) if id.index > last.index => {
            Err((Code::InvalidArgument, "the membership is newer than the snapshot".into()))
        }
        Some(id) => known_to(vote, id),
        None => Ok(()),
    }?;
    members(meta.last_membership.membership())
}

fn leader(vote: &Vote) -> Verdict {
    if !vote.committed {
        return Err((Code::InvalidArgument, "a leader's vote is one that it won".into()));
    }
    in_range(vote.leader_id.term)
}

/// An id that the holder of `vote` can know of.
fn known_to(vote: &Vote, id: &LogId) -> Verdict {
    in_range(id.index)?;
    if *id.leader_id > vote.leader_id.term {
        return Err((Code::InvalidArgument, "an entry of a term that has not begun".into()));
    }
    Ok(())
}

fn in_range(number: u64) -> Verdict {
    if number < MOST {
        Ok(())
    } else {
        Err((Code::InvalidArgument, "a number out of range".into()))
    }
}

fn follows(before: Option<&LogId>, id: &LogId) -> Verdict {
    let expected = before.map_or(0, |before| before.index + 1);
    if id.index != expected || before.is_some_and(|before| before.leader_id > id.leader_id) {
        return Err((Code::InvalidArgument, "entries that do not follow each other".into()));
    }
    Ok(())
}

fn payload(entry: &LogEntry) -> Verdict {
    let large = Err((Code::TooLarge, "an entry is larger than any may be".into()));
    match &entry.payload {
        EntryPayload::Blank => Ok(()),
        EntryPayload::Normal(bytes) if bytes.len() > MAX_ENTRY_BYTES => large,
        EntryPayload::Normal(_) => Ok(()),
        EntryPayload::Membership(new) => match encode(new) {
            Ok(bytes) if bytes.len() <= MAX_ENTRY_BYTES => members(new),
            _ => large,
        },
    }
}

/// One set of voters, or two while it changes; every one of them with an address.
fn members(members: &Members) -> Verdict {
    let configs = members.get_joint_config();
    let addressed = members.voter_ids().all(|id| members.get_node(&id).is_some());
    if ![1, 2].contains(&configs.len())
        || configs.iter().any(|voters| voters.is_empty())
        || !addressed
    {
        return Err((Code::InvalidArgument, "a membership that cannot be".into()));
    }
    Ok(())
}
