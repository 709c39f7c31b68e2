//! What a client may rely on when it reads, watches and tries again, whichever node it asks.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic")]

mod support;

use std::time::Duration;

use holdfast_proto::v1::cluster_service_client::ClusterServiceClient;
use holdfast_proto::v1::container_service_client::ContainerServiceClient;
use holdfast_proto::v1::event_service_client::EventServiceClient;
use holdfast_proto::v1::image_service_client::ImageServiceClient;
use holdfast_proto::{AGE_KEY, APPLIED_KEY, NODE_KEY, READ_KEY, SINCE_KEY, STALE, v1};
use holdfast_types::{Code, RequestId};
use support::{Node, code, three, wait};
use tokio::task::JoinSet;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Request, Streaming};

async fn import(node: &Node, name: &str) {
    use v1::import_request::Part;
    let start = v1::ImportStart { name: name.into(), ..Default::default() };
    let end = Part::End(v1::ImportEnd { size_bytes: 1000 });
    let parts = [Part::Start(start), Part::Data(vec![1; 1000].into()), end];
    let parts = parts.map(|part| v1::ImportRequest { part: Some(part) });
    ImageServiceClient::new(node.remote()).import(tokio_stream::iter(parts)).await.unwrap();
}

fn create(name: &str) -> v1::CreateRequest {
    let disk_bytes = 1 << 30;
    let image = "busybox".into();
    let spec = v1::ContainerSpec { image, disk_bytes, copies: 1, ..Default::default() };
    let request_id = RequestId::generate().to_bytes().into();
    v1::CreateRequest { name: name.into(), spec: Some(spec), request_id, ..Default::default() }
}

fn stale<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(READ_KEY, MetadataValue::from_static(STALE));
    request
}

fn told<'a>(metadata: &'a MetadataMap, key: &'static str) -> Option<&'a str> {
    metadata.get(key).map(|value| value.to_str().unwrap())
}

fn labels(node: &str, value: &str) -> v1::SetLabelsRequest {
    let set = [("n".to_owned(), value.to_owned())].into();
    let request_id = RequestId::generate().to_bytes().into();
    v1::SetLabelsRequest { name: node.into(), set, request_id, ..Default::default() }
}

/// I6: whoever has heard that something was done finds it done, at every node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_shows_what_was_acknowledged_before_it_was_asked() {
    let nodes = three().await;
    let channels: Vec<_> = nodes.iter().map(Node::remote).collect();
    let mut writer = ClusterServiceClient::new(channels[0].clone());
    let mut readers: Vec<_> = channels.into_iter().map(ClusterServiceClient::new).collect();
    for round in 0..40 {
        let version =
            writer.set_labels(labels("n3", &round.to_string())).await.unwrap().into_inner();
        for reader in &mut readers {
            let get = v1::GetNodeRequest { name: "n3".into() };
            let answer = reader.get_node(get).await.unwrap();
            let applied: u64 = told(answer.metadata(), APPLIED_KEY).unwrap().parse().unwrap();
            assert!(applied >= version.revision);
            assert_eq!(told(answer.metadata(), AGE_KEY), None, "it is not stale");
            let node = answer.into_inner();
            assert_eq!(
                (node.labels["n"].as_str(), node.revision),
                (&*round.to_string(), version.revision)
            );
        }
    }
    // What only the leader sees is shown as well.
    for reader in &mut readers {
        let list = reader.list_nodes(v1::ListNodesRequest {}).await.unwrap().into_inner();
        let seen = |n: &v1::Node| n.pool.is_some() && n.last_seen_ms.is_some();
        assert!(list.nodes.iter().all(seen), "{list:?}");
        assert_eq!(list.nodes.iter().filter(|n| n.leader).count(), 1);
    }
}

