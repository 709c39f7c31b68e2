//! What a snapshot is called, everywhere.

use serde::{Deserialize, Serialize};

use crate::{Epoch, Seq, SnapshotUuid, VolumeUid};

/// The identity of a snapshot: (volume, epoch, seq), its own uuid and its parent's.
///
/// Two snapshots are the same iff their uuids are; (epoch, seq) orders those of one volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotId {
    /// The volume it is a point of.
    pub volume: VolumeUid,
    /// The epoch under which it was taken.
    pub epoch: Epoch,
    /// Its number within the epoch.
    pub seq: Seq,
    /// Its own identity.
    pub uuid: SnapshotUuid,
    /// The snapshot that the volume's content descends from (an image's, for the first one).
    pub parent: Option<SnapshotUuid>,
}

impl SnapshotId {
    /// The order of snapshots of one volume along the committed chain.
    pub fn order(&self) -> (Epoch, Seq) {
        (self.epoch, self.seq)
    }
}

/// A verified snapshot that a node holds, and how old the data in it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldSnapshot {
    /// Which snapshot.
    pub id: SnapshotId,
    /// Milliseconds since the moment for which the primary last vouched that this snapshot was
    /// its whole content, measured on the holder's own clock (so no clocks are compared).
    pub age_ms: u64,
}
