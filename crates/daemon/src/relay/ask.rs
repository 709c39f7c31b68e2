//! The end at which calls come in.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use futures::future::{BoxFuture, FutureExt};
use holdfast_proto::internal::relay_service_client::RelayServiceClient;
use holdfast_proto::internal::{RelayAnswer, RelayCall, RelayCalls};
use http_body_util::{BodyExt, Full};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::body::Body;
use tonic::transport::Channel;
use tower::Service;

use super::{MAX_BATCH_BYTES, WAITING, batch, passed_on, received};

/// Messages on their way: a second one is filled while the first is sent.
const BATCHES: usize = 2;

/// A node's services, to which all calls go over one stream. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Relay(mpsc::Sender<Waiting>);

/// A call that is not sent yet.
struct Waiting {
    call: RelayCall,
    answer: oneshot::Sender<RelayAnswer>,
}

impl Relay {
    /// Over that channel; the stream is opened by the first call. Ends when the last clone is gone.
    pub(crate) fn over(channel: Channel) -> Self {
        let (calls, mut waiting) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            while let Some(first) = waiting.recv().await {
                if let Err(status) = carry(channel.clone(), first, &mut waiting).await {
                    tracing::debug!(%status, "a relay's stream broke");
                }
            }
        });
        Self(calls)
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
        let calls = self.0.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            let (path, headers) = (head.uri.path().to_owned(), passed_on(&head.headers));
            let call = RelayCall { number: 0, path, headers, body };
            let (answer, answered) = oneshot::channel();
            calls.send(Waiting { call, answer }).await.map_err(|_| lost())?;
            respond(answered.await.map_err(|_| lost())?)
        }
        .boxed()
    }
}

fn lost() -> Status {
    Status::unavailable("the connection to the other node broke")
}

/// Takes calls over one stream for as long as that holds. Calls that are not answered then are lost.
async fn carry(
    channel: Channel,
    first: Waiting,
    waiting: &mut mpsc::Receiver<Waiting>,
) -> Result<(), Status> {
    let (calls, outgoing) = mpsc::channel(BATCHES);
    let pending = Mutex::new(HashMap::new());
    let pending = || pending.lock().unwrap_or_else(PoisonError::into_inner);
    let mut numbers = 0..;
    let mut numbered = |Waiting { mut call, answer }| {
        call.number = numbers.next().unwrap_or_default();
        pending().insert(call.number, answer);
        call
    };
    let sending = async {
        let mut first = Some(first);
        while let Some(next) = first {
            let batch = batch(next, waiting, |waiting| waiting.call.body.len());
            let batch = RelayCalls { calls: batch.into_iter().map(&mut numbered).collect() };
            if calls.send(batch).await.is_err() {
                return;
            }
            first = waiting.recv().await;
        }
    };
    let receiving = async {
        let mut client = RelayServiceClient::new(channel)
            .max_decoding_message_size(MAX_BATCH_BYTES)
            .max_encoding_message_size(MAX_BATCH_BYTES);
        let mut incoming = client.relay(ReceiverStream::new(outgoing)).await?.into_inner();
        while let Some(batch) = incoming.message().await? {
            for answer in batch.answers {
                let Some(caller) = pending().remove(&answer.number) else { continue };
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

fn respond(answer: RelayAnswer) -> Result<http::Response<Body>, Status> {
    let RelayAnswer { headers, body, trailers, .. } = answer;
    let trailers = (!trailers.is_empty()).then(|| Ok(received(trailers)));
    let body = Full::new(body).with_trailers(futures::future::ready(trailers));
    let mut response = http::Response::new(Body::new(body));
    *response.headers_mut() = received(headers);
    Ok(response)
}
