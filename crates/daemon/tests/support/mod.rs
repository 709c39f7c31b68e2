//! A few daemons on loopback, on machines that only pretend.

#![allow(dead_code, reason = "each test file uses its own part")]

mod program;
mod puppet;

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_daemon::{
    Config, ConsensusConfig, Daemon, DaemonError, GuardianConfig, LxcConfig, NetworkConfig,
    PoolConfig,
};
use holdfast_proto::v1::cluster_service_client::ClusterServiceClient;
use holdfast_proto::{Address, Dialer, LEASE_UNKNOWN, RemoteError, v1};
use holdfast_trust::{Bundle, Expected, Fingerprint, JoinToken, Secret, TlsClient};
use holdfast_types::RequestId;
use tempfile::TempDir;
use tonic::transport::Channel;

pub(crate) use puppet::{Puppet, Strings};

/// One daemon that can be stopped and started again.
pub(crate) struct Node {
    pub(crate) config: Config,
    pub(crate) strings: Arc<Strings>,
    daemon: Option<Daemon>,
    _dir: TempDir,
}

impl Node {
    /// A machine that is in no cluster, running.
    pub(crate) async fn fresh(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let config = Config {
            name: name.parse().unwrap(),
            data_dir: dir.path().join("state"),
            socket: dir.path().join("sock"),
            listen: address.clone(),
            advertise: address,
            metrics: Some(format!("127.0.0.1:{}", free_port())),
            cgroup_root: "holdfast-test".into(),
            guardian: GuardianConfig::default(),
            pool: PoolConfig::default(),
            network: NetworkConfig {
                underlay: "127.0.0.1".parse().unwrap(),
                overlay_gateways: Vec::new(),
                vxlan_id: 77,
                port: 7789,
            },
            lxc: LxcConfig::default(),
            replication: Default::default(),
            consensus: ConsensusConfig::default(),
        };
        let mut node = Self { config, strings: Arc::default(), daemon: None, _dir: dir };
        node.start().await.unwrap();
        node
    }

    pub(crate) async fn start(&mut self) -> Result<(), DaemonError> {
        let puppet = Arc::new(Puppet::new(&self.config, self.strings.clone()));
        self.daemon = Some(Daemon::start(self.config.clone(), puppet).await?);
        Ok(())
    }

    pub(crate) async fn stop(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.stop().await;
        }
    }

    /// Waits until the daemon cannot go on, and ends it.
    pub(crate) async fn failed(&mut self) -> DaemonError {
        let daemon = self.daemon.as_mut().unwrap();
        let limit = Duration::from_secs(30);
        let error = tokio::time::timeout(limit, daemon.failed()).await.expect("it goes on");
        self.stop().await;
        error
    }

    pub(crate) async fn remove(&self, name: &str, force: bool) -> Result<String, RemoteError> {
        let request =
            v1::RemoveNodeRequest { name: name.into(), force, request_id: Default::default() };
        Ok(self.cluster().remove_node(request).await?.into_inner().successor)
    }

    /// Through the local socket.
    pub(crate) fn local(&self) -> Channel {
        Dialer::local().lazy(&Address::Unix(self.socket()), Duration::from_secs(1))
    }

    /// Over TLS, as this very node.
    pub(crate) fn remote(&self) -> Channel {
        self.as_me().lazy(&self.config.listen.parse().unwrap(), Duration::from_secs(1))
    }

    /// How this node calls others.
    pub(crate) fn as_me(&self) -> Dialer {
        let bundle = self.bundle();
        let cluster = bundle.certificate.principal().unwrap().cluster();
        let expected = Expected { cluster, member: false, roster: None };
        Dialer::tls(TlsClient::new(&bundle, expected).unwrap())
    }

    /// Who it is, as it is on its disk.
    pub(crate) fn bundle(&self) -> Bundle {
        let pem = std::fs::read_to_string(self.config.data_dir.join("keys.pem")).unwrap();
        Bundle::from_pem(&pem).unwrap()
    }

    /// A token that lets one machine into this node's cluster.
    pub(crate) async fn token(&self) -> Result<String, RemoteError> {
        let (id, secret) = (RequestId::generate(), Secret::generate().unwrap());
        let request = v1::CreateTokenRequest {
            lifetime_s: 0,
            request_id: id.to_bytes().into(),
            hash: secret.hash().to_vec().into(),
        };
        let made = self.cluster().create_token(request).await?.into_inner();
        let authority = Fingerprint(made.authority.as_ref().try_into().unwrap());
        Ok(JoinToken { id: id.0, secret, authority }.to_string())
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.config.socket.clone()
    }

    pub(crate) fn cluster(&self) -> ClusterServiceClient<Channel> {
        ClusterServiceClient::new(self.local())
    }

    pub(crate) async fn init(&self) -> v1::InitResponse {
        self.cluster().init(v1::InitRequest::default()).await.unwrap().into_inner()
    }

    pub(crate) async fn join(
        &self,
        peer: &Node,
        role: v1::NodeRole,
    ) -> Result<v1::JoinResponse, RemoteError> {
        let token = peer.token().await?;
        self.join_with(peer, role, token).await
    }

    /// With a token that is there.
    pub(crate) async fn join_with(
        &self,
        peer: &Node,
        role: v1::NodeRole,
        token: String,
    ) -> Result<v1::JoinResponse, RemoteError> {
        let peers = vec![peer.config.advertise.clone()];
        let request = v1::JoinRequest { peers, role: role.into(), token };
        Ok(self.cluster().join(request).await?.into_inner())
    }

    pub(crate) async fn status(&self) -> v1::StatusResponse {
        self.cluster().status(v1::StatusRequest {}).await.unwrap().into_inner()
    }
}

/// Three voters, all up.
pub(crate) async fn three() -> [Node; 3] {
    let nodes = [Node::fresh("n1").await, Node::fresh("n2").await, Node::fresh("n3").await];
    nodes[0].init().await;
    nodes[1].join(&nodes[0], v1::NodeRole::Voter).await.unwrap();
    nodes[2].join(&nodes[0], v1::NodeRole::Unspecified).await.unwrap();
    all_up(&nodes[0], 3).await;
    nodes
}

/// Waits until so many nodes are up in the eyes of a leader.
pub(crate) async fn all_up(node: &Node, count: usize) -> v1::StatusResponse {
    let begun = Instant::now();
    loop {
        let status = node.status().await;
        let is_up = |n: &&v1::Node| n.state() == v1::NodeState::Up && n.note != LEASE_UNKNOWN;
        let up = status.nodes.iter().filter(is_up).count();
        if !status.leader.is_empty() && up == count {
            return status;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "not {count} nodes are up: {status:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Asks until there is an answer.
pub(crate) async fn wait<T>(
    what: &str,
    limit: Duration,
    mut ask: impl AsyncFnMut() -> Option<T>,
) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(begun.elapsed() < limit, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What a call came to, with our own code.
pub(crate) fn code<T>(
    answer: Result<tonic::Response<T>, tonic::Status>,
) -> Option<holdfast_types::Code> {
    answer.err().map(|status| RemoteError::from(status).code)
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
