//! The end at which calls are made.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use futures::stream::{self, BoxStream, StreamExt};
use holdfast_proto::MAX_MESSAGE_BYTES;
use holdfast_proto::internal::relay_service_server::{RelayService, RelayServiceServer};
use holdfast_proto::internal::{RelayAnswer, RelayAnswers, RelayCall, RelayCalls};
use http::header::{CONTENT_TYPE, HeaderValue};
use http_body_util::{BodyExt, Full, Limited};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::{Request, Response, Status, Streaming};
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

use crate::accept::Peer;

use super::{MAX_BATCH_BYTES, WAITING, batch, passed_on, received};

/// Calls of one stream that are made at a time.
const AT_ONCE: usize = 4096;

/// The largest answer: one message, and what frames it.
const MAX_ANSWER_BYTES: usize = MAX_MESSAGE_BYTES + 5;

/// What answers calls.
pub(crate) type Calls = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Infallible>;

/// The service that other nodes' [`super::Relay`] calls.
#[derive(Clone)]
pub(crate) struct RelayApi {
    routes: Calls,
    /// No new calls are taken from then on.
    stop: CancellationToken,
}

impl RelayApi {
    /// Calls go to those services.
    pub(crate) fn server(routes: Calls, stop: CancellationToken) -> RelayServiceServer<Self> {
        RelayServiceServer::new(Self { routes, stop })
            .max_decoding_message_size(MAX_BATCH_BYTES)
            .max_encoding_message_size(MAX_BATCH_BYTES)
    }
}

#[tonic::async_trait]
impl RelayService for RelayApi {
    type RelayStream = BoxStream<'static, Result<RelayAnswers, Status>>;

    async fn relay(
        &self,
        request: Request<Streaming<RelayCalls>>,
    ) -> Result<Response<Self::RelayStream>, Status> {
        let (answers, ready) = mpsc::channel(WAITING);
        let (routes, stop) = (self.routes.clone(), self.stop.clone());
        // Each call in it is made by whoever has the connection.
        let peer = request.extensions().get::<Peer>().copied();
        let routes = Relayed { routes, peer };
        tokio::spawn(make(routes, request.into_inner(), answers, stop));
        let batches = stream::unfold(ready, |mut ready| async {
            let first = ready.recv().await?;
            let answers = batch(first, &mut ready, |answer: &RelayAnswer| answer.body.len());
            Some((Ok(RelayAnswers { answers }), ready))
        });
        Ok(Response::new(batches.boxed()))
    }
}

/// What answers the calls of one connection.
#[derive(Clone)]
pub(crate) struct Relayed {
    pub(crate) routes: Calls,
    pub(crate) peer: Option<Peer>,
}

/// Makes the calls until the stream ends, which ends those under way, or until told to stop: then those
/// are finished, and others sent away.
async fn make(
    routes: Relayed,
    mut incoming: Streaming<RelayCalls>,
    answers: mpsc::Sender<RelayAnswer>,
    stop: CancellationToken,
) {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut under_way = JoinSet::new();
    let mut stops = false;
    while !stops || !under_way.is_empty() {
        let next = tokio::select! {
            next = incoming.message() => next,
            () = answers.closed() => return,
            () = stop.cancelled(), if !stops => {
                stops = true;
                continue;
            }
            Some(_) = under_way.join_next(), if stops => continue,
        };
        let Ok(Some(RelayCalls { calls })) = next else { return };
        for call in calls {
            match room.clone().try_acquire_owned() {
                Ok(place) if !stops => {
                    under_way.spawn(one(routes.clone(), call, answers.clone(), place));
                }
                _ => {
                    let status = Status::unavailable("this node takes no more calls now");
                    drop(answers.send(refusal(call.number, status)).await);
                }
            }
        }
        while under_way.try_join_next().is_some() {}
    }
}

async fn one(
    routes: Relayed,
    call: RelayCall,
    answers: mpsc::Sender<RelayAnswer>,
    _place: OwnedSemaphorePermit,
) {
    let number = call.number;
    let answer = match AssertUnwindSafe(made(routes, call)).catch_unwind().await {
        Ok(Ok(answer)) => answer,
        Ok(Err(status)) => refusal(number, status),
        Err(_) => refusal(number, Status::unavailable("the call ended in a panic")),
    };
    // Nobody waits any more if the stream is gone.
    drop(answers.send(answer).await);
}

fn refusal(number: u64, status: Status) -> RelayAnswer {
    let headers = passed_on(status.into_http::<()>().headers());
    RelayAnswer { number, headers, ..Default::default() }
}

/// Makes a call, and gives back what is answered.
pub(crate) async fn made(
    Relayed { routes, peer }: Relayed,
    call: RelayCall,
) -> Result<RelayAnswer, Status> {
    let RelayCall { number, path, headers, body } = call;
    let bad = |e: http::Error| Status::invalid_argument(format!("{path} is no method: {e}"));
    let request = http::Request::post(&*path).version(http::Version::HTTP_2);
    let mut request = request.body(Body::new(Full::new(body))).map_err(bad)?;
    *request.headers_mut() = received(headers);
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    if let Some(peer) = peer {
        request.extensions_mut().insert(peer);
    }
    let Ok(response) = routes.oneshot(request).await;
    let (head, body) = response.into_parts();
    // An answer without end is not for here.
    let large = |e| Status::out_of_range(format!("the answer of {path}: {e}"));
    let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await.map_err(large)?;
    let trailers = body.trailers().map(passed_on).unwrap_or_default();
    let headers = passed_on(&head.headers);
    Ok(RelayAnswer { number, headers, body: body.to_bytes(), trailers })
}
