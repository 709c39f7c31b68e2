//! Who gets in, and what a thief gets who has a worker's key.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic")]

mod support;

use std::time::Duration;

use holdfast_proto::internal::leader_service_client::LeaderServiceClient;
use holdfast_proto::internal::peer_service_client::PeerServiceClient;
use holdfast_proto::internal::raft_service_client::RaftServiceClient;
use holdfast_proto::internal::{
    AddImageRequest, HeartbeatRequest, ObserveRequest, RaftRequest, RegisterRequest, RenewRequest,
    ReportRequest, SealRequest, WatchViewRequest,
};
use holdfast_proto::v1::cluster_service_client::ClusterServiceClient;
use holdfast_proto::v1::container_service_client::ContainerServiceClient;
use holdfast_proto::{Dialer, Heartbeats, RemoteError, v1};
use holdfast_trust::{
    Authority, Bundle, Expected, LIFETIME, Principal, SecretKey, SigningRequest, Subject, TlsClient,
};
use holdfast_types::{ClusterId, Code, NodeId};
use support::{Node, all_up, code, three, wait};
use tonic::transport::Channel;

const PATIENCE: Duration = Duration::from_secs(30);

async fn member_and_worker() -> (Node, Node) {
    let (one, worker) = (Node::fresh("n1").await, Node::fresh("w1").await);
    one.init().await;
    worker.join(&one, v1::NodeRole::Worker).await.unwrap();
    all_up(&one, 2).await;
    (one, worker)
}

/// A channel to `to`, of somebody with that bundle.
fn channel(to: &Node, bundle: &Bundle) -> Channel {
    let cluster = to.bundle().certificate.principal().unwrap().cluster();
    let client = TlsClient::new(bundle, Expected { cluster, member: false, roster: None });
    Dialer::tls(client.unwrap()).lazy(&to.config.listen.parse().unwrap(), Duration::from_secs(2))
}

/// One that shows no certificate.
fn stranger(to: &Node) -> Channel {
    let own = to.bundle();
    let cluster = own.certificate.principal().unwrap().cluster();
    let expected = Expected { cluster, member: true, roster: None };
    let client = TlsClient::anonymous(&own.authorities, expected).unwrap();
    Dialer::tls(client).lazy(&to.config.listen.parse().unwrap(), Duration::from_secs(2))
}

fn cluster(node: &Node) -> ClusterId {
    node.bundle().certificate.principal().unwrap().cluster()
}

fn id(node: &Node) -> u64 {
    node.bundle().certificate.principal().unwrap().node().unwrap().0
}

/// I26: one token, one machine; and a machine that comes again with its own is known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_lets_in_one_machine_once() {
    let (one, two, three) =
        (Node::fresh("n1").await, Node::fresh("n2").await, Node::fresh("n3").await);
    one.init().await;
    let token = one.token().await.unwrap();
    let joining = |node: &Node, token: &str| {
        let request = v1::JoinRequest {
            peers: vec![one.config.advertise.clone()],
            role: v1::NodeRole::Voter.into(),
            token: token.to_owned(),
        };
        let mut client = node.cluster();
        async move { client.join(request).await.map_err(RemoteError::from) }
    };
    // At once: one of them is in, and it is said to the other.
    let both = tokio::join!(joining(&two, &token), joining(&three, &token));
    let (ok, refused) = match both {
        (Ok(_), Err(e)) | (Err(e), Ok(_)) => ((), e),
        other => panic!("{other:?}"),
    };
    assert_eq!(((), refused.code), (ok, Code::Untrusted), "{refused}");
    assert!(refused.message.contains("holdfast node token"), "{refused}");
    assert_eq!(one.status().await.nodes.len(), 2);
    for bad in ["", "hfjoin1.xxxx", &token[..token.len() - 1]] {
        let fourth = Node::fresh("n4").await;
        let refused = joining(&fourth, bad).await.unwrap_err();
        assert_eq!(refused.code, Code::InvalidArgument, "{refused}");
        assert!(!fourth.config.data_dir.join("keys.pem").exists());
    }
}

/// I26: a newcomer does not fall for another cluster at that address.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_joins_no_other_cluster_than_its_tokens() {
    let (one, other, newcomer) =
        (Node::fresh("n1").await, Node::fresh("x1").await, Node::fresh("n2").await);
    one.init().await;
    other.init().await;
    let token = one.token().await.unwrap();
    let refused = newcomer.join_with(&other, v1::NodeRole::Voter, token.clone()).await.unwrap_err();
    assert_eq!(refused.code, Code::Untrusted, "{refused}");
    // The token was told to nobody: it is good still.
    newcomer.join_with(&one, v1::NodeRole::Voter, token).await.unwrap();
}

