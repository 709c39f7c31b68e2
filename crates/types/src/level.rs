//! What versions can be told: a number that grows with each release that adds kinds of entries.
//!
//! The cluster's level is replicated, and rises only once every node understands the higher one;
//! what needs a level waits until then (DESIGN section 9).

use std::fmt;

use serde::{Deserialize, Serialize};

/// How much of what there is to say a node understands, or may be said in a cluster.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct FeatureLevel(pub u32);

impl FeatureLevel {
    /// What every version understands, those from before there were levels included.
    pub const FIRST: Self = Self(0);

    /// Recovered and restored clusters: epochs that leap, nodes that have no vote for good.
    pub const DISASTERS: Self = Self(1);

    /// What this version understands. A new kind of entry, or a new value in an old one that an
    /// older version cannot read, gets the next number.
    pub const OURS: Self = Self::DISASTERS;

    /// Whether it is the first: not worth a byte in what older versions hash (I4).
    pub fn is_first(&self) -> bool {
        *self == Self::FIRST
    }
}

impl fmt::Display for FeatureLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
