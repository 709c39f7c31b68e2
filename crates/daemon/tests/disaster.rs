//! Bad nights: a lost majority, a cluster that is gone and a backup of it, nodes of different versions.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic")]

mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use holdfast_daemon::{Identity, Mode, recover};
use holdfast_proto::backup::BackupCheck;
use holdfast_proto::v1;
use holdfast_proto::v1::cluster_service_client::ClusterServiceClient;
use holdfast_proto::v1::container_service_client::ContainerServiceClient;
use holdfast_proto::v1::event_service_client::EventServiceClient;
use holdfast_types::{Code, FeatureLevel};
use support::{Node, all_up, code, three, wait};
use tonic::transport::Channel;

const PATIENCE: Duration = Duration::from_secs(30);

/// The whole file, through that node.
async fn backup(channel: Channel) -> Vec<u8> {
    let mut cluster = ClusterServiceClient::new(channel);
    let mut parts = cluster.backup(v1::BackupRequest {}).await.unwrap().into_inner();
    let mut file = Vec::new();
    while let Some(part) = parts.message().await.unwrap() {
        file.extend_from_slice(&part.data);
    }
    file
}

async fn restore(
    node: &Node,
    file: &[u8],
) -> Result<tonic::Response<v1::RestoreResponse>, tonic::Status> {
    let parts: Vec<_> =
        file.chunks(1_000).map(|part| v1::RestorePart { data: part.to_vec().into() }).collect();
    node.cluster().restore(tokio_stream::iter(parts)).await
}

async fn raised(node: &Node) {
    wait("the feature level to rise", PATIENCE, async || {
        (node.status().await.feature_level == FeatureLevel::OURS.0).then_some(())
    })
    .await;
}

async fn kinds(node: &Node) -> Vec<String> {
    let mut events = EventServiceClient::new(node.local());
    let mut stream = events.watch(v1::WatchEventsRequest::default()).await.unwrap().into_inner();
    let mut kinds = Vec::new();
    while let Some(event) = stream.message().await.unwrap() {
        kinds.push(event.kind);
    }
    kinds
}

/// A majority is lost: the survivor goes on when a person says so, and not before; what comes back
/// is a worker with its old name, and nothing of it disturbs (I8, I10, I12).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_survivor_goes_on_and_the_dead_come_back_as_workers() {
    let mut nodes = three().await;
    let before = nodes[0].status().await;
    let mut out = Vec::new();
    let running = recover(&nodes[0].config, Mode::Confirmed, &mut out, || None).await;
    assert_eq!(running.unwrap_err().code(), Code::InUse, "its daemon runs");

    nodes[0].stop().await;
    let alive = recover(&nodes[0].config, Mode::Confirmed, &mut out, || None).await.unwrap_err();
    assert_eq!(alive.code(), Code::WrongState, "{alive}");
    assert!(alive.to_string().contains("a majority"), "{alive}");

    for node in &mut nodes[1..] {
        node.stop().await;
    }
    let unsure = recover(&nodes[0].config, Mode::Ask, &mut out, || Some("yes".into())).await;
    assert_eq!(unsure.unwrap_err().code(), Code::InvalidArgument);
    recover(&nodes[0].config, Mode::Show, &mut out, || None).await.unwrap();
    let id = before.cluster_id.clone();
    recover(&nodes[0].config, Mode::Ask, &mut out, || Some(format!("{id}\n"))).await.unwrap();
    let said = String::from_utf8(out).unwrap();
    assert!(said.contains("n2 does not answer") && said.contains("Done"), "{said}");

    nodes[0].start().await.unwrap();
    let alone = wait("the survivor to lead", PATIENCE, async || {
        let status = nodes[0].status().await;
        (status.leader == "n1").then_some(status)
    })
    .await;
    assert_eq!((alone.cluster_id, alone.generation), (before.cluster_id, 1));
    assert!(alone.term > before.term + 1_000);
    assert!(kinds(&nodes[0]).await.contains(&"cluster-recovered".to_owned()));

    for at in [1, 2] {
        let refused = nodes[at].start().await.unwrap_err();
        assert_eq!(refused.code(), Code::Superseded, "{refused}");
        nodes[at].start().await.unwrap();
        let kept = nodes[at].config.data_dir.join("raft.superseded-1");
        assert!(kept.join("log").exists());
    }
    let after = all_up(&nodes[0], 3).await;
    let roles: Vec<_> = after.nodes.iter().map(|n| (n.name.as_str(), n.role())).collect();
    let worker = v1::NodeRole::Worker;
    assert_eq!(roles, [("n1", v1::NodeRole::Voter), ("n2", worker), ("n3", worker)]);
    assert!(after.nodes.iter().all(|n| n.incarnation > 1_000_000));

    // A new voter is of the new generation, over a restart too.
    let mut fourth = Node::fresh("n4").await;
    fourth.join(&nodes[0], v1::NodeRole::Voter).await.unwrap();
    all_up(&nodes[0], 4).await;
    fourth.stop().await;
    fourth.start().await.unwrap();
    assert_eq!(all_up(&fourth, 4).await.generation, 1);
}

