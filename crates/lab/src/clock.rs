//! The clocks of the edge: CLOCK_BOOTTIME to measure with, the wall clock to compare with events.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// An instant on this machine's CLOCK_BOOTTIME, in nanoseconds. All nodes of a lab share it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct BootInstant(pub u64);

impl BootInstant {
    /// Now.
    pub fn now() -> Self {
        let t = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(t.tv_sec).unwrap_or(0);
        Self(seconds * 1_000_000_000 + u64::try_from(t.tv_nsec).unwrap_or(0))
    }

    /// The time from `earlier` to this instant; zero if it is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// The wall clock in milliseconds since the Unix epoch, as the daemons stamp their events.
pub fn wall_ms() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0)
}