/// The night in which two of three are gone: what the last one has is shown, with its age.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_a_quorum_shows_what_it_has_and_how_old_that_is() {
    let mut nodes = three().await;
    import(&nodes[0], "busybox").await;
    ContainerServiceClient::new(nodes[0].remote()).create(create("web")).await.unwrap();
    let mut client = ContainerServiceClient::new(nodes[2].remote());
    client.list(v1::ListContainersRequest {}).await.unwrap();
    for node in &mut nodes[..2] {
        node.stop().await;
    }
    let refused = client.list(v1::ListContainersRequest {}).await;
    assert_eq!(code(refused), Some(Code::NoQuorum));
    let mut ages = Vec::new();
    for _ in 0..2 {
        let answer = client.list(stale(v1::ListContainersRequest {})).await.unwrap();
        assert_eq!(told(answer.metadata(), NODE_KEY), Some("n3"));
        assert!(told(answer.metadata(), APPLIED_KEY).unwrap().parse::<u64>().unwrap() > 0);
        ages.push(told(answer.metadata(), AGE_KEY).unwrap().parse::<u64>().unwrap());
        assert_eq!(answer.into_inner().containers[0].name, "web");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(ages[1] > ages[0], "{ages:?}");
    let mut cluster = ClusterServiceClient::new(nodes[2].remote());
    let status = cluster.status(stale(v1::StatusRequest {})).await.unwrap().into_inner();
    assert!(status.warnings.iter().any(|w| w.contains("old")), "{:?}", status.warnings);
    assert_eq!((status.nodes.len(), status.containers_total), (3, 1));
    let mut events = EventServiceClient::new(nodes[2].remote());
    let all = events.watch(stale(v1::WatchEventsRequest::default())).await.unwrap().into_inner();
    assert!(collect(all).await.iter().any(|event| event.kind == "container-created"));
    let fresh = events.watch(v1::WatchEventsRequest::default()).await;
    assert_eq!(code(fresh), Some(Code::NoQuorum), "without --stale it would claim to be all");
}

/// A node that no leader has added yet has nothing to show: it said that nothing had happened.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_a_state_does_not_say_that_nothing_happened() {
    let mut nodes = three().await;
    let mut late = Node::fresh("n4").await;
    late.stop().await;
    // Where the leader would send it the log, nobody listens.
    late.config.advertise = "127.0.0.1:9".into();
    late.start().await.unwrap();
    late.join(&nodes[0], v1::NodeRole::Unspecified).await.unwrap();
    let watch = async |node: &Node| {
        EventServiceClient::new(node.local()).watch(v1::WatchEventsRequest::default()).await
    };
    let all = collect(watch(&late).await.unwrap().into_inner()).await;
    assert!(all.iter().any(|event| event.kind == "node-admitted" && event.node == "n4"), "{all:?}");
    for node in &mut nodes {
        node.stop().await;
    }
    assert_eq!(code(watch(&late).await), Some(Code::NoQuorum));
}

async fn collect(mut stream: Streaming<v1::Event>) -> Vec<v1::Event> {
    let mut events = Vec::new();
    while let Some(event) = stream.message().await.unwrap() {
        events.push(event);
    }
    events
}

/// Ordered and without gaps: a watch that goes on at another node after what it was told to be complete
/// has every event once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_goes_on_at_another_node_without_gaps_or_repeats() {
    let mut nodes = three().await;
    let follow = |after| v1::WatchEventsRequest {
        after,
        follow: true,
        progress: true,
        ..Default::default()
    };
    let mut writer = ClusterServiceClient::new(nodes[1].remote());
    let watch = EventServiceClient::new(nodes[0].remote()).watch(follow(0)).await;
    let mut stream = watch.unwrap().into_inner();
    let (mut events, mut complete) = (Vec::new(), 0);
    for value in 0..5 {
        writer.set_labels(labels("n3", &value.to_string())).await.unwrap();
    }
    // Until what was complete covers the labels.
    while events.iter().filter(|e: &&v1::Event| e.kind == "node-labels").count() < 5
        || complete == 0
    {
        let event = stream.message().await.unwrap().unwrap();
        match event.kind.as_str() {
            "progress" => complete = event.revision,
            _ => events.push(event),
        }
    }
    let last = events.iter().map(|e| e.revision).max().unwrap();
    while complete < last {
        let event = stream.message().await.unwrap().unwrap();
        match event.kind.as_str() {
            "progress" => complete = event.revision,
            _ => events.push(event),
        }
    }
    nodes[0].stop().await;
    let value = wait("a leader", Duration::from_secs(20), async || {
        writer.set_labels(labels("n3", "after")).await.ok()
    });
    value.await;
    events.retain(|event| event.revision <= complete);
    let watch = EventServiceClient::new(nodes[2].remote()).watch(follow(complete)).await;
    let mut stream = watch.unwrap().into_inner();
    while events.iter().filter(|e| e.kind == "node-labels").count() < 6 {
        let event = stream.message().await.unwrap().unwrap();
        if event.kind != "progress" {
            assert!(event.revision > complete);
            events.push(event);
        }
    }
    let last = events.last().map(|e| (e.revision, e.index)).unwrap();
    let all = EventServiceClient::new(nodes[1].remote());
    let all = all.clone().watch(v1::WatchEventsRequest::default()).await.unwrap().into_inner();
    let mut all = collect(all).await;
    all.retain(|e| (e.revision, e.index) <= last);
    assert_eq!(events, all);
}

