//! The one clock of the safety argument.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of CLOCK_BOOTTIME: monotonic, and it goes on while the machine is suspended
/// (`clock_gettime(2)`). Every deadline of DESIGN section 5 is an instant of this clock.
pub fn boottime_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(NS_PER_S).saturating_add(nanos)
}

/// Nanoseconds in a second.
pub(crate) const NS_PER_S: u64 = 1_000_000_000;
/// Nanoseconds in a millisecond.
pub(crate) const NS_PER_MS: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_goes_forward() {
        let first = boottime_ns();
        assert!(first > 0);
        assert!(boottime_ns() >= first);
    }
}