/// I26: who shows nothing may only join, and who shows what is not good gets no connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_told_nothing() {
    let (one, _worker) = member_and_worker().await;
    let mut nobody = ClusterServiceClient::new(stranger(&one));
    let answer = nobody.status(v1::StatusRequest {}).await;
    assert_eq!(code(answer), Some(Code::Untrusted));
    let mut raft = RaftServiceClient::new(stranger(&one));
    assert_eq!(code(raft.vote(RaftRequest::default()).await), Some(Code::Untrusted));
    let mut leader = LeaderServiceClient::new(stranger(&one));
    let renew = RenewRequest { node_id: 1, ..Default::default() };
    assert_eq!(code(leader.renew(renew).await), Some(Code::Untrusted));

    // Another cluster's, and one that nobody has signed.
    let other = Node::fresh("x1").await;
    other.init().await;
    let ours = one.bundle().authorities;
    let foreign = Bundle { authorities: ours.clone(), ..other.bundle() };
    let key = SecretKey::generate().unwrap();
    let request = SigningRequest::from_der(&key.signing_request().unwrap()).unwrap();
    let forger = Authority::generate(cluster(&one), 1_700_000_000).unwrap();
    let principal = Principal::Member(cluster(&one), NodeId(1));
    let subject = Subject { principal, address: None, name: "n1".into() };
    let certificate = forger.certify(&request, &subject, 1_700_000_000, LIFETIME * 1_000).unwrap();
    let forged = Bundle { key, certificate, authorities: ours };
    for bundle in [foreign, forged] {
        let mut client = ClusterServiceClient::new(channel(&one, &bundle));
        let refused = RemoteError::from(client.status(v1::StatusRequest {}).await.unwrap_err());
        assert_eq!(refused.code, Code::Untrusted, "{refused}");
        assert!(refused.message.contains("does not believe"), "{refused}");
    }
}

/// I26: what can be done with a worker's key, everything that its thief would try.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stolen_worker_takes_only_itself() {
    let (one, worker) = member_and_worker().await;
    let victim = Node::fresh("w2").await;
    victim.join(&one, v1::NodeRole::Worker).await.unwrap();
    all_up(&one, 3).await;
    let (stolen, cluster_id) = (worker.bundle(), cluster(&one).to_bytes());
    let (me, other) = (id(&worker), id(&victim));
    let to = |node: &Node| channel(node, &stolen);
    let mut tried: Vec<(&str, Option<Code>)> = Vec::new();

    // To speak for another node.
    let mut leader = LeaderServiceClient::new(to(&one));
    let register = RegisterRequest {
        node_id: other,
        cluster_id: cluster_id.clone().into(),
        ..Default::default()
    };
    tried.push(("register another", code(leader.register(register).await)));
    let beat = HeartbeatRequest {
        node_id: other,
        cluster_id: cluster_id.clone().into(),
        ..Default::default()
    };
    let beaten = Heartbeats::default().beat(String::new(), leader.clone(), beat).await;
    tried.push(("keep another's lease", code(beaten)));
    let view =
        WatchViewRequest { node_id: other, incarnation: 1, cluster_id: cluster_id.clone().into() };
    tried.push(("read another's view", code(leader.watch_view(view).await)));
    let report = ReportRequest {
        node_id: other,
        cluster_id: cluster_id.clone().into(),
        ..Default::default()
    };
    tried.push(("report for another", code(leader.report(report).await)));
    let image = AddImageRequest {
        node_id: other,
        cluster_id: cluster_id.clone().into(),
        ..Default::default()
    };
    tried.push(("give another an image", code(leader.add_image(image).await)));
    let renew = RenewRequest {
        node_id: other,
        cluster_id: cluster_id.clone().into(),
        ..Default::default()
    };
    tried.push(("have another's certificate", code(leader.renew(renew).await)));
    // To see what it does not run.
    let observe = ObserveRequest { cluster_id: cluster_id.clone().into() };
    tried.push(("see what the leader sees", code(leader.observe(observe).await)));
    // To take part in consensus.
    let raft = |from: u64| RaftRequest {
        cluster_id: cluster_id.clone().into(),
        from,
        to: 1,
        ..Default::default()
    };
    let mut consensus = RaftServiceClient::new(to(&one));
    tried.push(("vote", code(consensus.vote(raft(me)).await)));
    tried.push(("append", code(consensus.append(raft(1)).await)));
    tried.push(("transfer leadership", code(consensus.transfer_leader(raft(me)).await)));
    // To grant, place, approve, let in, and read.
    let mut nodes = ClusterServiceClient::new(to(&one));
    let token = v1::CreateTokenRequest { hash: vec![0; 32].into(), ..Default::default() };
    tried.push(("make a token", code(nodes.create_token(token).await)));
    tried.push(("take a backup", code(nodes.backup(v1::BackupRequest {}).await)));
    let rotate = v1::RotateAuthorityRequest::default();
    tried.push(("replace the authority", code(nodes.rotate_authority(rotate).await)));
    let remove = v1::RemoveNodeRequest { name: "w2".into(), force: true, ..Default::default() };
    tried.push(("remove a node", code(nodes.remove_node(remove).await)));
    let mut containers = ContainerServiceClient::new(to(&one));
    let create = v1::CreateRequest { name: "web".into(), ..Default::default() };
    tried.push(("place a container", code(containers.create(create).await)));
    let decide = v1::DecideTakeoverRequest { name: "web".into(), ..Default::default() };
    tried.push(("approve a takeover", code(containers.decide_takeover(decide).await)));
    let logs = v1::LogsRequest { name: "web".into(), ..Default::default() };
    tried.push(("read a console", code(containers.logs(logs).await)));
    let exec = v1::ExecRequest { part: None };
    let exec = containers.exec(tokio_stream::iter([exec])).await;
    tried.push(("run a program", code(exec)));
    // To fence another node's volumes.
    let seal = SealRequest { cluster_id: cluster_id.clone().into(), ..Default::default() };
    let mut peers = PeerServiceClient::new(to(&victim));
    tried.push(("seal a volume", code(peers.seal(seal).await)));
    // To be taken for the leader: who looks for one does not talk to it.
    let own = victim.bundle();
    let expected = Expected { cluster: cluster(&one), member: true, roster: None };
    let dialer = Dialer::tls(TlsClient::new(&own, expected).unwrap());
    let address = worker.config.listen.parse().unwrap();
    let led = dialer.connect(&address, Duration::from_secs(2)).await;
    tried.push(("lead", led.err().map(|_| Code::Forbidden)));

    for (what, answer) in &tried {
        assert_eq!(*answer, Some(Code::Forbidden), "{what}");
    }
    // What is its own it may.
    let renewed = leader
        .renew(RenewRequest {
            node_id: me,
            cluster_id: cluster_id.into(),
            signing_request: SecretKey::generate().unwrap().signing_request().unwrap().into(),
        })
        .await;
    assert_eq!(code(renewed), None);
}

