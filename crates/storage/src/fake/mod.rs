//! An in-memory pool with the semantics of the real ones, for tests without root.
//!
//! Clones of a [`FakePool`] are the same pool, so a test may "restart" an agent on it. Nothing is
//! mountable: `activate` names a device that does not exist, and content is written with
//! [`FakePool::write`].

mod content;
mod receive;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_types::{
    ByteSize, Epoch, OperationId, SnapshotId, SnapshotUuid, TimestampMs, VolumeUid,
};

use crate::catalog::{HASH_BLOCK, SnapshotInfo, SnapshotKind, VolumeState};
use crate::holds::Holds;
use crate::members::Shape;
use crate::pool::{
    Begin, Capacity, Extent, Fragmentation, Offer, Outcome, Partial, Pool, PoolIdentity, Quiesce,
    Rot, Scratch, Scrubbed, SnapshotReader, Tail, VolumeInfo, round_size,
};
use crate::stream::Applier;
use crate::{Error, Hold, Result};
pub(crate) use content::Content;
use receive::{FakePartial, FakeSink};

/// The pool in memory.
#[derive(Clone)]
pub struct FakePool {
    identity: PoolIdentity,
    size: ByteSize,
    holds: Holds,
    reserved: Arc<Mutex<ByteSize>>,
    damage: Arc<Mutex<Option<Damage>>>,
    /// Counts power cuts.
    life: Arc<AtomicU64>,
    inner: Arc<Mutex<Volumes>>,
}

/// Why a pool takes no writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// It still says how full it is.
    ReadOnly,
    /// Nothing is known of it any more.
    Failed,
}

type Volumes = BTreeMap<VolumeUid, Volume>;

struct Volume {
    state: VolumeState,
    live: Content,
    data: BTreeMap<SnapshotUuid, Content>,
    partial: Option<FakePartial>,
    active: bool,
    /// It has rotted, and nobody has looked.
    spoiled: bool,
}

impl Volume {
    fn new(state: VolumeState, live: Content) -> Self {
        let (partial, active, spoiled) = (None, false, false);
        Self { state, live, data: BTreeMap::new(), partial, active, spoiled }
    }

    fn is_snapshotted(&self) -> bool {
        let head = self.state.live.as_ref().and_then(|live| self.data.get(&live.head?));
        let end = self.state.shape().end();
        head.is_some_and(|head| self.live.diff(head, end).is_empty())
    }

    fn refuse_active(&self) -> Result<()> {
        match self.active {
            true => Err(Error::InUse(format!("the device of volume {}", self.state.uid))),
            false => Ok(()),
        }
    }
}

impl FakePool {
    /// An empty pool of physical `size`.
    pub fn new(identity: PoolIdentity, size: ByteSize) -> Self {
        Self {
            identity,
            size,
            holds: Holds::default(),
            reserved: Arc::default(),
            damage: Arc::default(),
            life: Arc::default(),
            inner: Arc::default(),
        }
    }

    /// Writes to an active volume, by address (see [`members`](crate::members)).
    pub fn write(&self, volume: VolumeUid, offset: u64, data: &[u8]) -> Result<()> {
        self.change_live(volume, |live| live.write(offset, data))
    }

    /// Discards a range of an active volume: it reads as zeros.
    pub fn discard(&self, volume: VolumeUid, offset: u64, len: u64) -> Result<()> {
        self.change_live(volume, |live| live.zero(offset, len))
    }

    /// What the pool holds of a volume rots; no scrub is needed to see it.
    pub fn rot(&self, volume: VolumeUid) -> Result<()> {
        self.with(volume, |volume| {
            let all: Vec<_> = volume.state.snapshots.iter().map(|s| s.id.uuid).collect();
            volume.state.rot(&all);
            Ok(())
        })
    }

    /// What the pool holds of a volume rots, and the next scrub finds it.
    pub fn spoil(&self, volume: VolumeUid) -> Result<()> {
        self.with(volume, |volume| {
            volume.spoiled = true;
            Ok(())
        })
    }

    /// The pool takes no writes from now on: it says so, and gives nothing up.
    pub fn damage(&self, damage: Damage) {
        *self.damage.lock().unwrap_or_else(PoisonError::into_inner) = Some(damage);
    }

