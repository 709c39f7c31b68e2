//! What nodes say to each other.

use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};

use super::entries::{entry_differs, log, log_id};
use super::{NEWEST, Sample};
use crate::codec::{decode, encode};
use crate::types::{Membership, SnapshotMeta, TypeConfig, Vote};

type AppendAnswer = AppendEntriesResponse<TypeConfig>;

pub(super) fn samples() -> Vec<Sample> {
    let vote = Vote::new(5, 2);
    let asked = VoteRequest::<TypeConfig>::new(vote, Some(log_id(4, 900)));
    let told = VoteRequest { leadership_transfer: true, ..asked.clone() };
    let granted = |vote_granted| VoteResponse::<TypeConfig> {
        vote,
        vote_granted,
        last_log_id: Some(log_id(4, 901)),
    };
    let handed = TransferLeaderRequest::<TypeConfig>::new(
        Vote::new_committed(5, 2),
        3,
        Some(log_id(4, 900)),
    );
    let membership = match &log()[0].1.payload {
        openraft::EntryPayload::Membership(members) => members.clone(),
        other => panic!("{other:?}"),
    };
    let meta = SnapshotMeta {
        last_log_id: Some(log_id(4, 800)),
        last_membership: Membership::new(Some(log_id(1, 0)), membership),
    };
    vec![
        heartbeat(),
        append(),
        Sample::body("append-answer-success", AppendAnswer::Success),
        Sample::body("append-answer-part", AppendAnswer::PartialSuccess(Some(log_id(4, 7)))),
        Sample::body("append-answer-conflict", AppendAnswer::Conflict),
        Sample::body("append-answer-higher-vote", AppendAnswer::HigherVote(vote)),
        Sample::body("vote", asked),
        Sample::body("vote-handed-over", told),
        Sample::body("vote-answer-granted", granted(true)),
        Sample::body("vote-answer-refused", granted(false)),
        Sample::body("transfer-leader", handed),
        Sample::body("install-head", (Vote::new_committed(5, 2), meta)),
        Sample::body("install-head-empty", (Vote::new_committed(5, 2), SnapshotMeta::default())),
        Sample::body("install-answer", SnapshotResponse::<TypeConfig> { vote }),
    ]
}

fn heartbeat() -> Sample {
    append_sample("append-heartbeat", || AppendEntriesRequest {
        vote: Vote::new_committed(5, 2),
        prev_log_id: Some(log_id(4, 900)),
        entries: Vec::new(),
        leader_commit: Some(log_id(4, 890)),
    })
}

/// With an entry of every kind.
fn append() -> Sample {
    append_sample("append", || AppendEntriesRequest {
        vote: Vote::new_committed(9, 2),
        prev_log_id: None,
        entries: log().into_iter().map(|(_, entry)| entry).collect(),
        leader_commit: None,
    })
}

fn append_sample(name: &str, meant: fn() -> AppendEntriesRequest<TypeConfig>) -> Sample {
    let differs = move |bytes: &[u8]| {
        let read: AppendEntriesRequest<TypeConfig> = match decode(bytes) {
            Err(e) => return Some(format!("it {e}")),
            Ok(read) => read,
        };
        let meant = meant();
        let heads = |rpc: &AppendEntriesRequest<TypeConfig>| {
            (rpc.vote, rpc.prev_log_id, rpc.leader_commit, rpc.entries.len())
        };
        if heads(&read) != heads(&meant) {
            return Some(format!("it reads {read:?}, but meant {meant:?}"));
        }
        read.entries.iter().zip(&meant.entries).find_map(|(read, meant)| entry_differs(read, meant))
    };
    Sample {
        level: NEWEST,
        name: format!("rpc-{name}"),
        write: Box::new(move || encode(&meant()).unwrap()),
        differs: Box::new(differs),
    }
}