/// I26: a node that was removed is nobody from then on, on members and on workers, however long its
/// certificate is good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_node_is_nobody() {
    let nodes = three().await;
    let gone = nodes[2].bundle();
    nodes[0].remove("n3", false).await.unwrap();
    for node in &nodes[..2] {
        wait("the removal to be known", PATIENCE, async || {
            let mut client = ClusterServiceClient::new(channel(node, &gone));
            let answer = code(client.status(v1::StatusRequest {}).await);
            (answer == Some(Code::NodeRemoved)).then_some(())
        })
        .await;
    }
}

/// The authority is replaced with the cluster up, and a node that is off is waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_authority_is_replaced_with_the_cluster_up() {
    let (one, mut worker) = member_and_worker().await;
    let old = one.bundle();
    worker.stop().await;
    one.cluster().rotate_authority(v1::RotateAuthorityRequest::default()).await.unwrap();
    wait("somebody to be waited for", PATIENCE, async || {
        let warnings = one.status().await.warnings;
        warnings.iter().any(|line| line.contains("waits for: w1")).then_some(())
    })
    .await;
    let again = one.cluster().rotate_authority(v1::RotateAuthorityRequest::default()).await;
    assert_eq!(code(again), Some(Code::WrongState));
    worker.start().await.unwrap();
    wait("the new authority alone", PATIENCE, async || {
        let now = [one.bundle(), worker.bundle()].map(|bundle| bundle.authorities);
        let is_new = |known: &Vec<holdfast_trust::Certificate>| {
            known.len() == 1 && known[0] != old.authorities[0]
        };
        now.iter().all(is_new).then_some(())
    })
    .await;
    all_up(&one, 2).await;
    // The old one's certificates are worth nothing, and tokens are of the new one.
    let authorities = one.bundle().authorities;
    let mut client = ClusterServiceClient::new(channel(&one, &Bundle { authorities, ..old }));
    let refused = RemoteError::from(client.status(v1::StatusRequest {}).await.unwrap_err());
    assert_eq!(refused.code, Code::Untrusted, "{refused}");
    let newcomer = Node::fresh("n2").await;
    newcomer.join(&one, v1::NodeRole::Worker).await.unwrap();
}

/// A cluster that was off for longer than certificates last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_certificate_has_expired_makes_itself_another() {
    let mut nodes = three().await;
    let cluster = cluster(&nodes[0]);
    for node in &mut nodes {
        node.stop().await;
    }
    // The authority's key is in the state alone, so these are of another; they are expired too.
    for node in &nodes {
        let bundle = node.bundle();
        let key = SecretKey::generate().unwrap();
        let request = SigningRequest::from_der(&key.signing_request().unwrap()).unwrap();
        let past = 1_600_000_000;
        let forger = Authority::generate(cluster, past).unwrap();
        let principal = bundle.certificate.principal().unwrap();
        let subject =
            Subject { principal, address: Some(node.config.advertise.clone()), name: "x".into() };
        let certificate = forger.certify(&request, &subject, past, LIFETIME).unwrap();
        let expired = Bundle { key, certificate, authorities: bundle.authorities };
        std::fs::write(node.config.data_dir.join("keys.pem"), expired.to_pem()).unwrap();
    }
    for node in &mut nodes {
        node.start().await.unwrap();
    }
    all_up(&nodes[0], 3).await;
}
