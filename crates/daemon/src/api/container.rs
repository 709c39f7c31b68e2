//! `ContainerService`.

use std::pin::Pin;

use futures::Stream;
use holdfast_core::{Command, Container, DecideTakeover, Outcome, SetDesired, State};
use holdfast_proto::v1;
use holdfast_proto::v1::container_service_client::ContainerServiceClient;
use holdfast_proto::v1::container_service_server::ContainerService;
use holdfast_types::{Code, ContainerName, DesiredState, RunState};
use tonic::{Request, Response, Status, Streaming};

use super::{answered, create, exec, identified, logs, resize, sync};
use crate::convert;
use crate::fault::Fault;
use crate::forward::at_leader;
use crate::gate::Gate;
use crate::leader::request_id;
use crate::member::Lead;
use crate::reading::{Reading, at_any};

/// The service.
#[derive(Clone)]
pub(crate) struct ContainerApi {
    pub(crate) gate: Gate,
}

pub(super) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl ContainerService for ContainerApi {
    type ExecStream = Answers<v1::ExecResponse>;
    type LogsStream = Answers<v1::LogsResponse>;

    async fn create(
        &self,
        request: Request<v1::CreateRequest>,
    ) -> Result<Response<v1::CreateResponse>, Status> {
        let request = identified(request, |r| &mut r.request_id);
        at_leader!(self.gate, request, ContainerServiceClient.create, create::create)
    }

    async fn list(
        &self,
        request: Request<v1::ListContainersRequest>,
    ) -> Result<Response<v1::ListContainersResponse>, Status> {
        at_any!(self.gate, request, Seen, ContainerServiceClient.list, list)
    }

    async fn get(
        &self,
        request: Request<v1::GetContainerRequest>,
    ) -> Result<Response<v1::GetContainerResponse>, Status> {
        at_any!(self.gate, request, Seen, ContainerServiceClient.get, get)
    }

    async fn start(
        &self,
        request: Request<v1::StartRequest>,
    ) -> Result<Response<v1::StartResponse>, Status> {
        let request = identified(request, |r| &mut r.request_id);
        at_leader!(self.gate, request, ContainerServiceClient.start, start)
    }

    async fn stop(
        &self,
        request: Request<v1::StopRequest>,
    ) -> Result<Response<v1::StopResponse>, Status> {
        let request = identified(request, |r| &mut r.request_id);
        at_leader!(self.gate, request, ContainerServiceClient.stop, stop)
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteRequest>,
    ) -> Result<Response<v1::DeleteResponse>, Status> {
        let request = identified(request, |r| &mut r.request_id);
        at_leader!(self.gate, request, ContainerServiceClient.delete, delete)
    }

    async fn resize(
        &self,
        request: Request<v1::ResizeRequest>,
    ) -> Result<Response<v1::ResizeResponse>, Status> {
        let request = identified(request, |r| &mut r.request_id);
        at_leader!(self.gate, request, ContainerServiceClient.resize, resize::resize)
    }

    async fn sync(
        &self,
        request: Request<v1::SyncRequest>,
    ) -> Result<Response<v1::SyncResponse>, Status> {
        let wait = sync::limit(request.get_ref());
        at_leader!(self.gate, request, wait, ContainerServiceClient.sync, sync::sync)
    }

    async fn exec(
        &self,
        request: Request<Streaming<v1::ExecRequest>>,
    ) -> Result<Response<Self::ExecStream>, Status> {
        Ok(Response::new(exec::exec(self.gate.member()?, request).await?))
    }

    async fn logs(
        &self,
        request: Request<v1::LogsRequest>,
    ) -> Result<Response<Self::LogsStream>, Status> {
        Ok(Response::new(logs::logs(self.gate.member()?, request).await?))
    }

    async fn list_diverged(
        &self,
        request: Request<v1::ListDivergedRequest>,
    ) -> Result<Response<v1::ListDivergedResponse>, Status> {
        at_any!(self.gate, request, State, ContainerServiceClient.list_diverged, list_diverged)
    }

    async fn decide_takeover(
        &self,
        request: Request<v1::DecideTakeoverRequest>,
    ) -> Result<Response<v1::DecideTakeoverResponse>, Status> {
        let request = identified(request, |r| &mut r.request_id);
        at_leader!(self.gate, request, ContainerServiceClient.decide_takeover, decide)
    }
}

fn list(
    reading: &Reading,
    _: v1::ListContainersRequest,
) -> Result<v1::ListContainersResponse, Fault> {
    let containers = reading.picture(|picture| {
        let mut all: Vec<_> = reading.state().containers.values().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all.into_iter().map(|c| picture.container(c)).collect()
    });
    Ok(v1::ListContainersResponse { containers })
}