/// It joined while the survivor was away: nobody removed it, and it was told that somebody had.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_the_recovery_lost_is_told_so() {
    let mut nodes = three().await;
    nodes[0].stop().await;
    let mut fourth = Node::fresh("n4").await;
    wait("n4 to join", PATIENCE, async || {
        fourth.join(&nodes[1], v1::NodeRole::Worker).await.ok().map(drop)
    })
    .await;
    fourth.stop().await;
    for node in &mut nodes[1..] {
        node.stop().await;
    }
    recover(&nodes[0].config, Mode::Confirmed, &mut Vec::new(), || None).await.unwrap();
    nodes[0].start().await.unwrap();
    wait("the survivor to lead", PATIENCE, async || {
        (nodes[0].status().await.leader == "n1").then_some(())
    })
    .await;
    fourth.start().await.unwrap();
    let error = fourth.failed().await;
    assert_eq!(error.code(), Code::NodeRemoved);
    assert!(error.to_string().contains("nobody removed the node"), "{error}");
}

/// A backup is taken through any node while the cluster works; a new one begins where it ends, with
/// the nodes of it absent until they join under their names.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_becomes_a_new_cluster() {
    let mut nodes = three().await;
    raised(&nodes[0]).await;
    let status = nodes[2].status().await;
    let mut files = Vec::new();
    for node in &nodes {
        files.push(backup(node.remote()).await);
    }
    for file in &files {
        let mut check = BackupCheck::default();
        check.push(file).unwrap();
        let header = check.finish().unwrap().header;
        assert_eq!((&header.cluster_id, header.nodes), (&status.cluster_id, 3));
        assert!(header.index >= status.applied && header.feature_level == 1);
    }
    for node in &mut nodes {
        node.stop().await;
    }

    let fresh = Node::fresh("n1").await;
    let cut = restore(&fresh, &files[1][..files[1].len() - 9]).await;
    assert_eq!(code(cut), Some(Code::Corrupt));
    let mut damaged = files[1].clone();
    damaged[2_000] ^= 1;
    assert_eq!(code(restore(&fresh, &damaged).await), Some(Code::Corrupt));
    assert!(!fresh.config.data_dir.join("restore.upload").exists());

    let made = restore(&fresh, &files[1]).await.unwrap().into_inner();
    assert_ne!(made.cluster_id, status.cluster_id);
    assert_eq!((made.node_id, made.absent), (1, vec!["n2".to_owned(), "n3".to_owned()]));
    assert_eq!(code(restore(&fresh, &files[1]).await), Some(Code::WrongState));
    assert!(kinds(&fresh).await.contains(&"cluster-restored".to_owned()));

    let second = Node::fresh("n2").await;
    second.join(&fresh, v1::NodeRole::Voter).await.unwrap();
    let after = all_up(&fresh, 2).await;
    let old = status.nodes.iter().find(|n| n.name == "n2").unwrap().id;
    let new = after.nodes.iter().find(|n| n.name == "n2").unwrap();
    assert_eq!((new.id, new.role()), (old, v1::NodeRole::Voter));
    let identity = Identity::read(&second.config.data_dir).unwrap().unwrap();
    assert_eq!(identity.node.0, old);
    let lost = after.nodes.iter().find(|n| n.name == "n3").unwrap();
    assert_eq!(lost.state(), v1::NodeState::Lost);
    let mut containers = ContainerServiceClient::new(fresh.remote());
    containers.list(v1::ListContainersRequest {}).await.unwrap();
}

