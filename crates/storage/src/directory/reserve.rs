//! Room that is kept for the day on which a pool runs full all the same: an item that nothing uses.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use holdfast_types::ByteSize;

use super::blocks::Blocks;
use crate::pool::{Capacity, Outcome};
use crate::{Result, durable};

/// Filled in one go: in a thin pool this much is written as zeros, beside what containers write.
const STEP: u64 = 64 << 20;

/// A pool's reserve.
pub(super) struct Reserve {
    item: PathBuf,
    held: Mutex<u64>,
}

impl Reserve {
    /// What there is of it.
    pub(super) fn load(blocks: &impl Blocks, item: PathBuf) -> Result<Self> {
        let held = Mutex::new(blocks.reserved(&item)?);
        Ok(Self { item, held })
    }

    pub(super) fn held(&self) -> ByteSize {
        ByteSize(*self.lock())
    }

    pub(super) fn fill(&self, blocks: &impl Blocks) -> Result<Outcome> {
        let mut held = self.lock();
        let capacity = blocks.capacity()?;
        let wanted = capacity.reserve().bytes();
        if *held >= wanted {
            return Ok(Outcome::AlreadyThere);
        }
        admit(&capacity, wanted - *held)?;
        let upto = wanted.min(*held + STEP);
        blocks.reserve(&self.item, *held, upto)?;
        *held = upto;
        Ok(Outcome::Changed)
    }

    pub(super) fn spend(&self, blocks: &impl Blocks) -> Result<Outcome> {
        let mut held = self.lock();
        blocks.may_free()?;
        blocks.remove(&self.item)?;
        durable::sync_dir(self.item.parent().unwrap_or(&self.item))?;
        let before = std::mem::take(&mut *held);
        Ok(if before > 0 { Outcome::Changed } else { Outcome::AlreadyThere })
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All that is missing must fit: a reserve that fills the pool would be spent at once, and again.
fn admit(capacity: &Capacity, missing: u64) -> Result<()> {
    capacity.admit(ByteSize(missing))
}
