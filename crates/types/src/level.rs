//! What versions can be told: a number that grows with each release that adds kinds of entries.
//!
//! The cluster's level is replicated, and rises only once every node understands the higher one;
//! what needs a level waits until then (DESIGN section 9).
//!
//! Levels count from the first version that was ever released, which is of level 1 and in which every node
//! understands everything: level 0 is what a new cluster is in until its first nodes have told theirs, and
//! no version stopped there. So what level 1 knows is said whatever the level is, but for what a disaster
//! leaves; the samples in `crates/raft/tests/golden/level-1` say what that is, and from then on they are read
//! by every version. What is added after them is not so free: a new kind of entry, a new value in an old
//! one, and a field by which an entry does something else, or which is always in the state and so in its
//! hash (I4), need the next level, and are not said before. Authorities and tokens are of level 1 all the
//! same: no node without them can speak to one that has them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How much of what there is to say a node understands, or may be said in a cluster.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct FeatureLevel(pub u32);

impl FeatureLevel {
    /// Of a cluster that has not heard of any level yet.
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
