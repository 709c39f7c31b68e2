//! Answering peers.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use holdfast_proto::internal::raft_service_server::{
    RaftService as RaftServiceTrait, RaftServiceServer,
};
use holdfast_proto::internal::{RaftRequest, RaftResponse, SnapshotPart, snapshot_part::Part};
use holdfast_proto::{MAX_MESSAGE_BYTES, status_from};
use holdfast_types::{ClusterId, Code, NodeId};
use openraft::EntryPayload;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::{Request, Response, Status, Streaming};

use super::incoming::{Incoming, Refusal};
use crate::MAX_ENTRY_BYTES;
use crate::codec::{decode, encode};
use crate::config::Identity;
use crate::types::{LogEntry, Raft, Snapshot, SnapshotMeta, TypeConfig, Vote};

/// Between two parts of a snapshot.
const PART_PATIENCE: Duration = Duration::from_secs(10);

type Answer = Result<Response<RaftResponse>, Status>;

/// When a leader last spoke to this node.
#[derive(Clone, Default)]
pub(crate) struct Heard(Arc<Mutex<Option<(NodeId, Instant)>>>);

impl Heard {
    fn note(&self, leader: u64) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *heard = Some((NodeId(leader), Instant::now()));
    }

    /// Whether `leader` spoke within `silence`.
    pub(crate) fn lately(&self, leader: NodeId, silence: Duration) -> bool {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.is_some_and(|(node, at)| node == leader && at.elapsed() < silence)
    }
}

/// The service that peers call. Mount it with the daemon's other services.
#[derive(Clone)]
pub struct RaftService {
    me: Identity,
    raft: Raft,
    heard: Heard,
}

impl RaftService {
    pub(crate) fn server(me: Identity, raft: Raft, heard: Heard) -> RaftServiceServer<Self> {
        RaftServiceServer::new(Self { me, raft, heard })
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// Checks whom the request is for before its body is looked at.
    fn open<T: DeserializeOwned>(&self, request: &RaftRequest) -> Result<T, Status> {
        let cluster = ClusterId::try_from(request.cluster_id.as_ref())
            .map_err(|e| status_from(e.code(), e.to_string(), None))?;
        if cluster != self.me.cluster {
            let what = format!("this node is of cluster {}, not {cluster}", self.me.cluster);
            return Err(status_from(Code::WrongCluster, what, None));
        }
        if request.to != self.me.node.0 {
            let what = format!("this is node {}, not {}", self.me.node, request.to);
            return Err(status_from(Code::WrongCluster, what, None));
        }
        decode(&request.body)
            .map_err(|e| status_from(Code::InvalidArgument, format!("the body {e}"), None))
    }
}

#[tonic::async_trait]
impl RaftServiceTrait for RaftService {
    async fn append(&self, request: Request<RaftRequest>) -> Answer {
        let rpc: AppendEntriesRequest<TypeConfig> = self.open(request.get_ref())?;
        if rpc.entries.iter().any(oversized) {
            return Err(status_from(Code::TooLarge, "an entry is larger than any may be", None));
        }
        let leader = rpc.vote.leader_id.voted_for;
        let answer = self.raft.append_entries(rpc).await.map_err(stopped)?;
        if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
            self.heard.note(leader);
        }
        reply(&answer)
    }

    async fn vote(&self, request: Request<RaftRequest>) -> Answer {
        let rpc: VoteRequest<TypeConfig> = self.open(request.get_ref())?;
        reply(&self.raft.vote(rpc).await.map_err(stopped)?)
    }

    async fn pre_vote(&self, request: Request<RaftRequest>) -> Answer {
        let rpc: VoteRequest<TypeConfig> = self.open(request.get_ref())?;
        reply(&self.raft.pre_vote(rpc).await.map_err(stopped)?)
    }

    async fn transfer_leader(&self, request: Request<RaftRequest>) -> Answer {
        let rpc: TransferLeaderRequest<TypeConfig> = self.open(request.get_ref())?;
        reply(&self.raft.handle_transfer_leader(rpc).await.map_err(stopped)?)
    }

    async fn install_snapshot(&self, request: Request<Streaming<SnapshotPart>>) -> Answer {
        let mut parts = request.into_inner();
        let first = next_part(&mut parts).await?.and_then(|p| p.part);
        let Some(Part::Start(start)) = first else {
            return Err(refused((Code::InvalidArgument, "a snapshot without its start")));
        };
        let opening = start.request.clone().unwrap_or_default();
        let (vote, meta): (Vote, SnapshotMeta) = self.open(&opening)?;
        let mut incoming = Incoming::new(&start).map_err(refused)?;
        while let Some(part) = next_part(&mut parts).await? {
            incoming.push(part).map_err(refused)?;
        }
        let data: Bytes = incoming.finish().map_err(refused)?.into();
        let leader = vote.leader_id.voted_for;
        let snapshot = Snapshot { meta, snapshot: data };
        let answer = self.raft.install_full_snapshot(vote, snapshot).await.map_err(stopped)?;
        if answer.vote == vote {
            self.heard.note(leader);
        }
        reply(&answer)
    }
}

fn oversized(entry: &LogEntry) -> bool {
    matches!(&entry.payload, EntryPayload::Normal(bytes) if bytes.len() > MAX_ENTRY_BYTES)
}

async fn next_part(parts: &mut Streaming<SnapshotPart>) -> Result<Option<SnapshotPart>, Status> {
    tokio::time::timeout(PART_PATIENCE, parts.message())
        .await
        .map_err(|_| status_from(Code::Timeout, "the snapshot stopped coming", None))?
}

fn refused((code, what): Refusal) -> Status {
    status_from(code, what, None)
}

fn stopped(error: impl std::error::Error) -> Status {
    status_from(Code::Unavailable, error.to_string(), None)
}

fn reply(answer: &impl Serialize) -> Answer {
    let body = encode(answer).map_err(|e| status_from(Code::Internal, e.to_string(), None))?;
    Ok(Response::new(RaftResponse { body: body.into() }))
}
