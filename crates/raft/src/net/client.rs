//! Calling peers.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::ready;
use futures::stream::{self, StreamExt};
use holdfast_proto::internal::raft_service_client::RaftServiceClient;
use holdfast_proto::internal::{
    RaftRequest, RaftResponse, SnapshotPart, SnapshotStart, snapshot_part::Part,
};
use holdfast_proto::{MAX_MESSAGE_BYTES, RemoteError};
use holdfast_types::{ClusterId, Code, NodeId};
use openraft::errors::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tonic::transport::Channel;
use tonic::{Code as Grpc, Response, Status};

use super::PART_BYTES;
use super::channel::{Channels, Lane, Purpose};
use super::lifeline::Lifeline;
use crate::codec::{decode, encode};
use crate::config::{Connector, Identity};
use crate::error::RaftError;
use crate::generation::Generation;
use crate::leadership::{Leadership, Peer};
use crate::retention::Transfers;
use crate::snapshot::SnapshotData;
use crate::types::{Raft, Snapshot, TypeConfig, Vote};
use crate::watchdog::{Fitness, Peers};

/// Entries may take longer than a heartbeat: the receiver syncs them to its disk first. Or eight of
/// the cluster's heartbeats, if that is longer.
const ENTRIES_TTL: Duration = Duration::from_secs(2);
/// The least rate at which a snapshot must get through, in bytes a second.
const SNAPSHOT_RATE: u64 = 1 << 20;

type RpcError = RPCError<TypeConfig>;
type StreamError = StreamingError<TypeConfig>;

/// Makes clients for peers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Network {
    me: Identity,
    generation: Generation,
    channels: Channels,
    transfers: Transfers,
    peers: Peers,
}

impl Network {
    pub(crate) fn new(
        me: Identity,
        generation: Generation,
        connector: Connector,
        transfers: Transfers,
        peers: Peers,
    ) -> Self {
        Self { me, generation, channels: Channels::new(connector), transfers, peers }
    }

    /// For questions of this node's own.
    pub(crate) fn asker(&self) -> Asker {
        Asker(self.clone())
    }

    /// The task that notices a leader's death, to be run once `raft` runs.
    pub(crate) fn lifeline(
        &self,
    ) -> impl FnOnce(Raft, watch::Receiver<Leadership>, Fitness) -> Lifeline + use<> {
        let network = self.clone();
        move |raft, leadership, fitness| Lifeline { network, raft, leadership, fitness }
    }

    pub(super) fn me(&self) -> NodeId {
        self.me.node
    }

    pub(super) fn peer(&self, target: u64, addr: &str, purpose: Purpose) -> PeerClient {
        let lane = self.channels.lane(target, addr, purpose);
        let (cluster, from, generation) =
            (self.me.cluster, self.me.node.0, self.generation.clone());
        let (transfers, peers) = (self.transfers.clone(), self.peers.clone());
        PeerClient { cluster, from, generation, target, lane, transfers, peers }
    }
}

/// Asks the leader for indexes to read at. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Asker(Network);

