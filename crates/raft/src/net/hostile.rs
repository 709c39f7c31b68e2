//! The service under what no peer of ours sends, over real connections (I26, I27): nothing panics,
//! memory stays bounded, the node goes on leading, and its term and log stay as they are.
//!
//! The messages begin as those that are kept in `tests/golden`, and are changed by a generator that
//! makes the same ones each time. [`consensus`](crate::fuzzing::consensus) tries more of them, without connections.

use std::fs;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use holdfast_core::{Command, Entry, RemoveImage};
use holdfast_fuzz::Random;
use holdfast_proto::Dialer;
use holdfast_proto::internal::raft_service_client::RaftServiceClient;
use holdfast_proto::internal::{
    RaftRequest, RaftResponse, SnapshotPart, SnapshotStart, snapshot_part::Part,
};
use holdfast_proto::{MAX_MESSAGE_BYTES, RemoteError};
use holdfast_types::{ClusterId, Code, NodeId, RequestId, TimestampMs};
use openraft::async_runtime::WatchReceiver as _;
use openraft::testing::blank_ent;
use openraft::{EntryPayload, Membership};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic::{Response, Status};

use super::door::{Call, well_formed};
use crate::codec::encode;
use crate::config::{Identity, RaftConfig};
use crate::node::RaftNode;
use crate::snapshot::MAX_SNAPSHOT_BYTES;
use crate::types::{TypeConfig, Vote};

const ROUNDS: usize = 6_000;
/// More than any message, far less than a lie about a length asks for.
const MEMORY: u64 = 192 << 20;

const SEEDS: [(&str, Call); 8] = [
    ("rpc-append", Call::Append),
    ("rpc-append-heartbeat", Call::Append),
    ("rpc-vote", Call::Vote),
    ("rpc-vote", Call::PreVote),
    ("rpc-vote-handed-over", Call::Vote),
    ("rpc-transfer-leader", Call::Transfer),
    ("rpc-install-head", Call::Install),
    ("rpc-install-head-empty", Call::Install),
];

/// A node that leads a cluster of its own, and a peer's way to it.
struct Victim {
    node: RaftNode,
    cluster: ClusterId,
    addr: String,
    client: RaftServiceClient<Channel>,
    _dir: tempfile::TempDir,
}

impl Victim {
    async fn leading() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cluster = ClusterId::generate();
        let config = RaftConfig::new(
            dir.path().join("raft"),
            Identity { cluster, node: NodeId(1) },
            Dialer::plaintext(),
        );
        let node = RaftNode::start(config).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let serve = Server::builder().add_service(node.service());
        tokio::spawn(serve.serve_with_incoming(TcpIncoming::from(listener)));
        // On a busy machine it may take longer than the caller would wait.
        drop(node.initialize(&addr).await);
        let mut leadership = node.leadership();
        let leads = leadership.wait_for(|l| l.reign.is_some_and(|r| r.ready));
        drop(tokio::time::timeout(Duration::from_secs(20), leads).await.unwrap().unwrap());
        // Its metrics may tell of that a moment later.
        let mut told = node.raft().metrics();
        let settled = async {
            while node.metrics().committed < node.metrics().last_log {
                told.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(20), settled).await.unwrap();
        let address = addr.parse().unwrap();
        let dialer = Dialer::plaintext();
        let channel = dialer.connect(&address, Duration::from_secs(5));
        // Nothing on this side keeps it from sending too much.
        let client =
            RaftServiceClient::new(channel.await.unwrap()).max_encoding_message_size(usize::MAX);
        Self { node, cluster, addr, client, _dir: dir }
    }

    async fn write(&self) {
        let command = Command::RemoveImage(RemoveImage { name: "none".parse().unwrap() });
        let entry = Entry { request: RequestId::generate(), at: TimestampMs(0), command };
        drop(self.node.propose(entry).await.unwrap());
    }

    fn request(&self, body: Vec<u8>) -> RaftRequest {
        let cluster_id = self.cluster.to_bytes().into();
        RaftRequest { cluster_id, from: 2, to: 1, body: body.into(), ..Default::default() }
    }

    async fn call(&mut self, call: Call, body: Vec<u8>) -> Result<Response<RaftResponse>, Status> {
        let request = self.request(body);
        match call {
            Call::Append => self.client.append(request).await,
            Call::Vote => self.client.vote(request).await,
            Call::PreVote => self.client.pre_vote(request).await,
            Call::Transfer => self.client.transfer_leader(request).await,
            Call::Install => {
                let hash = Bytes::from(blake3::hash(b"").as_bytes().to_vec());
                let start = SnapshotStart { request: Some(request), size_bytes: 0, hash };
                self.client.install_snapshot(tokio_stream::once(part(Part::Start(start)))).await
            }
        }
    }

    /// Where it stands, if it still leads.
    fn standing(&self) -> (u64, u64, u64) {
        let metrics = self.node.metrics();
        assert!(self.node.leadership_now().reign.is_some(), "it leads no more: {metrics:?}");
        (metrics.term, metrics.last_log, metrics.committed)
    }
}

fn part(part: Part) -> SnapshotPart {
    SnapshotPart { part: Some(part) }
}

fn seed(name: &str) -> Vec<u8> {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/level-1");
    fs::read(kept.join(name)).unwrap()
}

