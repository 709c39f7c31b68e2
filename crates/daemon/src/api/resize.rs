//! Making a container's disk larger: room in every copy's pool, then the entry.

use holdfast_core::{Command, Resize, State};
use holdfast_planner::may_grow;
use holdfast_proto::v1;
use holdfast_types::{ByteSize, ContainerName};

use super::answered;
use super::container::{not_held, operation_of};
use crate::fault::Fault;
use crate::leader::request_id;
use crate::member::Lead;

/// Resizes a container's disk, on the leader.
pub(super) async fn resize(
    lead: Lead,
    request: v1::ResizeRequest,
) -> Result<v1::ResizeResponse, Fault> {
    let id = request_id(&request.request_id)?;
    let name: ContainerName = request.name.parse()?;
    let state = lead.read().await?;
    let outcome = match answered(&state, id)? {
        Some(outcome) => outcome,
        None => {
            let command = plan(&lead, &state, &name, ByteSize(request.size_bytes))?;
            drop(state);
            lead.propose(id, Command::Resize(command)).await?
        }
    };
    let operation = operation_of(&lead.raft.state(), &outcome)?;
    Ok(v1::ResizeResponse { operation: Some(operation) })
}

fn plan(lead: &Lead, state: &State, name: &ContainerName, size: ByteSize) -> Result<Resize, Fault> {
    let container = state.container_named(name)?;
    not_held(container)?;
    let more = ByteSize(size.bytes().saturating_sub(container.spec.disk.bytes()));
    may_grow(state, &lead.observe(state), container, size, more)?;
    Ok(Resize { uid: container.uid, size })
}
