//! Two nodes for tests of transfers: agents on pools in memory, joined by a real connection that can
//! be cut.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use holdfast_network::fake::FakeNetwork;
use holdfast_proto::internal::peer_service_server::PeerServiceServer;
use holdfast_proto::{Dialer, Dialers, Sender};
use holdfast_runtime::fake::FakeRuntime;
use holdfast_storage::fake::FakePool;
use holdfast_storage::{AlreadyQuiet, Pool, PoolIdentity, SnapshotInfo};
use holdfast_types::{
    AssignedView, ByteSize, Chain, ClusterId, CopyView, Epoch, Incarnation, KeptView,
    LeaseSettings, NodeId, NodeView, ReplicaView, Revision, SnapshotUuid,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Request;
use tonic::service::interceptor::InterceptedService;
use uuid::Uuid;

use crate::agent::Parts;
use crate::config::{AgentConfig, AgentIdentity};
use crate::context::Context;
use crate::replicate::TransferLimits;
use crate::scrub::ScrubPace;
use crate::serve::PeerApi;
use crate::testing::{UID, assigned};

const CLUSTER: ClusterId = ClusterId(Uuid::from_u128(1));
pub(crate) const SENDER: NodeId = NodeId(1);
pub(crate) const RECEIVER: NodeId = NodeId(2);

/// One node.
pub(crate) struct Node {
    pub(crate) context: Arc<Context>,
    pub(crate) pool: FakePool,
    /// Whom it takes its callers for.
    pub(crate) sender: Arc<AtomicU64>,
}

/// The primary and the replica of [`UID`].
pub(crate) struct Pair {
    pub(crate) sender: Node,
    pub(crate) receiver: Node,
    /// Where the receiver listens.
    pub(crate) address: SocketAddr,
}

/// What becomes of a connection that has carried as much as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Both ends notice.
    Cut,
    /// Nobody notices.
    Silence,
}

impl Pair {
    /// A primary copy of `size` with random content, and nothing at its replica.
    pub(crate) async fn new(size: ByteSize, limits: TransferLimits) -> Self {
        let sender = Node::new(SENDER, limits);
        let receiver = Node::new(RECEIVER, limits);
        sender.pool.create(UID.into(), size, Epoch(1)).unwrap();
        sender.pool.activate(UID.into(), Epoch(1)).unwrap();
        sender.context.set_view(NodeView { assigned: vec![primary()], ..view(SENDER) });
        receiver.know(Epoch(1));
        let address = receiver.listen().await;
        let pair = Self { sender, receiver, address };
        pair.write(0, size.bytes(), 1);
        pair
    }

    /// Writes random content of that seed.
    pub(crate) fn write(&self, offset: u64, len: u64, seed: u64) {
        let mut word = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            word.to_le_bytes()
        };
        let mut piece = vec![0; 1 << 20];
        for at in (0..len).step_by(piece.len()) {
            piece.chunks_exact_mut(8).for_each(|chunk| chunk.copy_from_slice(&next()));
            let piece = &piece[..piece.len().min((len - at) as usize)];
            self.sender.pool.write(UID.into(), offset + at, piece).unwrap();
        }
    }

    pub(crate) fn snapshot(&self) -> SnapshotInfo {
        let state = self.sender.pool.volume(UID.into()).unwrap().state;
        let id = state.next_snapshot(SnapshotUuid::generate()).unwrap();
        let taken = crate::clock::wall();
        self.sender.pool.snapshot(&id, taken, &mut AlreadyQuiet).unwrap();
        self.sender.pool.volume(UID.into()).unwrap().state.find(id.uuid).unwrap().clone()
    }

    /// A way to the receiver that carries so many bytes, over all its connections.
    pub(crate) async fn way(&self, bytes: u64, fault: Fault) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, to) = (listener.local_addr().unwrap().to_string(), self.address);
        tokio::spawn(async move {
            let mut left = usize::try_from(bytes).unwrap();
            while let Ok((from, _)) = listener.accept().await {
                let to = TcpStream::connect(to).await.unwrap();
                carry(from, to, &mut left, fault).await;
            }
        });
        address
    }

    /// Panics unless the replica has exactly this snapshot's content.
    pub(crate) fn assert_same(&self, snapshot: &SnapshotInfo) {
        let len = snapshot.size.bytes() as usize;
        let content = |pool: &FakePool| {
            let mut content = vec![0; len];
            pool.open_snapshot(snapshot.id.uuid).unwrap().read_at(0, &mut content).unwrap();
            content
        };
        assert!(content(&self.sender.pool) == content(&self.receiver.pool), "another content");
    }
}

