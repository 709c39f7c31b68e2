//! What goes through the log, and what comes back.

use holdfast_types::{
    Code, ContainerUid, FeatureLevel, ImageUid, Incarnation, NodeId, OperationId, RequestId,
    Revision, TimestampMs,
};
use serde::{Deserialize, Serialize};

use crate::command::{
    AddImage, AddToken, AdmitNode, CreateContainer, CreateSnapshot, DecideTakeover, Guarded,
    HoldTakeover, InitCluster, LetIn, MarkNodeLost, RaiseLevel, RecordFloor, RecordReport,
    RecoverCluster, RegisterNode, RemoveImage, RemoveNode, RemoveSnapshot, Resize, RestoreCluster,
    RestoreSnapshot, SetAuthorities, SetDesired, SetLabels, SetReplicas, SetRole, SetRoles,
    SetSchedule, TakeOver,
};

/// One entry of the log. At most 64 KiB when encoded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Identifies the client's request; a second entry with the same id changes nothing (I7).
    pub request: RequestId,
    /// Wall time at the proposer. For people; no safety decision reads it.
    pub at: TimestampMs,
    /// What is to change.
    pub command: Command,
}

/// What is to change. Each variant is a file in `command/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Command {
    /// The founder makes the cluster.
    InitCluster(InitCluster),
    /// A node is let in.
    AdmitNode(AdmitNode),
    /// A node's daemon begins a new life.
    RegisterNode(RegisterNode),
    /// A node's role in Raft changed.
    SetRole(SetRole),
    /// A node is lost.
    MarkNodeLost(MarkNodeLost),
    /// An image exists.
    AddImage(AddImage),
    /// An image is to go.
    RemoveImage(RemoveImage),
    /// A container is made and placed.
    CreateContainer(CreateContainer),
    /// A container is to run, to stop or to go.
    SetDesired(SetDesired),
    /// A container's disk is to grow.
    Resize(Resize),
    /// A container's replicas belong elsewhere.
    SetReplicas(SetReplicas),
    /// A lost node's container moves to a copy.
    TakeOver(TakeOver),
    /// A takeover waits for a person.
    HoldTakeover(HoldTakeover),
    /// A person decided a held takeover.
    DecideTakeover(DecideTakeover),
    /// A node established a fact.
    RecordReport(RecordReport),
    /// The coarse floor of replication.
    RecordFloor(RecordFloor),
    /// A named snapshot is to be taken.
    CreateSnapshot(CreateSnapshot),
    /// A named snapshot is kept no longer.
    RemoveSnapshot(RemoveSnapshot),
    /// A stopped container is to begin anew as one of its snapshots.
    RestoreSnapshot(RestoreSnapshot),
    /// Snapshots of a container are to be taken by the clock, or not any more.
    SetSchedule(SetSchedule),
    /// A node's labels change.
    SetLabels(SetLabels),
    /// The parts of several nodes in Raft change at once.
    SetRoles(SetRoles),
    /// A node is let go for good.
    RemoveNode(RemoveNode),
    /// Every node understands more.
    RaiseLevel(RaiseLevel),
    /// A lost majority is given up.
    RecoverCluster(RecoverCluster),
    /// A backup becomes a new cluster.
    RestoreCluster(RestoreCluster),
    /// The authorities that are believed change.
    SetAuthorities(SetAuthorities),
    /// A token that lets one machine in is made.
    AddToken(AddToken),
    /// A machine comes in with a token.
    LetIn(LetIn),
    /// A command under its client's conditions.
    Guarded(Guarded),
}

impl Command {
    /// The feature level that every node must understand before it may be proposed. One that raises
    /// the level is proposed when all do, whatever the level is by then.
    pub fn level(&self) -> FeatureLevel {
        match self {
            Self::InitCluster(_) | Self::AdmitNode(_) | Self::RegisterNode(_) => {
                FeatureLevel::FIRST
            }
            Self::SetRole(_) | Self::MarkNodeLost(_) | Self::AddImage(_) => FeatureLevel::FIRST,
            Self::RemoveImage(_) | Self::CreateContainer(_) => FeatureLevel::FIRST,
            Self::SetDesired(_) | Self::Resize(_) | Self::SetReplicas(_) => FeatureLevel::FIRST,
            Self::TakeOver(_) | Self::HoldTakeover(_) => FeatureLevel::FIRST,
            Self::DecideTakeover(_) | Self::RecordReport(_) => FeatureLevel::FIRST,
            Self::RecordFloor(_) | Self::CreateSnapshot(_) => FeatureLevel::FIRST,
            Self::RemoveSnapshot(_) | Self::RestoreSnapshot(_) => FeatureLevel::FIRST,
            Self::SetSchedule(_) | Self::RaiseLevel(_) => FeatureLevel::FIRST,
            Self::SetLabels(_) | Self::SetRoles(_) | Self::RemoveNode(_) => FeatureLevel::FIRST,
            Self::SetAuthorities(_) | Self::AddToken(_) | Self::LetIn(_) => FeatureLevel::FIRST,
            Self::Guarded(guarded) => guarded.command.level(),
            Self::RecoverCluster(_) | Self::RestoreCluster(_) => FeatureLevel::DISASTERS,
        }
    }
}

/// What an entry did.
pub type Response = Result<Outcome, Refusal>;

/// What an entry changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It changed what it was to change.
    Done,
    /// Everything was already so.
    Unchanged,
    /// A node was admitted.
    Node(NodeId),
    /// A node registered.
    Registered(Incarnation),
    /// An image was added.
    Image(ImageUid),
    /// Work on a container began; the operation ends when the work does.
    Operation {
        /// Which container.
        container: ContainerUid,
        /// What to follow.
        operation: OperationId,
    },
    /// The object is as asked for, and this is its version.
    Version(Revision),
}

/// Why an entry changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The stable code.
    pub code: Code,
    /// One line for a person.
    pub message: String,
}

impl Refusal {
    /// A refusal with its code and its line for a person.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}
