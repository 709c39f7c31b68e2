//! What a client sees of a cluster: any node answers, retries apply once, no quorum is said.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic")]

mod support;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use holdfast_proto::Heartbeats;
use holdfast_proto::internal::HeartbeatRequest;
use holdfast_proto::internal::leader_service_client::LeaderServiceClient;
use holdfast_proto::v1;
use holdfast_proto::v1::container_service_client::ContainerServiceClient;
use holdfast_proto::v1::event_service_client::EventServiceClient;
use holdfast_proto::v1::image_service_client::ImageServiceClient;
use holdfast_proto::v1::operation_service_client::OperationServiceClient;
use holdfast_types::{ClusterId, Code, RequestId};
use support::{Node, all_up, code, three, wait};

fn spec(image: &str) -> Option<v1::ContainerSpec> {
    Some(v1::ContainerSpec { image: image.into(), disk_bytes: 1 << 30, ..Default::default() })
}

fn create(name: &str, image: &str) -> v1::CreateRequest {
    v1::CreateRequest {
        name: name.into(),
        spec: spec(image),
        request_id: RequestId::generate().to_bytes().into(),
        ..Default::default()
    }
}

async fn import(node: &Node, name: &str) -> Result<v1::Image, tonic::Status> {
    use v1::import_request::Part;
    let start = v1::ImportStart { name: name.into(), ..Default::default() };
    let [first, second] = [vec![1; 1000], vec![2; 24]].map(|data| Part::Data(data.into()));
    let end = Part::End(v1::ImportEnd { size_bytes: 1024 });
    let parts = [Part::Start(start), first, second, end];
    let parts = parts.map(|part| v1::ImportRequest { part: Some(part) });
    let answer = ImageServiceClient::new(node.local()).import(tokio_stream::iter(parts)).await?;
    Ok(answer.into_inner().image.unwrap())
}

