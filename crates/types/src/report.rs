//! What a node tells the cluster: facts it has established, each of which becomes a log entry.

use serde::{Deserialize, Serialize};

use crate::{ByteSize, Code, ContainerUid, Epoch, ImageUid, RunState, SnapshotUuid};

/// One fact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Report {
    /// What a container assigned to the reporting node is doing.
    Run {
        /// Which container.
        uid: ContainerUid,
        /// Under which assignment.
        epoch: Epoch,
        /// What it is doing.
        state: RunState,
    },
    /// The reporting node's copy of a deleted container is gone.
    CopyRemoved {
        /// Which container.
        uid: ContainerUid,
    },
    /// The reporting node holds a verified copy of an image.
    ImageHeld {
        /// Which image.
        uid: ImageUid,
    },
    /// The reporting node's copy of an image has rotted: it needs another.
    ImageLost {
        /// Which image.
        uid: ImageUid,
    },
    /// The reporting node kept what it had written and never shipped.
    DivergedKept {
        /// Which container.
        uid: ContainerUid,
        /// The epoch under which it was written.
        epoch: Epoch,
        /// The labelled snapshot.
        snapshot: SnapshotUuid,
        /// Bytes that differ from the last common snapshot.
        changed_bytes: u64,
    },
    /// A container's volume, and the filesystem on it, have at least these sizes now.
    Resized {
        /// Which container.
        uid: ContainerUid,
        /// Under which assignment.
        epoch: Epoch,
        /// The sizes, in the order of [`ContainerSpec::sizes`](crate::ContainerSpec::sizes).
        sizes: Vec<ByteSize>,
    },
    /// A container's filesystem does not grow as it is. It will when the container starts anew.
    ResizeFailed {
        /// Which container.
        uid: ContainerUid,
        /// Under which assignment.
        epoch: Epoch,
        /// The stable code.
        code: Code,
        /// Why, in one line.
        reason: String,
    },
    /// Something that an operator should know.
    Notice {
        /// Machine-readable kind, such as `pool-full`.
        kind: String,
        /// The container that it is about, if any.
        uid: Option<ContainerUid>,
        /// One line for a person.
        message: String,
    },
}