    fn damaged(&self) -> Option<Damage> {
        *self.damage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is being received ends where it was last synced, whatever its receiver still does.
    pub fn cut_power(&self) {
        self.life.fetch_add(1, Ordering::SeqCst);
    }

    fn life(&self) -> u64 {
        self.life.load(Ordering::SeqCst)
    }

    fn change_live(&self, uid: VolumeUid, change: impl FnOnce(&mut Content)) -> Result<()> {
        self.with(uid, |volume| {
            if !volume.active {
                return Err(volume.state.wrong("it is not active"));
            }
            change(&mut volume.live);
            Ok(())
        })
    }

    fn lock(&self) -> MutexGuard<'_, Volumes> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, uid: VolumeUid, f: impl FnOnce(&mut Volume) -> Result<T>) -> Result<T> {
        f(self.lock().get_mut(&uid).ok_or(Error::NoVolume(uid))?)
    }

    /// Applies a verb to a copy of the state and stores it if it succeeded.
    fn change(
        &self,
        uid: VolumeUid,
        verb: impl FnOnce(&mut VolumeState) -> Result<Outcome>,
    ) -> Result<Outcome> {
        self.with(uid, |volume| {
            let mut state = volume.state.clone();
            let outcome = verb(&mut state)?;
            volume.state = state;
            Ok(outcome)
        })
    }

    fn owner(&self, snapshot: SnapshotUuid) -> Result<(VolumeUid, Content, SnapshotInfo)> {
        let volumes = self.lock();
        let found = volumes.values().find_map(|v| Some((v, v.state.find(snapshot)?)));
        let (volume, info) = found.ok_or(Error::NoSnapshot(snapshot))?;
        Ok((volume.state.uid, volume.data[&snapshot].clone(), info.clone()))
    }

    fn refuse_receiving(&self, volume: &Volume) -> Result<()> {
        match &volume.partial {
            Some(partial) if self.holds.held(partial.offer.snapshot.uuid) => {
                Err(Error::InUse(format!("the receive into volume {}", volume.state.uid)))
            }
            _ => Ok(()),
        }
    }

    fn info(&self, volume: &Volume) -> VolumeInfo {
        let partial = volume.partial.as_ref().map(|p| Partial {
            snapshot: p.offer.snapshot.uuid,
            base: p.offer.base,
            synced: p.synced,
        });
        let uid = volume.state.uid;
        let data = (1..=volume.state.data.len()).filter(|_| volume.active);
        VolumeInfo {
            state: volume.state.clone(),
            device: volume.active.then(|| device(uid)),
            data_devices: data.map(|m| PathBuf::from(format!("/dev/fake/{uid}+{m}"))).collect(),
            partial,
        }
    }
}

impl Pool for FakePool {
    fn identity(&self) -> PoolIdentity {
        self.identity
    }

    fn capacity(&self) -> Result<Capacity> {
        if self.damaged() == Some(Damage::Failed) {
            self.writable()?;
        }
        let volumes = self.lock();
        let used = volumes
            .values()
            .map(|v| v.live.bytes() + v.data.values().map(Content::bytes).sum::<u64>());
        Ok(Capacity {
            size: self.size,
            used: ByteSize(used.sum::<u64>() + self.reserved().bytes()),
            promised: ByteSize(volumes.values().map(|v| v.state.shape().bytes()).sum()),
            metadata: None,
            threshold_percent: 90,
        })
    }

    fn writable(&self) -> Result<()> {
        self.damaged().map_or(Ok(()), |_| Err(Error::Damaged("fake".to_owned())))
    }

    fn reserved(&self) -> ByteSize {
        *self.reserved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fill_reserve(&self) -> Result<Outcome> {
        self.writable()?;
        let capacity = self.capacity()?;
        let missing = capacity.reserve().bytes().saturating_sub(self.reserved().bytes());
        capacity.admit(ByteSize(missing))?;
        *self.reserved.lock().unwrap_or_else(PoisonError::into_inner) = capacity.reserve();
        Ok(if missing > 0 { Outcome::Changed } else { Outcome::AlreadyThere })
    }

    fn spend_reserve(&self) -> Result<Outcome> {
        self.writable()?;
        let mut reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *reserved, ByteSize(0)) {
            ByteSize(0) => Ok(Outcome::AlreadyThere),
            _ => Ok(Outcome::Changed),
        }
    }

    fn volumes(&self) -> Vec<VolumeInfo> {
        self.lock().values().map(|v| self.info(v)).collect()
    }

    fn volume(&self, uid: VolumeUid) -> Result<VolumeInfo> {
        self.with(uid, |volume| Ok(self.info(volume)))
    }