/// Optimistic concurrency: who has not seen the last change overwrites nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_another_version_is_refused_at_every_call() {
    let node = Node::fresh("n1").await;
    node.init().await;
    support::all_up(&node, 1).await;
    import(&node, "busybox").await;
    let mut client = ContainerServiceClient::new(node.remote());
    client.create(create("web")).await.unwrap();
    let get = || v1::GetContainerRequest { name: "web".into() };
    let running = wait("it to run", Duration::from_secs(10), async || {
        let web = client.clone().get(get()).await.unwrap().into_inner().container.unwrap();
        (web.state() == v1::ContainerState::Running).then_some(web.revision)
    });
    let seen = running.await;
    let stop = |expect| v1::StopRequest { name: "web".into(), expect, ..Default::default() };
    assert_eq!(code(client.stop(stop(Some(seen - 1))).await), Some(Code::Conflict));
    client.stop(stop(Some(seen))).await.unwrap();
    let force = |expect| v1::DeleteRequest {
        name: "web".into(),
        force: true,
        expect,
        ..Default::default()
    };
    assert_eq!(code(client.delete(force(Some(seen))).await), Some(Code::Conflict));
    let mut images = ImageServiceClient::new(node.remote());
    import(&node, "other").await;
    let list = images.list(v1::ListImagesRequest {}).await.unwrap().into_inner().images;
    let version = list.iter().find(|i| i.name == "other").unwrap().revision;
    let rm = |expect| v1::DeleteImageRequest { name: "other".into(), expect, ..Default::default() };
    assert_eq!(code(images.delete(rm(Some(version + 1))).await), Some(Code::Conflict));
    images.delete(rm(Some(version))).await.unwrap();
}

/// I7 through a change of leader: the same request is known by the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_at_the_next_leader_gets_the_first_answer() {
    let mut nodes = three().await;
    import(&nodes[1], "busybox").await;
    let request = create("web");
    let mut first = ContainerServiceClient::new(nodes[0].remote());
    let made = first.create(request.clone()).await.unwrap().into_inner().container.unwrap();
    nodes[0].stop().await;
    let mut other = ContainerServiceClient::new(nodes[2].remote());
    let again = wait("the next leader", Duration::from_secs(20), async || {
        other.create(request.clone()).await.ok()
    });
    let again = again.await.into_inner().container.unwrap();
    assert_eq!(again.uid, made.uid);
}

/// A retry has its answer whatever a busy minute brings, and is not done again; a watch from before the
/// history that is kept is told so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_done_twice_or_skipped_for_being_forgotten() {
    /// More than the events that are remembered, and the answers that are however old they are.
    const MANY: usize = 8_400;
    let node = Node::fresh("n1").await;
    node.init().await;
    support::all_up(&node, 1).await;
    let mut client = ClusterServiceClient::new(node.remote());
    let revision = client.get_revision(v1::GetRevisionRequest {}).await.unwrap().into_inner();
    let since = |message: v1::SetLabelsRequest| {
        let mut request = Request::new(message);
        request.metadata_mut().insert(SINCE_KEY, revision.revision.into());
        request
    };
    let message = labels("n1", "first");
    let first = client.set_labels(since(message.clone())).await.unwrap().into_inner();
    let again = client.set_labels(since(message.clone())).await.unwrap().into_inner();
    assert_eq!(first, again);

    let mut writers = JoinSet::new();
    for writer in 0..64 {
        let mut client = ClusterServiceClient::new(node.remote());
        writers.spawn(async move {
            for n in 0..MANY / 64 + 1 {
                client.set_labels(labels("n1", &format!("{writer}-{n}"))).await.unwrap();
            }
        });
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    assert_eq!(client.set_labels(since(message)).await.unwrap().into_inner(), first);
    let now = client.get_node(v1::GetNodeRequest { name: "n1".into() }).await.unwrap().into_inner();
    assert_ne!(now.labels["n"], "first");
    client.set_labels(labels("n1", "without a revision it is done")).await.unwrap();

    let mut events = EventServiceClient::new(node.remote());
    let watch = |after| v1::WatchEventsRequest { after, progress: true, ..Default::default() };
    let mut gone = events.watch(watch(1)).await.unwrap().into_inner();
    let error = holdfast_proto::RemoteError::from(gone.message().await.unwrap_err());
    assert_eq!(error.code, Code::Compacted);
    let kept = collect(events.watch(watch(0)).await.unwrap().into_inner()).await;
    assert_eq!(kept.last().unwrap().kind, "progress");
    let after = error.message.split("revision ").nth(1).and_then(|rest| rest.split(' ').next());
    let after: u64 = after.unwrap().parse().unwrap();
    assert!(after < kept[0].revision);
    let rest = collect(events.watch(watch(after)).await.unwrap().into_inner()).await;
    assert_eq!(rest[0], kept[0], "from where it says on there is everything");
}
