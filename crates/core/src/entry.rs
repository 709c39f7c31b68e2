//! What goes through the log, and what comes back.

use holdfast_types::{Code, RequestId, TimestampMs};
use serde::{Deserialize, Serialize};

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

/// What is to change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Command {
    /// Nothing.
    Noop,
}

/// What an entry did.
pub type Response = Result<Outcome, Refusal>;

/// What an entry changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Done.
    Done,
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