    fn create_set(&self, uid: VolumeUid, shape: &Shape, epoch: Epoch) -> Result<Outcome> {
        let shape = shape.rounded()?;
        let capacity = self.capacity()?;
        let mut volumes = self.lock();
        if let Some(volume) = volumes.get(&uid) {
            return volume.state.made_as(None, &shape, epoch);
        }
        capacity.admit_volume(ByteSize(shape.bytes()))?;
        let state = VolumeState::begun(uid, shape, None, epoch);
        volumes.insert(uid, Volume::new(state, Content::default()));
        Ok(Outcome::Changed)
    }

    fn clone_set(
        &self,
        from: SnapshotUuid,
        uid: VolumeUid,
        shape: &Shape,
        epoch: Epoch,
    ) -> Result<Outcome> {
        let shape = shape.rounded()?;
        if let Some(volume) = self.lock().get(&uid) {
            return volume.state.made_as(Some(from), &shape, epoch);
        }
        let (owner, content, info) = self.owner(from)?;
        if self.volume(owner)?.state.is_rotten(from) {
            return Err(Error::Rotten(from));
        }
        shape.require_at_least(&info.shape(), "it is smaller than what is cloned")?;
        self.capacity()?.admit_volume(ByteSize(shape.bytes()))?;
        let state = VolumeState::begun(uid, shape, Some((from, &info.shape())), epoch);
        self.lock().insert(uid, Volume::new(state, content));
        Ok(Outcome::Changed)
    }

    fn filled(&self, uid: VolumeUid) -> Result<Outcome> {
        self.change(uid, VolumeState::filled)
    }

    fn resize_member(&self, uid: VolumeUid, member: usize, size: ByteSize) -> Result<Outcome> {
        let size = round_size(size)?;
        self.change(uid, |state| state.resize(member, size))
    }

    fn remove_volume(&self, uid: VolumeUid) -> Result<Outcome> {
        let mut volumes = self.lock();
        let Some(volume) = volumes.get(&uid) else { return Ok(Outcome::AlreadyThere) };
        volume.refuse_active()?;
        self.refuse_receiving(volume)?;
        if let Some(held) = volume.data.keys().find(|uuid| self.holds.held(**uuid)) {
            return Err(Error::InUse(format!("snapshot {held}")));
        }
        volumes.remove(&uid);
        Ok(Outcome::Changed)
    }

    fn snapshot(
        &self,
        id: &SnapshotId,
        taken: TimestampMs,
        quiesce: &mut dyn Quiesce,
    ) -> Result<Outcome> {
        let outcome = self.with(id.volume, |v| v.state.clone().add_snapshot(id, taken))?;
        if outcome == Outcome::AlreadyThere {
            return Ok(outcome);
        }
        if quiesce.at_rest() {
            self.with(id.volume, |v| v.refuse_active())?;
        }
        let frozen = quiesce.freeze(&[]);
        let result = frozen.and_then(|()| {
            self.with(id.volume, |volume| {
                let outcome = volume.state.add_snapshot(id, taken)?;
                volume.data.insert(id.uuid, volume.live.clone());
                Ok(outcome)
            })
        });
        quiesce.thaw()?;
        result
    }

    fn label_snapshot(&self, snapshot: SnapshotUuid, kind: SnapshotKind) -> Result<Outcome> {
        let (uid, ..) = self.owner(snapshot)?;
        self.change(uid, |state| state.label(snapshot, kind))
    }

    fn remove_snapshot(&self, snapshot: SnapshotUuid) -> Result<Outcome> {
        let Ok((uid, ..)) = self.owner(snapshot) else { return Ok(Outcome::AlreadyThere) };
        self.with(uid, |volume| {
            if self.holds.held(snapshot) {
                return Err(Error::InUse(format!("snapshot {snapshot}")));
            }
            volume.data.remove(&snapshot);
            Ok(volume.state.forget(snapshot))
        })
    }

    fn hold(&self, snapshot: SnapshotUuid) -> Result<Hold> {
        let volumes = self.lock();
        match volumes.values().any(|v| v.state.find(snapshot).is_some()) {
            true => Ok(self.holds.take(snapshot)),
            false => Err(Error::NoSnapshot(snapshot)),
        }
    }

    fn promote(&self, uid: VolumeUid, from: SnapshotUuid, epoch: Epoch) -> Result<Outcome> {
        self.with(uid, |volume| {
            let outcome = volume.state.promote(from, epoch)?;
            if outcome == Outcome::Changed {
                volume.live = volume.data[&from].clone();
                volume.partial = None;
            }
            Ok(outcome)
        })
    }

