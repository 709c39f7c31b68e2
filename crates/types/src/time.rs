//! Wall-clock instants. For people and event lists only: no safety decision reads them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch, UTC, as the proposer of an entry saw them.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct TimestampMs(pub u64);

impl TimestampMs {
    /// This instant less `age_ms`; zero at the earliest.
    pub fn before(self, age_ms: u64) -> Self {
        Self(self.0.saturating_sub(age_ms))
    }

    /// Milliseconds from `earlier` to this instant; zero if it is not earlier.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for TimestampMs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