pub(super) fn get(
    reading: &Reading,
    request: v1::GetContainerRequest,
) -> Result<v1::GetContainerResponse, Fault> {
    let container = reading.state().container_named(&request.name.parse()?)?;
    let container = reading.picture(|picture| picture.container(container));
    Ok(v1::GetContainerResponse { container: Some(container) })
}

async fn start(lead: Lead, request: v1::StartRequest) -> Result<v1::StartResponse, Fault> {
    let lead = lead.expecting(request.expect);
    let ask = Ask { name: request.name, id: &request.request_id, desired: DesiredState::Running };
    let operation = desire(&lead, ask, not_held).await?;
    Ok(v1::StartResponse { operation: Some(operation) })
}

/// A held container has no node: nothing starts, runs or ships it before someone decides.
pub(super) fn not_held(container: &Container) -> Result<(), Fault> {
    match &container.hold {
        None => Ok(()),
        Some(hold) => Err(held(&container.name, &hold.reason)),
    }
}

/// The refusal of what a held takeover stands in the way of.
pub(super) fn held(name: impl std::fmt::Display, reason: &str) -> Fault {
    Fault::new(Code::Held, format!("takeover of {name} is held: {reason}"))
}

async fn stop(lead: Lead, request: v1::StopRequest) -> Result<v1::StopResponse, Fault> {
    let lead = lead.expecting(request.expect);
    let ask = Ask { name: request.name, id: &request.request_id, desired: DesiredState::Stopped };
    let operation = desire(&lead, ask, |_| Ok(())).await?;
    Ok(v1::StopResponse { operation: Some(operation) })
}

async fn delete(lead: Lead, request: v1::DeleteRequest) -> Result<v1::DeleteResponse, Fault> {
    let lead = lead.expecting(request.expect);
    let ask = Ask { name: request.name, id: &request.request_id, desired: DesiredState::Deleted };
    let operation = desire(&lead, ask, |container| match request.force || !runs(container) {
        true => Ok(()),
        false => {
            let name = &container.name;
            let message = format!("container {name} runs: stop it first, or use --force");
            Err(Fault::new(Code::WrongState, message))
        }
    });
    Ok(v1::DeleteResponse { operation: Some(operation.await?) })
}

/// Whether it runs, or is on the way to.
fn runs(c: &Container) -> bool {
    match c.run {
        RunState::Running | RunState::Starting => true,
        RunState::Pending => c.desired == DesiredState::Running,
        RunState::Stopped | RunState::Failed { .. } => false,
    }
}

struct Ask<'a> {
    name: String,
    id: &'a [u8],
    desired: DesiredState,
}

/// Says what a container should be doing, if `check` lets it.
async fn desire(
    lead: &Lead,
    ask: Ask<'_>,
    check: impl FnOnce(&Container) -> Result<(), Fault>,
) -> Result<v1::Operation, Fault> {
    let id = request_id(ask.id)?;
    let name: ContainerName = ask.name.parse()?;
    let state = lead.read().await?;
    let outcome = match answered(&state, id)? {
        Some(outcome) => outcome,
        None => {
            let container = state.container_named(&name)?;
            check(container)?;
            let command = SetDesired { uid: container.uid, desired: ask.desired };
            drop(state);
            lead.propose(id, Command::SetDesired(command)).await?
        }
    };
    operation_of(&lead.raft.state(), &outcome)
}

/// The operation that an outcome began.
pub(super) fn operation_of(state: &State, outcome: &Outcome) -> Result<v1::Operation, Fault> {
    let Outcome::Operation { operation, .. } = outcome else {
        return Err(Fault::new(Code::InvalidArgument, "that request id was for something else"));
    };
    convert::operation(state, *operation)
        .ok_or_else(|| Fault::new(Code::NotFound, format!("operation {operation} is forgotten")))
}

fn list_diverged(
    reading: &Reading,
    _: v1::ListDivergedRequest,
) -> Result<v1::ListDivergedResponse, Fault> {
    let diverged = reading.picture(|picture| {
        let all = reading.state().diverged.iter();
        all.map(|(uuid, kept)| picture.diverged(*uuid, kept)).collect()
    });
    Ok(v1::ListDivergedResponse { diverged })
}

async fn decide(
    lead: Lead,
    request: v1::DecideTakeoverRequest,
) -> Result<v1::DecideTakeoverResponse, Fault> {
    let id = request_id(&request.request_id)?;
    let state = lead.read().await?;
    let uid = state.container_named(&request.name.parse()?)?.uid;
    if answered(&state, id)?.is_none() {
        drop(state);
        let command = DecideTakeover { uid, approve: request.approve };
        let lead = lead.clone().expecting(request.expect);
        lead.propose(id, Command::DecideTakeover(command)).await?;
    }
    let state = lead.raft.state();
    let container = state.container(uid)?;
    let container = lead.picture(&state, |picture, _| picture.container(container));
    Ok(v1::DecideTakeoverResponse { container: Some(container) })
}
