//! Creating a container: spec checked, placed, committed.

use std::collections::BTreeSet;

use holdfast_core::{Command, CreateContainer, Origin, Outcome, State};
use holdfast_planner::place;
use holdfast_proto::{required, v1};
use holdfast_types::{
    Code, ContainerName, ContainerSpec, ContainerUid, DesiredState, NodeId, NodeName, RequestId,
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
    let image = state.image_named(required(spec.image.as_ref(), "spec.image")?)?;
    if !image.has_init && spec.command.is_empty() {
        let message = format!("image {} has no /sbin/init: give a command to run", image.name);
        return Err(Fault::new(Code::InvalidArgument, message));
    }
    let asked = Asked { id, name, spec, node: &request.node, stopped: request.stopped };
    asked.placed(lead, state, &image.held_by, None)
}

/// What a client asks for, whatever it is made of.
pub(super) struct Asked<'a> {
    pub(super) id: RequestId,
    pub(super) name: ContainerName,
    pub(super) spec: ContainerSpec,
    /// The node that it is to be on; any, if empty.
    pub(super) node: &'a str,
    pub(super) stopped: bool,
}

impl Asked<'_> {
    /// The container on one of the nodes that hold what it is made of.
    pub(super) fn placed(
        self,
        lead: &Lead,
        state: &State,
        held_by: &BTreeSet<NodeId>,
        origin: Option<Origin>,
    ) -> Result<CreateContainer, Fault> {
        let Self { id, name, spec, node, stopped } = self;
        if state.container_named(&name).is_ok() {
            let message = format!("there is a container {name} already");
            return Err(Fault::new(Code::AlreadyExists, message));
        }
        let only = match node {
            "" => None,
            node => Some(state.node_named(&node.parse::<NodeName>()?)?.id),
        };
        let placement = place(state, &lead.observe(state), &spec, held_by, only)?;
        Ok(CreateContainer {
            uid: ContainerUid::generate(),
            name,
            spec,
            desired: if stopped { DesiredState::Stopped } else { DesiredState::Running },
            node: placement.node,
            replicas: placement.replicas,
            operation: id.into(),
            origin,
        })
    }
}
