//! Answering peers.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::Stream;
use holdfast_proto::internal::raft_service_server::{
    RaftService as RaftServiceTrait, RaftServiceServer,
};
use holdfast_proto::internal::{
    RaftRequest, RaftResponse, SnapshotPart, SnapshotStart, snapshot_part::Part,
};
use holdfast_proto::{MAX_MESSAGE_BYTES, Sender, status_from};
use holdfast_types::{ClusterId, Code, NodeId};
use openraft::async_runtime::WatchReceiver as _;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, mpsc, watch};
use tonic::{Request, Response, Status, Streaming};

use super::door;
use super::incoming::{Incoming, Refusal};
use crate::codec::{decode, encode};
use crate::config::Identity;
use crate::generation::Generation;
use crate::published::Applied;
use crate::read::Rounds;
use crate::snapshot::{SnapshotData, SnapshotFile};
use crate::types::{Raft, Snapshot, SnapshotMeta, TypeConfig, Vote};
use crate::watchdog::Fitness;

/// Between two parts of a snapshot.
const PART_PATIENCE: Duration = Duration::from_secs(10);
/// Parts on their way to the disk.
const PARTS_WAITING: usize = 8;

type Answer = Result<Response<RaftResponse>, Status>;
type Lingering = Pin<Box<dyn Stream<Item = Result<RaftResponse, Status>> + Send>>;

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
    pub(crate) me: Identity,
    pub(crate) raft: Raft,
    pub(crate) heard: Heard,
    pub(crate) files: SnapshotFile,
    /// One snapshot comes at a time.
    pub(crate) receiving: Arc<Semaphore>,
    pub(crate) fitness: Fitness,
    pub(crate) applied: watch::Receiver<Applied>,
    pub(crate) generation: Generation,
    pub(crate) rounds: Rounds,
}

impl RaftService {
    pub(crate) fn server(self) -> RaftServiceServer<Self> {
        RaftServiceServer::new(self)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// Checks whom the request is for, and from, before its body is looked at.
    fn open<T: DeserializeOwned>(&self, call: &Request<RaftRequest>) -> Result<T, Status> {
        self.open_of(sender(call), call.get_ref())
    }

    fn open_of<T: DeserializeOwned>(
        &self,
        sender: Option<Sender>,
        request: &RaftRequest,
    ) -> Result<T, Status> {
        self.check(sender, request)?;
        decode(&request.body)
            .map_err(|e| status_from(Code::InvalidArgument, format!("the body {e}"), None))
    }

    fn check(&self, sender: Option<Sender>, request: &RaftRequest) -> Result<(), Status> {
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
        // Who listens for this service lets nobody through whom it does not know.
        if let Some(Sender(sender)) = sender.filter(|sender| sender.0.0 != request.from) {
            let what = format!("node {sender} speaks as node {}", request.from);
            return Err(status_from(Code::Forbidden, what, None));
        }
        // First: who was left behind by a recovery is unknown to what came after, as the removed are.
        self.generation.admit(request.generation)?;
        self.admit(NodeId(request.from))
    }

    /// Takes the parts to the disk as they come. Whatever keeps the last from coming, the call's own
    /// end included, leaves nothing.
    async fn receive(
        &self,
        start: SnapshotStart,
        meta: SnapshotMeta,
        parts: &mut Streaming<SnapshotPart>,
    ) -> Result<SnapshotData, Status> {
        let busy = || status_from(Code::Busy, "another snapshot is coming in", None);
        let place = self.receiving.clone().try_acquire_owned().map_err(|_| busy())?;
        let files = self.files.clone();
        let (data, mut coming) = mpsc::channel::<Option<Bytes>>(PARTS_WAITING);
        let written = tokio::task::spawn_blocking(move || {
            let _place = place;
            let mut incoming = Incoming::new(&files, &start, &meta)?;
            loop {
                match coming.blocking_recv() {
                    Some(Some(data)) => incoming.push(&data)?,
                    Some(None) => return incoming.finish(),
                    None => return Err((Code::StreamCorrupt, "it was interrupted".into())),
                }
            }
        });
        loop {
            let (next, last) = match next_part(parts).await? {
                None => (None, true),
                Some(SnapshotPart { part: Some(Part::Data(data)) }) => (Some(data), false),
                Some(_) => {
                    let what = "a part without data".into();
                    return Err(refused((Code::InvalidArgument, what)));
                }
            };
            // Nobody takes it if it was refused, which is told below.
            if data.send(next).await.is_err() || last {
                break;
            }
        }
        let written =
            written.await.map_err(|e| status_from(Code::Internal, e.to_string(), None))?;
        written.map_err(refused)
    }

    fn reply(&self, answer: &impl Serialize) -> Answer {
        let body = encode(answer).map_err(|e| status_from(Code::Internal, e.to_string(), None))?;
        let why = *self.fitness.borrow();
        let unfit = why.map(|why| why.to_string()).unwrap_or_default();
        let votes = why.is_none_or(|why| !why.votes_late());
        Ok(Response::new(RaftResponse { body: body.into(), unfit, votes }))
    }

    /// A node that was removed while it was away still takes itself for a member: it is given no
    /// vote, and raises nobody's term. One that was admitted later than what is applied here is let
    /// through: it may be the leader from whom this node is to hear of it. So is one whose vote is still
    /// to be taken away: without it there may be no leader who could.
    fn admit(&self, from: NodeId) -> Result<(), Status> {
        let applied = self.applied.borrow();
        if !applied.state.is_removed(from, applied.index) {
            return Ok(());
        }
        let metrics = self.raft.metrics();
        if metrics.borrow_watched().membership_config.voter_ids().any(|id| id == from.0) {
            return Ok(());
        }
        let what = format!("node {from} was removed from this cluster");
        Err(status_from(Code::NodeRemoved, what, None))
    }
}

#[tonic::async_trait]
impl RaftServiceTrait for RaftService {
    type LingerStream = Lingering;

