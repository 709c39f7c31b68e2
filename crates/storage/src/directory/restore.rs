//! Letting a live part begin anew, in crash-safe order.

use holdfast_types::{Epoch, OperationId, SnapshotUuid};

use super::blocks::Blocks;
use super::volume::{Volume, begin};
use crate::Result;
use crate::pool::Outcome;

impl<B: Blocks> Volume<B> {
    /// Both live items are there when the state goes from one to the other. The old one's content
    /// is its newest snapshot's.
    pub(super) fn restore(
        &self,
        from: SnapshotUuid,
        epoch: Epoch,
        request: OperationId,
    ) -> Result<Outcome> {
        let mut inner = self.lock()?;
        let mut next = inner.state.clone();
        if next.restore(from, epoch, request)? == Outcome::AlreadyThere {
            return Ok(Outcome::AlreadyThere);
        }
        inner.refuse_active()?;
        let old = self.live_items(&inner.state)?;
        old.iter().try_for_each(|item| self.blocks.sync(item))?;
        if !self.is_snapshotted(&inner, &old)? {
            return Err(inner.state.unkept());
        }
        let new = self.live_items(&next)?;
        let from = self.snapshot_items(from, next.data.len());
        begin(&*self.blocks, &from, &new, &next.shape())?;
        new.iter().try_for_each(|item| self.blocks.sync(item))?;
        self.commit(&mut inner, next)?;
        old.iter().try_for_each(|item| self.blocks.remove(item))?;
        Ok(Outcome::Changed)
    }
}
