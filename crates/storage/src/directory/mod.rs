//! What the drivers share: volumes in a directory, each with one durable state.
//!
//! ```text
//! <root>/pool.json                     which pool this is
//! <root>/volumes/<uid>/volume.json     the volume's state: the one commit point of every change
//!                     /live-<n>        generation n of the live part, an item
//!                     /snap-<uuid>     a snapshot
//!                     /part-<uuid>     a receive in progress, and part.json how far it is
//!                     /hashes          of the blocks of the newest received content
//! <root>/reserve                       room that nothing uses, an item
//! <root>/scratch/                      throw-away clones, emptied at open
//! ```
//! What an item is belongs to the driver ([`Blocks`]): a file that shares its blocks with others,
//! or the note of a thin device. A change prepares items, then replaces `volume.json`, then removes
//! what it no longer names; a crash leaves items that nothing names, which opening removes. Names
//! that begin with a dot are volumes being made or removed.
//!
//! A volume of several [members](crate::members) has an item for each, `live-3`, `live-3+1`,
//! `live-3+2`, and so for snapshots and receives. The state says how many belong to each, so the one
//! commit point is that of the whole set. What a crash leaves of a change to a set:
//!
//! | in the middle of | the state names | opening |
//! |---|---|---|
//! | making the volume | nothing (`.new-…`) | removes all of it |
//! | a snapshot, a promotion, a restore: some items made | none of them | removes them |
//! | a receive begun: some items made | no partial | removes them; it begins anew |
//! | a receive ended: some renamed to `snap-…` | no snapshot; a partial that lacks items | drops both |
//! | a demotion: some live items linked as the tail | the live part | removes the tail's names |
//! | the same, committed: some live names removed | the tail | removes the other live names |
//! | a snapshot's removal: some items gone | no snapshot | removes the others |
//! | growing a member: its item is larger | the old size | keeps it; asked again, it is as it should be |
//! | taking devices up or away: some attached | the live part | adopts those; both verbs do the rest |

pub(crate) mod blocks;
mod hand_over;
mod inner;
mod open;
mod receive;
mod reserve;
mod restore;
mod scratch;
mod scrub;
mod verbs;
pub(crate) mod volume;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use holdfast_types::{
    ByteSize, Epoch, OperationId, SnapshotId, SnapshotUuid, TimestampMs, VolumeUid,
};

use crate::catalog::{SnapshotInfo, SnapshotKind, VolumeState};
use crate::holds::Holds;
use crate::members::{Shape, locate};
use crate::pool::{
    Begin, Capacity, Extent, Fragmentation, Offer, Outcome, Pool, PoolIdentity, Quiesce, Scratch,
    Scrubbed, SnapshotReader, Tail, VolumeInfo, round_size,
};
use crate::{Error, Hold, Result};
use blocks::{Blocks, ReadAt};
pub use hand_over::HandOver;
use volume::Volume;

type Index = Arc<Mutex<HashMap<SnapshotUuid, VolumeUid>>>;

/// An open pool. Dropping it leaves devices as they are, for the next life to adopt.
pub struct DirectoryPool<B: Blocks> {
    identity: PoolIdentity,
    root: PathBuf,
    pub(crate) blocks: Arc<B>,
    reserve: reserve::Reserve,
    holds: Holds,
    /// Which volume each snapshot belongs to.
    index: Index,
    volumes: RwLock<BTreeMap<VolumeUid, Arc<Volume<B>>>>,
    /// Held while a volume is made or removed.
    making: Mutex<()>,
}

impl<B: Blocks> DirectoryPool<B> {
    /// The directory that holds everything.
    #[cfg(test)]
    pub(crate) fn root(&self) -> &std::path::Path {
        &self.root
    }

    fn get(&self, uid: VolumeUid) -> Result<Arc<Volume<B>>> {
        let volumes = self.volumes.read().unwrap_or_else(PoisonError::into_inner);
        volumes.get(&uid).cloned().ok_or(Error::NoVolume(uid))
    }

    fn all(&self) -> Vec<Arc<Volume<B>>> {
        let volumes = self.volumes.read().unwrap_or_else(PoisonError::into_inner);
        volumes.values().cloned().collect()
    }

