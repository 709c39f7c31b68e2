//! Receiving a delta: into a clone of the base, under a name that nothing mounts or lists.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use holdfast_types::ByteSize;

use super::blocks::{Blocks, WriteAt};
use super::inner::{Inner, StoredPartial};
use super::volume::{self, Volume};
use super::{DirectoryPool, Index, scrub};
use crate::catalog::{SnapshotInfo, Touched, VolumeState};
use crate::members::locate;
use crate::pool::{Begin, Offer, Pool};
use crate::stream::{Applier, Sink, StreamError};
use crate::{Error, Hold, Result};

pub(super) fn begin<B: Blocks>(pool: &DirectoryPool<B>, offer: &Offer) -> Result<Begin> {
    let uid = offer.snapshot.volume;
    let uuid = offer.snapshot.uuid;
    if let Ok(owner) = pool.owner(uuid)
        && let state = owner.info()?.state
        && !state.replaces(&offer.snapshot)
    {
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
            let found = pool.open_held(base).map_err(wrong)?;
            if pool.owner(base)?.info()?.state.is_rotten(base) {
                return Err(Error::Rotten(base));
            }
            Some(found)
        }
    };
    if let Some(base) = &base {
        offer.shape().require_at_least(&base.shape, "it is smaller than the base")?;
    }
    if let Ok(volume) = pool.get(uid) {
        // What was left of another transfer is room in a pool that may have no other.
        let mut inner = volume.lock()?;
        inner.state.admit_receive(offer)?;
        inner.refuse_receiving(&pool.holds)?;
        if inner.partial.as_ref().is_some_and(|partial| partial.offer != *offer) {
            volume.drop_partial(&mut inner)?;
        }
    }
    pool.capacity()?.admit_volume(ByteSize(offer.shape().bytes()))?;
    pool.blocks.admit_snapshot()?;
    let volume = find_or_make(pool, offer)?;
    let mut inner = volume.lock()?;
    inner.state.admit_receive(offer)?;
    inner.refuse_receiving(&pool.holds)?;
    let items = volume.part_items(uuid, offer.data.len());
    let partial = match inner.partial.clone().filter(|p| p.offer == *offer) {
        Some(partial) => partial,
        None => {
            volume.drop_partial(&mut inner)?;
            let from = base.as_ref().map_or(&[][..], |base| &base.items);
            if let Err(error) = volume::begin(&*pool.blocks, from, &items, &offer.shape()) {
                items.iter().try_for_each(|item| pool.blocks.remove(item))?;
                return Err(error);
            }
            StoredPartial { offer: offer.clone(), synced: 0, touched: Touched::default() }
        }
    };
    inner.partial = Some(partial.clone());
    let synced = partial.synced;
    let sink = ItemSink {
        partial,
        filling: items.iter().map(|item| pool.blocks.writer(item)).collect::<Result<_>>()?,
        items,
        volume: volume.clone(),
        index: pool.index.clone(),
        _holds: (base.map(|base| base.hold), pool.holds.take(uuid)),
        unsynced: 0,
    };
    Ok(Begin::Receive(Box::new(Applier::new(offer.clone(), synced, Box::new(sink)))))
}

fn find_or_make<B: Blocks>(pool: &DirectoryPool<B>, offer: &Offer) -> Result<Arc<Volume<B>>> {
    let _making = pool.making();
    match pool.get(offer.snapshot.volume) {
        Ok(volume) => Ok(volume),
        Err(_) => pool.make(VolumeState::of(offer.snapshot.volume, offer.shape()), &[]),
    }
}

struct ItemSink<B: Blocks> {
    partial: StoredPartial,
    items: Vec<PathBuf>,
    filling: Vec<Box<dyn WriteAt>>,
    volume: Arc<Volume<B>>,
    index: Index,
    /// On the base, and on the snapshot that is to be: a second receive of it is refused.
    _holds: (Option<Hold>, Hold),
    /// Bytes that may have yet to take their room.
    unsynced: u64,
}

/// How many bytes are written between two looks at the pool's room.
const LOOK_EVERY: u64 = 4 << 20;

impl<B: Blocks> ItemSink<B> {
    fn flush(&mut self) -> Result<()> {
        self.filling.iter_mut().try_for_each(|filling| filling.sync())?;
        self.unsynced = 0;
        Ok(())
    }

