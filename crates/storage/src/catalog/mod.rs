//! What a pool knows of a volume, and the rules of changing it. Pure; every driver uses it.
//!
//! A driver keeps one [`VolumeState`] per volume durably, changes a copy of it by the verbs in
//! the submodules, prepares the data, and commits by replacing the stored state in one step.

mod primary;
mod promises;
mod replica;
mod restore;
mod scrub;
mod touched;

use std::collections::BTreeMap;

use holdfast_types::{
    ByteSize, Epoch, OperationId, Seq, SnapshotId, SnapshotUuid, TimestampMs, VolumeUid,
};
use serde::{Deserialize, Serialize};

use crate::members::{Member, Shape};
use crate::pool::Outcome;
pub use scrub::{HASH_BLOCK, ScrubState};
pub(crate) use touched::Touched;

/// What a snapshot is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SnapshotKind {
    /// Part of the volume's chain: a verified point that can be promoted or be a base.
    Chain,
    /// Part of the chain, and kept for a person.
    Kept {
        /// The person's words.
        label: String,
    },
    /// Off the chain: what a node wrote that never became part of it (I21).
    Diverged {
        /// Why it is kept.
        label: String,
    },
}

impl SnapshotKind {
    /// Whether the snapshot is a point of the committed chain as far as this node knows.
    pub fn on_chain(&self) -> bool {
        !matches!(self, Self::Diverged { .. })
    }
}

/// A verified, durable snapshot (I16).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotInfo {
    /// Its identity.
    pub id: SnapshotId,
    /// The root's size at that point.
    pub size: ByteSize,
    /// The data members at that point.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub data: Vec<Member>,
    /// When it was taken, on the clock of the node that took it.
    pub taken: TimestampMs,
    /// What it is for.
    pub kind: SnapshotKind,
}

impl SnapshotInfo {
    /// The sizes of all members.
    pub fn shape(&self) -> Shape {
        Shape { root: self.size, data: self.data.clone() }
    }
}

/// The writable part of a primary copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Live {
    /// Under which epoch it may be written.
    pub epoch: Epoch,
    /// The snapshot that it began as; `None` for an empty volume.
    pub branch: Option<SnapshotUuid>,
    /// The newest snapshot that its content descends from.
    pub head: Option<SnapshotUuid>,
    /// The number of its next snapshot.
    pub next_seq: Seq,
    /// Which data object of the driver it is; a new one for each promotion and each restore.
    pub generation: u64,
    /// The restore that its content began with, since it was last promoted.
    #[serde(default)]
    pub restored: Option<OperationId>,
}

/// A past promotion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promotion {
    /// The epoch that began.
    pub epoch: Epoch,
    /// The snapshot that it began from.
    pub branch: Option<SnapshotUuid>,
}

/// What this node has promised and done about a volume. Only ever rises.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeRecord {
    /// Epochs up to this one are refused.
    pub sealed: Epoch,
    /// Epochs up to this one never become active here again.
    pub released: Epoch,
    /// The last time this node's copy became the primary one.
    pub promoted: Option<Promotion>,
    /// The caller's own text.
    pub role: String,
    /// What a newer version wrote, kept as it is.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, serde_json::Value>,
}

/// What a pool durably knows of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeState {
    /// Which volume.
    pub uid: VolumeUid,
    /// The size of the live part's root, or of the newest chain snapshot's.
    pub size: ByteSize,
    /// Its data members, likewise.
    #[serde(default)]
    pub data: Vec<Member>,
    /// The writable part, on the primary.
    pub live: Option<Live>,
    /// Every snapshot, oldest first.
    pub snapshots: Vec<SnapshotInfo>,
    /// Promises.
    pub record: VolumeRecord,
    /// The generation that the next live part gets.
    pub next_generation: u64,
    /// How far the copy's content has been checked.
    #[serde(default)]
    pub scrub: ScrubState,
    /// What a newer version wrote, kept as it is.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, serde_json::Value>,
}

impl VolumeState {
    /// A volume that has nothing yet.
    pub fn empty(uid: VolumeUid, size: ByteSize) -> Self {
        Self {
            uid,
            size,
            data: Vec::new(),
            live: None,
            snapshots: Vec::new(),
            record: VolumeRecord::default(),
            next_generation: 1,
            scrub: ScrubState::default(),
            unknown: BTreeMap::new(),
        }
    }

    /// The same, with data members.
    pub(crate) fn of(uid: VolumeUid, shape: Shape) -> Self {
        Self { data: shape.data, ..Self::empty(uid, shape.root) }
    }

    /// A new volume whose live part begins as a snapshot of such a shape, or empty: data members that
    /// are no clones are blank.
    pub(crate) fn begun(
        uid: VolumeUid,
        mut shape: Shape,
        from: Option<(SnapshotUuid, &Shape)>,
        epoch: Epoch,
    ) -> Self {
        let cloned = from.map_or(&[][..], |(_, shape)| &shape.data);
        for (at, member) in shape.data.iter_mut().enumerate() {
            member.blank = cloned.get(at).is_none_or(|cloned| cloned.blank);
        }
        let mut state = Self::of(uid, shape);
        state.begin_live(from.map(|(snapshot, _)| snapshot), epoch);
        state
    }

    /// The sizes of all members.
    pub fn shape(&self) -> Shape {
        Shape { root: self.size, data: self.data.clone() }
    }

    /// The snapshot of that uuid.
    pub fn find(&self, uuid: SnapshotUuid) -> Option<&SnapshotInfo> {
        self.snapshots.iter().find(|s| s.id.uuid == uuid)
    }

    /// The newest verified snapshot on the chain: what a seal answers with (I15). One that has
    /// rotted is none.
    pub fn newest(&self) -> Option<&SnapshotInfo> {
        self.sound().max_by_key(|s| s.id.order())
    }

    /// Every verified snapshot on the chain, oldest first: what a takeover may choose from.
    pub fn sound(&self) -> impl Iterator<Item = &SnapshotInfo> {
        self.snapshots.iter().filter(|s| s.kind.on_chain() && !self.is_rotten(s.id.uuid))
    }

    /// The identity that the live part's next snapshot must have.
    pub fn next_snapshot(&self, uuid: SnapshotUuid) -> Option<SnapshotId> {
        let live = self.live.as_ref()?;
        Some(SnapshotId {
            volume: self.uid,
            epoch: live.epoch,
            seq: live.next_seq,
            uuid,
            parent: live.head,
        })
    }

    fn sort(&mut self) {
        self.snapshots.sort_by_key(|s| s.id.order());
    }
}

/// `Changed` if `changed`.
fn outcome(changed: bool) -> Outcome {
    if changed { Outcome::Changed } else { Outcome::AlreadyThere }
}
