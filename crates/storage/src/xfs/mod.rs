//! The driver for a directory on XFS with reflink, or on an XFS that it keeps in a file.
//!
//! ```text
//! <root>/pool.json                     which pool this is
//! <root>/volumes/<uid>/volume.json     the volume's state: the one commit point of every change
//!                     /live-<n>        generation n of the live part, a sparse file
//!                     /snap-<uuid>     a snapshot (a reflink)
//!                     /part-<uuid>     a receive in progress, and part.json how far it is
//! <root>/scratch/                      throw-away clones, emptied at open
//! ```
//! A change prepares files, then replaces `volume.json`, then removes what it no longer names; a
//! crash leaves files that nothing names, which opening removes. Names that begin with a dot are
//! volumes being made or removed.

mod diff;
mod image;
mod open;
mod receive;
mod scratch;
mod slot;
mod space;
mod verbs;
mod volume;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use holdfast_types::{ByteSize, Epoch, SnapshotId, SnapshotUuid, TimestampMs, VolumeUid};

use crate::catalog::{SnapshotKind, VolumeState};
use crate::holds::Holds;
use crate::pool::{
    Begin, Capacity, Extent, Fragmentation, Offer, Outcome, Pool, PoolIdentity, Quiesce, Scratch,
    SnapshotReader, Tail, VolumeInfo, round_size,
};
use crate::{Error, Hold, Result};
use image::Mounted;
pub use open::{LoopBacked, XfsOptions};
use space::Space;
use volume::Volume;

/// Comparing two files costs 3 ms when they lie in few extents, 25 ms at 2,000, 260 ms at 19,000
/// (DESIGN section 7).
const COMFORTABLE_EXTENTS: u64 = 3_000;

type Index = Arc<Mutex<HashMap<SnapshotUuid, VolumeUid>>>;

/// An open pool. Dropping it leaves mounts and devices as they are, for the next life to adopt.
pub struct XfsPool {
    identity: PoolIdentity,
    root: PathBuf,
    space: Space,
    mounted: Option<Mounted>,
    holds: Holds,
    /// Which volume each snapshot belongs to.
    index: Index,
    volumes: RwLock<BTreeMap<VolumeUid, Arc<Volume>>>,
    /// Held while a volume is made or removed.
    making: Mutex<()>,
    /// Keeps every other process out.
    _lock: File,
}

impl XfsPool {
    /// Opens the pool, making it if the directory is empty. Finishes or undoes what a crash left.
    pub fn open(options: &XfsOptions) -> Result<Self> {
        open::open(options)
    }

    /// Closes a pool whose volumes are all inactive: unmounts what opening has mounted.
    pub fn close(mut self) -> Result<()> {
        match self.mounted.take() {
            Some(mounted) => {
                self.volumes.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
                mounted.unmount()
            }
            None => Ok(()),
        }
    }

    fn get(&self, uid: VolumeUid) -> Result<Arc<Volume>> {
        let volumes = self.volumes.read().unwrap_or_else(PoisonError::into_inner);
        volumes.get(&uid).cloned().ok_or(Error::NoVolume(uid))
    }

    fn all(&self) -> Vec<Arc<Volume>> {
        let volumes = self.volumes.read().unwrap_or_else(PoisonError::into_inner);
        volumes.values().cloned().collect()
    }

