//! `OperationService`: following work to its end.

use std::time::Duration;

use holdfast_proto::v1;
use holdfast_proto::v1::operation_service_client::OperationServiceClient;
use holdfast_proto::v1::operation_service_server::OperationService;
use holdfast_raft::RaftNode;
use holdfast_types::{Code, OperationId};
use tokio::time::{Instant, timeout_at};
use tonic::{Request, Response, Status};

use crate::channels::There;
use crate::convert;
use crate::fault::Fault;
use crate::forward::Call;
use crate::gate::Gate;
use crate::reading::{Show, passed_on, told};

/// The longest wait for one answer; a client asks again.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// The service.
#[derive(Clone)]
pub(crate) struct OperationApi {
    pub(crate) gate: Gate,
}

#[tonic::async_trait]
impl OperationService for OperationApi {
    async fn get(
        &self,
        request: Request<v1::GetOperationRequest>,
    ) -> Result<Response<v1::GetOperationResponse>, Status> {
        let wait = wait_of(request.get_ref());
        let member = self.gate.member()?;
        let (call, message) = Call::open(request, wait);
        if let Some(reading) = member.reading(&call.prompt(), Show::State).await? {
            // The state is let go of before the wait.
            let (raft, metadata) = (reading.raft.clone(), reading.respond(()).metadata().clone());
            drop(reading);
            return Ok(passed_on((metadata, get(&raft, message).await?)));
        }
        let there = |there: There| {
            let request = call.onward(message.clone());
            async move {
                let answer = OperationServiceClient::new(there.channel).get(request).await?;
                Ok(Response::new((told(answer.metadata()), answer.into_inner())))
            }
        };
        let nobody = |_| async { Err(Fault::not_leader(None)) };
        Ok(passed_on(member.at_leader(&call, nobody, there).await?))
    }
}

fn wait_of(request: &v1::GetOperationRequest) -> Duration {
    Duration::from_millis(request.wait_ms).min(MAX_WAIT)
}

async fn get(
    raft: &RaftNode,
    request: v1::GetOperationRequest,
) -> Result<v1::GetOperationResponse, Fault> {
    let until = Instant::now() + wait_of(&request);
    let id: OperationId = request.id.parse()?;
    let mut applied = raft.watch();
    loop {
        let operation = convert::operation(&applied.borrow_and_update().state, id)
            .ok_or_else(|| Fault::new(Code::NotFound, format!("there is no operation {id}")))?;
        let running = operation.state() == v1::OperationState::Running;
        let answer = v1::GetOperationResponse { operation: Some(operation) };
        if !running {
            return Ok(answer);
        }
        match timeout_at(until, applied.changed()).await {
            Err(_) => return Ok(answer),
            Ok(Err(_)) => return Err(Fault::not_leader(None)),
            Ok(Ok(())) => {}
        }
    }
}