/// The most memory that this process has had, in bytes; see proc(5).
fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spoiled_messages_change_nothing() {
    let mut victim = Victim::leading().await;
    victim.write().await;
    let (before, memory) = (victim.standing(), peak_memory());
    let mut random = Random::new(0x9E37_79B9_7F4A_7C15);
    let mut refused = 0;
    for round in 0..ROUNDS {
        let (name, call) = SEEDS[random.below(SEEDS.len())];
        let mut body = seed(name);
        for _ in 0..=random.below(4) {
            random.spoil(&mut body);
        }
        if well_formed(call, &body) {
            continue;
        }
        let error = victim.call(call, body).await.expect_err("a spoiled message was taken");
        let code = RemoteError::from(error).code;
        assert!([Code::InvalidArgument, Code::TooLarge].contains(&code), "{round}: {code}");
        refused += 1;
    }
    assert!(refused > ROUNDS / 2, "{refused}");
    assert_eq!(victim.standing(), before);
    assert!(peak_memory() - memory < MEMORY, "{} bytes more", peak_memory() - memory);
    victim.write().await;
}

/// Messages that a peer could send, with whatever numbers: Raft may take or refuse them, and the
/// node may follow somebody, but nothing in it breaks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_of_strange_candidates_break_nothing() {
    let mut victim = Victim::leading().await;
    let mut random = Random::new(0x0123_4567_89AB_CDEF);
    let mut asked = 0;
    while asked < ROUNDS / 10 {
        let (name, call) = SEEDS[random.below(SEEDS.len())];
        if ![Call::Vote, Call::PreVote, Call::Transfer].contains(&call) {
            continue;
        }
        let mut body = seed(name);
        for _ in 0..=random.below(2) {
            random.spoil(&mut body);
        }
        if !well_formed(call, &body) {
            continue;
        }
        asked += 1;
        // It must answer, whatever it says.
        victim.call(call, body.clone()).await.unwrap_or_else(|e| panic!("{call:?} {body:?}: {e}"));
        let alive = victim.node.raft().metrics().borrow_watched().running_state.is_ok();
        assert!(alive, "{call:?} {body:?}");
    }
    // The highest term that passes leaves room to count on.
    let mut leadership = victim.node.leadership();
    let leads = leadership.wait_for(|l| l.reign.is_some_and(|r| r.ready));
    drop(tokio::time::timeout(Duration::from_secs(20), leads).await.unwrap().unwrap());
    victim.write().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_is_refused_before_it_takes_memory() {
    let mut victim = Victim::leading().await;
    let (before, memory) = (victim.standing(), peak_memory());
    for size in [MAX_MESSAGE_BYTES + 1, MAX_MESSAGE_BYTES * 8] {
        let answer = victim.call(Call::Append, vec![0x91; size]).await;
        assert!(answer.is_err(), "{size} bytes were read");
    }

    let (vote, prev) = (Vote::new_committed(1 << 20, 2), None);
    let mut entry = blank_ent::<TypeConfig>(1, 2, 0);
    let ids = 1..40_000u64;
    entry.payload =
        EntryPayload::Membership(Membership::new_with_defaults(vec![ids.collect()], []));
    let rpc = openraft::raft::AppendEntriesRequest::<TypeConfig> {
        vote,
        prev_log_id: prev,
        entries: vec![entry],
        leader_commit: None,
    };
    let crowd = victim.call(Call::Append, encode(&rpc).unwrap()).await.unwrap_err();
    assert_eq!(RemoteError::from(crowd).code, Code::TooLarge);

    let head = victim.request(seed("rpc-install-head"));
    let start = |size_bytes: u64| {
        part(Part::Start(SnapshotStart {
            request: Some(head.clone()),
            size_bytes,
            hash: vec![0; 32].into(),
        }))
    };
    let absurd = tokio_stream::once(start(u64::MAX));
    let error = victim.client.install_snapshot(absurd).await.unwrap_err();
    assert_eq!(RemoteError::from(error).code, Code::TooLarge);
    // A lie about the size costs what was sent, and no more.
    let parts = [start(MAX_SNAPSHOT_BYTES / 2), part(Part::Data(vec![7; 1 << 20].into()))];
    assert!(victim.client.install_snapshot(tokio_stream::iter(parts)).await.is_err());

    assert_eq!(victim.standing(), before);
    assert!(peak_memory() - memory < MEMORY, "{} bytes more", peak_memory() - memory);
    victim.write().await;
}

/// What is no HTTP/2 at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn noise_on_the_wire_is_survived() {
    let victim = Victim::leading().await;
    let before = victim.standing();
    let mut random = Random::new(42);
    for round in 0..40 {
        let mut peer = TcpStream::connect(&victim.addr).await.unwrap();
        let mut noise: Vec<u8> = Vec::new();
        if round % 2 == 0 {
            noise.extend(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        }
        noise.extend((0..2_000).map(|_| random.number() as u8));
        // It may hang up before it has all.
        drop(peer.write_all(&noise).await);
        drop(peer.shutdown().await);
        let mut answer = Vec::new();
        let until_it_hangs_up = peer.read_to_end(&mut answer);
        drop(tokio::time::timeout(Duration::from_secs(5), until_it_hangs_up).await.unwrap());
    }
    assert_eq!(victim.standing(), before);
    victim.write().await;
}