    fn continue_live(&self, uid: VolumeUid, epoch: Epoch) -> Result<Outcome> {
        self.change(uid, |state| state.continue_live(epoch))
    }

    fn demote(
        &self,
        uid: VolumeUid,
        to: Option<SnapshotUuid>,
        tail: Option<&Tail>,
    ) -> Result<Outcome> {
        self.with(uid, |volume| {
            volume.refuse_active()?;
            let had_live = volume.state.live.is_some();
            let mut state = volume.state.clone();
            let outcome = state.demote(to, tail)?;
            if had_live && tail.is_none() && !volume.is_snapshotted() {
                return Err(volume.state.unkept());
            }
            volume.state = state;
            let live = std::mem::take(&mut volume.live);
            if let Some(tail) = tail.filter(|_| had_live) {
                volume.data.insert(tail.uuid, live);
            }
            Ok(outcome)
        })
    }

    fn restore(
        &self,
        uid: VolumeUid,
        from: SnapshotUuid,
        epoch: Epoch,
        request: OperationId,
    ) -> Result<Outcome> {
        self.with(uid, |volume| {
            let mut state = volume.state.clone();
            if state.restore(from, epoch, request)? == Outcome::AlreadyThere {
                return Ok(Outcome::AlreadyThere);
            }
            volume.refuse_active()?;
            if !volume.is_snapshotted() {
                return Err(volume.state.unkept());
            }
            volume.state = state;
            volume.live = volume.data[&from].clone();
            Ok(Outcome::Changed)
        })
    }

    fn seal(&self, uid: VolumeUid, up_to: Epoch) -> Result<Outcome> {
        self.change(uid, |state| Ok(state.seal(up_to)))
    }

    fn release(&self, uid: VolumeUid, epoch: Epoch) -> Result<Outcome> {
        self.with(uid, |volume| {
            volume.refuse_active()?;
            Ok(volume.state.release(epoch))
        })
    }

    fn set_role(&self, uid: VolumeUid, role: &str) -> Result<Outcome> {
        self.change(uid, |state| state.set_role(role))
    }

    fn activate(&self, uid: VolumeUid, epoch: Epoch) -> Result<PathBuf> {
        self.with(uid, |volume| {
            volume.state.may_activate(epoch)?;
            volume.active = true;
            Ok(device(uid))
        })
    }

    fn deactivate(&self, uid: VolumeUid) -> Result<Outcome> {
        self.with(uid, |volume| match std::mem::take(&mut volume.active) {
            true => Ok(Outcome::Changed),
            false => Ok(Outcome::AlreadyThere),
        })
    }

    fn scratch(&self, snapshot: SnapshotUuid) -> Result<Box<dyn Scratch>> {
        let hold = self.hold(snapshot)?;
        let device = PathBuf::from(format!("/dev/fake/scratch-{snapshot}"));
        Ok(Box::new(FakeScratch { device, _hold: hold }))
    }

    fn diff(&self, base: Option<SnapshotUuid>, snapshot: SnapshotUuid) -> Result<Vec<Extent>> {
        let base = base.map(|uuid| self.owner(uuid)).transpose()?.map(|(_, content, _)| content);
        let (_, content, info) = self.owner(snapshot)?;
        Ok(content.diff(&base.unwrap_or_default(), info.shape().end()))
    }

    fn fragmentation(&self, snapshot: SnapshotUuid) -> Result<Fragmentation> {
        let extents = self.diff(None, snapshot)?.len() as u64;
        Ok(Fragmentation { extents, comfortable: 3_000 })
    }

    fn open_snapshot(&self, snapshot: SnapshotUuid) -> Result<Box<dyn SnapshotReader>> {
        let hold = self.hold(snapshot)?;
        let (_, content, info) = self.owner(snapshot)?;
        Ok(Box::new(FakeReader { content, shape: info.shape(), _hold: hold }))
    }

    /// Memory does not rot by itself.
    fn scrub(&self, uid: VolumeUid, blocks: u32) -> Result<Scrubbed> {
        self.with(uid, |volume| {
            if let Some(snapshot) = volume.state.newest().map(|s| s.id.uuid)
                && std::mem::take(&mut volume.spoiled)
            {
                volume.state.rot(&[snapshot]);
                let rot = Some(Rot { snapshot, offset: 0, unreadable: false });
                return Ok(Scrubbed { read: HASH_BLOCK, compared: HASH_BLOCK, whole: false, rot });
            }
            let size = volume.state.shape().bytes();
            let first = volume.state.scrub.next * HASH_BLOCK;
            let end = size.min(first + u64::from(blocks) * HASH_BLOCK);
            let (read, whole) = (end - first, end == size);
            volume.state.scrub.next = if whole { 0 } else { end / HASH_BLOCK };
            Ok(Scrubbed { read, compared: read, whole, rot: None })
        })
    }

