//! How many snapshots a thin pool has left in its life.
//!
//! dm-thin packs a mapping as `(block << 24) | time` (`dm-thin-metadata.c`, `pack_block_time`), and
//! raises `time` at each `create_snap`. Past 24 bits the block number itself is changed: two blocks
//! of a volume then share one on disk, with no error from the kernel or from `thin_check`.

use crate::{Error, Result};

/// The last time that a mapping can hold.
const LAST: u32 = (1 << 24) - 1;

/// Past this, in percent of a pool's life, no snapshot is taken any more.
const REFUSED_PERCENT: u32 = 95;

/// How worn a pool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wear {
    /// The pool's time, as its metadata has it.
    pub(super) time: u32,
}

impl Wear {
    /// Percent of its life that is over, rounded down.
    pub(super) fn percent(self) -> u8 {
        u8::try_from(u64::from(self.time) * 100 / u64::from(LAST)).unwrap_or(u8::MAX)
    }

    /// Refuses one more snapshot of a pool that has had too many.
    pub(super) fn admit(self) -> Result<()> {
        match self.time < LAST / 100 * REFUSED_PERCENT {
            true => Ok(()),
            false => Err(Error::Worn { percent: self.percent() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// I17: the overflow mixes volumes' blocks without an error; it must not be reached.
    #[test]
    fn snapshots_stop_before_the_time_overflows() {
        assert!(Wear { time: 0 }.admit().is_ok());
        assert!(Wear { time: LAST / 10 * 9 }.admit().is_ok());
        for time in [LAST / 100 * 95, LAST, u32::MAX] {
            assert!(matches!(Wear { time }.admit(), Err(Error::Worn { .. })), "{time}");
        }
        assert_eq!(Wear { time: LAST / 2 }.percent(), 49);
    }
}
