//! The agent's clocks.

use std::time::{SystemTime, UNIX_EPOCH};

use holdfast_types::TimestampMs;

/// CLOCK_BOOTTIME in milliseconds.
pub(crate) fn boottime_ms() -> u64 {
    holdfast_fence::boottime_ns() / 1_000_000
}

/// Another node's CLOCK_BOOTTIME, as an answer of it told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PeerClock {
    /// What it told.
    pub(crate) clock_ms: u64,
    heard_ms: u64,
}

impl PeerClock {
    /// From an answer that has just come.
    pub(crate) fn heard(clock_ms: u64) -> Self {
        Self { clock_ms, heard_ms: boottime_ms() }
    }

    /// How long ago the answer came.
    pub(crate) fn since_ms(&self) -> u64 {
        boottime_ms().saturating_sub(self.heard_ms)
    }
}

/// By how much less a clock may count than another, one part in so many (twice the drift of DESIGN
/// section 5).
const DRIFT: u64 = 50;

/// The moment on our clock that a message means by `age_ms` before it was sent, or an earlier one.
///
/// A message may be under way for long, most of all when a broken path heals, so its arrival says
/// little about when it was sent. It names our clock as the sender knew it, `clock_ms`, from an
/// answer that had come to it `since_ms` before: it was sent no earlier than that much later.
pub(crate) fn meant_ms(arrived_ms: u64, age_ms: u64, clock_ms: u64, since_ms: u64) -> u64 {
    let sent_ms = clock_ms.saturating_add(since_ms - since_ms / DRIFT);
    sent_ms.min(arrived_ms).saturating_sub(age_ms)
}

/// Wall time, for stamps that people read.
#[expect(clippy::disallowed_methods, reason = "this is the edge where wall time enters")]
pub(crate) fn wall() -> TimestampMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    TimestampMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// I22: a stamp that a broken path held back for half a minute is as old as it was when it was
    /// sent, not as young as when it came.
    #[test]
    fn a_late_message_means_the_time_at_which_it_was_sent() {
        assert_eq!(meant_ms(1_000, 10, 995, 3), 988);
        assert_eq!(meant_ms(31_000, 10, 995, 3), 988);
        assert!(meant_ms(200_000, 0, 100_000, 5_000) <= 105_000 - 100, "its clock may be fast");
        assert_eq!(meant_ms(50, 10, 90_000, 5), 40, "we were started anew since");
        assert_eq!(meant_ms(31_000, 10, 0, 0), 0, "it never heard of us");
    }
}
