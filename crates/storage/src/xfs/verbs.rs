//! The changes of a volume that touch its files or its device, in their crash-safe order.

use std::fs::{self, File, OpenOptions};
use std::path::PathBuf;

use holdfast_types::{ByteSize, Epoch, SnapshotId, SnapshotUuid, TimestampMs};
use rustix::fs::ioctl_ficlone;

use super::diff;
use super::slot::Slot;
use super::volume::{Volume, create};
use crate::holds::Holds;
use crate::loopdev::LoopDevice;
use crate::pool::{Outcome, Quiesce, Tail};
use crate::{Error, Result, durable};

impl Volume {
    pub(super) fn release(&self, epoch: Epoch) -> Result<Outcome> {
        let mut slot = self.slot()?;
        slot.refuse_active()?;
        self.change_slot(&mut slot, |state| Ok(state.release(epoch)))
    }

    pub(super) fn snapshot(
        &self,
        id: &SnapshotId,
        taken: TimestampMs,
        quiesce: &mut dyn Quiesce,
    ) -> Result<Outcome> {
        let mut slot = self.slot()?;
        let mut next = slot.state.clone();
        if next.add_snapshot(id, taken)? == Outcome::AlreadyThere {
            return Ok(Outcome::AlreadyThere);
        }
        let live = self.live_path(slot.state.live()?.generation);
        let live = File::open(&live).map_err(Error::io("opening", &live))?;
        let path = self.snapshot_path(id.uuid);
        let file = create(&path)?;
        let cloned = quiesce
            .freeze()
            .and_then(|()| ioctl_ficlone(&file, &live).map_err(Error::io("cloning into", &path)));
        // A window that closed early was no window: the clone is not used.
        let result = cloned.and(quiesce.thaw()).and_then(|()| {
            file.sync_all().map_err(Error::io("syncing", &path))?;
            self.commit(&mut slot, next)
        });
        if result.is_err() {
            durable::remove_file(&path)?;
        }
        result.map(|()| Outcome::Changed)
    }

    /// Nothing is copied: the live part is a new reflink of the snapshot.
    /// A receive that was interrupted before is of no use any more.
    pub(super) fn promote(
        &self,
        from: SnapshotUuid,
        epoch: Epoch,
        holds: &Holds,
    ) -> Result<Outcome> {
        let mut slot = self.slot()?;
        let mut next = slot.state.clone();
        if next.promote(from, epoch)? == Outcome::AlreadyThere {
            return Ok(Outcome::AlreadyThere);
        }
        let source = self.snapshot_path(from);
        let source = File::open(&source).map_err(Error::io("opening", &source))?;
        let path = self.live_path(next.live()?.generation);
        let file = create(&path)?;
        ioctl_ficlone(&file, &source).map_err(Error::io("cloning into", &path))?;
        file.sync_all().map_err(Error::io("syncing", &path))?;
        self.commit(&mut slot, next)?;
        if slot.refuse_receiving(holds).is_ok() {
            self.drop_partial(&mut slot)?;
        }
        Ok(Outcome::Changed)
    }

    /// The tail is linked before the commit and the live name removed after it, so that at every
    /// moment the committed state's files are there.
    pub(super) fn demote(&self, to: Option<SnapshotUuid>, tail: Option<&Tail>) -> Result<Outcome> {
        let mut slot = self.slot()?;
        slot.refuse_active()?;
        let mut next = slot.state.clone();
        let outcome = next.demote(to, tail)?;
        if outcome == Outcome::AlreadyThere {
            return Ok(outcome);
        }
        let live = slot.state.live.as_ref().map(|live| self.live_path(live.generation));
        if let Some(live) = &live {
            let file = File::open(live).map_err(Error::io("opening", live))?;
            file.sync_all().map_err(Error::io("syncing", live))?;
            match tail {
                Some(tail) => {
                    let path = self.snapshot_path(tail.uuid);
                    durable::remove_file(&path)?;
                    fs::hard_link(live, &path).map_err(Error::io("linking", &path))?;
                }
                None if self.is_snapshotted(&slot, &file)? => {}
                None => return Err(slot.state.unkept()),
            }
        }
        self.commit(&mut slot, next)?;
        live.map_or(Ok(()), |live| durable::remove_file(&live))?;
        Ok(outcome)
    }

    /// Whether the live part is what the newest snapshot of it holds.
    fn is_snapshotted(&self, slot: &Slot, live: &File) -> Result<bool> {
        let head = slot.state.live()?.head.filter(|head| slot.state.find(*head).is_some());
        let Some(head) = head.map(|head| self.snapshot_path(head)) else { return Ok(false) };
        let file = File::open(&head).map_err(Error::io("opening", &head))?;
        Ok(diff::diff(Some(&file), live, slot.state.size.bytes())?.is_empty())
    }

    pub(super) fn resize(&self, size: ByteSize) -> Result<Outcome> {
        let mut slot = self.slot()?;
        let mut next = slot.state.clone();
        if next.resize(size)? == Outcome::AlreadyThere {
            return Ok(Outcome::AlreadyThere);
        }
        let path = self.live_path(next.live()?.generation);
        let file = OpenOptions::new().write(true).open(&path);
        let file = file.map_err(Error::io("opening", &path))?;
        file.set_len(size.bytes()).map_err(Error::io("sizing", &path))?;
        file.sync_all().map_err(Error::io("syncing", &path))?;
        self.commit(&mut slot, next)?;
        slot.active.as_ref().map_or(Ok(()), LoopDevice::grown)?;
        Ok(Outcome::Changed)
    }

    pub(super) fn remove_snapshot(&self, slot: &mut Slot, uuid: SnapshotUuid) -> Result<Outcome> {
        let outcome = self.change_slot(slot, |state| Ok(state.forget(uuid)))?;
        durable::remove_file(&self.snapshot_path(uuid))?;
        Ok(outcome)
    }

    pub(super) fn activate(&self, epoch: Epoch) -> Result<PathBuf> {
        let mut slot = self.slot()?;
        slot.state.may_activate(epoch)?;
        if slot.active.is_none() {
            let path = self.live_path(slot.state.live()?.generation);
            slot.active = Some(LoopDevice::attach(&path)?);
        }
        let device = slot.active.as_ref().map(|d| d.path().to_owned());
        device.ok_or_else(|| slot.state.wrong("its device went away"))
    }

    pub(super) fn deactivate(&self) -> Result<Outcome> {
        let mut slot = self.slot()?;
        let Some(device) = slot.active.take() else { return Ok(Outcome::AlreadyThere) };
        device.detach().map(|()| Outcome::Changed).map_err(|(device, error)| {
            slot.active = device;
            error
        })
    }
}