/// The log of the cluster that had the pool already was thrown away, and no other could have the pool.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_fails_after_it_has_the_pool_keeps_its_cluster() {
    let mut node = Node::fresh("n1").await;
    node.init().await;
    all_up(&node, 1).await;
    let file = backup(node.remote()).await;
    node.stop().await;

    let mut fresh = Node::fresh("n1").await;
    let identity = || Identity::read(&fresh.config.data_dir).unwrap();
    fresh.strings.damaged.store(true, Ordering::SeqCst);
    assert_eq!(code(restore(&fresh, &file).await), Some(Code::PoolDamaged));
    assert!(identity().is_none(), "the pool is not its own yet: the machine is what it was");
    assert!(!fresh.config.data_dir.join("raft").exists());

    fresh.strings.inherited.store(true, Ordering::SeqCst);
    let refused = restore(&fresh, &file).await.unwrap_err();
    assert!(refused.message().contains("start holdfastd again"), "{refused}");
    let made = identity().unwrap();
    fresh.stop().await;
    fresh.strings.damaged.store(false, Ordering::SeqCst);
    fresh.start().await.unwrap();
    assert_eq!(all_up(&fresh, 1).await.cluster_id, made.cluster.to_string());
}

/// The level waits for the last node, and a node that is too old for it has no place any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_feature_level_waits_for_the_oldest_version() {
    let nodes = [Node::fresh("n1").await, Node::fresh("n2").await];
    nodes[1].strings.older.store(true, Ordering::SeqCst);
    nodes[0].init().await;
    raised(&nodes[0]).await;
    let too_old = nodes[1].join(&nodes[0], v1::NodeRole::Worker).await;
    // The daemon is new enough, so it is let in; its agent is not, and cannot register.
    too_old.unwrap();
    let shown = nodes[0].status().await;
    let second = shown.nodes.iter().find(|n| n.name == "n2").unwrap();
    assert_eq!((second.feature_level, second.incarnation), (None, 0));
    nodes[1].strings.older.store(false, Ordering::SeqCst);
    let after = all_up(&nodes[0], 2).await;
    let second = after.nodes.iter().find(|n| n.name == "n2").unwrap();
    assert_eq!((second.feature_level, second.version.as_str()), (Some(1), "9.9.9"));
}

/// One that is not upgraded yet keeps the cluster where it is, and is named.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_two_versions_stays_at_the_older_level() {
    let nodes = [Node::fresh("n1").await, Node::fresh("n2").await];
    for node in &nodes {
        node.strings.older.store(true, Ordering::SeqCst);
    }
    nodes[0].init().await;
    nodes[1].join(&nodes[0], v1::NodeRole::Worker).await.unwrap();
    all_up(&nodes[0], 2).await;
    nodes[0].strings.older.store(false, Ordering::SeqCst);
    let shown = wait("both versions to be seen", PATIENCE, async || {
        let shown = nodes[0].status().await;
        let levels: Vec<_> = shown.nodes.iter().map(|n| n.feature_level).collect();
        (levels == [Some(1), Some(0)]).then_some(shown)
    })
    .await;
    assert_eq!(shown.feature_level, 0);
    nodes[1].strings.older.store(false, Ordering::SeqCst);
    raised(&nodes[0]).await;
    assert!(kinds(&nodes[0]).await.contains(&"feature-level".to_owned()));
}
