//! What happened, for people and scripts; part of the replicated state, bounded.

use std::collections::BTreeMap;

use holdfast_types::{ContainerName, ContainerUid, NodeName, Revision, TimestampMs};
use serde::{Deserialize, Serialize};

/// How many events the state keeps; older ones are dropped.
pub(crate) const KEPT: usize = 4096;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The log index of the entry that caused it.
    pub revision: Revision,
    /// Its number among that entry's events.
    pub index: u32,
    /// When the entry was proposed.
    pub at: TimestampMs,
    /// Machine-readable: `takeover`, `node-lost`, `container-running`.
    pub kind: String,
    /// The node that it is about.
    pub node: Option<NodeName>,
    /// The container that it is about.
    pub container: Option<(ContainerUid, ContainerName)>,
    /// One line for a person.
    pub message: String,
    /// Kind-specific values, such as `data_as_of_ms` and `evidence`.
    #[serde(default)]
    pub fields: BTreeMap<String, String>,
}
