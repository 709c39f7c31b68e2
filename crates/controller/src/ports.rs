//! What the controller needs from the world. The daemon implements it over Raft and gRPC, the
//! tests over a plain state.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use holdfast_core::{Command, Node, Outcome, State};
use holdfast_planner::{Quorum, SealedCopy};
use holdfast_types::{Code, Epoch, TimestampMs, VolumeUid};

/// A port that could not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PortError {
    /// The stable code.
    pub code: Code,
    /// One line for a person.
    pub message: String,
}

/// The controller's view of the world.
#[async_trait]
pub trait Ports: Send + Sync + 'static {
    /// The state as applied on this node.
    fn state(&self) -> Arc<State>;

    /// Returns when the state has changed since `revision`, or changed at all since the last call.
    async fn changed(&self);

    /// Commits a command, as the leader that this process is; never forwarded to another.
    async fn propose(&self, command: Command) -> Result<Outcome, PortError>;

    /// Makes a node refuse these epochs durably, and say which verified snapshots it holds of each
    /// volume. One that is not in the answer is not sealed.
    async fn seal(
        &self,
        node: &Node,
        items: Vec<(VolumeUid, Epoch)>,
    ) -> Result<BTreeMap<VolumeUid, Vec<SealedCopy>>, PortError>;

    /// Raft as this leader sees it.
    fn quorum(&self) -> Quorum;

    /// Takes the next step to bring the members of Raft in line with the roles in the state; returns
    /// whether there was one.
    async fn align_membership(&self) -> Result<bool, PortError>;

    /// CLOCK_BOOTTIME, in milliseconds. Safety decisions read this alone.
    fn boottime_ms(&self) -> u64;

    /// Wall time. For people, and for how old data is.
    fn wall(&self) -> TimestampMs;
}