    fn begin_receive(&self, offer: &Offer) -> Result<Begin> {
        let uid = offer.snapshot.volume;
        if let Ok((owner, _, info)) = self.owner(offer.snapshot.uuid)
            && !self.volume(owner)?.state.is_rotten(info.id.uuid)
        {
            return Ok(Begin::AlreadyThere(info));
        }
        offer.check()?;
        let base = match offer.base {
            None => None,
            Some(base) => {
                let hold = self.hold(base).map_err(|_| Error::WrongBase { volume: uid, base })?;
                let (owner, content, info) = self.owner(base)?;
                if self.volume(owner)?.state.is_rotten(base) {
                    return Err(Error::Rotten(base));
                }
                let reason = "it is smaller than the base";
                offer.shape().require_at_least(&info.shape(), reason)?;
                Some((hold, content))
            }
        };
        self.capacity()?.admit_volume(ByteSize(offer.shape().bytes()))?;
        let (hold, content) = base.unzip();
        let mut volumes = self.lock();
        let volume = volumes.entry(uid).or_insert_with(|| {
            Volume::new(VolumeState::of(uid, offer.shape()), Content::default())
        });
        volume.state.admit_receive(offer)?;
        self.refuse_receiving(volume)?;
        let partial = match volume.partial.take() {
            Some(partial) if partial.offer == *offer => partial,
            _ => FakePartial {
                offer: offer.clone(),
                content: content.unwrap_or_default(),
                synced: 0,
            },
        };
        volume.partial = Some(partial.clone());
        let synced = partial.synced;
        let holds = (hold, self.holds.take(offer.snapshot.uuid));
        let sink = FakeSink { pool: self.clone(), life: self.life(), partial, _holds: holds };
        Ok(Begin::Receive(Box::new(Applier::new(offer.clone(), synced, Box::new(sink)))))
    }

    fn drop_partial(&self, uid: VolumeUid) -> Result<Outcome> {
        self.writable()?;
        self.with(uid, |volume| {
            self.refuse_receiving(volume)?;
            match volume.partial.take() {
                Some(_) => Ok(Outcome::Changed),
                None => Ok(Outcome::AlreadyThere),
            }
        })
    }
}

fn device(uid: VolumeUid) -> PathBuf {
    PathBuf::from(format!("/dev/fake/{uid}"))
}

struct FakeReader {
    content: Content,
    shape: Shape,
    _hold: Hold,
}

impl SnapshotReader for FakeReader {
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<()> {
        if !self.shape.contains(offset, buf.len() as u64) {
            let source = std::io::ErrorKind::UnexpectedEof.into();
            return Err(Error::Io { what: "reading", path: "/dev/fake".into(), source });
        }
        self.content.read(offset, buf);
        Ok(())
    }
}

struct FakeScratch {
    device: PathBuf,
    _hold: Hold,
}

impl Scratch for FakeScratch {
    fn device(&self) -> &Path {
        &self.device
    }

    fn data_devices(&self) -> Vec<&Path> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use holdfast_types::ClusterId;
    use uuid::Uuid;

    use super::*;
    use crate::conformance::{self, Rig};

    impl Rig for FakePool {
        fn pool(&self) -> &dyn Pool {
            self
        }
        fn write(&self, volume: VolumeUid, offset: u64, data: &[u8]) {
            FakePool::write(self, volume, offset, data).unwrap();
        }
        fn discard(&self, volume: VolumeUid, offset: u64, len: u64) {
            FakePool::discard(self, volume, offset, len).unwrap();
        }
        fn reopen(&mut self) {
            self.lock().values_mut().for_each(|volume| volume.active = false);
        }
    }

    #[test]
    fn the_fake_conforms() {
        let pool = || {
            let identity = PoolIdentity { cluster: ClusterId::generate(), pool: Uuid::now_v7() };
            FakePool::new(identity, ByteSize::gib(1))
        };
        conformance::run(&mut pool(), &mut pool());
        conformance::at_random(&mut pool(), &mut pool(), 20);
    }
}
