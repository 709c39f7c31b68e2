//! What a client sees of the nodes' pools: the named node answers, whoever is asked; a machine that is
//! in no cluster yet answers for itself.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic")]

mod support;

use std::sync::atomic::Ordering;

use holdfast_proto::v1;
use holdfast_proto::v1::pool_progress::Part;
use holdfast_proto::v1::pool_service_client::PoolServiceClient;
use holdfast_types::Code;
use support::{Node, code, three};
use tonic::transport::Channel;

fn pools(node: &Node) -> PoolServiceClient<Channel> {
    PoolServiceClient::new(node.local())
}

fn create(node: &str, dry_run: bool) -> v1::CreatePoolRequest {
    v1::CreatePoolRequest {
        node: node.into(),
        name: "fast".into(),
        driver: "lvm".into(),
        devices: vec!["/dev/sdb".into()],
        dry_run,
        ..Default::default()
    }
}

async fn told(node: &Node, request: v1::CreatePoolRequest) -> Vec<Part> {
    let mut stream = pools(node).create(request).await.unwrap().into_inner();
    let mut parts = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        parts.extend(message.part);
    }
    parts
}

fn change(node: &str, dry_run: bool) -> v1::ChangePoolRequest {
    let grow = v1::GrowPool { data_bytes: Some(1 << 30), metadata_bytes: None };
    let change = Some(v1::change_pool_request::Change::Grow(grow));
    v1::ChangePoolRequest { node: node.into(), dry_run, change }
}

async fn changed(node: &Node, request: v1::ChangePoolRequest) -> Vec<Part> {
    let mut stream = pools(node).change(request).await.unwrap().into_inner();
    let mut parts = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        parts.extend(message.part);
    }
    parts
}

fn made(node: &Node) -> bool {
    node.strings.pool.load(Ordering::SeqCst)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_is_made_on_the_node_that_is_named() {
    let nodes = three().await;
    let plan = Part::Plan(v1::PoolPlan { steps: vec!["make fast".into()] });
    assert_eq!(told(&nodes[0], create("n3", true)).await, std::slice::from_ref(&plan));
    assert!(!made(&nodes[2]), "a dry run makes nothing");
    let all = [plan, Part::Began(0), Part::Done(0)];
    assert_eq!(told(&nodes[0], create("n3", false)).await, all);
    assert_eq!(nodes.each_ref().map(made), [false, false, true]);
    let show = v1::ShowPoolRequest { node: "n3".into() };
    let pool = pools(&nodes[1]).show(show).await.unwrap().into_inner().pool.unwrap();
    assert_eq!((pool.node.as_str(), pool.name.as_str()), ("n3", "puppets"));
    let listed = pools(&nodes[1]).list(v1::ListPoolsRequest {}).await.unwrap().into_inner();
    assert_eq!(listed.pools.len(), 3, "{listed:?}");
    assert_eq!(code(pools(&nodes[0]).create(create("n9", false)).await), Some(Code::NotFound));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_in_no_cluster_makes_its_own_pool() {
    let node = Node::fresh("n1").await;
    assert_eq!(code(pools(&node).create(create("n2", false)).await), Some(Code::NotInitialized));
    for wrong in [
        v1::CreatePoolRequest { driver: "xfs".into(), ..create("", false) },
        v1::CreatePoolRequest { devices: Vec::new(), ..create("", false) },
    ] {
        assert_eq!(code(pools(&node).create(wrong).await), Some(Code::InvalidArgument));
    }
    assert!(!made(&node));
    told(&node, create("", false)).await;
    assert!(made(&node));
    let listed = pools(&node).list(v1::ListPoolsRequest {}).await.unwrap().into_inner();
    assert_eq!(listed.pools.iter().map(|p| p.node.as_str()).collect::<Vec<_>>(), ["n1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_is_changed_and_checked_on_the_node_that_is_named() {
    let nodes = three().await;
    let step = "Grow { data: Some(ByteSize(1073741824)), metadata: None }".to_owned();
    let plan = Part::Plan(v1::PoolPlan { steps: vec![step] });
    assert_eq!(changed(&nodes[0], change("n3", true)).await, std::slice::from_ref(&plan));
    let all = [plan, Part::Began(0), Part::Said("50 %".into()), Part::Done(0)];
    assert_eq!(changed(&nodes[0], change("n3", false)).await, all);
    let check = v1::CheckPoolRequest { node: "n2".into() };
    let found = pools(&nodes[0]).check(check).await.unwrap().into_inner().findings;
    assert_eq!(
        (found[0].severity(), found[0].text.as_str()),
        (v1::PoolSeverity::Warning, "it is full")
    );
    assert_eq!(code(pools(&nodes[0]).change(change("n9", false)).await), Some(Code::NotFound));
}

/// Ended, a daemon could not be asked to repair the pool for which it ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_whose_pool_is_damaged_stays_to_repair_it() {
    let mut node = Node::fresh("n1").await;
    node.init().await;
    node.stop().await;
    node.strings.damaged.store(true, Ordering::SeqCst);
    node.start().await.unwrap();
    let check = v1::CheckPoolRequest::default();
    assert_eq!(pools(&node).check(check).await.unwrap().into_inner().findings.len(), 1);
    let runs = || node.strings.runs.load(Ordering::SeqCst);
    let before = runs();
    changed(&node, change("", true)).await;
    assert_eq!(runs(), before, "a dry run opens nothing");
    changed(&node, change("", false)).await;
    assert_eq!(runs(), before + 1, "what was repaired is opened at once");
}

/// A change that a newer client knows is not taken for another, nor a name that is no name for one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_change_is_refused() {
    use v1::change_pool_request::Change;
    let node = Node::fresh("n1").await;
    let merge = |from: &str| Some(Change::Merge(v1::MergePool { from: from.into() }));
    let split = |into: &str| {
        Some(Change::Split(v1::SplitPool { devices: vec!["/dev/sdb".into()], into: into.into() }))
    };
    for wrong in [None, merge("$(reboot)"), merge("-vg"), split("a b"), split("../x")] {
        let request = v1::ChangePoolRequest { change: wrong, ..change("", false) };
        assert_eq!(code(pools(&node).change(request).await), Some(Code::InvalidArgument));
    }
}
