//! Three real daemons with default settings. Their nodes have no pool, so they take part in
//! consensus, hold leases, serve the API, and run nothing: as much as etcd does.

#![allow(clippy::needless_update, reason = "messages get fields, which are left empty here")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use holdfast_proto::internal::AdmitRequest;
use holdfast_proto::internal::leader_service_client::LeaderServiceClient;
use holdfast_proto::v1::cluster_service_client::ClusterServiceClient;
use holdfast_proto::v1::{self, NodeRole};
use holdfast_proto::{Address, Dialer};
use holdfast_trust::{Bundle, Expected, Fingerprint, JoinToken, Secret, SecretKey, TlsClient};
use holdfast_types::{FeatureLevel, RequestId};
use tonic::Status;
use tonic::transport::Channel;

use crate::cluster::{Cluster, NODES, OBJECTS, VALUE_BYTES, connect, dialer, wait_until};
use crate::process::{Process, free_port};

/// What a node with driver lvm wants to be installed, and calls only once it has a pool.
const LVM: [&str; 4] = ["lvm", "thin_delta", "thin_check", "udevadm"];

/// The label that is written.
const LABEL: &str = "bench";

/// One question.
const LIMIT: Duration = Duration::from_secs(5);

/// The cluster.
pub(crate) struct Holdfast {
    addresses: Vec<String>,
    dialer: Dialer,
    /// The first node's key.
    keys: PathBuf,
    processes: Vec<Process>,
}

impl Holdfast {
    /// Starts it, with its data below `dir`, and forms it.
    pub(crate) async fn begin(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let tools = Tools::make(dir)?;
        let addresses = (0..NODES).map(|_| Ok(format!("127.0.0.1:{}", free_port()?)));
        let addresses: Vec<String> = addresses.collect::<Result<_>>()?;
        let mut processes = Vec::new();
        let mut sockets = Vec::new();
        for (n, address) in addresses.iter().enumerate() {
            let home = dir.join(format!("h{n}"));
            fs::create_dir_all(&home)?;
            let config = write_config(&home, n, address, &tools)?;
            let command = tools.command(&config);
            processes.push(Process::start(command, dir.join(format!("h{n}.log")))?);
            sockets.push(home.join("sock"));
        }
        let keys = dir.join("h0/state/keys.pem");
        let mut cluster = Self { addresses, dialer: Dialer::local(), keys, processes };
        cluster.form(&sockets).await?;
        let keys = fs::read_to_string(&cluster.keys)?;
        cluster.dialer = dialer(&Bundle::from_pem(&keys)?)?;
        cluster.admit_objects().await?;
        Ok(cluster)
    }

    async fn form(&self, sockets: &[PathBuf]) -> Result<()> {
        wait_until("the cluster to be founded", || async {
            local(&sockets[0]).await?.init(v1::InitRequest::default()).await?;
            Ok(true)
        })
        .await?;
        for socket in &sockets[1..] {
            let token = token(local(&sockets[0]).await?).await?.to_string();
            let request = v1::JoinRequest {
                peers: vec![self.addresses[0].clone()],
                role: NodeRole::Voter.into(),
                token,
                ..Default::default()
            };
            wait_until("a node to join", || async {
                local(socket).await?.join(request.clone()).await?;
                Ok(true)
            })
            .await?;
        }
        Ok(())
    }

    /// What is written and read are labels of workers that are never there.
    async fn admit_objects(&self) -> Result<()> {
        self.ready().await?;
        let leader = connect(&self.dialer, &self.addresses[self.leader().await?])?;
        let newcomer = self.newcomer(self.leader().await?)?;
        for object in 0..OBJECTS {
            let token = token(ClusterServiceClient::new(leader.clone())).await?;
            let key = SecretKey::generate()?;
            let address = 0x7f12_0000 + u32::try_from(object)?;
            let request = worker(&name(object), address, &token, &key)?;
            LeaderServiceClient::new(newcomer.clone()).admit(request).await?;
        }
        Ok(())
    }

    /// A channel to the leader of whoever has no certificate yet.
    pub(crate) fn newcomer(&self, leader: usize) -> Result<Channel> {
        let keys = Bundle::from_pem(&fs::read_to_string(&self.keys)?)?;
        let cluster = keys.certificate.principal()?.cluster();
        let expected = Expected { cluster, member: true, roster: None };
        let client = TlsClient::anonymous(&keys.authorities, expected)?;
        Ok(Dialer::tls(client).lazy(&self.addresses[leader].parse()?, LIMIT))
    }

    /// What the cluster says of itself, asked through that node.
    pub(crate) async fn status(&self, node: usize) -> Result<v1::StatusResponse> {
        let mut client = ClusterServiceClient::new(connect(&self.dialer, &self.addresses[node])?);
        let asked = client.status(v1::StatusRequest::default());
        Ok(tokio::time::timeout(LIMIT, asked).await??.into_inner())
    }
}

impl Cluster for Holdfast {
    const NAME: &str = "holdfast";

    fn addresses(&self) -> &[String] {
        &self.addresses
    }

    fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    fn processes(&mut self) -> &mut [Process] {
        &mut self.processes
    }