    async fn linger(&self, request: Request<RaftRequest>) -> Result<Response<Lingering>, Status> {
        self.open::<()>(&request)?;
        let mut metrics = self.raft.metrics();
        let stopped = async move {
            loop {
                let runs = metrics.borrow_watched().running_state.is_ok();
                if !runs || metrics.changed().await.is_err() {
                    let what = "this node takes no part any more";
                    return Err::<RaftResponse, _>(status_from(Code::Unavailable, what, None));
                }
            }
        };
        Ok(Response::new(Box::pin(futures::stream::once(stopped))))
    }

    async fn append(&self, request: Request<RaftRequest>) -> Answer {
        let rpc: AppendEntriesRequest<TypeConfig> = self.open(&request)?;
        door::append(&rpc).map_err(refused)?;
        let leader = rpc.vote.leader_id.voted_for;
        let answer = self.raft.append_entries(rpc).await.map_err(stopped)?;
        if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
            self.heard.note(leader);
        }
        self.reply(&answer)
    }

    async fn vote(&self, request: Request<RaftRequest>) -> Answer {
        let rpc: VoteRequest<TypeConfig> = self.open(&request)?;
        door::vote(&rpc).map_err(refused)?;
        self.reply(&self.raft.vote(rpc).await.map_err(stopped)?)
    }

    async fn pre_vote(&self, request: Request<RaftRequest>) -> Answer {
        let rpc: VoteRequest<TypeConfig> = self.open(&request)?;
        door::vote(&rpc).map_err(refused)?;
        self.reply(&self.raft.pre_vote(rpc).await.map_err(stopped)?)
    }

    async fn transfer_leader(&self, request: Request<RaftRequest>) -> Answer {
        let rpc: TransferLeaderRequest<TypeConfig> = self.open(&request)?;
        door::transfer(&rpc).map_err(refused)?;
        if *rpc.to_node_id() == self.me.node.0
            && let Some(why) = *self.fitness.borrow()
        {
            let what = format!("this node should not lead: {why}");
            return Err(status_from(Code::Unavailable, what, None));
        }
        self.reply(&self.raft.handle_transfer_leader(rpc).await.map_err(stopped)?)
    }

