//! How much slower than usual a machine is, such as a guest whose processors QEMU translates.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use holdfast_proto::v1;
use holdfast_types::LeaseSettings;
use serde::{Deserialize, Serialize};

/// So many times slower: the lease and all waits are that much longer, and nothing else changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace(u32);

/// The largest factor: the fence budget may be 10 s at most.
const SLOWEST: u32 = 20;

impl Default for Pace {
    fn default() -> Self {
        Self(1)
    }
}

impl Pace {
    /// A wait, or a limit to one, that is this long on an ordinary machine.
    pub fn of(self, usual: Duration) -> Duration {
        usual * self.0
    }

    /// The factor.
    pub fn factor(self) -> u64 {
        self.0.into()
    }

    /// How often a leader lets hear from itself.
    pub(crate) fn heartbeat_ms(self) -> u64 {
        250 * self.factor()
    }

    /// The constants of the lease.
    pub(crate) fn lease(self) -> LeaseSettings {
        let usual = LeaseSettings::default();
        LeaseSettings {
            lease_ms: usual.lease_ms * self.factor(),
            fence_budget_ms: usual.fence_budget_ms * self.factor(),
            margin_ms: usual.margin_ms * self.factor(),
            drift_ppm: usual.drift_ppm,
        }
    }

    /// The same, for a cluster that is made.
    pub(crate) fn lease_message(self) -> v1::LeaseSettings {
        let LeaseSettings { lease_ms, fence_budget_ms, margin_ms, drift_ppm } = self.lease();
        v1::LeaseSettings { lease_ms, fence_budget_ms, margin_ms, drift_ppm, lost_after_ms: 0 }
    }
}

/// Not a factor from 1 to 20.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write a whole number from 1 to {SLOWEST}")]
pub struct PaceError;

impl FromStr for Pace {
    type Err = PaceError;

    fn from_str(s: &str) -> Result<Self, PaceError> {
        match s.parse() {
            Ok(factor @ 1..=SLOWEST) => Ok(Self(factor)),
            Ok(_) | Err(_) => Err(PaceError),
        }
    }
}

impl fmt::Display for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pace_makes_a_lease_that_a_cluster_takes() {
        for factor in ["1", "10", "20"] {
            let pace: Pace = factor.parse().unwrap();
            assert!(pace.lease().check().is_ok(), "{factor}");
        }
        assert_eq!("1".parse::<Pace>().unwrap().lease(), LeaseSettings::default());
        for bad in ["0", "21", "-1", "x", ""] {
            assert_eq!(bad.parse::<Pace>(), Err(PaceError), "{bad}");
        }
    }
}
