//! How many snapshots a thin pool has left in its life.
//!
//! dm-thin packs a mapping as `(block << 24) | time` (`dm-thin-metadata.c`, `pack_block_time`), and
//! raises `time` at each `create_snap`. Past 24 bits the block number itself is changed: two blocks
//! of a volume then share one on disk, with no error from the kernel or from `thin_check`.

use crate::{Error, Result};

/// The last time that a mapping can hold.
const LAST: u32 = (1 << 24) - 1;

/// Past this, in percent of a pool's life, no volume is snapshotted or received any more.
const REFUSED_PERCENT: u32 = 95;

/// What is left until then is for what brings containers back: promotions, and clones. So much is
/// never used.
const NEVER: u32 = 1 << 16;

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

    /// Refuses one more snapshot of what runs or comes, of a pool that has had too many.
    pub(super) fn admit(self) -> Result<()> {
        self.admit_until(LAST / 100 * REFUSED_PERCENT)
    }

    /// Refuses any more at all.
    pub(super) fn admit_last(self) -> Result<()> {
        self.admit_until(LAST - NEVER)
    }

    fn admit_until(self, end: u32) -> Result<()> {
        match self.time < end {
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

    /// L2: a worn pool took no copies, and could not be taken over to either.
    #[test]
    fn a_worn_pool_still_promotes() {
        let worn = Wear { time: LAST / 100 * 96 };
        assert!(worn.admit().is_err() && worn.admit_last().is_ok());
        for time in [LAST - NEVER, LAST, u32::MAX] {
            assert!(Wear { time }.admit_last().is_err(), "{time}");
        }
    }
}
