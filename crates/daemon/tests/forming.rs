//! From machines to a cluster: before it, forming it, starting again, refusing what is wrong.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic")]

mod support;

use std::time::Duration;

use holdfast_proto::v1;
use holdfast_proto::v1::container_service_client::ContainerServiceClient;
use holdfast_types::Code;
use support::{Node, all_up, code, three, wait};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_in_no_cluster_says_so() {
    let node = Node::fresh("n1").await;
    let mut containers = ContainerServiceClient::new(node.local());
    let answer = containers.list(v1::ListContainersRequest {}).await;
    assert_eq!(code(answer), Some(Code::NotInitialized));
    let status = node.status().await;
    assert_eq!((status.node.as_str(), status.cluster_id.as_str()), ("n1", ""));

    // It has no certificate, and so nothing to say to other machines.
    let stranger = tokio::net::TcpStream::connect(&node.config.listen).await.unwrap();
    let mut answer = [0; 1];
    stranger.readable().await.unwrap();
    assert!(matches!(stranger.try_read(&mut answer), Ok(0) | Err(_)), "it is closed at once");
    assert!(!node.config.data_dir.join("keys.pem").exists());
}

/// I1: three machines become three voters with one leader.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_machines_form_a_cluster_and_survive_a_restart() {
    let mut nodes = three().await;
    let status = nodes[1].status().await;
    assert_eq!((status.leader.as_str(), status.node.as_str()), ("n1", "n2"));
    assert!(status.nodes.iter().all(|n| n.role() == v1::NodeRole::Voter));
    let again = nodes[0].cluster().init(v1::InitRequest::default()).await;
    assert_eq!(code(again), Some(Code::WrongState));

    for node in &mut nodes {
        node.stop().await;
    }
    for node in &mut nodes {
        node.start().await.unwrap();
    }
    let after = all_up(&nodes[2], 3).await;
    assert_eq!(after.cluster_id, status.cluster_id);
    assert!(after.term > status.term);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_is_replaced_and_comes_back() {
    let mut nodes = three().await;
    nodes[0].stop().await;
    wait("another leader", Duration::from_secs(15), async || {
        let leader = nodes[1].status().await.leader;
        (leader == "n2" || leader == "n3").then_some(())
    })
    .await;
    nodes[0].start().await.unwrap();
    all_up(&nodes[0], 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_contradicts_the_data_directory_is_refused() {
    let mut node = Node::fresh("n1").await;
    node.init().await;
    let second = node.start().await.unwrap_err();
    assert_eq!(second.code(), Code::InUse, "{second}");
    node.stop().await;

    let good = node.config.clone();
    node.config.name = "n2".parse().unwrap();
    assert_eq!(node.start().await.unwrap_err().code(), Code::Config);
    node.config = good.clone();

    let taken = std::net::TcpListener::bind(&good.listen).unwrap();
    let error = node.start().await.unwrap_err();
    assert_eq!(error.code(), Code::AddressInUse);
    assert!(error.to_string().contains(&good.listen), "{error}");
    drop(taken);

    let identity = good.data_dir.join("identity");
    let text = std::fs::read_to_string(&identity).unwrap();
    std::fs::write(&identity, text.replace("role voter", "role worker")).unwrap();
    let error = node.start().await.unwrap_err();
    assert_eq!(error.code(), Code::Corrupt);
    assert!(error.to_string().contains(identity.to_str().unwrap()), "{error}");

    std::fs::write(&identity, text).unwrap();
    std::fs::rename(good.data_dir.join("raft"), good.data_dir.join("aside")).unwrap();
    let error = node.start().await.unwrap_err();
    assert_eq!(error.code(), Code::Corrupt, "an empty log under an old id could vote twice");
    std::fs::rename(good.data_dir.join("aside"), good.data_dir.join("raft")).unwrap();

    std::fs::remove_file(&identity).unwrap();
    let error = node.start().await.unwrap_err();
    assert_eq!(error.code(), Code::Corrupt);
    // A restore that was cut short leaves the same: nobody has to be removed from anything then.
    assert!(error.to_string().contains("restore again"), "{error}");
}

/// A log of another cluster beside this one's identity is never opened.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_of_another_cluster_is_refused() {
    let (mut one, mut two) = (Node::fresh("n1").await, Node::fresh("n1").await);
    one.init().await;
    two.init().await;
    one.stop().await;
    two.stop().await;
    let log = one.config.data_dir.join("raft");
    std::fs::remove_dir_all(&log).unwrap();
    std::fs::rename(two.config.data_dir.join("raft"), &log).unwrap();
    let error = one.start().await.unwrap_err();
    assert_eq!(error.code(), Code::Config, "{error}");
    assert!(error.to_string().contains(log.to_str().unwrap()), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joining_needs_a_cluster_and_a_free_name() {
    let (one, other) = (Node::fresh("n1").await, Node::fresh("n1").await);
    one.init().await;
    all_up(&one, 1).await;
    let taken = other.join(&one, v1::NodeRole::Voter).await.unwrap_err();
    assert_eq!(taken.code, Code::AlreadyExists, "{taken}");
    assert_eq!(other.status().await.cluster_id, "", "nothing changed");
    assert_eq!(one.status().await.nodes.len(), 1);

    let lonely = Node::fresh("n9").await;
    let nobody = other.join(&lonely, v1::NodeRole::Voter).await.unwrap_err();
    assert_eq!(nobody.code, Code::NotInitialized, "{nobody}");
}
