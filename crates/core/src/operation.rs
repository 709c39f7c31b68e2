//! Long-running work that a client can follow. An operation ends when a report says that its
//! container is what it was to be.

use holdfast_types::{Code, ContainerName, ContainerUid, OperationId, TimestampMs};
use serde::{Deserialize, Serialize};

/// How many ended operations the state remembers.
pub(crate) const KEPT: usize = 1024;

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OperationKind {
    /// Make it, and start it unless it is to stay stopped.
    Create,
    /// Start it.
    Start,
    /// Stop it.
    Stop,
    /// Remove every copy.
    Delete,
    /// Make its disk larger.
    Resize,
    /// Take a named snapshot.
    Snapshot,
    /// Begin anew as a snapshot.
    Restore,
}

impl OperationKind {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Delete => "delete",
            Self::Resize => "resize",
            Self::Snapshot => "snapshot",
            Self::Restore => "restore",
        }
    }

    /// Whether a request of `newer` ends what is still being done.
    pub(crate) fn gives_way_to(self, newer: Self) -> bool {
        match (self, newer) {
            (_, Self::Delete) => self != newer,
            (Self::Snapshot | Self::Restore | Self::Resize, _) => false,
            (Self::Create | Self::Start | Self::Stop | Self::Delete, _) => self != newer,
        }
    }
}

/// How far it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OperationState {
    /// Under way.
    Running,
    /// Ended well.
    Done,
    /// Ended otherwise.
    Failed {
        /// The stable code.
        code: Code,
        /// One line for a person.
        message: String,
    },
}

/// One piece of work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Its identity: the id of the request that began it.
    pub id: OperationId,
    /// What is being done.
    pub kind: OperationKind,
    /// To which container.
    pub uid: ContainerUid,
    /// Its name at the time.
    pub container: ContainerName,
    /// How far it is.
    pub state: OperationState,
    /// When it began.
    pub started: TimestampMs,
}
