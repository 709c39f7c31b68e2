//! Calls that another node passes on, up to the services, and the answers that come back.
//!
//! The first byte of an input says which of the two the rest is.

use holdfast_proto::internal::{RelayAnswer, RelayAnswers, RelayCall, RelayCalls, RelayHeader};
use holdfast_proto::v1::operation_service_server::{OperationService, OperationServiceServer};
use holdfast_proto::v1::{GetOperationRequest, GetOperationResponse, Operation};
use http_body_util::BodyExt;
use prost::Message;
use tokio::runtime::{Builder, Runtime};
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use tower::util::BoxCloneSyncService;

use crate::relay::{self, Relayed};

/// More in one message would be the same once more.
const MOST: usize = 4;

/// Reads one message, and does what it asks for.
pub fn read(input: &[u8]) {
    let [which, body @ ..] = input else { return };
    match which % 2 {
        0 => RelayCalls::decode(body).map_or((), |calls| called(calls.calls)),
        _ => RelayAnswers::decode(body).map_or((), |answers| answered(answers.answers)),
    }
}

fn called(calls: Vec<RelayCall>) {
    for call in calls.into_iter().take(MOST) {
        let routes = Routes::new(OperationServiceServer::new(Echo));
        let routes = Relayed { routes: BoxCloneSyncService::new(routes), peer: None };
        if let Ok(answer) = block_on(relay::made(routes, call)) {
            answered(vec![answer]);
        }
    }
}

fn answered(answers: Vec<RelayAnswer>) {
    for answer in answers.into_iter().take(MOST) {
        let said = answer.body.clone();
        let whole = block_on(relay::respond(answer).into_body().collect());
        assert_eq!(whole.map(|body| body.to_bytes()).ok(), Some(said));
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: Runtime =
            Builder::new_current_thread().build().expect("a runtime without threads");
    }
    RUNTIME.with(|runtime| runtime.block_on(work))
}

/// Answers with what it was asked.
struct Echo;

#[tonic::async_trait]
impl OperationService for Echo {
    async fn get(
        &self,
        request: Request<GetOperationRequest>,
    ) -> Result<Response<GetOperationResponse>, Status> {
        let operation = Operation { id: request.into_inner().id, ..Default::default() };
        Ok(Response::new(GetOperationResponse { operation: Some(operation) }))
    }
}

/// A call, several of them, and answers.
pub fn seeds() -> Vec<Vec<u8>> {
    let header = |name: &str, value: &str| RelayHeader {
        name: name.into(),
        value: value.as_bytes().to_vec().into(),
    };
    let asked = GetOperationRequest { id: "one".into(), ..Default::default() }.encode_to_vec();
    let framed = [&[0, 0, 0, 0, asked.len() as u8][..], &asked].concat();
    let call = |number: u64, path: &str| RelayCall {
        number,
        path: path.into(),
        headers: vec![header("holdfast-hops", "1"), header("grpc-timeout", "1S")],
        body: framed.clone().into(),
    };
    let get = call(1, "/holdfast.v1.OperationService/Get");
    let calls = [vec![get.clone()], vec![get, call(2, "/none"), call(3, "")]];
    let answer = RelayAnswer {
        number: 1,
        headers: vec![header("holdfast-applied", "7")],
        body: framed.clone().into(),
        trailers: vec![header("grpc-status", "0"), header("holdfast-code", "HF-NOT-FOUND")],
    };
    let answers = RelayAnswers { answers: vec![answer.clone(), answer] }.encode_to_vec();
    let calls = calls.map(|calls| [&[0], &RelayCalls { calls }.encode_to_vec()[..]].concat());
    calls.into_iter().chain([[&[1], &answers[..]].concat()]).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn spoiled_calls_are_made_or_refused() {
        holdfast_fuzz::spoiled(&super::seeds(), 20_000, super::read);
    }
}
