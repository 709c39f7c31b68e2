//! Nodes as the cluster has agreed on them.
//!
//! ```text
//! admit ─▶ New ──register──▶ Up#1 ──MarkNodeLost──▶ Lost#1 ──register──▶ Up#2 …
//!           └──────────────────┴── RemoveNode ────────┴─▶ gone; its id never comes back
//! ```
//! Only a `Lost` life lets its containers be taken over, and only registering anew ends it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

use holdfast_types::{Incarnation, LabelKey, LabelValue, NodeId, NodeName, Revision, TimestampMs};
use serde::{Deserialize, Serialize};

/// The label that names a node's failure domain, such as a rack or a building.
const DOMAIN: &str = "domain";

/// No more voters than this (DESIGN section 2).
pub const MAX_VOTERS: usize = 7;

/// A node's part in Raft.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeRole {
    /// Votes.
    Voter,
    /// Follows the log, to be promoted when a voter is lost.
    Standby,
    /// No part in Raft; talks to the leader.
    Worker,
    /// Votes, and neither stores nor runs anything.
    Witness,
}

impl NodeRole {
    /// Whether a node in this role votes.
    pub fn votes(self) -> bool {
        matches!(self, Self::Voter | Self::Witness)
    }

    /// Whether a node in this role follows the log.
    pub fn has_log(self) -> bool {
        self != Self::Worker
    }
}

impl fmt::Display for NodeRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Voter => "voter",
            Self::Standby => "standby",
            Self::Worker => "worker",
            Self::Witness => "witness",
        })
    }
}

/// Why a node may be taken for lost (DESIGN section 5 rule 4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Evidence {
    /// The leader has not answered it for longer than any lease and its fence can last.
    Silence {
        /// Since the leader's last answer, or since it began to lead, on the leader's clock.
        silent_ms: u64,
        /// The wait that the constants demanded.
        required_ms: u64,
    },
    /// The node itself gave up its lease, and its guardian confirmed that everything stopped.
    Relinquished,
    /// It is known from the backup that the cluster was restored from, and has not joined since.
    Restored,
}

impl Evidence {
    /// Its numbers, as fields of an event.
    pub(crate) fn figures(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Silence { silent_ms, required_ms } => {
                vec![("silent_ms", silent_ms.to_string()), ("required_ms", required_ms.to_string())]
            }
            Self::Relinquished | Self::Restored => Vec::new(),
        }
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silence { silent_ms, required_ms } => {
                write!(f, "silent for {silent_ms} ms, {required_ms} ms required")
            }
            Self::Relinquished => f.write_str("relinquished by the node itself"),
            Self::Restored => f.write_str("known from a backup alone"),
        }
    }
}

/// Where a node is in its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeLife {
    /// Admitted; its daemon has never registered.
    New,
    /// Registered and not declared lost.
    Up,
    /// Declared lost: this incarnation is never granted anything again.
    Lost {
        /// When the loss was proposed.
        at: TimestampMs,
        /// On what grounds.
        evidence: Evidence,
    },
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its id, never reused.
    pub id: NodeId,
    /// Its name.
    pub name: NodeName,
    /// Where its API listens, `host:port`.
    pub address: String,
    /// Its address below the overlay.
    pub underlay: Ipv4Addr,
    /// Its part in Raft.
    pub role: NodeRole,
    /// Its present or last life.
    pub incarnation: Incarnation,
    /// Where in that life it is.
    pub life: NodeLife,
    /// The last entry that changed what is assigned to it.
    pub assignment_revision: Revision,
    /// The last entry that changed anything in its view.
    pub view_revision: Revision,
    /// What people say of it.
    #[serde(default)]
    pub labels: BTreeMap<LabelKey, LabelValue>,
    /// The last entry that changed it: its version.
    #[serde(default)]
    pub revision: Revision,
    /// The part that a person asked for when it joined; without one the cluster decides.
    #[serde(default)]
    pub asked: Option<NodeRole>,
}

impl Node {
    /// Whether it is registered and not lost.
    pub fn is_up(&self) -> bool {
        self.life == NodeLife::Up
    }

    /// Whether this very life was declared lost.
    pub fn is_lost(&self, incarnation: Incarnation) -> bool {
        self.incarnation == incarnation && matches!(self.life, NodeLife::Lost { .. })
    }

    /// Whether it neither stores nor runs anything, whatever its present part is.
    pub fn is_witness(&self) -> bool {
        self.role == NodeRole::Witness || self.asked == Some(NodeRole::Witness)
    }

    /// Its role while it votes.
    pub fn voting_role(&self) -> NodeRole {
        if self.is_witness() { NodeRole::Witness } else { NodeRole::Voter }
    }

    /// What it fails together with, as people have labelled it.
    pub fn domain(&self) -> Option<&LabelValue> {
        self.labels.iter().find(|(key, _)| key.as_str() == DOMAIN).map(|(_, value)| value)
    }
}
