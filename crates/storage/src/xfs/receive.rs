//! Receiving a delta: into a reflink of the base, under a name that nothing mounts or lists.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use holdfast_types::ByteSize;
use rustix::fs::{FallocateFlags, fallocate, ioctl_ficlone};

use super::slot::StoredPartial;
use super::space::Space;
use super::volume::{Volume, create};
use super::{Index, XfsPool, forget_cached};
use crate::catalog::{SnapshotInfo, VolumeState};
use crate::pool::{Begin, Offer, Pool};
use crate::stream::{Applier, Sink};
use crate::{Error, Hold, Result};

pub(super) fn begin(pool: &XfsPool, offer: &Offer) -> Result<Begin> {
    let uid = offer.snapshot.volume;
    let uuid = offer.snapshot.uuid;
    if let Ok(owner) = pool.owner(uuid) {
        let state = owner.info()?.state;
        return match state.find(uuid) {
            Some(info) if info.id == offer.snapshot => Ok(Begin::AlreadyThere(info.clone())),
            _ => Err(state.wrong("a snapshot of that uuid is another one")),
        };
    }
    offer.check()?;
    let base = match offer.base {
        None => None,
        Some(base) => {
            let wrong = |_| Error::WrongBase { volume: uid, base };
            Some(pool.open_held(base).map_err(wrong)?)
        }
    };
    if base.as_ref().is_some_and(|(_, _, size)| *size > offer.size) {
        return Err(Error::BadSize { size: offer.size, reason: "it is smaller than the base" });
    }
    pool.capacity()?.admit(ByteSize(0))?;
    let volume = find_or_make(pool, offer)?;
    let mut slot = volume.slot()?;
    slot.state.admit_receive(offer)?;
    slot.refuse_receiving(&pool.holds)?;
    let path = volume.part_path(uuid);
    let resumed = slot.partial.as_ref().filter(|p| p.offer == *offer).map(|p| p.synced);
    let (file, synced) = match resumed {
        Some(synced) => {
            let file = OpenOptions::new().read(true).write(true).open(&path);
            (file.map_err(Error::io("opening", &path))?, synced)
        }
        None => {
            volume.drop_partial(&mut slot)?;
            let file = create(&path)?;
            if let Some((_, base, _)) = &base {
                ioctl_ficlone(&file, base).map_err(Error::io("cloning into", &path))?;
            }
            file.set_len(offer.size.bytes()).map_err(Error::io("sizing", &path))?;
            (file, 0)
        }
    };
    slot.partial = Some(StoredPartial { offer: *offer, synced });
    let sink = FileSink {
        offer: *offer,
        path,
        file,
        space: pool.space.clone(),
        volume: volume.clone(),
        index: pool.index.clone(),
        _holds: (base.map(|(hold, ..)| hold), pool.holds.take(uuid)),
    };
    Ok(Begin::Receive(Box::new(Applier::new(*offer, synced, Box::new(sink)))))
}

fn find_or_make(pool: &XfsPool, offer: &Offer) -> Result<Arc<Volume>> {
    let _making = pool.making();
    match pool.get(offer.snapshot.volume) {
        Ok(volume) => Ok(volume),
        Err(_) => pool.make(VolumeState::empty(offer.snapshot.volume, offer.size), None),
    }
}

struct FileSink {
    offer: Offer,
    path: PathBuf,
    file: File,
    space: Space,
    volume: Arc<Volume>,
    index: Index,
    /// On the base, and on the snapshot that is to be: a second receive of it is refused.
    _holds: (Option<Hold>, Hold),
}

impl Sink for FileSink {
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        self.file.write_all_at(data, offset).map_err(Error::io("writing", &self.path))
    }

    fn zero(&mut self, offset: u64, len: u64) -> Result<()> {
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&self.file, mode, offset, len).map_err(Error::io("punching", &self.path))
    }

    fn sync(&mut self, offset: u64) -> Result<()> {
        self.space.refuse_beyond_margin()?;
        self.file.sync_data().map_err(Error::io("syncing", &self.path))?;
        forget_cached(&self.file);
        self.volume.store_partial(&StoredPartial { offer: self.offer, synced: offset })
    }

    fn commit(self: Box<Self>) -> Result<SnapshotInfo> {
        self.file.sync_all().map_err(Error::io("syncing", &self.path))?;
        let mut slot = self.volume.slot()?;
        let mut next = slot.state.clone();
        // The epoch is checked again: a seal may have come meanwhile (I11).
        let info = match next.add_received(&self.offer) {
            Ok(info) => info,
            Err(error) => {
                self.volume.drop_partial(&mut slot)?;
                return Err(error);
            }
        };
        let path = self.volume.snapshot_path(info.id.uuid);
        fs::rename(&self.path, &path).map_err(Error::io("naming", &path))?;
        self.volume.commit(&mut slot, next)?;
        self.volume.end_partial(&mut slot);
        drop(slot);
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        index.insert(info.id.uuid, info.id.volume);
        Ok(info)
    }

    fn discard(self: Box<Self>) {
        let dropped = self.volume.slot().and_then(|mut slot| self.volume.drop_partial(&mut slot));
        if let Err(error) = dropped {
            tracing::debug!(%error, "a refused receive stays until the next one");
        }
    }
}
