//! One container as it is on this node.

use std::collections::BTreeSet;

use holdfast_types::{Epoch, OperationId, RunState, SnapshotId, SnapshotUuid};

use crate::Action;

/// One container on this node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// Some task of it exists, frozen or not.
    pub running: bool,
    /// Its volume is mounted or its device is active.
    pub active: bool,
    /// What the pool holds of it.
    pub volume: Option<ObservedVolume>,
    /// The pool holds the snapshot of its image.
    pub image_held: bool,
    /// The snapshot of its image is not here, and somebody is to ship it.
    pub image_comes: bool,
    /// What was last reported of it, under the present assignment.
    pub reported: Option<RunState>,
    /// Making or starting it failed under the present assignment and desired state; it waits for its turn.
    pub failed: Option<String>,
    /// The cluster was told, under the present assignment, that it has the sizes of the spec.
    pub resized_told: bool,
    /// What is not urgent and failed lately: each waits for its own turn.
    pub resting: Vec<Action>,
}

/// What the pool holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObservedVolume {
    /// The epoch of its live part, on a primary.
    pub live: Option<Epoch>,
    /// Verified snapshots that are not diverged.
    pub snapshots: Vec<SnapshotId>,
    /// Those of them that are kept for somebody.
    pub kept: BTreeSet<SnapshotUuid>,
    /// The restore that its live part began with.
    pub restored: Option<OperationId>,
    /// Its live part is smaller than the spec says.
    pub short: bool,
}
