//! Nodes in one process, over real tonic on loopback, with links that can be cut.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::BTreeSet;
use std::time::Duration;

use holdfast_core::{
    AdmitNode, Command, Entry, InitCluster, NewNode, NodeRole, Outcome, RecordFloor, RemoveImage,
};
use holdfast_proto::Dialer;
use holdfast_raft::{CareLimits, Connector, Identity, RaftConfig, RaftError, RaftNode};
use holdfast_types::{
    ClusterId, ContainerUid, Epoch, LeaseSettings, NodeId, RequestId, Seq, SnapshotId,
    SnapshotUuid, TimestampMs, VolumeUid,
};
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::io::{copy_bidirectional, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::time::{sleep, timeout};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Endpoint, Server, Uri};
use tower::service_fn;

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// An entry that is refused, and remembered by its request id as every entry is.
pub(crate) fn entry(request: RequestId) -> Entry {
    let command = Command::RemoveImage(RemoveImage { name: "none".parse().expect("a name") });
    Entry { request, at: TimestampMs(0), command }
}

/// A command that is larger than an entry may be.
pub(crate) fn large_command() -> Command {
    let uid = ContainerUid::generate();
    let snapshot = SnapshotId {
        volume: VolumeUid::from(uid),
        epoch: Epoch(1),
        seq: Seq(1),
        uuid: SnapshotUuid::generate(),
        parent: None,
    };
    let copies = (0..2_000).map(|_| (uid, NodeId(1), snapshot, TimestampMs(0)));
    Command::RecordFloor(RecordFloor { copies: copies.collect() })
}

/// Nodes whose links are cut, by address; `from>to` is cut in that direction only: the one cannot call
/// the other.
pub(crate) type Cuts = watch::Sender<BTreeSet<String>>;

/// A connector whose connections end when either end, or this direction, is cut.
fn cuttable(cuts: &Cuts, from: String) -> Connector {
    let cuts = cuts.clone();
    std::sync::Arc::new(move |to: &str| {
        let (cuts, from, to) = (cuts.subscribe(), from.clone(), to.to_owned());
        let endpoint = Endpoint::from_shared(format!("http://{to}")).expect("an address");
        Ok(endpoint.connect_with_connector_lazy(service_fn(move |_: Uri| {
            let (mut cuts, from, to) = (cuts.clone(), from.clone(), to.clone());
            async move {
                let ends = [format!("{from}>{to}"), from, to.clone()];
                let is_cut = move |cut: &BTreeSet<String>| ends.iter().any(|e| cut.contains(e));
                if is_cut(&cuts.borrow()) {
                    return Err(std::io::Error::other("the link is cut"));
                }
                let mut tcp = TcpStream::connect(&to).await?;
                tcp.set_nodelay(true)?;
                let (near, mut far) = duplex(64 << 10);
                tokio::spawn(async move {
                    tokio::select! {
                        _ = copy_bidirectional(&mut tcp, &mut far) => {}
                        _ = cuts.wait_for(is_cut) => {}
                    }
                });
                Ok(TokioIo::new(near))
            }
        })))
    })
}

/// A running node.
pub(crate) struct Running {
    pub(crate) node: RaftNode,
    stop: oneshot::Sender<()>,
    server: tokio::task::JoinHandle<()>,
}

/// One machine: its disk and address outlive its processes.
pub(crate) struct Machine {
    pub(crate) dir: TempDir,
    pub(crate) identity: Identity,
    pub(crate) addr: String,
    pub(crate) running: Option<Running>,
}

impl Machine {
    pub(crate) fn node(&self) -> &RaftNode {
        &self.running.as_ref().expect("the node runs").node
    }

    pub(crate) async fn stop(&mut self) {
        let Some(running) = self.running.take() else { return };
        running.node.shutdown().await.expect("shutdown");
        assert_eq!(running.node.leadership_now().reign, None, "a node that stopped claims to lead");
        drop(running.stop);
        running.server.abort();
        drop(running.server.await);
    }
}

/// A cluster.
pub(crate) struct Cluster {
    pub(crate) machines: Vec<Machine>,
    pub(crate) cuts: Cuts,
    pub(crate) cluster: ClusterId,
    pub(crate) tune: fn(&mut RaftConfig),
}

impl Cluster {
    /// `n` voters; node 1 founded it and leads.
    pub(crate) async fn of(n: u64, tune: fn(&mut RaftConfig)) -> Self {
        let mut cluster = Self {
            machines: Vec::new(),
            cuts: watch::Sender::new(BTreeSet::new()),
            cluster: ClusterId::generate(),
            tune,
        };
        for _ in 0..n {
            cluster.add_machine().await;
        }
        let first = cluster.machines[0].node().clone();
        first.initialize(&cluster.machines[0].addr).await.expect("initialize");
        for machine in &cluster.machines[1..] {
            first.add_learner(machine.identity.node, &machine.addr).await.expect("add_learner");
        }
        let voters = (1..=n).map(NodeId).collect();
        first.change_voters(voters).await.expect("change_voters");
        cluster
    }