impl Node {
    fn new(node: NodeId, transfers: TransferLimits) -> Self {
        let identity = PoolIdentity { cluster: CLUSTER, pool: Uuid::from_u128(node.0.into()) };
        Self::on(FakePool::new(identity, ByteSize::gib(4)), node, transfers)
    }

    /// One with that pool.
    pub(crate) fn on(pool: FakePool, node: NodeId, transfers: TransferLimits) -> Self {
        let config = AgentConfig {
            identity: AgentIdentity { cluster: CLUSTER, node },
            data_dir: PathBuf::from("/nonexistent"),
            guardian_socket: PathBuf::from("/nonexistent/guardian.sock"),
            guardian_binary: PathBuf::from("/nonexistent/guardian"),
            link_group: 72,
            cgroup_root: "none".into(),
            freeze_binary: PathBuf::from("/nonexistent/freeze"),
            trim_every: Duration::ZERO,
            underlay: "127.0.0.1".parse().unwrap(),
            overlay_gateways: Vec::new(),
            vxlan_id: 77,
            vxlan_port: 7789,
            scrub: ScrubPace { rate: ByteSize(0), every: Duration::ZERO },
            transfers,
            witness: false,
            dialers: Dialers::both(Dialer::plaintext()),
            standing: Arc::default(),
            seeds: Vec::new(),
        };
        let context = Arc::new(Context::new(config, watch::channel(None).1));
        context.set_parts(Parts {
            pool: Arc::new(pool.clone()),
            name: "default".into(),
            driver: "fake".into(),
            runtime: Arc::new(FakeRuntime::default()),
            network: Arc::new(FakeNetwork::new()),
        });
        Self { context, pool, sender: Arc::new(AtomicU64::new(SENDER.0)) }
    }

    /// The view of a replica under that epoch.
    pub(crate) fn know(&self, epoch: Epoch) {
        let replica = ReplicaView {
            uid: UID,
            name: "web".parse().unwrap(),
            chain: Chain::begin(epoch),
            primary: SENDER,
            keep: Vec::new(),
            origin: None,
            kept: Vec::new(),
        };
        self.context.set_view(NodeView { replicas: vec![replica], ..view(RECEIVER) });
    }

    /// It is to keep that snapshot by name.
    pub(crate) fn keeps(&self, snapshot: &SnapshotInfo) {
        let kept = KeptView {
            name: "named".parse().unwrap(),
            uuid: snapshot.id.uuid,
            wanted: false,
            held: false,
            holders: Vec::new(),
        };
        let mut view = NodeView::clone(&self.context.view().unwrap());
        view.replicas[0].kept.push(kept);
        self.context.set_view(view);
    }

    async fn listen(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = PeerServiceServer::new(PeerApi::new(self.context.clone()))
            .max_decoding_message_size(holdfast_proto::MAX_MESSAGE_BYTES);
        let sender = self.sender.clone();
        let service = InterceptedService::new(service, move |mut request: Request<()>| {
            request.extensions_mut().insert(Sender(NodeId(sender.load(Ordering::Relaxed))));
            Ok(request)
        });
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        address
    }
}

fn primary() -> AssignedView {
    let replicas = vec![CopyView { node: RECEIVER, newest: None }];
    AssignedView { replicas, ..assigned() }
}

fn view(node: NodeId) -> NodeView {
    NodeView {
        revision: Revision(1),
        assignment_revision: Revision(1),
        cluster: CLUSTER,
        node,
        incarnation: Incarnation(0),
        lease: LeaseSettings::default(),
        overlay: "10.77.0.0/16".parse().unwrap(),
        peers: Vec::new(),
        assigned: Vec::new(),
        replicas: Vec::new(),
        deleting: Vec::new(),
        images: Vec::new(),
    }
}

/// Carries bytes there until none are `left`, and answers back. What was carried arrives.
async fn carry(mut from: TcpStream, mut to: TcpStream, left: &mut usize, fault: Fault) {
    let (mut from_read, mut from_write) = from.split();
    let (mut to_read, mut to_write) = to.split();
    let there = async {
        let mut buffer = vec![0; 16 << 10];
        while *left > 0 {
            let Ok(n @ 1..) = from_read.read(&mut buffer).await else { break };
            let n = n.min(*left);
            if to_write.write_all(&buffer[..n]).await.is_err() {
                break;
            }
            *left -= n;
        }
        if *left == 0 && fault == Fault::Silence {
            std::future::pending::<()>().await;
        }
        let _ = to_write.shutdown().await;
    };
    tokio::select! {
        _ = tokio::io::copy(&mut to_read, &mut from_write) => return,
        () = there => {}
    }
    drop(from);
    let mut rest = Vec::new();
    let _ = to_read.read_to_end(&mut rest).await;
}
