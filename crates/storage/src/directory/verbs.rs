//! The changes of a volume that touch its items or its device, in their crash-safe order.

use std::collections::btree_map::Entry;
use std::path::PathBuf;

use holdfast_types::{ByteSize, Epoch, SnapshotId, SnapshotUuid, TimestampMs};

use super::blocks::{Blocks, Device, Part};
use super::inner::Inner;
use super::volume::{Volume, begin};
use crate::Result;
use crate::holds::Holds;
use crate::members::{Shape, start};
use crate::pool::{Extent, Outcome, Quiesce, Tail};

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
        if quiesce.at_rest() {
            inner.refuse_active()?;
        }
        let live = self.live_items(&inner.state)?;
        let items = self.snapshot_items(id.uuid, inner.state.data.len());
        let parts = live.iter().zip(&items).enumerate();
        let parts: Vec<_> = parts
            .map(|(member, (live, item))| Part { live, device: inner.active.get(&member), item })
            .collect();
        self.blocks.snapshot(&parts, quiesce)?;
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
        let items = self.live_items(&next)?;
        begin(&*self.blocks, &self.snapshot_items(from, next.data.len()), &items, &next.shape())?;
        items.iter().try_for_each(|item| self.blocks.sync(item))?;
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
        let live = match &inner.state.live {
            Some(_) => self.live_items(&inner.state)?,
            None => Vec::new(),
        };
        live.iter().try_for_each(|item| self.blocks.sync(item))?;
        if !live.is_empty() {
            match tail {
                Some(tail) => {
                    let kept = self.snapshot_items(tail.uuid, inner.state.data.len());
                    let mut both = live.iter().zip(&kept);
                    both.try_for_each(|(item, name)| self.blocks.link(item, name))?;
                }
                None if self.is_snapshotted(&inner, &live)? => {}
                None => return Err(inner.state.unkept()),
            }
        }
        self.commit(&mut inner, next)?;
        live.iter().try_for_each(|item| self.blocks.remove(item))?;
        Ok(outcome)
    }

    /// Whether the live part is what the newest snapshot of it holds, in all members.
    pub(super) fn is_snapshotted(&self, inner: &Inner<B>, live: &[PathBuf]) -> Result<bool> {
        let head = inner.state.live()?.head.and_then(|head| inner.state.find(head));
        let Some(head) = head else { return Ok(false) };
        let head = self.snapshot_items(head.id.uuid, head.data.len());
        Ok(diff(&*self.blocks, &head, live, &inner.state.shape())?.is_empty())
    }

    pub(super) fn resize(&self, member: usize, size: ByteSize) -> Result<Outcome> {
        let mut inner = self.lock()?;
        let mut next = inner.state.clone();
        if next.resize(member, size)? == Outcome::AlreadyThere {
            return Ok(Outcome::AlreadyThere);
        }
        if let Some(item) = self.live_items(&next)?.get(member) {
            self.blocks.grow(item, inner.active.get(&member), size.bytes())?;
        }
        self.commit(&mut inner, next)?;
        Ok(Outcome::Changed)
    }

    pub(super) fn remove_snapshot(
        &self,
        inner: &mut Inner<B>,
        uuid: SnapshotUuid,
    ) -> Result<Outcome> {
        self.blocks.may_free()?;
        let data = inner.state.find(uuid).map_or(0, |s| s.data.len());
        let outcome = self.change_locked(inner, |state| Ok(state.forget(uuid)))?;
        let items = self.snapshot_items(uuid, data);
        items.iter().try_for_each(|item| self.blocks.remove(item))?;
        Ok(outcome)
    }

    pub(super) fn activate(&self, epoch: Epoch) -> Result<PathBuf> {
        let mut inner = self.lock()?;
        inner.state.may_activate(epoch)?;
        for (member, item) in self.live_items(&inner.state)?.iter().enumerate() {
            if let Entry::Vacant(free) = inner.active.entry(member) {
                free.insert(self.blocks.attach(item)?);
            }
        }
        let device = inner.active.get(&0).map(|d| d.path().to_owned());
        device.ok_or_else(|| inner.state.wrong("its device went away"))
    }

    /// One that is still in use keeps only itself from going.
    pub(super) fn deactivate(&self) -> Result<Outcome> {
        let mut inner = self.lock()?;
        let mut result = Ok(Outcome::AlreadyThere);
        for (member, device) in std::mem::take(&mut inner.active) {
            match device.detach() {
                Ok(()) => result = result.map(|_| Outcome::Changed),
                Err((device, error)) => {
                    inner.active.extend(device.map(|device| (member, device)));
                    result = Err(error);
                }
            }
        }
        result
    }
}

/// Where a set of that shape may differ from another, by address; what `base` lacks is zeros.
pub(super) fn diff<B: Blocks>(
    blocks: &B,
    base: &[PathBuf],
    items: &[PathBuf],
    shape: &Shape,
) -> Result<Vec<Extent>> {
    let mut all = Vec::new();
    for (member, (item, size)) in items.iter().zip(shape.sizes()).enumerate() {
        let base = base.get(member).map(PathBuf::as_path);
        let extents = blocks.diff(base, item, size)?;
        all.extend(extents.into_iter().map(|e| Extent { offset: start(member) + e.offset, ..e }));
    }
    Ok(all)
}