    async fn greet(&self, request: Request<RaftRequest>) -> Answer {
        self.check(sender(&request), request.get_ref())?;
        self.reply(&())
    }

    async fn read_index(&self, request: Request<RaftRequest>) -> Answer {
        let () = self.open(&request)?;
        let index = self.rounds.read_index().await;
        self.reply(&index.map_err(|e| status_from(e.code(), e.to_string(), None))?)
    }

    async fn install_snapshot(&self, request: Request<Streaming<SnapshotPart>>) -> Answer {
        let sender = sender(&request);
        let mut parts = request.into_inner();
        let first = next_part(&mut parts).await?.and_then(|p| p.part);
        let Some(Part::Start(start)) = first else {
            let what = "a snapshot without its start".into();
            return Err(refused((Code::InvalidArgument, what)));
        };
        let opening = start.request.clone().unwrap_or_default();
        let (vote, meta): (Vote, SnapshotMeta) = self.open_of(sender, &opening)?;
        door::install(&vote, &meta).map_err(refused)?;
        let data = self.receive(start, meta.clone(), &mut parts).await?;
        let leader = vote.leader_id.voted_for;
        let snapshot = Snapshot { meta, snapshot: data };
        let answer = self.raft.install_full_snapshot(vote, snapshot).await.map_err(stopped)?;
        if answer.vote == vote {
            self.heard.note(leader);
        }
        self.reply(&answer)
    }
}