    async fn write(channel: Channel, object: u64, value: String) -> Result<(), Status> {
        let request = v1::SetLabelsRequest {
            name: name(object),
            set: [(LABEL.to_owned(), value)].into(),
            request_id: RequestId::generate().to_bytes().into(),
            ..Default::default()
        };
        ClusterServiceClient::new(channel).set_labels(request).await?;
        Ok(())
    }

    async fn read(channel: Channel, object: u64) -> Result<(), Status> {
        let request = v1::GetNodeRequest { name: name(object), ..Default::default() };
        let node = ClusterServiceClient::new(channel).get_node(request).await?.into_inner();
        match node.labels.get(LABEL) {
            Some(value) if value.len() == VALUE_BYTES => Ok(()),
            _ => Err(Status::data_loss("the object is not there")),
        }
    }

    async fn leader(&self) -> Result<usize> {
        for node in 0..NODES {
            let Ok(status) = self.status(node).await else { continue };
            let at = |n: usize| format!("h{n}") == status.leader;
            if let Some(leader) = (0..NODES).find(|n| at(*n)) {
                return Ok(leader);
            }
        }
        anyhow::bail!("nobody leads")
    }

    async fn ready(&self) -> Result<()> {
        wait_until("every node to be up", || async {
            let mut terms = Vec::new();
            for node in 0..NODES {
                let status = self.status(node).await?;
                let up = status.nodes.iter().filter(|n| n.state() == v1::NodeState::Up).count();
                terms.push((up >= NODES && !status.leader.is_empty()).then_some(status.term));
            }
            Ok(terms[0].is_some() && terms.iter().all(|term| *term == terms[0]))
        })
        .await
    }
}

/// A worker to admit, with an address of the loopback network at which nobody answers.
pub(crate) fn worker(
    name: &str,
    address: u32,
    token: &JoinToken,
    key: &SecretKey,
) -> Result<AdmitRequest> {
    let underlay = std::net::Ipv4Addr::from(address);
    Ok(AdmitRequest {
        name: name.to_owned(),
        address: format!("{underlay}:7443"),
        role: NodeRole::Worker as u32,
        request_id: RequestId::generate().to_bytes().into(),
        underlay: underlay.to_string(),
        feature_level: FeatureLevel::OURS.0,
        token_id: token.id.as_bytes().to_vec().into(),
        token_secret: token.secret.0.to_vec().into(),
        signing_request: key.signing_request()?.into(),
        ..Default::default()
    })
}

/// A token that lets one node in.
pub(crate) async fn token(mut client: ClusterServiceClient<Channel>) -> Result<JoinToken> {
    let (id, secret) = (RequestId::generate(), Secret::generate()?);
    let request = v1::CreateTokenRequest {
        request_id: id.to_bytes().into(),
        hash: secret.hash().to_vec().into(),
        ..Default::default()
    };
    let made = client.create_token(request).await?.into_inner();
    let authority = Fingerprint(made.authority.as_ref().try_into()?);
    Ok(JoinToken { id: id.0, secret, authority })
}

fn name(object: u64) -> String {
    format!("object-{object}")
}

async fn local(socket: &Path) -> Result<ClusterServiceClient<Channel>> {
    Ok(ClusterServiceClient::new(
        Dialer::local().connect(&Address::Unix(socket.to_owned()), LIMIT).await?,
    ))
}

fn write_config(home: &Path, n: usize, address: &str, tools: &Tools) -> Result<PathBuf> {
    let file = home.join("holdfastd.toml");
    let (home, guardian) = (home.display(), tools.dir.join("holdfast-guardian"));
    let text = format!(
        "name = \"h{n}\"\ndata_dir = \"{home}/state\"\nsocket = \"{home}/sock\"\n\
         listen = \"{address}\"\nadvertise = \"{address}\"\ncgroup_root = \"holdfast-bench/h{n}\"\n\
         [guardian]\nsocket = \"{home}/guardian.sock\"\nbinary = \"{}\"\n\
         [pool]\ndriver = \"lvm\"\n[network]\nunderlay = \"127.0.0.1\"\n\
         [lxc]\npath = \"{home}/lxc\"\n",
        guardian.display()
    );
    fs::write(&file, text)?;
    Ok(file)
}

/// Programs that a daemon looks for when it starts and that these nodes never run. Empty files
/// stand in for them, which these daemons alone see.
struct Tools {
    dir: PathBuf,
}

impl Tools {
    fn make(dir: &Path) -> Result<Self> {
        let dir = dir.join("tools");
        fs::create_dir_all(&dir)?;
        for program in LVM.iter().chain(&["holdfast-guardian", "holdfast-freeze"]) {
            fs::write(dir.join(program), "")?;
        }
        Ok(Self { dir })
    }

    /// The daemon, in a mount namespace in which it finds them.
    fn command(&self, config: &Path) -> Vec<std::ffi::OsString> {
        let script = "mount -t overlay -o \"lowerdir=/usr/sbin:$1\" overlay /usr/sbin && \
                      exec \"$2\" --config \"$3\"";
        let words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"];
        let mut command: Vec<std::ffi::OsString> = words.iter().map(Into::into).collect();
        command.push(self.dir.clone().into());
        command.push(env!("CARGO_BIN_EXE_holdfastd").into());
        command.push(config.into());
        command
    }
}
