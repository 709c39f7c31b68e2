//! The two clocks: wall time for people, CLOCK_BOOTTIME for every decision.

use std::time::{SystemTime, UNIX_EPOCH};

use holdfast_types::TimestampMs;

/// Wall time; zero before 1970.
#[expect(clippy::disallowed_methods, reason = "this is the edge where wall time enters")]
pub(crate) fn wall() -> TimestampMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    TimestampMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// CLOCK_BOOTTIME in milliseconds.
pub(crate) fn boottime_ms() -> u64 {
    u64::try_from(holdfast_raft::boottime().as_millis()).unwrap_or(u64::MAX)
}