async fn finished(node: &Node, operation: v1::Operation) -> v1::Operation {
    let request = v1::GetOperationRequest { id: operation.id, wait_ms: 10_000 };
    let answer = OperationServiceClient::new(node.remote()).get(request).await.unwrap();
    answer.into_inner().operation.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_lives_through_its_states_by_way_of_followers() {
    let nodes = three().await;
    let mut client = ContainerServiceClient::new(nodes[1].remote());
    for (request, expected) in [
        (create("Web", "busybox"), Code::InvalidName),
        (create("web", "nothing"), Code::NotFound),
        (v1::CreateRequest { spec: None, ..create("web", "x") }, Code::InvalidArgument),
        (
            v1::CreateRequest { request_id: vec![1].into(), ..create("web", "x") },
            Code::InvalidArgument,
        ),
    ] {
        assert_eq!(code(client.create(request).await), Some(expected));
    }

    let image = import(&nodes[1], "busybox").await.unwrap();
    assert_eq!((image.content_bytes, image.nodes), (1024, vec!["n2".to_owned()]));
    let again = import(&nodes[2], "busybox").await.map(tonic::Response::new);
    assert_eq!(code(again), Some(Code::AlreadyExists));
    let mut huge = create("web", "busybox");
    huge.spec.as_mut().unwrap().disk_bytes = 1 << 40;
    assert_eq!(code(client.create(huge).await), Some(Code::InvalidSize));
    let elsewhere = v1::CreateRequest { node: "n9".into(), ..create("web", "busybox") };
    assert_eq!(code(client.create(elsewhere).await), Some(Code::NotFound));

    let request = create("web", "busybox");
    let made = client.create(request.clone()).await.unwrap().into_inner();
    let container = made.container.clone().unwrap();
    assert_eq!((container.node.as_str(), container.epoch), ("n2", 1), "where the image is");
    assert_eq!(container.replicas.len(), 1);
    // I7: the same request again, by way of another node.
    let mut other = ContainerServiceClient::new(nodes[2].remote());
    let retried = other.create(request).await.unwrap().into_inner();
    assert_eq!(retried.container.unwrap().uid, container.uid);
    assert_eq!(code(other.create(create("web", "busybox")).await), Some(Code::AlreadyExists));
    let done = finished(&nodes[2], made.operation.unwrap()).await;
    assert_eq!(done.state(), v1::OperationState::Done, "{done:?}");

    let logs = v1::LogsRequest { name: "web".into(), tail_bytes: 0 };
    let mut logs = other.logs(logs).await.unwrap().into_inner();
    let text = logs.message().await.unwrap().unwrap().data;
    assert_eq!(text, format!("console of {}", container.uid), "from the container's node");

    let refused =
        other.delete(v1::DeleteRequest { name: "web".into(), ..Default::default() }).await;
    assert_eq!(code(refused), Some(Code::WrongState));
    let stop = v1::StopRequest { name: "web".into(), ..Default::default() };
    let stopped = other.stop(stop).await.unwrap().into_inner().operation.unwrap();
    assert_eq!(finished(&nodes[0], stopped).await.state(), v1::OperationState::Done);
    let delete = v1::DeleteRequest { name: "web".into(), ..Default::default() };
    let deleted = client.delete(delete).await.unwrap().into_inner().operation.unwrap();
    assert_eq!(finished(&nodes[0], deleted).await.state(), v1::OperationState::Done);
    let gone = client.get(v1::GetContainerRequest { name: "web".into() }).await;
    assert_eq!(code(gone), Some(Code::NotFound));

    let watch = v1::WatchEventsRequest { container: "web".into(), ..Default::default() };
    let mut events =
        EventServiceClient::new(nodes[0].remote()).watch(watch).await.unwrap().into_inner();
    let mut kinds = Vec::new();
    while let Some(event) = events.message().await.unwrap() {
        kinds.push(event.kind);
    }
    assert_eq!(
        kinds,
        [
            "container-created",
            "container-running",
            "container-stopped",
            "container-deleting",
            "container-deleted"
        ]
    );
}

/// I12: with two of three nodes gone every write says so within 5 s, by a survivor that led and by
/// one that did not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_survivor_alone_says_no_quorum_within_five_seconds() {
    for survivor in [0, 2] {
        let mut nodes = three().await;
        import(&nodes[survivor], "busybox").await.unwrap();
        let newcomer = (Node::fresh("n4").await, nodes[survivor].token().await.unwrap());
        for at in (0..3).filter(|at| *at != survivor) {
            nodes[at].stop().await;
        }
        for _ in 0..2 {
            let begun = Instant::now();
            for (call, answer) in every_write(&nodes[survivor], &newcomer).await {
                assert_eq!(answer, Some(Code::NoQuorum), "{call}, survivor {survivor}");
            }
            assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        }
        assert_eq!(newcomer.0.status().await.cluster_id, "", "nothing changed");
        let status = nodes[survivor].status().await;
        assert_eq!((status.leader.as_str(), status.nodes.len()), ("", 3));
        assert!(!status.warnings.is_empty());
    }
}

/// All of them at a time; how each was refused.
async fn every_write(
    node: &Node,
    (newcomer, token): &(Node, String),
) -> [(&'static str, Option<Code>); 7] {
    let name = || "web".to_owned();
    let containers = || ContainerServiceClient::new(node.remote());
    let (mut c1, mut c2, mut c3, mut c4) = (containers(), containers(), containers(), containers());
    let mut images = ImageServiceClient::new(node.remote());
    let delete_image = v1::DeleteImageRequest { name: "busybox".into(), ..Default::default() };
    let answers = tokio::join!(
        async { code(c1.create(create("web", "busybox")).await) },
        async { code(c2.start(v1::StartRequest { name: name(), ..Default::default() }).await) },
        async { code(c3.stop(v1::StopRequest { name: name(), ..Default::default() }).await) },
        async { code(c4.delete(v1::DeleteRequest { name: name(), ..Default::default() }).await) },
        async { code(import(node, "other").await.map(tonic::Response::new)) },
        async { code(images.delete(delete_image).await) },
        async {
            let joined = newcomer.join_with(node, v1::NodeRole::Voter, token.clone()).await;
            joined.err().map(|e| e.code)
        },
    );
    [
        ("create", answers.0),
        ("start", answers.1),
        ("stop", answers.2),
        ("rm", answers.3),
        ("image import", answers.4),
        ("image rm", answers.5),
        ("node join", answers.6),
    ]
}

/// I12, DESIGN section 5 rule 2: a leader whose quorum is gone does not know it, and grants nothing
/// all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_its_quorum_grants_nothing() {
    let mut nodes = three().await;
    let cluster = nodes[0].status().await.cluster_id.parse::<ClusterId>().unwrap();
    let strings = nodes[0].strings.clone();
    let heartbeat = || HeartbeatRequest {
        node_id: 1,
        incarnation: strings.incarnation.load(Ordering::SeqCst),
        cluster_id: cluster.to_bytes().into(),
        ..Default::default()
    };
    let (leader, beats) = (LeaderServiceClient::new(nodes[0].remote()), Heartbeats::default());
    let granted = beats.beat(String::new(), leader.clone(), heartbeat()).await;
    assert_eq!(code(granted), None, "with a quorum it does");
    for node in &mut nodes[1..] {
        node.stop().await;
    }
    for _ in 0..3 {
        let refused = code(beats.beat(String::new(), leader.clone(), heartbeat()).await);
        assert!(matches!(refused, Some(Code::NoQuorum | Code::NotLeader)), "{refused:?}");
    }
}