    /// I20: what was written takes its room only when it is synced, so it is counted before. If it
    /// would be too much, some of it may be counted twice: then it is synced first.
    fn keep_within_margin(&mut self) -> Result<()> {
        let blocks = self.volume.blocks.clone();
        if blocks.refuse_beyond_margin(ByteSize(self.unsynced)).is_err() {
            blocks.refuse_beyond_margin(ByteSize(0))?;
            self.flush()?;
            blocks.refuse_beyond_margin(ByteSize(0))?;
        }
        Ok(())
    }

    fn at(&mut self, address: u64) -> Result<(&mut dyn WriteAt, u64)> {
        let (member, offset) = locate(address);
        match self.filling.get_mut(member) {
            Some(filling) => Ok((&mut **filling, offset)),
            None => Err(StreamError::Malformed(address).into()),
        }
    }
}

impl<B: Blocks> Sink for ItemSink<B> {
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        self.partial.touched.add(offset, data.len() as u64);
        let (filling, within) = self.at(offset)?;
        filling.write_at(within, data)?;
        let before = self.unsynced;
        self.unsynced += data.len() as u64;
        match self.unsynced / LOOK_EVERY > before / LOOK_EVERY {
            true => self.keep_within_margin(),
            false => Ok(()),
        }
    }

    fn zero(&mut self, offset: u64, len: u64) -> Result<()> {
        self.partial.touched.add(offset, len);
        let (filling, offset) = self.at(offset)?;
        filling.zero(offset, len)
    }

    fn sync(&mut self, offset: u64) -> Result<()> {
        self.keep_within_margin()?;
        self.flush()?;
        self.partial.synced = offset;
        self.volume.store_partial(&self.partial)
    }

    fn commit(mut self: Box<Self>) -> Result<SnapshotInfo> {
        self.keep_within_margin()?;
        self.flush()?;
        let mut inner = self.volume.lock()?;
        let mut next = inner.state.clone();
        // The epoch is checked again: a seal may have come meanwhile (I11).
        let replaces = next.replaces(&self.partial.offer.snapshot);
        let info = match next.add_received(&self.partial.offer) {
            Ok(info) => info,
            Err(error) => {
                self.filling.clear();
                self.volume.drop_partial(&mut inner)?;
                return Err(error);
            }
        };
        next.received(&self.partial.offer, &self.partial.touched);
        if let Err(error) = self.volume.take_in(&mut inner, next, replaces, &self) {
            // Nobody knows which of its items have their name by now.
            inner.partial = None;
            return Err(error);
        }
        self.volume.end_partial(&mut inner);
        drop(inner);
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        index.insert(info.id.uuid, info.id.volume);
        Ok(info)
    }

    /// A driver cannot take away what is open.
    fn discard(mut self: Box<Self>) {
        self.filling.clear();
        let dropped = self.volume.lock().and_then(|mut inner| self.volume.drop_partial(&mut inner));
        if let Err(error) = dropped {
            tracing::debug!(%error, "a refused receive stays until the next one");
        }
    }
}

impl<B: Blocks> Volume<B> {
    /// Names what was received as the snapshot that it is, and makes `next` the state.
    fn take_in(
        &self,
        inner: &mut Inner<B>,
        next: VolumeState,
        replaces: bool,
        received: &ItemSink<B>,
    ) -> Result<()> {
        let Offer { snapshot, data, .. } = &received.partial.offer;
        let paths = self.snapshot_items(snapshot.uuid, data.len());
        // A rotten snapshot of that name keeps its items until the new one is committed.
        let old = match replaces {
            true => self.old_items(snapshot.uuid, data.len()),
            false => Vec::new(),
        };
        match replaces {
            true => {
                old.iter().zip(&paths).try_for_each(|(old, path)| self.blocks.link(path, old))?
            }
            false => paths.iter().try_for_each(|left| self.blocks.remove(left))?,
        }
        for (item, path) in received.items.iter().zip(&paths) {
            fs::rename(item, path).map_err(Error::io("naming", path))?;
        }
        if next.scrub.of != inner.state.scrub.of && next.scrub.life == inner.state.scrub.life {
            scrub::strike(&self.hashes_path(), &received.partial.touched)?;
        }
        self.commit(inner, next)?;
        inner.written(&received.partial);
        old.iter().try_for_each(|old| self.blocks.remove(old))
    }
}
