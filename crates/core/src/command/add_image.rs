//! An image exists.

use holdfast_types::{ByteSize, Code, ImageName, ImageUid, NodeId, SnapshotId};
use serde::{Deserialize, Serialize};

use crate::apply::Change;
use crate::{Image, Outcome, Refusal, Response};

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
}

#[cfg(test)]
mod tests {
    use crate::testing::{World, image};
    use holdfast_types::Code;

    #[test]
    fn image_names_are_unique() {
        let mut world = World::three_nodes();
        assert_eq!(world.refused(image("busybox", 2)), Code::AlreadyExists);
        world.ok(image("debian12", 3));
    }
}