    fn index(&self) -> MutexGuard<'_, HashMap<SnapshotUuid, VolumeUid>> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn owner(&self, snapshot: SnapshotUuid) -> Result<Arc<Volume<B>>> {
        let uid = self.index().get(&snapshot).copied();
        self.get(uid.ok_or(Error::NoSnapshot(snapshot))?)
    }

    /// A held snapshot, its items and shape.
    fn open_held(&self, snapshot: SnapshotUuid) -> Result<Held> {
        let hold = self.hold(snapshot)?;
        let owner = self.owner(snapshot)?;
        let shape = owner.info()?.state.find(snapshot).map(SnapshotInfo::shape);
        let shape = shape.ok_or(Error::NoSnapshot(snapshot))?;
        let items = owner.snapshot_items(snapshot, shape.data.len());
        Ok(Held { hold, items, shape })
    }

    /// Makes a volume of that state, whose live part begins as a clone of `from`.
    fn make(&self, state: VolumeState, from: &[PathBuf]) -> Result<Arc<Volume<B>>> {
        let volume = Arc::new(Volume::make(&self.blocks, &self.root, state, from)?);
        let mut volumes = self.volumes.write().unwrap_or_else(PoisonError::into_inner);
        volumes.insert(volume.uid(), volume.clone());
        Ok(volume)
    }

    fn making(&self) -> MutexGuard<'_, ()> {
        self.making.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B: Blocks> Pool for DirectoryPool<B> {
    fn identity(&self) -> PoolIdentity {
        self.identity
    }

    fn capacity(&self) -> Result<Capacity> {
        let promised = self.volumes().iter().map(|v| v.state.shape().bytes()).sum();
        Ok(Capacity { promised: ByteSize(promised), ..self.blocks.capacity()? })
    }

    fn writable(&self) -> Result<()> {
        self.blocks.writable()
    }

    fn comparable(&self) -> Result<()> {
        self.blocks.comparable()
    }

    fn worn_percent(&self) -> u8 {
        self.blocks.worn_percent()
    }

    fn reserved(&self) -> ByteSize {
        self.reserve.held()
    }

    fn fill_reserve(&self) -> Result<Outcome> {
        self.reserve.fill(&*self.blocks)
    }

    fn spend_reserve(&self) -> Result<Outcome> {
        self.reserve.spend(&*self.blocks)
    }

    fn volumes(&self) -> Vec<VolumeInfo> {
        self.all().iter().filter_map(|volume| volume.info().ok()).collect()
    }

    fn volume(&self, uid: VolumeUid) -> Result<VolumeInfo> {
        self.get(uid)?.info()
    }

    fn create_set(&self, uid: VolumeUid, shape: &Shape, epoch: Epoch) -> Result<Outcome> {
        let shape = shape.rounded()?;
        let _making = self.making();
        if let Ok(volume) = self.get(uid) {
            return volume.info()?.state.made_as(None, &shape, epoch);
        }
        self.capacity()?.admit_volume(ByteSize(shape.bytes()))?;
        self.make(VolumeState::begun(uid, shape, None, epoch), &[]).map(|_| Outcome::Changed)
    }

    fn clone_set(
        &self,
        from: SnapshotUuid,
        uid: VolumeUid,
        shape: &Shape,
        epoch: Epoch,
    ) -> Result<Outcome> {
        let shape = shape.rounded()?;
        let _making = self.making();
        if let Ok(volume) = self.get(uid) {
            return volume.info()?.state.made_as(Some(from), &shape, epoch);
        }
        let origin = self.open_held(from)?;
        if self.owner(from)?.info()?.state.is_rotten(from) {
            return Err(Error::Rotten(from));
        }
        shape.require_at_least(&origin.shape, "it is smaller than what is cloned")?;
        self.capacity()?.admit_volume(ByteSize(shape.bytes()))?;
        let state = VolumeState::begun(uid, shape, Some((from, &origin.shape)), epoch);
        self.make(state, &origin.items).map(|_| Outcome::Changed)
    }

    fn filled(&self, uid: VolumeUid) -> Result<Outcome> {
        self.get(uid)?.change(VolumeState::filled)
    }

    fn resize_member(&self, uid: VolumeUid, member: usize, size: ByteSize) -> Result<Outcome> {
        let size = round_size(size)?;
        self.get(uid)?.resize(member, size)
    }

    fn remove_volume(&self, uid: VolumeUid) -> Result<Outcome> {
        let _making = self.making();
        let Ok(volume) = self.get(uid) else { return Ok(Outcome::AlreadyThere) };
        let mut inner = volume.lock()?;
        inner.refuse_active()?;
        inner.refuse_receiving(&self.holds)?;
        {
            let mut index = self.index();
            let mut snapshots = inner.state.snapshots.iter().map(|s| s.id.uuid);
            if let Some(held) = snapshots.find(|uuid| self.holds.held(*uuid)) {
                return Err(Error::InUse(format!("snapshot {held}")));
            }
            index.retain(|_, owner| *owner != uid);
        }
        let removed = volume.remove(&mut inner);
        match inner.is_removed() {
            // What could not be taken away then has no name any more: the next open does it.
            true => {
                self.volumes.write().unwrap_or_else(PoisonError::into_inner).remove(&uid);
            }
            false => {
                let snapshots = inner.state.snapshots.iter();
                self.index().extend(snapshots.map(|s| (s.id.uuid, uid)));
            }
        }
        removed.map(|()| Outcome::Changed)
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
        let mut inner = volume.lock()?;
        {
            // Out of the index first, under its lock: nothing can hold it from here on.
            let mut index = self.index();
            if self.holds.held(snapshot) {
                return Err(Error::InUse(format!("snapshot {snapshot}")));
            }
            index.remove(&snapshot);
        }
        let result = volume.remove_snapshot(&mut inner, snapshot);
        if inner.state.find(snapshot).is_some() {
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

    fn restore(
        &self,
        uid: VolumeUid,
        from: SnapshotUuid,
        epoch: Epoch,
        request: OperationId,
    ) -> Result<Outcome> {
        self.get(uid)?.restore(from, epoch, request)
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
        let held = self.open_held(snapshot)?;
        let dir = self.root.join("scratch");
        scratch::make(&self.blocks, &dir, snapshot, &held.items, &held.shape)
    }

    fn diff(&self, base: Option<SnapshotUuid>, snapshot: SnapshotUuid) -> Result<Vec<Extent>> {
        let base = base.map(|uuid| self.open_held(uuid)).transpose()?;
        let base = base.as_ref().map_or(&[][..], |base| &base.items);
        let held = self.open_held(snapshot)?;
        verbs::diff(&*self.blocks, base, &held.items, &held.shape)
    }

    fn fragmentation(&self, snapshot: SnapshotUuid) -> Result<Fragmentation> {
        let held = self.open_held(snapshot)?;
        let all = held.items.iter().map(|item| self.blocks.fragmentation(item));
        all.reduce(|a, b| {
            let (a, b) = (a?, b?);
            Ok(Fragmentation { extents: a.extents + b.extents, ..a })
        })
        .unwrap_or(Err(Error::NoSnapshot(snapshot)))
    }

    fn open_snapshot(&self, snapshot: SnapshotUuid) -> Result<Box<dyn SnapshotReader>> {
        let held = self.open_held(snapshot)?;
        let readers = held.items.iter().map(|item| self.blocks.reader(item));
        Ok(Box::new(HeldReader { readers: readers.collect::<Result<_>>()?, held }))
    }

    fn scrub(&self, uid: VolumeUid, blocks: u32) -> Result<Scrubbed> {
        scrub::look(self, uid, blocks, || ())
    }

    fn begin_receive(&self, offer: &Offer) -> Result<Begin> {
        receive::begin(self, offer)
    }

    fn drop_partial(&self, uid: VolumeUid) -> Result<Outcome> {
        let volume = self.get(uid)?;
        let mut inner = volume.lock()?;
        inner.refuse_receiving(&self.holds)?;
        volume.drop_partial(&mut inner)
    }
}

/// A snapshot that is not removed meanwhile.
struct Held {
    hold: Hold,
    items: Vec<PathBuf>,
    shape: Shape,
}

/// Reads of a snapshot, which stays held meanwhile.
struct HeldReader {
    readers: Vec<Box<dyn ReadAt>>,
    held: Held,
}

impl SnapshotReader for HeldReader {
    fn read_at(&mut self, address: u64, buf: &mut [u8]) -> Result<()> {
        let (member, offset) = locate(address);
        let inside = self.held.shape.contains(address, buf.len() as u64);
        match self.readers.get_mut(member).filter(|_| inside) {
            Some(reader) => reader.read_at(offset, buf),
            None => {
                let source = std::io::ErrorKind::UnexpectedEof.into();
                let path = self.held.items.first().cloned().unwrap_or_default();
                Err(Error::Io { what: "reading past the end of", path, source })
            }
        }
    }

    fn expect(&mut self, address: u64, len: u64) {
        let (member, offset) = locate(address);
        if let Some(reader) = self.readers.get_mut(member) {
            reader.expect(offset, len);
        }
    }
}
