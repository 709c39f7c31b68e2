//! The constants of the safety argument (DESIGN section 5) and what follows from them.

use serde::{Deserialize, Serialize};

use crate::Code;

/// The lease constants in force. They are replicated; a change applies to grants made after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LeaseSettings {
    /// `T`: how long a grant lets a node run protected containers, counted from before the
    /// heartbeat was sent. 1,000 to 60,000.
    pub lease_ms: u64,
    /// `F`: how long a fence may take after the lease ends.
    pub fence_budget_ms: u64,
    /// `M`: margin for scheduling of the leader itself. At most 60,000.
    pub margin_ms: u64,
    /// `ρ`: bound on clock *rate* drift, in parts per million.
    pub drift_ppm: u64,
}

impl Default for LeaseSettings {
    fn default() -> Self {
        Self { lease_ms: 3_000, fence_budget_ms: 500, margin_ms: 200, drift_ppm: 10_000 }
    }
}

impl LeaseSettings {
    /// Heartbeat period, `T/6`.
    pub fn heartbeat_ms(&self) -> u64 {
        self.lease_ms / 6
    }

    /// The least time between the leader's last answer to a node and proposing that it is lost:
    /// `(T + 2F)(1 + ρ)/(1 − ρ) + M`, rounded up. Constants that no cluster can have make it longer, and
    /// never shorter.
    pub fn lost_after_ms(&self) -> u64 {
        const MILLION: u64 = 1_000_000;
        let span = self.fence_budget_ms.saturating_mul(2).saturating_add(self.lease_ms);
        let span = span.saturating_mul(self.drift_ppm.saturating_add(MILLION));
        match MILLION.saturating_sub(self.drift_ppm) {
            0 => u64::MAX,
            rate => span.div_ceil(rate).saturating_add(self.margin_ms),
        }
    }

    /// Checks the ranges of DESIGN section 5.
    pub fn check(&self) -> Result<(), LeaseRangeError> {
        let ok = (1_000..=60_000).contains(&self.lease_ms)
            && (50..=10_000).contains(&self.fence_budget_ms)
            && self.margin_ms <= 60_000
            && self.drift_ppm <= 100_000;
        if ok { Ok(()) } else { Err(LeaseRangeError) }
    }
}

/// Lease constants out of range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "lease must be 1 to 60 s, fence budget 50 ms to 10 s, margin at most 60 s, drift at most 10 %"
)]
pub struct LeaseRangeError;

impl LeaseRangeError {
    /// The stable code of this refusal.
    pub fn code(&self) -> Code {
        Code::InvalidArgument
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_wait_before_lost_is_4281_ms() {
        // (3000 + 2*500) * 1.01/0.99 + 200 = 4280.8…
        assert_eq!(LeaseSettings::default().lost_after_ms(), 4_281);
    }

    #[test]
    fn ranges_are_enforced() {
        assert!(LeaseSettings::default().check().is_ok());
        assert!(LeaseSettings { lease_ms: 500, ..Default::default() }.check().is_err());
    }
    /// A wait that is too short lets a container run twice (I8).
    #[test]
    fn constants_that_cannot_be_made_the_wait_wrap_around() {
        let usual = LeaseSettings::default();
        let absurd = u64::MAX - 1;
        for settings in [
            LeaseSettings { lease_ms: absurd, ..usual },
            LeaseSettings { fence_budget_ms: absurd, ..usual },
            LeaseSettings { margin_ms: absurd, ..usual },
            LeaseSettings { drift_ppm: absurd, ..usual },
            LeaseSettings { drift_ppm: 1_000_000, ..usual },
        ] {
            assert!(settings.lost_after_ms() > usual.lost_after_ms(), "{settings:?}");
            assert!(settings.check().is_err(), "{settings:?}");
        }
    }
}
