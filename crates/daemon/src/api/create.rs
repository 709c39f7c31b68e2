//! Creating a container: spec checked, placed, committed.

use holdfast_core::{Command, CreateContainer, Outcome, State};
use holdfast_planner::place;
use holdfast_proto::{required, v1};
use holdfast_types::{
    Code, ContainerName, ContainerSpec, ContainerUid, DesiredState, NodeName, RequestId,
};

use super::answered;
use super::container::operation_of;
use crate::fault::Fault;
use crate::leader::request_id;
use crate::member::Lead;

/// Creates a container, on the leader.
pub(super) async fn create(
    lead: Lead,
    request: v1::CreateRequest,
) -> Result<v1::CreateResponse, Fault> {
    let id = request_id(&request.request_id)?;
    let name: ContainerName = request.name.parse()?;
    let spec = ContainerSpec::try_from(required(request.spec.clone(), "spec")?)?;
    spec.check()?;
    let state = lead.read().await?;
    let outcome = match answered(&state, id)? {
        Some(outcome) => outcome,
        None => {
            let command = plan(&lead, &state, &request, id, name, spec)?;
            drop(state);
            lead.propose(id, Command::CreateContainer(command)).await?
        }
    };
    let (container, operation) = created(&lead, &outcome)?;
    Ok(v1::CreateResponse { container: Some(container), operation: Some(operation) })
}

/// What was made, and what the client follows.
pub(super) fn created(
    lead: &Lead,
    outcome: &Outcome,
) -> Result<(v1::Container, v1::Operation), Fault> {
    let state = lead.raft.state();
    let operation = operation_of(&state, outcome)?;
    // A retry may come when the container is gone again.
    let container = match outcome {
        Outcome::Operation { container, .. } => state.container(*container)?,
        _ => {
            return Err(Fault::new(
                Code::InvalidArgument,
                "that request id was for something else",
            ));
        }
    };
    let container = lead.picture(&state, |picture, _| picture.container(container));
    Ok((container, operation))
}

fn plan(
    lead: &Lead,
    state: &State,
    request: &v1::CreateRequest,
    id: RequestId,
    name: ContainerName,
    spec: ContainerSpec,
) -> Result<CreateContainer, Fault> {
    if state.container_named(&name).is_ok() {
        let message = format!("there is a container {name} already");
        return Err(Fault::new(Code::AlreadyExists, message));
    }
    let image = state.image_named(required(spec.image.as_ref(), "spec.image")?)?;
    if !image.has_init && spec.command.is_empty() {
        let message = format!("image {} has no /sbin/init: give a command to run", image.name);
        return Err(Fault::new(Code::InvalidArgument, message));
    }
    let only = match request.node.as_str() {
        "" => None,
        node => Some(state.node_named(&node.parse::<NodeName>()?)?.id),
    };
    let placement = place(state, &lead.observe(state), &spec, &image.held_by, only)?;
    let desired = if request.stopped { DesiredState::Stopped } else { DesiredState::Running };
    Ok(CreateContainer {
        uid: ContainerUid::generate(),
        name,
        spec,
        desired,
        node: placement.node,
        replicas: placement.replicas,
        operation: id.into(),
        origin: None,
    })
}