fn sender<T>(call: &Request<T>) -> Option<Sender> {
    call.extensions().get().copied()
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

#[cfg(test)]
mod tests {
    use holdfast_proto::Dialer;
    use std::collections::BTreeSet;
    use std::path::Path;

    use holdfast_core::State;
    use holdfast_proto::RemoteError;
    use holdfast_proto::internal::raft_service_client::RaftServiceClient;
    use tokio::net::TcpListener;
    use tokio_stream::wrappers::ReceiverStream;
    use tonic::transport::Server;
    use tonic::transport::server::TcpIncoming;

    use super::*;
    use crate::config::RaftConfig;
    use crate::node::RaftNode;
    use crate::types::{LogId, Membership};

    fn files(dir: &Path) -> BTreeSet<String> {
        let all = std::fs::read_dir(dir).unwrap();
        let names = all.map(|e| e.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("snapshot")).collect()
    }

    fn data(data: &[u8]) -> SnapshotPart {
        SnapshotPart { part: Some(Part::Data(data.to_vec().into())) }
    }

    /// A transfer that breaks off, is too short, or is changed on its way leaves nothing, and keeps
    /// no other from coming; one that is whole is installed.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_interrupted_snapshot_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let raft = dir.path().join("raft");
        let me = Identity { cluster: ClusterId::generate(), node: NodeId(2) };
        let node = RaftNode::start(RaftConfig::new(&raft, me, Dialer::plaintext())).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string().parse().unwrap();
        let server = Server::builder().add_service(node.service());
        let server = tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        let channel = Dialer::plaintext().connect(&address, Duration::from_secs(5)).await.unwrap();
        let client = RaftServiceClient::new(channel);
        // As in the daemon, where each request is answered by a service of its own.
        let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let other_address = other.local_addr().unwrap().to_string().parse().unwrap();
        let other_server = Server::builder().add_service(node.service());
        let other_server = tokio::spawn(other_server.serve_with_incoming(TcpIncoming::from(other)));
        let channel =
            Dialer::plaintext().connect(&other_address, Duration::from_secs(5)).await.unwrap();
        let mut other = RaftServiceClient::new(channel);

        let last = LogId::new_term_index(3, 50);
        let members = [BTreeSet::from([1, 2])].to_vec();
        let members = openraft::Membership::new_with_defaults(members, []);
        let last_membership = Membership::new(Some(last), members);
        let meta = SnapshotMeta { last_log_id: Some(last), last_membership };
        let state = encode(&State { revision: holdfast_types::Revision(50), ..State::default() });
        let state = state.unwrap();
        let body = encode(&(Vote::new_committed(3, 1), meta)).unwrap().into();
        let cluster_id = me.cluster.to_bytes().into();
        let request = RaftRequest { cluster_id, from: 1, to: 2, body, ..Default::default() };
        let hash = blake3::hash(&state).as_bytes().to_vec().into();
        let start = SnapshotStart { request: Some(request), size_bytes: state.len() as u64, hash };
        let start = SnapshotPart { part: Some(Part::Start(start)) };
        let send = |parts: Vec<SnapshotPart>| {
            let (mut client, start) = (client.clone(), start.clone());
            let parts: Vec<_> = std::iter::once(start).chain(parts).collect();
            async move { client.install_snapshot(tokio_stream::iter(parts)).await }
        };

        // Its sender is gone in the midst of it.
        let (out, parts) = mpsc::channel(1);
        let sent = tokio::spawn({
            let mut client = client.clone();
            async move { client.install_snapshot(ReceiverStream::new(parts)).await }
        });
        out.send(start.clone()).await.unwrap();
        out.send(data(&state[..5])).await.unwrap();
        until(|| files(&raft).len() == 1).await;
        // While it comes, no other does.
        let second = send(vec![data(&state)]).await.unwrap_err();
        assert_eq!(RemoteError::from(second).code, Code::Busy);
        let parts = tokio_stream::iter(vec![start.clone(), data(&state)]);
        let third = other.install_snapshot(parts).await.unwrap_err();
        assert_eq!(RemoteError::from(third).code, Code::Busy);
        sent.abort();
        until(|| files(&raft).is_empty() && node.may_receive()).await;

        let mut changed = state.clone();
        changed[7] ^= 1;
        for parts in [vec![data(&state[..5])], vec![data(&changed)], vec![data(&state), data(b"x")]]
        {
            let refused = send(parts).await.unwrap_err();
            assert_eq!(RemoteError::from(refused).code, Code::StreamCorrupt);
            assert_eq!(files(&raft), BTreeSet::new());
        }
        assert_eq!(node.applied_index(), 0);

        let (first, second) = state.split_at(9);
        send(vec![data(first), data(second)]).await.unwrap();
        let applied = node.wait_applied(50, Duration::from_secs(5)).await.unwrap();
        assert_eq!((applied.index, applied.state.revision.0), (50, 50));
        assert_eq!(files(&raft), BTreeSet::from(["snapshot".to_owned()]));
        node.shutdown().await.unwrap();
        server.abort();
        other_server.abort();
    }

    /// Each greeting had the leader believe for a moment that the node is fit again.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_greeting_is_answered_with_whether_the_node_is_fit() {
        let dir = tempfile::tempdir().unwrap();
        let me = Identity { cluster: ClusterId::generate(), node: NodeId(2) };
        let mut config = RaftConfig::new(dir.path().join("raft"), me, Dialer::plaintext());
        config.care.floor_bytes = u64::MAX / 4;
        let node = RaftNode::start(config).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string().parse().unwrap();
        let server = Server::builder().add_service(node.service());
        let server = tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        let channel = Dialer::plaintext().connect(&address, Duration::from_secs(5)).await.unwrap();
        let mut client = RaftServiceClient::new(channel);
        until(|| node.unfit().is_some()).await;
        let cluster_id = me.cluster.to_bytes().into();
        let request = RaftRequest { cluster_id, from: 1, to: 2, ..Default::default() };
        let answer = client.greet(request).await.unwrap().into_inner();
        assert!(answer.unfit.contains("free space") && answer.votes, "{answer:?}");
        node.shutdown().await.unwrap();
        server.abort();
    }

    async fn until(reached: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !reached() {
            assert!(Instant::now() < deadline, "waited in vain");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
