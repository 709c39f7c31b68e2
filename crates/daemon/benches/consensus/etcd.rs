//! Three nodes of etcd with its default settings but for TLS, which is mutual as ours is, and what is needed of its API.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use holdfast_proto::Dialer;
use holdfast_trust::{Authority, Bundle, LIFETIME, Principal, SecretKey, SigningRequest, Subject};
use holdfast_types::{ClusterId, NodeId};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use crate::cluster::{Cluster, NODES, VALUE_BYTES, connect, dialer, wait_until};
use crate::process::{Process, free_port};

/// The messages of etcd's API v3 with the fields that are used here; their numbers are etcd's.
mod api {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Header {
        #[prost(uint64, tag = "2")]
        pub(super) member: u64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Put {
        #[prost(bytes = "vec", tag = "1")]
        pub(super) key: Vec<u8>,
        #[prost(string, tag = "2")]
        pub(super) value: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Range {
        #[prost(bytes = "vec", tag = "1")]
        pub(super) key: Vec<u8>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Pair {
        #[prost(bytes = "vec", tag = "5")]
        pub(super) value: Vec<u8>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Found {
        #[prost(message, repeated, tag = "2")]
        pub(super) pairs: Vec<Pair>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Empty {}

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Standing {
        #[prost(message, optional, tag = "1")]
        pub(super) header: Option<Header>,
        #[prost(uint64, tag = "4")]
        pub(super) leader: u64,
    }
}

/// The cluster.
pub(crate) struct Etcd {
    addresses: Vec<String>,
    dialer: Dialer,
    processes: Vec<Process>,
}

impl Etcd {
    /// Starts it, with its data below `dir`.
    pub(crate) async fn begin(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let ports = |_| (0..NODES).map(|_| free_port()).collect::<Result<Vec<_>>>();
        let (clients, peers) = (ports(())?, ports(())?);
        let member = |(n, port): (usize, &u16)| format!("e{n}=https://127.0.0.1:{port}");
        let members = peers.iter().enumerate().map(member).collect::<Vec<_>>().join(",");
        let trust = Trust::new()?;
        let own = trust.keys(&format!("127.0.0.1:{}", clients[0]))?;
        let dialer = dialer(&own)?;
        let authority = dir.join("authority.pem");
        std::fs::write(&authority, own.to_pem().replace("HOLDFAST AUTHORITY", "CERTIFICATE"))?;
        let authority = authority.to_str().context("a path of text")?;
        let mut processes = Vec::new();
        for (n, (client, peer)) in clients.iter().zip(&peers).enumerate() {
            let keys = dir.join(format!("keys{n}.pem"));
            // It reads nothing of another label.
            std::fs::write(&keys, trust.keys(&format!("127.0.0.1:{client}"))?.to_pem())?;
            let keys = keys.to_str().context("a path of text")?;
            let client = format!("https://127.0.0.1:{client}");
            let peer = format!("https://127.0.0.1:{peer}");
            let name = format!("e{n}");
            let data = dir.join(&name);
            let data = data.to_str().context("a path of text")?;
            // Beside these its settings are the default ones: what is written is flushed.
            let trust = [
                ["--cert-file", keys, "--key-file", keys],
                ["--trusted-ca-file", authority, "--peer-trusted-ca-file", authority],
                ["--peer-cert-file", keys, "--peer-key-file", keys],
            ];
            let both = ["--client-cert-auth", "--peer-client-cert-auth"];
            let command = [
                ["etcd", "--name"],
                [&name, "--data-dir"],
                [data, "--listen-client-urls"],
                [&client, "--advertise-client-urls"],
                [&client, "--listen-peer-urls"],
                [&peer, "--initial-advertise-peer-urls"],
                [&peer, "--initial-cluster"],
                [&members, "--log-level"],
                ["error", "--logger"],
            ];
            let words = command.iter().flatten().copied().chain(["zap"]);
            let words = words.chain(trust.into_iter().flatten()).chain(both).map(Into::into);
            processes.push(Process::start(words.collect(), dir.join(format!("{name}.log")))?);
        }
        let addresses = clients.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        Ok(Self { addresses, dialer, processes })
    }

    async fn standing(&self, node: usize) -> Result<(u64, u64)> {
        let channel = connect(&self.dialer, &self.addresses[node])?;
        let asked = call(channel, "/etcdserverpb.Maintenance/Status", api::Empty {});
        let standing: api::Standing = tokio::time::timeout(Duration::from_secs(1), asked).await??;
        Ok((standing.header.context("a header")?.member, standing.leader))
    }
}

impl Cluster for Etcd {
    const NAME: &str = "etcd";

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
        let put = api::Put { key: key(object), value };
        let _: api::Empty = call(channel, "/etcdserverpb.KV/Put", put).await?;
        Ok(())
    }

    /// A range is linearizable unless it is asked to be serializable.
    async fn read(channel: Channel, object: u64) -> Result<(), Status> {
        let range = api::Range { key: key(object) };
        let found: api::Found = call(channel, "/etcdserverpb.KV/Range", range).await?;
        match &found.pairs[..] {
            [pair] if pair.value.len() == VALUE_BYTES => Ok(()),
            _ => Err(Status::data_loss("the object is not there")),
        }
    }

    async fn leader(&self) -> Result<usize> {
        let mut members = Vec::new();
        for node in 0..NODES {
            members.push(self.standing(node).await.ok());
        }
        let leader = members.iter().flatten().map(|(_, leader)| *leader).find(|l| *l != 0);
        let leader = leader.context("nobody leads")?;
        let at = members.iter().position(|m| m.is_some_and(|(member, _)| member == leader));
        at.context("the leader does not answer")
    }

    async fn ready(&self) -> Result<()> {
        wait_until("etcd to be whole", || async {
            let mut leaders = Vec::new();
            for node in 0..NODES {
                leaders.push(self.standing(node).await?.1);
            }
            Ok(leaders[0] != 0 && leaders.iter().all(|leader| *leader == leaders[0]))
        })
        .await
    }
}

/// An authority like ours, and a key of the same kind for each node.
struct Trust {
    cluster: ClusterId,
    authority: Authority,
    now_s: i64,
}

impl Trust {
    fn new() -> Result<Self> {
        let now_s = rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec;
        let cluster = ClusterId::generate();
        Ok(Self { cluster, authority: Authority::generate(cluster, now_s)?, now_s })
    }

    fn keys(&self, address: &str) -> Result<Bundle> {
        let key = SecretKey::generate()?;
        let request = SigningRequest::from_der(&key.signing_request()?)?;
        let principal = Principal::Member(self.cluster, NodeId(1));
        let subject = Subject { principal, address: Some(address.into()), name: "etcd".into() };
        let certificate = self.authority.certify(&request, &subject, self.now_s, LIFETIME)?;
        Ok(Bundle { key, certificate, authorities: vec![self.authority.certificate().clone()] })
    }
}

fn key(object: u64) -> Vec<u8> {
    format!("bench/{object}").into_bytes()
}

async fn call<Q, A>(channel: Channel, path: &'static str, question: Q) -> Result<A, Status>
where
    Q: prost::Message + Send + Sync + 'static,
    A: prost::Message + Default + Send + Sync + 'static,
{
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
    let path = PathAndQuery::from_static(path);
    let codec = ProstCodec::<Q, A>::default();
    Ok(client.unary(Request::new(question), path, codec).await?.into_inner())
}
