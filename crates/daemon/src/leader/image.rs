//! Images that nodes have unpacked.

use holdfast_core::{AddImage, Command, Outcome, State};
use holdfast_proto::internal::{AddImageRequest, AddImageResponse, UnpackedImage};
use holdfast_proto::required;
use holdfast_types::{ByteSize, Code, ImageName, ImageUid, NodeId, SnapshotId};

use super::request_id;
use crate::fault::Fault;
use crate::member::Lead;

/// Records an image, or says whether it could be.
pub(crate) async fn add(lead: Lead, request: AddImageRequest) -> Result<AddImageResponse, Fault> {
    let (id, node) = (request_id(&request.request_id)?, NodeId(request.node_id));
    let name: ImageName = request.name.parse()?;
    let state = lead.read().await?;
    let Some(image) = request.image else {
        admissible(&state, &name, node)?;
        return Ok(AddImageResponse::default());
    };
    drop(state);
    match lead.propose(id, Command::AddImage(command(image, name, node)?)).await? {
        Outcome::Image(uid) => Ok(AddImageResponse { uid: uid.to_bytes().into() }),
        _ => Err(Fault::new(Code::InvalidArgument, "that request id was for something else")),
    }
}

fn admissible(state: &State, name: &ImageName, node: NodeId) -> Result<(), Fault> {
    if state.image_named(name).is_ok() {
        let message = format!("there is an image {name} already");
        return Err(Fault::new(Code::AlreadyExists, message));
    }
    let node = state.node(node)?;
    if node.is_witness() {
        let message = format!("node {} is a witness and stores nothing", node.name);
        return Err(Fault::new(Code::WrongState, message));
    }
    if node.is_up() {
        return Ok(());
    }
    let message = format!("node {} is not up; import the image through another", node.name);
    Err(Fault::new(Code::Unavailable, message))
}

pub(crate) fn command(
    image: UnpackedImage,
    name: ImageName,
    node: NodeId,
) -> Result<AddImage, Fault> {
    let snapshot: SnapshotId = required(image.snapshot, "snapshot")?.try_into()?;
    Ok(AddImage {
        uid: ImageUid::try_from(&image.uid[..])?,
        name,
        size: ByteSize(image.size_bytes),
        snapshot,
        entries: image.entries,
        content: ByteSize(image.content_bytes),
        has_init: image.has_init,
        node,
    })
}