/// DESIGN section 5 rule 4: silence makes a node lost, no sooner than the constants demand; that
/// life is granted nothing any more, and the next one is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_is_lost_and_begins_a_new_life() {
    let nodes = three().await;
    let strings = &nodes[2].strings;
    let watch = v1::WatchEventsRequest { follow: true, ..Default::default() };
    let mut events =
        EventServiceClient::new(nodes[1].remote()).watch(watch).await.unwrap().into_inner();
    strings.silent.store(true, Ordering::SeqCst);
    let silent_since = Instant::now();
    let lost = loop {
        let event = events.message().await.unwrap().unwrap();
        if event.kind == "node-lost" {
            break event;
        }
    };
    // Its last answer came at most one heartbeat and a little before it fell silent.
    assert!(silent_since.elapsed() > Duration::from_millis(4_000), "{:?}", silent_since.elapsed());
    assert_eq!((lost.node.as_str(), lost.fields["incarnation"].as_str()), ("n3", "1"));
    let status = nodes[0].status().await;
    assert!(status.warnings.iter().any(|w| w.contains("n3 is lost")), "{:?}", status.warnings);

    strings.silent.store(false, Ordering::SeqCst);
    wait("a new life", Duration::from_secs(10), async || {
        (strings.incarnation.load(Ordering::SeqCst) == 2).then_some(())
    })
    .await;
    let status = all_up(&nodes[0], 3).await;
    assert_eq!(status.nodes.iter().find(|n| n.name == "n3").unwrap().incarnation, 2);
}

/// I22: what waits for a person says so to whoever wants to use it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_whose_takeover_is_held_says_so() {
    let nodes = three().await;
    import(&nodes[2], "busybox").await.unwrap();
    let mut client = ContainerServiceClient::new(nodes[0].remote());
    let made = client.create(create("web", "busybox")).await.unwrap().into_inner();
    assert_eq!(made.container.unwrap().node, "n3", "where the image is");
    let start = || v1::StartRequest { name: "web".into(), ..Default::default() };
    client.start(start()).await.unwrap();
    // Its node is lost, and no puppet holds a copy.
    nodes[2].strings.silent.store(true, Ordering::SeqCst);
    wait("the hold", Duration::from_secs(20), async || {
        let get = v1::GetContainerRequest { name: "web".into() };
        let web = client.clone().get(get).await.ok()?.into_inner().container.unwrap();
        (web.state() == v1::ContainerState::Held).then_some(())
    })
    .await;
    assert_eq!(code(client.start(start()).await), Some(Code::Held));
    let sync = v1::SyncRequest { name: "web".into(), ..Default::default() };
    assert_eq!(code(client.sync(sync).await), Some(Code::Held));
    let logs = v1::LogsRequest { name: "web".into(), tail_bytes: 0 };
    assert_eq!(code(client.logs(logs).await), Some(Code::Held));
}

