//! Snapshots that are kept by name, and a container's way back to one.

use serde::{Deserialize, Serialize};

use crate::{NodeId, OperationId, SnapshotName, SnapshotUuid};

/// A container may have so many named snapshots: each is known to every node that holds a copy.
pub const MAX_KEPT: usize = 128;

/// On whose behalf a snapshot is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeptBy {
    /// A person asked for it, and only a person removes it.
    Person,
    /// A schedule asked for it, and removes it when no rule keeps it any more.
    Schedule,
    /// A restore took it first, so that nothing is lost. Only a person removes it.
    Restore,
}

/// A named snapshot as the nodes that hold its volume see it. What is named here is on the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptView {
    /// Its name, which holders keep with it.
    pub name: SnapshotName,
    /// Its identity, chosen before it was taken.
    pub uuid: SnapshotUuid,
    /// It is still to be taken.
    pub wanted: bool,
    /// The node that the view is for said that it holds it.
    pub held: bool,
    /// The nodes that said that they hold it; for replicas, which ship nothing, only the primary.
    #[serde(default)]
    pub holders: Vec<NodeId>,
}

/// A stopped container whose content is to begin anew as a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreView {
    /// Which restore this is: it happens once.
    pub operation: OperationId,
    /// The snapshot to begin as.
    pub from: SnapshotUuid,
    /// The snapshot of what is there now, which is taken first.
    pub before: SnapshotUuid,
}
