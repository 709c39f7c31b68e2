//! Noticing that the machine was paused (DESIGN section 5, rule 7).
//!
//! A paused virtual machine wakes with CLOCK_BOOTTIME unmoved, but its real-time clock has gone
//! on. The watch compares the two. The RTC counts whole seconds, so the difference read lies
//! within a second below the true one; its maximum over a window is within a tick of it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::clock::{NS_PER_MS, NS_PER_S};

/// How often the clocks are compared.
pub(super) const TICK_NS: u64 = 50 * NS_PER_MS;

/// How far the difference may move unseen beyond the RTC's own second: a jump of more than 2 s
/// either way is always noticed.
const TOLERANCE_NS: i128 = NS_PER_S as i128;

/// The window over which the maximum is taken. Drift within two of them is far below tolerance.
const WINDOW_NS: u64 = 4 * NS_PER_S;

/// The machine's real-time clock, as sysfs shows it (`/sys/class/rtc/rtc0/since_epoch`).
#[derive(Debug)]
pub(super) struct Rtc {
    file: File,
    watch: JumpWatch,
}

impl Rtc {
    /// Opens the clock. `None` if the machine has none that can be read.
    pub(super) fn open(path: &Path, boot_ns: u64) -> Option<Self> {
        let mut rtc = Self { file: File::open(path).ok()?, watch: JumpWatch::default() };
        rtc.jumped(boot_ns).ok()?;
        Some(rtc)
    }

    /// Whether the clocks have parted since the last call.
    pub(super) fn jumped(&mut self, boot_ns: u64) -> io::Result<bool> {
        let mut buffer = [0u8; 24];
        let length = self.file.read_at(&mut buffer, 0)?;
        let text = std::str::from_utf8(&buffer[..length]).unwrap_or_default();
        let seconds = text.trim().parse().map_err(|_| io::ErrorKind::InvalidData)?;
        Ok(self.watch.observe(seconds, boot_ns))
    }
}

/// The comparison itself.
#[derive(Debug, Default)]
struct JumpWatch {
    window: Option<Window>,
    /// The last whole window's maximum.
    settled_ns: Option<i128>,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    began_ns: u64,
    max_ns: i128,
}

impl JumpWatch {
    fn observe(&mut self, rtc_s: u64, boot_ns: u64) -> bool {
        let difference = i128::from(rtc_s) * i128::from(NS_PER_S) - i128::from(boot_ns);
        let fresh = Window { began_ns: boot_ns, max_ns: difference };
        let Some(window) = self.window.as_mut() else {
            self.window = Some(fresh);
            return false;
        };
        let settled = self.settled_ns.is_some();
        let expected = self.settled_ns.unwrap_or(window.max_ns);
        // Before one second has been seen, the maximum itself may be a second too low.
        let above = if settled { TOLERANCE_NS } else { 2 * TOLERANCE_NS };
        let below = TOLERANCE_NS + i128::from(NS_PER_S);
        if difference > expected + above || difference < expected - below {
            *self = Self { window: Some(fresh), settled_ns: None };
            return true;
        }
        window.max_ns = window.max_ns.max(difference);
        if boot_ns.saturating_sub(window.began_ns) >= WINDOW_NS {
            self.settled_ns = Some(window.max_ns);
            self.window = Some(fresh);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ticks for `seconds`, the RTC ahead of BOOTTIME by `ahead_ns`; whether a jump was seen.
    fn run(watch: &mut JumpWatch, boot_ns: &mut u64, seconds: u64, ahead_ns: i64) -> bool {
        let end_ns = *boot_ns + seconds * NS_PER_S;
        let mut seen = false;
        while *boot_ns < end_ns {
            let rtc_ns = boot_ns.checked_add_signed(ahead_ns).expect("after the epoch");
            seen |= watch.observe(rtc_ns / NS_PER_S, *boot_ns);
            *boot_ns += TICK_NS;
        }
        seen
    }

    /// Rule 7: whatever the phase between the clocks, a pause of more than 2 s ends the lease.
    #[test]
    fn a_pause_is_noticed_at_the_first_tick() {
        for phase_ms in (0..1_000).step_by(37) {
            for jump_ms in [2_050, 3_000, 60_000, -2_050, -60_000] {
                let (mut watch, mut boot_ns) = (JumpWatch::default(), 5 * NS_PER_S);
                let base = 1_700_000_000_000_000_000 + phase_ms * 1_000_000;
                assert!(!run(&mut watch, &mut boot_ns, 9, base));
                let first =
                    i128::from(base) + i128::from(jump_ms) * 1_000_000 + i128::from(boot_ns);
                let rtc_s = u64::try_from(first / i128::from(NS_PER_S)).expect("positive");
                assert!(watch.observe(rtc_s, boot_ns), "jump {jump_ms} at phase {phase_ms}");
                boot_ns += TICK_NS;
                let after = base + jump_ms * 1_000_000;
                assert!(!run(&mut watch, &mut boot_ns, 9, after), "it is reported once");
            }
        }
    }

    #[test]
    fn drift_and_coarse_seconds_are_no_jump() {
        for phase_ms in (0..1_000).step_by(91) {
            let (mut watch, mut boot_ns) = (JumpWatch::default(), NS_PER_S);
            for second in 0..600 {
                let drift_ns = second * 10_000_000; // 1 %
                let ahead_ns = 1_700_000_000_000_000_000 + phase_ms * 1_000_000 + drift_ns;
                assert!(!run(&mut watch, &mut boot_ns, 1, ahead_ns), "second {second}");
            }
        }
    }
}