    fn index(&self) -> MutexGuard<'_, HashMap<SnapshotUuid, VolumeUid>> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn owner(&self, snapshot: SnapshotUuid) -> Result<Arc<Volume>> {
        let uid = self.index().get(&snapshot).copied();
        self.get(uid.ok_or(Error::NoSnapshot(snapshot))?)
    }

    /// A held snapshot, its file and size.
    fn open_held(&self, snapshot: SnapshotUuid) -> Result<(Hold, File, ByteSize)> {
        let hold = self.hold(snapshot)?;
        let path = self.owner(snapshot)?.snapshot_path(snapshot);
        let file = File::open(&path).map_err(Error::io("opening", &path))?;
        let size = file.metadata().map_err(Error::io("reading", &path))?.len();
        Ok((hold, file, ByteSize(size)))
    }

    /// Makes a volume of that state, whose live part begins as a clone of `from`.
    fn make(&self, state: VolumeState, from: Option<&File>) -> Result<Arc<Volume>> {
        let volume = Arc::new(Volume::make(&self.root, state, from)?);
        let mut volumes = self.volumes.write().unwrap_or_else(PoisonError::into_inner);
        volumes.insert(volume.uid(), volume.clone());
        Ok(volume)
    }

    fn making(&self) -> MutexGuard<'_, ()> {
        self.making.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool for XfsPool {
    fn identity(&self) -> PoolIdentity {
        self.identity
    }

    fn capacity(&self) -> Result<Capacity> {
        let promised = self.volumes().iter().map(|v| v.state.size.bytes()).sum();
        Ok(Capacity { promised: ByteSize(promised), ..self.space.measure()? })
    }

    fn volumes(&self) -> Vec<VolumeInfo> {
        self.all().iter().filter_map(|volume| volume.info().ok()).collect()
    }

    fn volume(&self, uid: VolumeUid) -> Result<VolumeInfo> {
        self.get(uid)?.info()
    }

    fn create(&self, uid: VolumeUid, size: ByteSize, epoch: Epoch) -> Result<Outcome> {
        let size = round_size(size)?;
        let _making = self.making();
        if let Ok(volume) = self.get(uid) {
            return volume.info()?.state.made_as(None, size, epoch);
        }
        self.capacity()?.admit_volume(size)?;
        let mut state = VolumeState::empty(uid, size);
        state.begin_live(None, epoch);
        self.make(state, None).map(|_| Outcome::Changed)
    }

    fn clone_volume(
        &self,
        from: SnapshotUuid,
        uid: VolumeUid,
        size: ByteSize,
        epoch: Epoch,
    ) -> Result<Outcome> {
        let size = round_size(size)?;
        let _making = self.making();
        if let Ok(volume) = self.get(uid) {
            return volume.info()?.state.made_as(Some(from), size, epoch);
        }
        let (_hold, file, least) = self.open_held(from)?;
        if size < least {
            return Err(Error::BadSize { size, reason: "it is smaller than what is cloned" });
        }
        self.capacity()?.admit_volume(size)?;
        let mut state = VolumeState::empty(uid, size);
        state.begin_live(Some(from), epoch);
        self.make(state, Some(&file)).map(|_| Outcome::Changed)
    }

    fn resize(&self, uid: VolumeUid, size: ByteSize) -> Result<Outcome> {
        let size = round_size(size)?;
        self.get(uid)?.resize(size)
    }

    fn remove_volume(&self, uid: VolumeUid) -> Result<Outcome> {
        let _making = self.making();
        let Ok(volume) = self.get(uid) else { return Ok(Outcome::AlreadyThere) };
        let mut slot = volume.slot()?;
        slot.refuse_active()?;
        slot.refuse_receiving(&self.holds)?;
        {
            let mut index = self.index();
            let mut snapshots = slot.state.snapshots.iter().map(|s| s.id.uuid);
            if let Some(held) = snapshots.find(|uuid| self.holds.held(*uuid)) {
                return Err(Error::InUse(format!("snapshot {held}")));
            }
            index.retain(|_, owner| *owner != uid);
        }
        if let Err(error) = volume.remove(&mut slot) {
            let snapshots = slot.state.snapshots.iter().filter(|_| !slot.is_removed());
            self.index().extend(snapshots.map(|s| (s.id.uuid, uid)));
            return Err(error);
        }
        self.volumes.write().unwrap_or_else(PoisonError::into_inner).remove(&uid);
        Ok(Outcome::Changed)
    }

    fn snapshot(
        &self,
        id: &SnapshotId,
        taken: TimestampMs,
        quiesce: &mut dyn Quiesce,
    ) -> Result<Outcome> {
        let outcome = self.get(id.volume)?.snapshot(id, taken, quiesce)?;
        self.index().insert(id.uuid, id.volume);
        Ok(outcome)
    }

    fn label_snapshot(&self, snapshot: SnapshotUuid, kind: SnapshotKind) -> Result<Outcome> {
        self.owner(snapshot)?.change(|state| state.label(snapshot, kind))
    }

    fn remove_snapshot(&self, snapshot: SnapshotUuid) -> Result<Outcome> {
        let Ok(volume) = self.owner(snapshot) else { return Ok(Outcome::AlreadyThere) };
        let mut slot = volume.slot()?;
        {
            // Out of the index first, under its lock: nothing can hold it from here on.
            let mut index = self.index();
            if self.holds.held(snapshot) {
                return Err(Error::InUse(format!("snapshot {snapshot}")));
            }
            index.remove(&snapshot);
        }
        let result = volume.remove_snapshot(&mut slot, snapshot);
        if slot.state.find(snapshot).is_some() {
            self.index().insert(snapshot, volume.uid());
        }
        result
    }

    fn hold(&self, snapshot: SnapshotUuid) -> Result<Hold> {
        match self.index().contains_key(&snapshot) {
            true => Ok(self.holds.take(snapshot)),
            false => Err(Error::NoSnapshot(snapshot)),
        }
    }

    fn promote(&self, uid: VolumeUid, from: SnapshotUuid, epoch: Epoch) -> Result<Outcome> {
        self.get(uid)?.promote(from, epoch, &self.holds)
    }

    fn continue_live(&self, uid: VolumeUid, epoch: Epoch) -> Result<Outcome> {
        self.get(uid)?.change(|state| state.continue_live(epoch))
    }

    fn demote(
        &self,
        uid: VolumeUid,
        to: Option<SnapshotUuid>,
        tail: Option<&Tail>,
    ) -> Result<Outcome> {
        let volume = self.get(uid)?;
        let outcome = volume.demote(to, tail)?;
        if let Some(tail) = tail
            && volume.info()?.state.find(tail.uuid).is_some()
        {
            self.index().insert(tail.uuid, uid);
        }
        Ok(outcome)
    }

    fn seal(&self, uid: VolumeUid, up_to: Epoch) -> Result<Outcome> {
        self.get(uid)?.change(|state| Ok(state.seal(up_to)))
    }

    fn release(&self, uid: VolumeUid, epoch: Epoch) -> Result<Outcome> {
        self.get(uid)?.release(epoch)
    }

    fn set_role(&self, uid: VolumeUid, role: &str) -> Result<Outcome> {
        self.get(uid)?.change(|state| state.set_role(role))
    }

    fn activate(&self, uid: VolumeUid, epoch: Epoch) -> Result<PathBuf> {
        self.get(uid)?.activate(epoch)
    }

    fn deactivate(&self, uid: VolumeUid) -> Result<Outcome> {
        self.get(uid)?.deactivate()
    }

    fn scratch(&self, snapshot: SnapshotUuid) -> Result<Box<dyn Scratch>> {
        let (_hold, file, _) = self.open_held(snapshot)?;
        scratch::make(&self.root, snapshot, &file)
    }

    fn diff(&self, base: Option<SnapshotUuid>, snapshot: SnapshotUuid) -> Result<Vec<Extent>> {
        let base = base.map(|uuid| self.open_held(uuid)).transpose()?;
        let (_hold, file, size) = self.open_held(snapshot)?;
        diff::diff(base.as_ref().map(|(_, file, _)| file), &file, size.bytes())
    }

    fn fragmentation(&self, snapshot: SnapshotUuid) -> Result<Fragmentation> {
        let (_hold, file, _) = self.open_held(snapshot)?;
        Ok(Fragmentation { extents: diff::extents(&file)?, comfortable: COMFORTABLE_EXTENTS })
    }

    fn open_snapshot(&self, snapshot: SnapshotUuid) -> Result<Box<dyn SnapshotReader>> {
        let (hold, file, _) = self.open_held(snapshot)?;
        Ok(Box::new(diff::FileReader { file, hold }))
    }

    fn begin_receive(&self, offer: &Offer) -> Result<Begin> {
        receive::begin(self, offer)
    }

    fn drop_partial(&self, uid: VolumeUid) -> Result<Outcome> {
        let volume = self.get(uid)?;
        let mut slot = volume.slot()?;
        slot.refuse_receiving(&self.holds)?;
        volume.drop_partial(&mut slot)
    }
}

/// Live parts bypass the page cache, so what a transfer left in it serves nobody. Only a hint.
fn forget_cached(file: &File) {
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
}

#[cfg(test)]
mod tests;
