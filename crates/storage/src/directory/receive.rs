//! Receiving a delta: into a clone of the base, under a name that nothing mounts or lists.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use holdfast_types::ByteSize;

use super::blocks::{Blocks, WriteAt};
use super::inner::StoredPartial;
use super::volume::Volume;
use super::{DirectoryPool, Index};
use crate::catalog::{SnapshotInfo, Touched, VolumeState};
use crate::pool::{Begin, Offer, Pool};
use crate::stream::{Applier, Sink};
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
    if base.as_ref().is_some_and(|(_, _, size)| *size > offer.size) {
        return Err(Error::BadSize { size: offer.size, reason: "it is smaller than the base" });
    }
    pool.capacity()?.admit(ByteSize(0))?;
    let volume = find_or_make(pool, offer)?;
    let mut inner = volume.lock()?;
    inner.state.admit_receive(offer)?;
    inner.refuse_receiving(&pool.holds)?;
    let item = volume.part_path(uuid);
    let partial = match inner.partial.clone().filter(|p| p.offer == *offer) {
        Some(partial) => partial,
        None => {
            volume.drop_partial(&mut inner)?;
            match &base {
                Some((_, base, _)) => pool.blocks.clone_item(base, &item, offer.size.bytes())?,
                None => pool.blocks.create(&item, offer.size.bytes())?,
            }
            StoredPartial { offer: *offer, synced: 0, touched: Touched::default() }
        }
    };
    inner.partial = Some(partial.clone());
    let synced = partial.synced;
    let sink = ItemSink {
        partial,
        filling: pool.blocks.writer(&item)?,
        item,
        volume: volume.clone(),
        index: pool.index.clone(),
        _holds: (base.map(|(hold, ..)| hold), pool.holds.take(uuid)),
    };
    Ok(Begin::Receive(Box::new(Applier::new(*offer, synced, Box::new(sink)))))
}

fn find_or_make<B: Blocks>(pool: &DirectoryPool<B>, offer: &Offer) -> Result<Arc<Volume<B>>> {
    let _making = pool.making();
    match pool.get(offer.snapshot.volume) {
        Ok(volume) => Ok(volume),
        Err(_) => pool.make(VolumeState::empty(offer.snapshot.volume, offer.size), None),
    }
}

struct ItemSink<B: Blocks> {
    partial: StoredPartial,
    item: PathBuf,
    filling: Box<dyn WriteAt>,
    volume: Arc<Volume<B>>,
    index: Index,
    /// On the base, and on the snapshot that is to be: a second receive of it is refused.
    _holds: (Option<Hold>, Hold),
}

impl<B: Blocks> Sink for ItemSink<B> {
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        self.partial.touched.add(offset, data.len() as u64);
        self.filling.write_at(offset, data)
    }

    fn zero(&mut self, offset: u64, len: u64) -> Result<()> {
        self.partial.touched.add(offset, len);
        self.filling.zero(offset, len)
    }

    fn sync(&mut self, offset: u64) -> Result<()> {
        self.volume.blocks.refuse_beyond_margin()?;
        self.filling.sync()?;
        self.partial.synced = offset;
        self.volume.store_partial(&self.partial)
    }

    fn commit(mut self: Box<Self>) -> Result<SnapshotInfo> {
        self.filling.sync()?;
        let mut inner = self.volume.lock()?;
        let mut next = inner.state.clone();
        // The epoch is checked again: a seal may have come meanwhile (I11).
        let replaces = next.replaces(&self.partial.offer.snapshot);
        let info = match next.add_received(&self.partial.offer) {
            Ok(info) => info,
            Err(error) => {
                self.volume.drop_partial(&mut inner)?;
                return Err(error);
            }
        };
        next.received(&self.partial.offer, &self.partial.touched);
        let before = inner.state.scrub.of;
        let path = self.volume.snapshot_path(info.id.uuid);
        // A rotten snapshot of that name keeps its item until the new one is committed.
        let old = replaces.then(|| self.volume.old_path(info.id.uuid));
        if let Some(old) = &old {
            self.volume.blocks.link(&path, old)?;
        }
        fs::rename(&self.item, &path).map_err(Error::io("naming", &path))?;
        self.volume.commit(&mut inner, next)?;
        inner.written(before, &self.partial);
        if let Some(old) = &old {
            self.volume.blocks.remove(old)?;
        }
        self.volume.end_partial(&mut inner);
        drop(inner);
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        index.insert(info.id.uuid, info.id.volume);
        Ok(info)
    }

    fn discard(self: Box<Self>) {
        let dropped = self.volume.lock().and_then(|mut inner| self.volume.drop_partial(&mut inner));
        if let Err(error) = dropped {
            tracing::debug!(%error, "a refused receive stays until the next one");
        }
    }
}
