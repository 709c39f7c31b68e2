//! What the leader sees that is not in the log: pools, and what each node holds.

use std::collections::BTreeMap;

use holdfast_types::{ByteSize, NodeId, SnapshotId, TimestampMs, VolumeUid};

/// A node's pool as it last reported it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolObservation {
    /// What it is called.
    pub name: String,
    /// `xfs` or `lvm`.
    pub driver: String,
    /// Physical size.
    pub size: ByteSize,
    /// Physical use.
    pub used: ByteSize,
    /// The sum of the sizes of all volumes.
    pub promised: ByteSize,
    /// Use and size of its metadata, where they can fill by themselves.
    pub metadata: Option<(ByteSize, ByteSize)>,
    /// Whether it is below its admission threshold.
    pub admits: bool,
}

impl PoolObservation {
    /// Use in percent, rounded down: of data or of metadata, whichever is fuller.
    pub fn used_percent(&self) -> u128 {
        let percent = |used: ByteSize, size: ByteSize| {
            u128::from(used.bytes()) * 100 / u128::from(size.bytes().max(1))
        };
        let metadata = self.metadata.map_or(0, |(used, size)| percent(used, size));
        percent(self.used, self.size).max(metadata)
    }
}

/// A verified snapshot that a node reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldCopy {
    /// The newest that it holds.
    pub newest: SnapshotId,
    /// The moment for which it was the primary's whole content, on the leader's wall clock.
    pub as_of: TimestampMs,
}

/// One node as the leader sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeObservation {
    /// Whether this leader has answered it lately, so that it has a live lease.
    pub leased: bool,
    /// Its pool.
    pub pool: Option<PoolObservation>,
    /// Whether it has said that no pool was made on it yet.
    pub without_pool: bool,
    /// Its physical memory.
    pub memory: Option<ByteSize>,
    /// The newest copy that it holds of each volume.
    pub held: BTreeMap<VolumeUid, HeldCopy>,
}

/// Everything that the leader sees.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observations {
    /// By node; a node that has not been heard of is absent.
    pub nodes: BTreeMap<NodeId, NodeObservation>,
    /// How long this leader has led.
    pub leading_ms: u64,
    /// Whether no life of before still held a lease when it began to lead: the whole site was dark, or the
    /// cluster was made of a backup.
    pub cold_start: bool,
}
