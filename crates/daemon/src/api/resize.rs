//! Making a container's disk larger: room in every copy's pool, then the entry.

use holdfast_core::{Command, Resize, State};
use holdfast_planner::may_grow;
use holdfast_proto::v1;
use holdfast_types::{ByteSize, ContainerName, VolumeName};

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
    let lead = lead.expecting(request.expect);
    let id = request_id(&request.request_id)?;
    let name: ContainerName = request.name.parse()?;
    let state = lead.read().await?;
    let outcome = match answered(&state, id)? {
        Some(outcome) => outcome,
        None => {
            let volume = match request.volume.as_str() {
                "" => None,
                volume => Some(volume.parse()?),
            };
            let command = plan(&lead, &state, &name, volume, ByteSize(request.size_bytes))?;
            drop(state);
            lead.propose(id, Command::Resize(command)).await?
        }
    };
    let operation = operation_of(&lead.raft.state(), &outcome)?;
    Ok(v1::ResizeResponse { operation: Some(operation) })
}

fn plan(
    lead: &Lead,
    state: &State,
    name: &ContainerName,
    volume: Option<VolumeName>,
    size: ByteSize,
) -> Result<Resize, Fault> {
    let container = state.container_named(name)?;
    not_held(container)?;
    let spec = &container.spec;
    let present = match &volume {
        None => Some(spec.disk),
        Some(wanted) => spec.volumes.iter().find(|v| v.name == *wanted).map(|v| v.size),
    };
    // One that is not there is refused where the entry is applied.
    let more = size.bytes().saturating_sub(present.unwrap_or(size).bytes());
    let total = ByteSize(spec.promised().bytes().saturating_add(more));
    may_grow(state, &lead.observe(state), container, total, ByteSize(more))?;
    Ok(Resize { uid: container.uid, volume, size })
}
