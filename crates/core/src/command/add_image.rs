//! An image exists.

use holdfast_types::{
    ByteSize, Code, ContainerUid, ImageName, ImageUid, NodeId, SnapshotId, VolumeUid,
};
use serde::{Deserialize, Serialize};

use crate::apply::Change;
use crate::{Image, Outcome, Refusal, Response, State};

/// Records an image that a node has unpacked, verified and made durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddImage {
    /// Its identity.
    pub uid: ImageUid,
    /// Its name.
    pub name: ImageName,
    /// Size of its filesystem.
    pub size: ByteSize,
    /// The snapshot that containers are cloned from.
    pub snapshot: SnapshotId,
    /// Files, directories and links in it.
    pub entries: u64,
    /// Bytes of file content in it.
    pub content: ByteSize,
    /// Whether it has a program to run as init.
    pub has_init: bool,
    /// The node that holds it.
    pub node: NodeId,
}

impl AddImage {
    pub(crate) fn apply(self, change: &mut Change<'_>) -> Response {
        change.state.node(self.node)?;
        if change.state.image_named(&self.name).is_ok() {
            let message = format!("there is an image {} already", self.name);
            return Err(Refusal::new(Code::AlreadyExists, message));
        }
        self.is_of_nothing_else(change.state)?;
        let message = format!("image {} imported ({} of files)", self.name, self.content);
        change.state.images.insert(
            self.uid,
            Image {
                uid: self.uid,
                name: self.name,
                size: self.size,
                snapshot: self.snapshot,
                entries: self.entries,
                content: self.content,
                has_init: self.has_init,
                held_by: [self.node].into(),
                created: change.at,
                revision: change.revision,
            },
        );
        change.touch_all_views();
        change.node_event("image-added", self.node, message, []);
        Ok(Outcome::Image(self.uid))
    }

    /// An image has a volume of its own (I26): one that named a container's would have its holders take that
    /// for an image, and ship it to every node.
    fn is_of_nothing_else(&self, state: &State) -> Result<(), Refusal> {
        let refused = |what: &str| Err(Refusal::new(Code::InvalidArgument, what));
        if self.snapshot.volume != VolumeUid::from(self.uid) {
            return refused("the image's snapshot is of another volume");
        }
        let is_container = state.containers.contains_key(&ContainerUid(self.uid.0));
        if is_container || state.images.contains_key(&self.uid) {
            return refused("the image's id is another object's");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Command;
    use crate::testing::{World, image};

    #[test]
    fn image_names_are_unique() {
        let mut world = World::three_nodes();
        assert_eq!(world.refused(image("busybox", 2)), Code::AlreadyExists);
        world.ok(image("debian12", 3));
    }

    /// I26: a node could name another's container as an image, and was shipped its disk.
    #[test]
    fn an_image_is_no_containers_volume() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2]);
        let Command::AddImage(image) = image("debian12", 3) else { unreachable!() };
        let stolen = VolumeUid::from(uid);
        let snapshot = SnapshotId { volume: stolen, ..image.snapshot };
        let mut refused = |uid, snapshot| {
            let image = AddImage { uid, snapshot, ..image.clone() };
            assert_eq!(world.refused(Command::AddImage(image)), Code::InvalidArgument);
        };
        refused(ImageUid(uid.0), snapshot);
        refused(image.uid, snapshot);
        let known = ImageUid(uuid::Uuid::from_u128("busybox".len() as u128));
        refused(known, SnapshotId { volume: known.into(), ..image.snapshot });
    }
}
