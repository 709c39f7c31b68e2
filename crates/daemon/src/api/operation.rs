//! `OperationService`: following work to its end.

use std::time::Duration;

use holdfast_proto::v1;
use holdfast_proto::v1::operation_service_client::OperationServiceClient;
use holdfast_proto::v1::operation_service_server::OperationService;
use holdfast_types::{Code, OperationId};
use tokio::time::{Instant, timeout_at};
use tonic::{Request, Response, Status};

use crate::convert;
use crate::fault::Fault;
use crate::forward::at_leader;
use crate::gate::Gate;
use crate::member::Lead;

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
        at_leader!(self.gate, request, wait, OperationServiceClient.get, get)
    }
}

fn wait_of(request: &v1::GetOperationRequest) -> Duration {
    Duration::from_millis(request.wait_ms).min(MAX_WAIT)
}

async fn get(
    lead: Lead,
    request: v1::GetOperationRequest,
) -> Result<v1::GetOperationResponse, Fault> {
    let until = Instant::now() + wait_of(&request);
    let id: OperationId = request.id.parse()?;
    drop(lead.read().await?);
    let mut applied = lead.raft.watch();
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