impl Asker {
    /// An index such that everything acknowledged before the call is at or below it.
    pub(crate) async fn read_index(
        &self,
        leader: &Peer,
        limit: Duration,
    ) -> Result<u64, RaftError> {
        let (node, addr) = (leader.node.0, &leader.addr);
        let peer = self.0.peer(node, addr, Purpose::Reads);
        let silent = |_| RaftError::NoQuorum;
        let (mut client, request) =
            (peer.client().map_err(silent)?, peer.request(&()).map_err(silent)?);
        match tokio::time::timeout(limit, client.read_index(request)).await {
            Err(_) => {
                peer.lane.timed_out();
                Err(RaftError::NoQuorum)
            }
            Ok(Err(status)) if status.code() == Grpc::Unimplemented => Err(RaftError::OldLeader),
            Ok(Err(status)) => match RemoteError::from(status).code {
                Code::NotLeader => Err(RaftError::NotLeader { leader: None }),
                Code::NoQuorum => Err(RaftError::NoQuorum),
                _ => {
                    peer.lane.broke();
                    Err(RaftError::NoQuorum)
                }
            },
            Ok(Ok(response)) => {
                peer.lane.answered();
                let index = decode(&response.into_inner().body);
                index.map_err(|e| RaftError::Internal { what: format!("an index that {e}") })
            }
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = PeerClient;

    async fn new_client(&mut self, target: u64, node: &openraft::BasicNode) -> PeerClient {
        self.peer(target, &node.addr, Purpose::Entries)
    }

    async fn new_heartbeat_client(
        &mut self,
        target: u64,
        node: &openraft::BasicNode,
    ) -> PeerClient {
        self.peer(target, &node.addr, Purpose::Liveness)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &openraft::BasicNode) -> PeerClient {
        self.peer(target, &node.addr, Purpose::Snapshots)
    }
}

/// Calls one peer.
pub(crate) struct PeerClient {
    cluster: ClusterId,
    from: u64,
    generation: Generation,
    target: u64,
    lane: Arc<Lane>,
    transfers: Transfers,
    peers: Peers,
}

type Client = RaftServiceClient<Channel>;
type Answer = Result<Response<RaftResponse>, Status>;

impl PeerClient {
    /// The connection is not to be used again.
    pub(super) fn forget(&self) {
        self.lane.broke();
    }

    pub(super) fn client(&self) -> Result<Client, RpcError> {
        let channel = self.lane.channel().map_err(|e| unreachable(&e))?;
        Ok(RaftServiceClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES))
    }

    pub(super) fn request(&self, body: &impl Serialize) -> Result<RaftRequest, RpcError> {
        let body = encode(body).map_err(|e| RPCError::Network(NetworkError::new(&e)))?;
        let (from, to, generation) = (self.from, self.target, self.generation.number());
        let cluster_id = self.cluster.to_bytes().into();
        Ok(RaftRequest { cluster_id, from, to, body: body.into(), generation })
    }

    async fn call<T: DeserializeOwned, F: Future<Output = Answer>>(
        &self,
        action: RPCTypes,
        ttl: Duration,
        call: F,
    ) -> Result<T, RpcError> {
        let body = self.body(action, ttl, call).await?;
        decode(&body).map_err(|e| RPCError::Network(NetworkError::new(&e)))
    }

    /// Waits for the answer no longer than `ttl`, and draws conclusions for the channel.
    async fn body<F: Future<Output = Answer>>(
        &self,
        action: RPCTypes,
        ttl: Duration,
        call: F,
    ) -> Result<Bytes, RpcError> {
        match tokio::time::timeout(ttl, call).await {
            Err(_) => {
                self.lane.timed_out();
                let (id, target) = (self.from, self.target);
                Err(RPCError::Timeout(Timeout { action, id, target, timeout: ttl }))
            }
            Ok(Err(status)) => {
                tracing::debug!(node = self.target, addr = self.lane.addr(), %status, "no answer");
                self.lane.broke();
                self.generation.refused(&status);
                Err(unreachable(&status))
            }
            Ok(Ok(response)) => {
                self.lane.answered();
                let RaftResponse { body, unfit, votes } = response.into_inner();
                self.peers.note(self.target, &unfit, votes);
                Ok(body)
            }
        }
    }
}

fn unreachable(error: &(impl std::error::Error + 'static)) -> RpcError {
    RPCError::Unreachable(Unreachable::new(error))
}

impl RaftNetworkV2<TypeConfig> for PeerClient {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RpcError> {
        let ttl = match rpc.entries.is_empty() {
            true => option.soft_ttl(),
            false => ENTRIES_TTL.max(option.hard_ttl() * 8),
        };
        let (mut client, request) = (self.client()?, self.request(&rpc)?);
        let answer = self.call(RPCTypes::AppendEntries, ttl, client.append(request)).await?;
        // openraft takes it for granted that nothing conflicts with an empty beginning.
        if matches!(answer, AppendEntriesResponse::Conflict) && rpc.prev_log_id.is_none() {
            let what = "a conflict with the log's beginning";
            return Err(RPCError::Network(NetworkError::from_string(what)));
        }
        Ok(answer)
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        let (mut client, request) = (self.client()?, self.request(&rpc)?);
        self.call(RPCTypes::Vote, option.soft_ttl(), client.vote(request)).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        let (mut client, request) = (self.client()?, self.request(&rpc)?);
        self.call(RPCTypes::Vote, option.soft_ttl(), client.pre_vote(request)).await
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RpcError> {
        let (mut client, request) = (self.client()?, self.request(&rpc)?);
        self.call(RPCTypes::TransferLeader, option.soft_ttl(), client.transfer_leader(request))
            .await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamError> {
        let covered = snapshot.meta.last_log_id.map_or(0, |id| id.index);
        let _sending = self.transfers.begin(self.target, covered);
        let data = snapshot.snapshot;
        let size_bytes = data.len();
        let sent = async {
            // All of the file is read for its hash: not for a peer that is not there.
            let (mut client, greeting) = (self.client()?, self.request(&())?);
            let greet = client.greet(greeting);
            self.body(RPCTypes::InstallSnapshot, option.soft_ttl(), greet).await?;
            let request = self.request(&(vote, snapshot.meta))?;
            let hash = blocking(data.clone(), |data| data.check()).await?.as_bytes().to_vec();
            let start = SnapshotStart { request: Some(request), size_bytes, hash: hash.into() };
            let start = SnapshotPart { part: Some(Part::Start(start)) };
            let parts = stream::once(ready(start)).chain(stream::unfold((data, 0), next_part));
            let ttl = option.hard_ttl() + Duration::from_secs(size_bytes / SNAPSHOT_RATE);
            self.call(RPCTypes::InstallSnapshot, ttl, client.install_snapshot(parts)).await
        };
        tokio::select! {
            answer = sent => Ok(answer?),
            closed = cancel => Err(closed.into()),
        }
    }
}

/// The part at that place, read when it is wanted. After a failure there are no more, which the
/// receiver notices.
async fn next_part((data, at): (SnapshotData, u64)) -> Option<(SnapshotPart, (SnapshotData, u64))> {
    let part = blocking(data.clone(), move |data| data.read(at, PART_BYTES)).await.ok()?;
    let next = at + part.len() as u64;
    let part = (!part.is_empty()).then(|| SnapshotPart { part: Some(Part::Data(part.into())) })?;
    Some((part, (data, next)))
}

async fn blocking<T: Send + 'static>(
    data: SnapshotData,
    work: impl FnOnce(&SnapshotData) -> Result<T, RaftError> + Send + 'static,
) -> Result<T, RpcError> {
    let done = tokio::task::spawn_blocking(move || work(&data)).await;
    done.unwrap_or(Err(RaftError::Stopped)).map_err(|e| unreachable(&e))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::path::Path;

    use openraft::BasicNode;
    use tokio::net::TcpListener;

    use super::*;
    use crate::config::connector;
    use crate::snapshot::SnapshotFile;
    use crate::store::Health;
    use crate::types::SnapshotMeta;
    use holdfast_proto::Dialer;

    /// A follower that was away cost its leader a reading of the whole snapshot every second.
    #[tokio::test]
    async fn a_snapshot_is_not_read_for_a_peer_that_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let health = Health::new();
        let (mut network, snapshot) = with_snapshot(dir.path(), &health);
        // Whoever reads it now finds it damaged, and says so.
        let files = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
        let part = files.filter(|path| path.extension().is_some_and(|end| end == "part")).last();
        std::fs::write(part.unwrap(), b"damaged").unwrap();
        let gone = BasicNode::new("127.0.0.1:1");
        let mut client = network.new_snapshot_client(2, &gone).await;
        let option = RPCOption::new(Duration::from_secs(2));
        let never = std::future::pending();
        let sent = client.full_snapshot(Vote::new_committed(1, 1), snapshot, never, option).await;
        assert!(sent.is_err());
        health.check().expect("nobody looked at it");
    }

    /// A transfer that nobody wanted any more went on until its peer answered, and held the log meanwhile.
    #[tokio::test]
    async fn a_transfer_that_is_called_off_ends_before_its_peer_answers() {
        let dir = tempfile::tempdir().unwrap();
        let (mut network, snapshot) = with_snapshot(dir.path(), &Health::new());
        // It takes the call and never answers.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = silent.local_addr().unwrap().to_string();
        let mut client = network.new_snapshot_client(2, &BasicNode::new(address)).await;
        let option = RPCOption::new(Duration::from_secs(3_600));
        let off = ready(ReplicationClosed::new("called off"));
        let sent = client.full_snapshot(Vote::new_committed(1, 1), snapshot, off, option);
        let ended = tokio::time::timeout(Duration::from_secs(5), sent).await.unwrap();
        assert!(matches!(ended, Err(StreamingError::Closed(_))), "{ended:?}");
    }

    fn with_snapshot(dir: &Path, health: &Health) -> (Network, Snapshot) {
        let me = Identity { cluster: ClusterId::generate(), node: NodeId(1) };
        let path = dir.join("snapshot");
        let (files, _) = SnapshotFile::open(path, me.cluster, health.clone()).unwrap();
        let mut part = files.begin(&SnapshotMeta::default()).unwrap();
        part.write_all(b"state").unwrap();
        let snapshot = part.finish().unwrap();
        let snapshot = Snapshot { meta: SnapshotMeta::default(), snapshot };
        let generation = Generation::open(dir, health.clone()).unwrap();
        let (transfers, peers) = (Transfers::default(), Peers::default());
        (Network::new(me, generation, connector(Dialer::plaintext()), transfers, peers), snapshot)
    }
}
