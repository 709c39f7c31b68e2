//! The end at which calls come in.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, pending, ready};
use holdfast_proto::internal::relay_service_client::RelayServiceClient;
use holdfast_proto::internal::{RelayAnswer, RelayCall, RelayCalls};
use http_body_util::{BodyExt, Full};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tower::{Service, ServiceExt};

use super::{MAX_BATCH_BYTES, WAITING, batch, passed_on, received};

/// Messages on their way: a second one is filled while the first is sent.
const BATCHES: usize = 2;

/// A node whose version knows no relays is asked again after so long: it may be another version by then.
const PLAIN: Duration = Duration::from_secs(10);

/// A node's services, to which all calls go over one stream. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Relay {
    calls: mpsc::Sender<Waiting>,
    channel: Channel,
    /// Each call has a stream of its own until then.
    plain: Arc<Mutex<Option<Instant>>>,
}

/// A call that is not sent yet.
struct Waiting {
    call: RelayCall,
    answer: oneshot::Sender<RelayAnswer>,
}

impl Relay {
    /// Over that channel; the stream is opened by the first call. Ends when the last clone is gone.
    pub(crate) fn over(channel: Channel) -> Self {
        let (calls, mut waiting) = mpsc::channel(WAITING);
        let plain = Arc::new(Mutex::new(None));
        let relay = Self { calls, channel: channel.clone(), plain: plain.clone() };
        tokio::spawn(async move {
            while let Some(first) = waiting.recv().await {
                let Err(status) = carry(channel.clone(), first, &mut waiting).await else {
                    continue;
                };
                tracing::debug!(%status, "a relay's stream broke");
                if status.code() == Code::Unimplemented {
                    *lock(&plain) = Some(Instant::now() + PLAIN);
                }
            }
        });
        relay
    }
}

impl Service<http::Request<Body>> for Relay {
    type Response = http::Response<Body>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Self::Response, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if lock(&self.plain).is_some_and(|until| Instant::now() < until) {
            let channel = self.channel.clone();
            let answer = channel.oneshot(request);
            return async move { answer.await.map_err(|e| Status::from_error(e.into())) }.boxed();
        }
        let calls = self.calls.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            let (path, headers) = (head.uri.path().to_owned(), passed_on(&head.headers));
            let call = RelayCall { number: 0, path, headers, body };
            let (answer, answered) = oneshot::channel();
            calls.send(Waiting { call, answer }).await.map_err(|_| lost())?;
            Ok(respond(answered.await.map_err(|_| lost())?))
        }
        .boxed()
    }
}

fn lost() -> Status {
    Status::unavailable("the connection to the other node broke")
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes calls over one stream for as long as that holds. Calls that are not answered then are lost.
async fn carry(
    channel: Channel,
    first: Waiting,
    waiting: &mut mpsc::Receiver<Waiting>,
) -> Result<(), Status> {
    let (calls, outgoing) = mpsc::channel(BATCHES);
    let answers = Mutex::new(HashMap::new());
    let mut numbers = 0..;
    let mut numbered = |Waiting { mut call, answer }: Waiting| {
        // Nobody waits for it any more.
        if answer.is_closed() {
            return None;
        }
        call.number = numbers.next()?;
        lock(&answers).insert(call.number, answer);
        Some(call)
    };
    let sending = async {
        let mut next = Some(first);
        while let Some(first) = next {
            let batch = batch(first, waiting, |waiting| waiting.call.body.len());
            let batch: Vec<_> = batch.into_iter().filter_map(&mut numbered).collect();
            if !batch.is_empty() && calls.send(RelayCalls { calls: batch }).await.is_err() {
                // What was sent may be answered still.
                return pending().await;
            }
            next = waiting.recv().await;
        }
    };
    let receiving = async {
        let mut client = RelayServiceClient::new(channel)
            .max_decoding_message_size(MAX_BATCH_BYTES)
            .max_encoding_message_size(MAX_BATCH_BYTES);
        let mut incoming = client.relay(ReceiverStream::new(outgoing)).await?.into_inner();
        while let Some(batch) = incoming.message().await? {
            for answer in batch.answers {
                let Some(caller) = lock(&answers).remove(&answer.number) else { continue };
                // A caller that has given up wants none.
                drop(caller.send(answer));
            }
        }
        Ok(())
    };
    tokio::select! {
        ended = receiving => ended,
        () = sending => Ok(()),
    }
}

pub(crate) fn respond(answer: RelayAnswer) -> http::Response<Body> {
    let RelayAnswer { headers, body, trailers, .. } = answer;
    let trailers = (!trailers.is_empty()).then(|| Ok(received(trailers)));
    let body = Full::new(body).with_trailers(ready(trailers));
    let mut response = http::Response::new(Body::new(body));
    *response.headers_mut() = received(headers);
    response
}
