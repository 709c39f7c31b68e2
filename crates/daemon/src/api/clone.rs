//! Making a container that begins as a snapshot of another.

use holdfast_core::{Command, CreateContainer, Origin, State};
use holdfast_proto::v1;
use holdfast_types::{ContainerName, RequestId, SnapshotName};

use super::answered;
use super::create::{Asked, created};
use crate::fault::Fault;
use crate::leader::request_id;
use crate::member::Lead;

/// Clones a container, on the leader. It has the other's spec, and no schedule.
pub(super) async fn clone(
    lead: Lead,
    request: v1::CloneRequest,
) -> Result<v1::CloneResponse, Fault> {
    let lead = lead.expecting(request.expect);
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

/// The original may be held or its node lost: any member that has the snapshot will do.
fn plan(
    lead: &Lead,
    state: &State,
    request: &v1::CloneRequest,
    id: RequestId,
) -> Result<CreateContainer, Fault> {
    let name: ContainerName = request.name.parse()?;
    let snapshot: SnapshotName = request.snapshot.parse()?;
    let original = state.container_named(&request.container.parse()?)?;
    let taken = original.kept_taken(&snapshot)?;
    // Whoever is no member any more is about to remove what it holds.
    let stays = original.members().filter(|node| taken.holders.contains(node)).collect();
    let origin = Some(Origin { uid: original.uid, snapshot });
    let (spec, stopped) = (original.spec.clone(), request.stopped);
    Asked { id, name, spec, node: &request.node, stopped }.placed(lead, state, &stays, origin)
}
