//! Making a container that begins as a snapshot of another.

use holdfast_core::{Command, CreateContainer, Origin, State};
use holdfast_planner::place;
use holdfast_proto::v1;
use holdfast_types::{
    Code, ContainerName, ContainerUid, DesiredState, NodeName, RequestId, SnapshotName,
};

use super::answered;
use super::create::created;
use crate::fault::Fault;
use crate::leader::request_id;
use crate::member::Lead;

/// Clones a container, on the leader. It has the other's spec, and no schedule.
pub(super) async fn clone(
    lead: Lead,
    request: v1::CloneRequest,
) -> Result<v1::CloneResponse, Fault> {
    let id = request_id(&request.request_id)?;
    let state = lead.read().await?;
    let outcome = match answered(&state, id)? {
        Some(outcome) => outcome,
        None => {
            let command = plan(&lead, &state, &request, id)?;
            drop(state);
            lead.propose(id, Command::CreateContainer(command)).await?
        }
    };
    let (container, operation) = created(&lead, &outcome)?;
    Ok(v1::CloneResponse { container: Some(container), operation: Some(operation) })
}

/// The original may be held or its node lost: any node that has the snapshot will do.
fn plan(
    lead: &Lead,
    state: &State,
    request: &v1::CloneRequest,
    id: RequestId,
) -> Result<CreateContainer, Fault> {
    let name: ContainerName = request.name.parse()?;
    let snapshot: SnapshotName = request.snapshot.parse()?;
    if state.container_named(&name).is_ok() {
        let message = format!("there is a container {name} already");
        return Err(Fault::new(Code::AlreadyExists, message));
    }
    let original = state.container_named(&request.container.parse()?)?;
    let taken = original.kept_taken(&snapshot)?;
    let only = match request.node.as_str() {
        "" => None,
        node => Some(state.node_named(&node.parse::<NodeName>()?)?.id),
    };
    let spec = original.spec.clone();
    let placement = place(state, &lead.observe(state), &spec, &taken.holders, only)?;
    let desired = if request.stopped { DesiredState::Stopped } else { DesiredState::Running };
    Ok(CreateContainer {
        uid: ContainerUid::generate(),
        name,
        spec,
        desired,
        node: placement.node,
        replicas: placement.replicas,
        operation: id.into(),
        origin: Some(Origin { uid: original.uid, snapshot }),
    })
}
