//! The end at which calls are made.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use holdfast_proto::internal::relay_service_server::{RelayService, RelayServiceServer};
use holdfast_proto::internal::{RelayAnswer, RelayAnswers, RelayCall, RelayCalls};
use http::header::{CONTENT_TYPE, HeaderValue};
use http_body_util::{BodyExt, Full};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};
use tower::ServiceExt;

use super::{MAX_BATCH_BYTES, WAITING, batch, passed_on, received};

/// Calls of one stream that are made at a time; the rest of the stream waits.
const AT_ONCE: usize = 4096;

/// The service that other nodes' [`super::Relay`] calls.
#[derive(Clone)]
pub(crate) struct RelayApi {
    routes: Routes,
    /// No new calls are taken from then on.
    stop: CancellationToken,
}

impl RelayApi {
    /// Calls go to those services.
    pub(crate) fn server(routes: Routes, stop: CancellationToken) -> RelayServiceServer<Self> {
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
        tokio::spawn(make(routes, request.into_inner(), answers, stop));
        let batches = stream::unfold(ready, |mut ready| async {
            let first = ready.recv().await?;
            let answers = batch(first, &mut ready, |answer: &RelayAnswer| answer.body.len());
            Some((Ok(RelayAnswers { answers }), ready))
        });
        Ok(Response::new(batches.boxed()))
    }
}

/// Makes the calls until the stream ends, which ends those under way, or until told to stop, which does
/// not.
async fn make(
    routes: Routes,
    mut incoming: Streaming<RelayCalls>,
    answers: mpsc::Sender<RelayAnswer>,
    stop: CancellationToken,
) {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut under_way = JoinSet::new();
    loop {
        let next = tokio::select! {
            next = incoming.message() => next,
            () = answers.closed() => return,
            () = stop.cancelled() => break,
        };
        let Ok(Some(RelayCalls { calls })) = next else { return };
        for call in calls {
            let Ok(place) = room.clone().acquire_owned().await else { return };
            under_way.spawn(one(routes.clone(), call, answers.clone(), place));
        }
        while under_way.try_join_next().is_some() {}
    }
    drop(answers);
    while under_way.join_next().await.is_some() {}
}

async fn one(
    routes: Routes,
    call: RelayCall,
    answers: mpsc::Sender<RelayAnswer>,
    _place: OwnedSemaphorePermit,
) {
    let RelayCall { number, path, headers, body } = call;
    let answer = match answer(routes, &path, received(headers), body).await {
        Ok(answer) => RelayAnswer { number, ..answer },
        Err(status) => {
            let headers = passed_on(status.into_http::<()>().headers());
            RelayAnswer { number, headers, ..Default::default() }
        }
    };
    // Nobody waits any more if the stream is gone.
    drop(answers.send(answer).await);
}

async fn answer(
    routes: Routes,
    path: &str,
    headers: http::HeaderMap,
    body: Bytes,
) -> Result<RelayAnswer, Status> {
    let bad = |e: http::Error| Status::invalid_argument(format!("{path} is no method: {e}"));
    let request = http::Request::post(path).version(http::Version::HTTP_2);
    let mut request = request.body(Body::new(Full::new(body))).map_err(bad)?;
    *request.headers_mut() = headers;
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    let Ok(response) = routes.oneshot(request).await;
    let (head, body) = response.into_parts();
    let body = body.collect().await?;
    let trailers = body.trailers().map(passed_on).unwrap_or_default();
    let headers = passed_on(&head.headers);
    Ok(RelayAnswer { number: 0, headers, body: body.to_bytes(), trailers })
}
