//! Calls over a relay are as calls without one.

use std::net::SocketAddr;
use std::time::Duration;

use futures::future::join_all;
use holdfast_proto::v1::operation_service_client::OperationServiceClient;
use holdfast_proto::v1::operation_service_server::{OperationService, OperationServiceServer};
use holdfast_proto::v1::{GetOperationRequest, GetOperationResponse, Operation};
use holdfast_proto::{Dialer, RemoteError, is_answer, status_from};
use holdfast_types::Code;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code as Grpc, Request, Response, Status};
use tower::util::BoxCloneSyncService;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// Answers with what it was asked, once it may.
struct Echo {
    open: watch::Receiver<bool>,
    /// How many wait for that.
    waiting: watch::Sender<usize>,
}

#[tonic::async_trait]
impl OperationService for Echo {
    async fn get(
        &self,
        request: Request<GetOperationRequest>,
    ) -> Result<Response<GetOperationResponse>, Status> {
        let hops = request.metadata().get("holdfast-hops").cloned();
        let id = request.into_inner().id;
        if let Some(what) = id.strip_prefix("refuse ") {
            return Err(status_from(Code::NotLeader, what, Some("10.0.0.7:7443")));
        }
        if id.starts_with("wait") {
            self.waiting.send_modify(|waiting| *waiting += 1);
            self.open.clone().wait_for(|open| *open).await.map_err(|_| Status::aborted("shut"))?;
        }
        assert_ne!(id, "panic");
        let id = if id == "grow" { "x".repeat(MAX_MESSAGE_BYTES * 2) } else { id };
        let operation = Operation { id, ..Default::default() };
        let mut response = Response::new(GetOperationResponse { operation: Some(operation) });
        if let Some(hops) = hops {
            response.metadata_mut().insert("holdfast-applied", hops);
        }
        Ok(response)
    }
}