    /// `n` voters whose ids are those that the state gave them, as nodes `n1` and so on. Node 1 leads.
    pub(crate) async fn admitted(n: usize, tune: fn(&mut RaftConfig)) -> Self {
        let mut cluster = Self::of(1, tune).await;
        cluster.leader(&[0]).await;
        let first = cluster.machines[0].node().clone();
        let init = InitCluster {
            cluster: cluster.cluster,
            lease: LeaseSettings::default(),
            overlay: "10.77.0.0/16".parse().expect("a range"),
            founder: new_node("n1", &cluster.machines[0].addr),
        };
        commit(&first, Command::InitCluster(init)).await;
        for number in 2..=n {
            let name = format!("n{number}");
            let admit = AdmitNode { node: new_node(&name, &name) };
            let Outcome::Node(id) = commit(&first, Command::AdmitNode(admit)).await else {
                panic!("no node")
            };
            cluster.add_machine_as(id).await;
            let added = cluster.machines.last().expect("a machine");
            first.add_learner(id, &added.addr).await.expect("add_learner");
        }
        let voters = cluster.machines.iter().map(|m| m.identity.node).collect();
        first.change_voters(voters).await.expect("change_voters");
        cluster
    }

    pub(crate) async fn add_machine(&mut self) -> NodeId {
        let node = NodeId(self.machines.len() as u64 + 1);
        self.add_machine_as(node).await;
        node
    }

    pub(crate) async fn add_machine_as(&mut self, node: NodeId) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let addr = listener.local_addr().expect("address").to_string();
        let identity = Identity { cluster: self.cluster, node };
        let dir = tempfile::tempdir().expect("tempdir");
        self.machines.push(Machine { dir, identity, addr, running: None });
        let at = self.machines.len() - 1;
        self.boot_on(at, listener).await.expect("start");
    }

    /// Starts a node that was stopped, at its old address.
    pub(crate) async fn boot(&mut self, at: usize) -> Result<(), RaftError> {
        let listener = wait(async || TcpListener::bind(&self.machines[at].addr).await.ok()).await;
        self.boot_on(at, listener).await
    }

    async fn boot_on(&mut self, at: usize, listener: TcpListener) -> Result<(), RaftError> {
        let machine = &mut self.machines[at];
        let mut config =
            RaftConfig::new(machine.dir.path().join("raft"), machine.identity, Dialer::plaintext());
        config.connector = cuttable(&self.cuts, machine.addr.clone());
        // A slow disk under the tests must not move leadership, but where that is what they try.
        config.care = CareLimits { slow_ms: u64::MAX, floor_bytes: 0 };
        (self.tune)(&mut config);
        let node = RaftNode::start(config).await?;
        let (stop, stopped) = oneshot::channel::<()>();
        let serve = Server::builder().add_service(node.service());
        let server = tokio::spawn(async move {
            let until = async { drop(stopped.await) };
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            serve.serve_with_incoming_shutdown(incoming, until).await.expect("serve");
        });
        machine.running = Some(Running { node, stop, server });
        Ok(())
    }

    pub(crate) fn cut(&self, at: &[usize]) {
        let addrs = at.iter().map(|at| self.machines[*at].addr.clone()).collect();
        self.cuts.send_replace(addrs);
    }

    /// Cuts each of these ways from the first to the second, and no other.
    pub(crate) fn cut_ways(&self, ways: &[(usize, usize)]) {
        let addr = |at: usize| &self.machines[at].addr;
        let ways = ways.iter().map(|(from, to)| format!("{}>{}", addr(*from), addr(*to)));
        self.cuts.send_replace(ways.collect());
    }

    /// The one of `among` that leads and is ready, once there is one.
    pub(crate) async fn leader(&self, among: &[usize]) -> usize {
        wait(async || {
            among.iter().copied().find(|at| {
                let leadership = self.machines[*at].node().leadership_now();
                leadership.reign.is_some_and(|r| r.ready)
            })
        })
        .await
    }

    /// Proposes `n` entries at whoever of `among` leads, and returns their request ids.
    pub(crate) async fn write(&self, among: &[usize], n: usize) -> Vec<RequestId> {
        let mut acked = Vec::new();
        for _ in 0..n {
            let request = RequestId::generate();
            let done = async || {
                let leader = self.leader(among).await;
                self.machines[leader].node().propose(entry(request)).await.ok()
            };
            drop(wait(done).await);
            acked.push(request);
        }
        acked
    }

    /// Waits until every one of `among` has applied all of `acked`.
    pub(crate) async fn all_have(&self, among: &[usize], acked: &[RequestId]) {
        for at in among {
            wait(async || {
                let state = self.machines[*at].node().state();
                acked.iter().all(|r| state.answered.contains_key(r)).then_some(())
            })
            .await;
        }
    }
}

pub(crate) fn new_node(name: &str, address: &str) -> NewNode {
    NewNode {
        name: name.parse().expect("a name"),
        address: address.to_owned(),
        underlay: "10.88.0.1".parse().expect("an address"),
        role: NodeRole::Voter,
        asked: None,
    }
}

/// Proposes a command that the state does not refuse.
pub(crate) async fn commit(node: &RaftNode, command: Command) -> Outcome {
    let entry = Entry { request: RequestId::generate(), at: TimestampMs(7), command };
    node.propose(entry).await.expect("consensus").expect("the state")
}

/// Tries until it works, with a deadline.
pub(crate) async fn wait<T>(mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let tries = async {
        loop {
            if let Some(found) = attempt().await {
                return found;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, tries).await.expect("it did not come true in time")
}
