//! Stands before a node's service and notes each vote before its candidate hears of it.

use std::sync::{Arc, Mutex, PoisonError};

use holdfast_proto::MAX_MESSAGE_BYTES;
use holdfast_proto::internal::raft_service_client::RaftServiceClient;
use holdfast_proto::internal::raft_service_server::{
    RaftService as RaftServiceTrait, RaftServiceServer,
};
use holdfast_proto::internal::{RaftRequest, RaftResponse, SnapshotPart};
use holdfast_raft::{RaftNode, RaftService};
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio_stream::StreamExt as _;
use tonic::{Request, Response, Status, Streaming};

use crate::notes::Notes;

type Answer = Result<Response<RaftResponse>, Status>;

/// The part of openraft's messages that is looked at.
#[derive(Deserialize)]
struct Message {
    vote: Vote,
    #[serde(default)]
    vote_granted: bool,
}

#[derive(Deserialize)]
struct Vote {
    leader_id: LeaderId,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
struct LeaderId {
    term: u64,
    voted_for: u64,
}

#[derive(Deserialize)]
enum Appended {
    Success,
    PartialSuccess(IgnoredAny),
    Conflict,
    HigherVote(IgnoredAny),
}

/// A node's service, and what is noted of it.
pub(crate) struct Witness {
    node: u64,
    inner: RaftServiceClient<RaftServiceServer<RaftService>>,
    notes: Arc<Notes>,
    followed: Mutex<Option<LeaderId>>,
}

impl Witness {
    pub(crate) fn before(node: &RaftNode, notes: Arc<Notes>) -> RaftServiceServer<Self> {
        let inner = RaftServiceClient::new(node.service())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let witness = Self { node: node.id().0, inner, notes, followed: Mutex::default() };
        RaftServiceServer::new(witness)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    fn note(&self, line: String) {
        tokio::task::block_in_place(|| self.notes.write(line));
    }

    fn follows(&self, leader: LeaderId) {
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        if followed.replace(leader) != Some(leader) {
            self.note(format!("follows {} {} {}", self.node, leader.term, leader.voted_for));
        }
    }
}

fn leader(body: &[u8]) -> LeaderId {
    rmp_serde::from_slice::<Message>(body).unwrap().vote.leader_id
}

#[tonic::async_trait]
impl RaftServiceTrait for Witness {
    async fn append(&self, request: Request<RaftRequest>) -> Answer {
        let leader = leader(&request.get_ref().body);
        let answer = self.inner.clone().append(request).await?;
        match rmp_serde::from_slice(&answer.get_ref().body).unwrap() {
            Appended::HigherVote(_) => {}
            Appended::Success | Appended::PartialSuccess(_) | Appended::Conflict => {
                self.follows(leader);
            }
        }
        Ok(answer)
    }

    async fn vote(&self, request: Request<RaftRequest>) -> Answer {
        let LeaderId { term, voted_for } = leader(&request.get_ref().body);
        // Who asks has voted for itself.
        self.note(format!("vote {} {term} {voted_for}", request.get_ref().from));
        let answer = self.inner.clone().vote(request).await?;
        let said: Message = rmp_serde::from_slice(&answer.get_ref().body).unwrap();
        if said.vote_granted {
            self.note(format!("vote {} {term} {voted_for}", self.node));
            println!("at vote {term}.");
        }
        Ok(answer)
    }

    async fn pre_vote(&self, request: Request<RaftRequest>) -> Answer {
        self.inner.clone().pre_vote(request).await
    }

    async fn transfer_leader(&self, request: Request<RaftRequest>) -> Answer {
        self.inner.clone().transfer_leader(request).await
    }

    async fn greet(&self, request: Request<RaftRequest>) -> Answer {
        self.inner.clone().greet(request).await
    }

    type LingerStream = Streaming<RaftResponse>;

    async fn linger(
        &self,
        request: Request<RaftRequest>,
    ) -> Result<Response<Self::LingerStream>, Status> {
        self.inner.clone().linger(request).await
    }

    async fn read_index(&self, request: Request<RaftRequest>) -> Answer {
        self.inner.clone().read_index(request).await
    }

    async fn install_snapshot(&self, request: Request<Streaming<SnapshotPart>>) -> Answer {
        println!("at installing {}.", self.node);
        // A stream that breaks off is refused, as it would be without a witness.
        let parts = request.into_inner().map_while(Result::ok);
        self.inner.clone().install_snapshot(parts).await
    }
}