/// A node that serves the echo, until it is dropped.
struct Node {
    addr: SocketAddr,
    open: watch::Sender<bool>,
    waiting: watch::Receiver<usize>,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl Node {
    async fn at(addr: SocketAddr) -> Self {
        // Whoever listened there may be about to end.
        let bound = async {
            loop {
                match TcpListener::bind(addr).await {
                    Ok(listener) => break listener,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        };
        let listener = timeout(PATIENCE, bound).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (open, gate) = watch::channel(false);
        let (seen, waiting) = watch::channel(0);
        let stop = CancellationToken::new();
        let echo = OperationServiceServer::new(Echo { open: gate, waiting: seen });
        let echo = echo.max_decoding_message_size(MAX_MESSAGE_BYTES);
        let routes = Routes::new(echo.max_encoding_message_size(usize::MAX));
        let relay = RelayApi::server(BoxCloneSyncService::new(routes), stop.clone());
        let until = stop.clone().cancelled_owned();
        let incoming = TcpIncoming::from(listener);
        let serve = Server::builder().add_service(relay);
        let serving = tokio::spawn(async move {
            serve.serve_with_incoming_shutdown(incoming, until).await.unwrap();
        });
        Self { addr, open, waiting, stop, serving }
    }

    async fn begin() -> (Self, Relay) {
        let node = Self::at(([127, 0, 0, 1], 0).into()).await;
        let relay = node.relay();
        (node, relay)
    }

    fn relay(&self) -> Relay {
        let address = self.addr.to_string().parse().unwrap();
        Relay::over(Dialer::plaintext().lazy(&address, PATIENCE))
    }

    async fn end(self) {
        self.stop.cancel();
        timeout(PATIENCE, self.serving).await.unwrap().unwrap();
    }
}

async fn get(relay: &Relay, id: &str) -> Result<String, Status> {
    let mut client = OperationServiceClient::new(relay.clone())
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let request = GetOperationRequest { id: id.to_owned(), wait_ms: 0 };
    let answer = timeout(PATIENCE, client.get(request)).await.unwrap()?;
    Ok(answer.into_inner().operation.unwrap().id)
}

#[tokio::test]
async fn everybody_gets_the_answer_to_what_he_asked() {
    let (node, relay) = Node::begin().await;
    let late = tokio::spawn({
        let relay = relay.clone();
        async move { get(&relay, "wait for it").await }
    });
    let ids: Vec<_> = (0..3_000).map(|n| n.to_string()).collect();
    let answers = join_all(ids.iter().map(|id| get(&relay, id))).await;
    assert!(answers.iter().zip(&ids).all(|(answer, id)| answer.as_ref().ok() == Some(id)));
    assert!(!late.is_finished());
    node.open.send_replace(true);
    assert_eq!(late.await.unwrap().unwrap(), "wait for it");
    node.end().await;
}

#[tokio::test]
async fn what_is_said_beside_a_message_comes_along_both_ways() {
    let (node, relay) = Node::begin().await;
    let mut request = Request::new(GetOperationRequest::default());
    request.metadata_mut().insert("holdfast-hops", 1.into());
    let answer = OperationServiceClient::new(relay.clone()).get(request).await.unwrap();
    assert_eq!(answer.metadata().get("holdfast-applied").unwrap(), "1");

    let refused = get(&relay, "refuse no, it is \"not\" I").await.unwrap_err();
    let error = RemoteError::from(refused);
    assert_eq!((error.code, &*error.message), (Code::NotLeader, "no, it is \"not\" I"));
    assert_eq!(error.leader.as_deref(), Some("10.0.0.7:7443"));
    node.end().await;
}

#[tokio::test]
async fn messages_as_large_as_any_pass_and_larger_ones_are_refused() {
    let (node, relay) = Node::begin().await;
    let large = "x".repeat(MAX_MESSAGE_BYTES - 64);
    let all = join_all([&large, "small", &large, &large].map(|id| get(&relay, id))).await;
    assert!(all.into_iter().all(|answer| answer.is_ok()));
    assert!(get(&relay, &"x".repeat(MAX_MESSAGE_BYTES)).await.is_err());
    assert_eq!(get(&relay, "as before").await.unwrap(), "as before");
    node.end().await;
}

/// I27: it could be a stream without end.
#[tokio::test]
async fn an_answer_that_is_larger_than_any_message_is_refused_by_itself() {
    let (node, relay) = Node::begin().await;
    let (large, small) = tokio::join!(get(&relay, "grow"), get(&relay, "small"));
    assert_eq!((large.unwrap_err().code(), small.unwrap().as_str()), (Grpc::OutOfRange, "small"));
    node.end().await;
}

#[tokio::test]
async fn a_call_that_panics_is_answered() {
    let (node, relay) = Node::begin().await;
    let answer = get(&relay, "panic").await.unwrap_err();
    assert!(!is_answer(&answer) && answer.code() == Grpc::Unavailable, "{answer}");
    node.end().await;
}

/// I27: a map of headers panics at its limit.
#[test]
fn headers_without_end_are_cut_off() {
    let header = |n: u32| RelayHeader { name: format!("h{n}"), value: "v".into() };
    assert_eq!(received((0..50_000).map(header).collect()).len(), MAX_HEADERS);
}

/// A node of a version that knows no relays is called as it always was.
#[tokio::test]
async fn a_node_without_relays_is_called_without_one() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string().parse().unwrap();
    let echo = Echo { open: watch::channel(true).1, waiting: watch::channel(0).0 };
    let serve = Server::builder().add_service(OperationServiceServer::new(echo));
    let serving = tokio::spawn(serve.serve_with_incoming(TcpIncoming::from(listener)));
    let relay = Relay::over(Dialer::plaintext().lazy(&address, PATIENCE));
    assert!(!is_answer(&get(&relay, "1").await.unwrap_err()), "it is to be tried again");
    assert_eq!(get(&relay, "2").await.unwrap(), "2");
    serving.abort();
}

#[tokio::test]
async fn what_is_no_method_is_refused_by_itself() {
    let (node, relay) = Node::begin().await;
    for path in ["/holdfast.v1.OperationService/None", "no path", "", "/\u{1}"] {
        let request = http::Request::post("/x").body(tonic::body::Body::empty()).unwrap();
        let (mut head, body) = request.into_parts();
        if let Ok(uri) = path.parse() {
            head.uri = uri;
        }
        let asked =
            tower::ServiceExt::oneshot(relay.clone(), http::Request::from_parts(head, body));
        let answer = timeout(PATIENCE, asked).await.unwrap().unwrap();
        assert_ne!(answer.headers().get("grpc-status").unwrap(), "0", "{path:?}");
    }
    assert_eq!(get(&relay, "as before").await.unwrap(), "as before");
    node.end().await;
}

/// Whoever waits is told at once, as by a connection that breaks; and the next call finds the node
/// that came back.
#[tokio::test]
async fn a_stream_that_breaks_breaks_its_calls_and_no_later_ones() {
    // It dies with all that runs there.
    let there = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let node = there.spawn(Node::at(([127, 0, 0, 1], 0).into())).await.unwrap();
    let (addr, relay) = (node.addr, node.relay());
    let waits = tokio::spawn({
        let relay = relay.clone();
        async move { get(&relay, "wait").await }
    });
    assert_eq!(get(&relay, "1").await.unwrap(), "1");
    there.shutdown_background();
    let lost = waits.await.unwrap().unwrap_err();
    assert!(!is_answer(&lost), "{lost}");
    let node = Node::at(addr).await;
    let back = async {
        while get(&relay, "2").await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, back).await.unwrap();
    node.end().await;
}

/// A daemon that stops answers what it has begun.
#[tokio::test]
async fn what_has_begun_is_answered_by_a_node_that_stops() {
    let (node, relay) = Node::begin().await;
    let waits = tokio::spawn({
        let relay = relay.clone();
        async move { get(&relay, "wait").await }
    });
    let mut waiting = node.waiting.clone();
    timeout(PATIENCE, waiting.wait_for(|waiting| *waiting == 1)).await.unwrap().unwrap();
    node.stop.cancel();
    // Others are sent away at once, and may be answered elsewhere.
    let refused = async {
        while get(&relay, "1").await.is_ok() {}
        get(&relay, "2").await.unwrap_err()
    };
    assert!(!is_answer(&timeout(PATIENCE, refused).await.unwrap()));
    node.open.send_replace(true);
    assert_eq!(waits.await.unwrap().unwrap(), "wait");
    timeout(PATIENCE, node.serving).await.unwrap().unwrap();
}
