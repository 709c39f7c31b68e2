//! Images as the cluster has agreed on them.

use std::collections::BTreeSet;

use holdfast_types::{ByteSize, ImageName, ImageUid, NodeId, Revision, SnapshotId, TimestampMs};
use serde::{Deserialize, Serialize};

/// One image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Its identity.
    pub uid: ImageUid,
    /// Its name.
    pub name: ImageName,
    /// Size of its filesystem, and the least size of a container made from it.
    pub size: ByteSize,
    /// The snapshot that containers are cloned from.
    pub snapshot: SnapshotId,
    /// Files, directories and links in it.
    pub entries: u64,
    /// Bytes of file content in it.
    pub content: ByteSize,
    /// Whether it has a program to run as init.
    pub has_init: bool,
    /// The nodes that hold a verified copy.
    pub held_by: BTreeSet<NodeId>,
    /// When it was imported.
    pub created: TimestampMs,
    /// The last entry that changed it: its version.
    #[serde(default)]
    pub revision: Revision,
}
