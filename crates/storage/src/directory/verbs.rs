//! The changes of a volume that touch its items or its device, in their crash-safe order.

use std::path::{Path, PathBuf};

use holdfast_types::{ByteSize, Epoch, SnapshotId, SnapshotUuid, TimestampMs};

use super::blocks::{Blocks, Device};
use super::inner::Inner;
use super::volume::Volume;
use crate::Result;
use crate::holds::Holds;
use crate::pool::{Outcome, Quiesce, Tail};

impl<B: Blocks> Volume<B> {
    pub(super) fn release(&self, epoch: Epoch) -> Result<Outcome> {
        let mut inner = self.lock()?;
        inner.refuse_active()?;
        self.change_locked(&mut inner, |state| Ok(state.release(epoch)))
    }

    pub(super) fn snapshot(
        &self,
        id: &SnapshotId,
        taken: TimestampMs,
        quiesce: &mut dyn Quiesce,
    ) -> Result<Outcome> {
        let mut inner = self.lock()?;
        let mut next = inner.state.clone();
        if next.add_snapshot(id, taken)? == Outcome::AlreadyThere {
            return Ok(Outcome::AlreadyThere);
        }
        let live = self.live_path(inner.state.live()?.generation);
        let item = self.snapshot_path(id.uuid);
        self.blocks.snapshot(&live, inner.active.as_ref(), &item, quiesce)?;
        // If this fails nobody knows which state the disk has: the item stays until the next open.
        self.commit(&mut inner, next)?;
        Ok(Outcome::Changed)
    }

    /// Nothing is copied: the live part is a new clone of the snapshot.
    /// A receive that was interrupted before is of no use any more.
    pub(super) fn promote(
        &self,
        from: SnapshotUuid,
        epoch: Epoch,
        holds: &Holds,
    ) -> Result<Outcome> {
        let mut inner = self.lock()?;
        let mut next = inner.state.clone();
        if next.promote(from, epoch)? == Outcome::AlreadyThere {
            return Ok(Outcome::AlreadyThere);
        }
        let (source, item) = (self.snapshot_path(from), self.live_path(next.live()?.generation));
        self.blocks.clone_item(&source, &item, next.size.bytes())?;
        self.blocks.sync(&item)?;
        self.commit(&mut inner, next)?;
        if inner.refuse_receiving(holds).is_ok() {
            self.drop_partial(&mut inner)?;
        }
        Ok(Outcome::Changed)
    }

    /// The tail is linked before the commit and the live name removed after it, so that at every
    /// moment the committed state's files are there.
    pub(super) fn demote(&self, to: Option<SnapshotUuid>, tail: Option<&Tail>) -> Result<Outcome> {
        let mut inner = self.lock()?;
        inner.refuse_active()?;
        let mut next = inner.state.clone();
        let outcome = next.demote(to, tail)?;
        if outcome == Outcome::AlreadyThere {
            return Ok(outcome);
        }
        let live = inner.state.live.as_ref().map(|live| self.live_path(live.generation));
        if let Some(live) = &live {
            self.blocks.sync(live)?;
            match tail {
                Some(tail) => self.blocks.link(live, &self.snapshot_path(tail.uuid))?,
                None if self.is_snapshotted(&inner, live)? => {}
                None => return Err(inner.state.unkept()),
            }
        }
        self.commit(&mut inner, next)?;
        live.map_or(Ok(()), |live| self.blocks.remove(&live))?;
        Ok(outcome)
    }

    /// Whether the live part is what the newest snapshot of it holds.
    pub(super) fn is_snapshotted(&self, inner: &Inner<B>, live: &Path) -> Result<bool> {
        let head = inner.state.live()?.head.filter(|head| inner.state.find(*head).is_some());
        let Some(head) = head.map(|head| self.snapshot_path(head)) else { return Ok(false) };
        Ok(self.blocks.diff(Some(&head), live, inner.state.size.bytes())?.is_empty())
    }

    pub(super) fn resize(&self, size: ByteSize) -> Result<Outcome> {
        let mut inner = self.lock()?;
        let mut next = inner.state.clone();
        if next.resize(size)? == Outcome::AlreadyThere {
            return Ok(Outcome::AlreadyThere);
        }
        let item = self.live_path(next.live()?.generation);
        self.blocks.grow(&item, inner.active.as_ref(), size.bytes())?;
        self.commit(&mut inner, next)?;
        Ok(Outcome::Changed)
    }

    pub(super) fn remove_snapshot(
        &self,
        inner: &mut Inner<B>,
        uuid: SnapshotUuid,
    ) -> Result<Outcome> {
        let outcome = self.change_locked(inner, |state| Ok(state.forget(uuid)))?;
        self.blocks.remove(&self.snapshot_path(uuid))?;
        Ok(outcome)
    }

    pub(super) fn activate(&self, epoch: Epoch) -> Result<PathBuf> {
        let mut inner = self.lock()?;
        inner.state.may_activate(epoch)?;
        if inner.active.is_none() {
            let path = self.live_path(inner.state.live()?.generation);
            inner.active = Some(self.blocks.attach(&path)?);
        }
        let device = inner.active.as_ref().map(|d| d.path().to_owned());
        device.ok_or_else(|| inner.state.wrong("its device went away"))
    }

    pub(super) fn deactivate(&self) -> Result<Outcome> {
        let mut inner = self.lock()?;
        let Some(device) = inner.active.take() else { return Ok(Outcome::AlreadyThere) };
        device.detach().map(|()| Outcome::Changed).map_err(|(device, error)| {
            inner.active = device;
            error
        })
    }
}
