//! What a node tells the cluster: facts it has established, each of which becomes a log entry.

use serde::{Deserialize, Serialize};

use crate::{
    ByteSize, Code, ContainerUid, Epoch, ImageUid, OperationId, RunState, SnapshotId, SnapshotUuid,
    TimestampMs,
};

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
    /// The reporting node took a snapshot that was wanted.
    SnapshotTaken {
        /// Under which assignment it speaks.
        epoch: Epoch,
        /// The snapshot.
        id: SnapshotId,
        /// When it was taken, on the node's clock.
        taken: TimestampMs,
        /// The volume's size then.
        size: ByteSize,
    },
    /// The reporting node cannot take a snapshot that was wanted.
    SnapshotFailed {
        /// Which container.
        uid: ContainerUid,
        /// Under which assignment.
        epoch: Epoch,
        /// The snapshot that was to be.
        snapshot: SnapshotUuid,
        /// The stable code.
        code: Code,
        /// Why, in one line.
        message: String,
    },
    /// Which of a container's named snapshots the reporting node holds: these, and no others.
    KeptHeld {
        /// Which container.
        uid: ContainerUid,
        /// The snapshots.
        held: Vec<SnapshotUuid>,
    },
    /// How a restore ended on the reporting node.
    Restored {
        /// Which container.
        uid: ContainerUid,
        /// Under which assignment.
        epoch: Epoch,
        /// Which restore.
        operation: OperationId,
        /// Why nothing was changed, with its stable code.
        failure: Option<(Code, String)>,
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
