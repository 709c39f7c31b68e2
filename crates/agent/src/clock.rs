//! The agent's clocks.

use std::time::{SystemTime, UNIX_EPOCH};

use holdfast_types::TimestampMs;

/// CLOCK_BOOTTIME in milliseconds.
pub(crate) fn boottime_ms() -> u64 {
    holdfast_fence::boottime_ns() / 1_000_000
}

/// Wall time, for stamps that people read.
#[expect(clippy::disallowed_methods, reason = "this is the edge where wall time enters")]
pub(crate) fn wall() -> TimestampMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    TimestampMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