/// A worker has no state and no vote: who looks does not notice, and who would change something is told
/// where to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_answers_like_any_node() {
    let (one, mut worker) = (Node::fresh("n1").await, Node::fresh("w1").await);
    one.init().await;
    worker.join(&one, v1::NodeRole::Worker).await.unwrap();
    all_up(&worker, 2).await;
    worker.stop().await;
    worker.start().await.unwrap();
    wait("a life after the restart", Duration::from_secs(10), async || {
        (worker.strings.grants.load(Ordering::SeqCst) > 0).then_some(())
    })
    .await;
    import(&worker, "busybox").await.unwrap();
    for channel in [worker.remote(), worker.local()] {
        let mut client = ContainerServiceClient::new(channel);
        assert_eq!(code(client.create(create("web", "busybox")).await), Some(Code::Forbidden));
    }
    let mut client = ContainerServiceClient::new(one.remote());
    let made = client.create(create("web", "busybox")).await.unwrap().into_inner();
    assert_eq!(finished(&worker, made.operation.unwrap()).await.state(), v1::OperationState::Done);
    // A stream that does not end, too.
    for follow in [false, true] {
        let watch =
            v1::WatchEventsRequest { container: "web".into(), follow, ..Default::default() };
        let mut events =
            EventServiceClient::new(worker.remote()).watch(watch).await.unwrap().into_inner();
        assert_eq!(events.message().await.unwrap().unwrap().kind, "container-created");
    }
}

/// A program's streams and its end come through another node; a client that hangs up ends it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_runs_by_way_of_any_node() {
    use v1::exec_request::Part as In;
    use v1::exec_response::Part as Out;
    let (one, worker) = (Node::fresh("n1").await, Node::fresh("w1").await);
    one.init().await;
    worker.join(&one, v1::NodeRole::Worker).await.unwrap();
    all_up(&one, 2).await;
    import(&worker, "busybox").await.unwrap();
    let mut client = ContainerServiceClient::new(one.remote());
    let made = client.create(create("web", "busybox")).await.unwrap().into_inner();
    assert_eq!(made.container.as_ref().unwrap().node, "w1", "not where the client asks");
    finished(&worker, made.operation.unwrap()).await;

    let start = |script: &str| {
        let command = ["sh", "-c", script].map(str::to_owned).to_vec();
        In::Start(v1::ExecStart { name: "web".into(), command, ..Default::default() })
    };
    let parts = [
        start("cat; echo oops >&2; exit 7"),
        In::Stdin(b"hello ".to_vec().into()),
        In::Stdin(b"world".to_vec().into()),
        In::StdinClosed(true),
    ];
    let parts = parts.map(|part| v1::ExecRequest { part: Some(part) });
    let answer = client.exec(tokio_stream::iter(parts)).await.unwrap();
    let (mut out, mut err, mut status) = (Vec::new(), Vec::new(), None);
    let mut answer = answer.into_inner();
    while let Some(message) = answer.message().await.unwrap() {
        match message.part.unwrap() {
            Out::Stdout(data) => out.extend_from_slice(&data),
            Out::Stderr(data) => err.extend_from_slice(&data),
            Out::ExitStatus(number) => status = Some(number),
        }
    }
    assert_eq!((&out[..], &err[..], status), (&b"hello world"[..], &b"oops\n"[..], Some(7)));

    let parts = [start("echo $$; exec sleep 1000")];
    let parts = parts.map(|part| v1::ExecRequest { part: Some(part) });
    let mut answer = client.exec(tokio_stream::iter(parts)).await.unwrap().into_inner();
    let Some(Out::Stdout(pid)) = answer.message().await.unwrap().unwrap().part else { panic!() };
    let pid: u32 = std::str::from_utf8(&pid).unwrap().trim().parse().unwrap();
    drop(answer);
    wait("the program's end", Duration::from_secs(10), async || {
        (!std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_served_as_text() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let node = Node::fresh("n1").await;
    let address = node.config.metrics.clone().unwrap();
    let fetch = async |path: &str| {
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    };
    assert!(fetch("/metrics").await.contains("holdfast_ready 0"));
    assert!(fetch("/").await.starts_with("HTTP/1.1 404"));
    node.init().await;
    all_up(&node, 1).await;
    let text = fetch("/metrics").await;
    for line in ["holdfast_ready 1", "holdfast_leader 1", "holdfast_pool_used_bytes{node=\"n1\"} "]
    {
        assert!(text.contains(line), "{text}");
    }
}
