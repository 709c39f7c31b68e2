//! Items as thin devices.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use holdfast_types::ByteSize;
use rustix::io::Errno;

use super::counts::Counts;
use super::device::{ThinDevice, View};
use super::note::Note;
use super::thin::ThinPool;
use crate::directory::blocks::{Blocks, Part, RESERVE, ReadAt, WriteAt};
use crate::directory::volume::is_item;
use crate::pool::{Capacity, Extent, Fragmentation, Quiesce};
use crate::{Error, Result, durable, fsys};

/// `thin_delta` compared two devices of a million pieces each in a third of a second.
const COMFORTABLE_EXTENTS: u64 = 500_000;

/// The thin devices of one pool, named by the files of its catalog.
#[derive(Debug)]
pub struct ThinItems {
    pub(super) pool: Arc<ThinPool>,
    /// Where the catalog is mounted.
    pub(super) root: PathBuf,
    /// Whether every volume is loaded: before, a name that is removed may be one of two.
    pub(super) settled: AtomicBool,
    /// In how many pieces large volumes lie.
    pub(super) counts: Counts,
    /// Keeps every other process out.
    pub(super) _lock: File,
}

impl ThinItems {
    fn note(&self, item: &Path) -> Result<Note> {
        let note = Note::load(item)?;
        match self.pool.has(note.id) {
            true => Ok(note),
            false => Err(Error::Corrupt {
                path: item.into(),
                reason: format!("the thin pool has no device {}", note.id),
            }),
        }
    }

    /// Has every chunk of an item from there on taken.
    fn take_room(&self, note: Note, from: u64) -> Result<()> {
        let mut view = View::open(&self.pool, note, false)?;
        for chunk in (from..note.size).step_by(self.pool.limits.chunk as usize) {
            view.write_at(chunk, &[0; 4096])?;
        }
        view.sync()
    }

    /// Makes the clones, at a moment when no request is under way.
    fn take(&self, notes: &[Note]) -> Result<Vec<u32>> {
        let mut ids = Vec::with_capacity(notes.len());
        for note in notes {
            match self.pool.snapshot(note.id) {
                Ok(id) => ids.push(id),
                Err(error) => return self.give_back(&ids).and(Err(error)),
            }
        }
        Ok(ids)
    }

    fn give_back(&self, ids: &[u32]) -> Result<()> {
        ids.iter().try_for_each(|id| self.pool.delete(*id))
    }
}

impl Blocks for ThinItems {
    type Device = ThinDevice;
    /// Every device is found by its name.
    type Attached = ();

    fn create(&self, item: &Path, size: u64) -> Result<()> {
        self.remove(item)?;
        Note { id: self.pool.create()?, size }.store(item)
    }

    fn clone_item(&self, from: &Path, item: &Path, size: u64) -> Result<()> {
        self.remove(item)?;
        let from = self.note(from)?;
        Note { id: self.pool.snapshot(from.id)?, size }.store(item)
    }

    fn snapshot(&self, parts: &[Part<'_, ThinDevice>], quiesce: &mut dyn Quiesce) -> Result<()> {
        parts.iter().try_for_each(|part| self.remove(part.item))?;
        let notes = parts.iter().map(|part| self.note(part.live)).collect::<Result<Vec<_>>>()?;
        // A full pool holds requests back, and with them whoever waits for them to end.
        self.pool.require_writable()?;
        self.pool.wear().admit()?;
        let devices = parts.iter().filter_map(|part| part.device);
        let hold: Vec<&str> = devices.map(|device| device.mapped.name.as_str()).collect();
        // A pool that LVM is at work on may be suspended, which no frozen filesystem waits for.
        let group = (!hold.is_empty()).then(|| self.pool.lock_group()).transpose()?;
        let taken = quiesce.freeze(&hold).and_then(|()| self.take(&notes));
        drop(group);
        let thawed = quiesce.thaw();
        let ids = taken?;
        // A window that closed early was no window: the snapshots are not used.
        if let Err(error) = thawed {
            return self.give_back(&ids).and(Err(error));
        }
        let mut named = parts.iter().zip(&notes).zip(&ids);
        let stored =
            named.try_for_each(|((part, note), id)| Note { id: *id, ..*note }.store(part.item));
        if stored.is_err() {
            for (part, id) in parts.iter().zip(&ids) {
                durable::remove_file(part.item)?;
                self.pool.delete(*id)?;
            }
        }
        stored
    }

    fn grow(&self, item: &Path, device: Option<&ThinDevice>, size: u64) -> Result<()> {
        let note = self.note(item)?;
        Note { size, ..note }.store(item)?;
        match device {
            Some(device) => self.pool.resize(&device.mapped, note.id, size),
            None => Ok(()),
        }
    }

    /// Messages are committed when they return; content is, once its device is flushed.
    fn sync(&self, item: &Path) -> Result<()> {
        View::open(&self.pool, self.note(item)?, false)?.sync()
    }

    fn remove(&self, item: &Path) -> Result<()> {
        let Some((note, has_other_name)) = Note::find(item)? else { return Ok(()) };
        durable::remove_file(item)?;
        if has_other_name || !self.settled.load(Ordering::SeqCst) {
            return Ok(());
        }
        // A message is durable at once: the names that lead to the device must be gone before it.
        durable::sync_dir(item.parent().unwrap_or(Path::new("/")))?;
        // From here on, what goes wrong is put right by the next removal, or the next open.
        if let Err(error) = self.pool.discard(note.id) {
            tracing::warn!(%error, id = note.id, "a thin device that nothing names stays for now");
        }
        Ok(())
    }

    fn may_free(&self) -> Result<()> {
        self.pool.require_messages()
    }

    fn diff(&self, base: Option<&Path>, item: &Path, size: u64) -> Result<Vec<Extent>> {
        let base = base.map(|base| self.note(base)).transpose()?;
        let delta = self.pool.delta(base.map(|base| base.id), self.note(item)?.id, size)?;
        Ok(delta.extents)
    }

    /// As many pieces as chunks, at most: that much a device says of itself. Only where this may be
    /// too many they are counted, which reads all of the device's metadata, and now and then.
    fn fragmentation(&self, item: &Path) -> Result<Fragmentation> {
        let note = self.note(item)?;
        let chunks = View::open(&self.pool, note, true)?.mapped_chunks()?;
        let extents = match chunks > COMFORTABLE_EXTENTS {
            true => self.counts.of(item.parent().unwrap_or(item), || {
                Ok(self.pool.delta(None, note.id, note.size)?.extents.len() as u64)
            })?,
            false => chunks,
        };
        Ok(Fragmentation { extents, comfortable: COMFORTABLE_EXTENTS })
    }

    fn reader(&self, item: &Path) -> Result<Box<dyn ReadAt>> {
        Ok(Box::new(View::open(&self.pool, self.note(item)?, true)?))
    }

    fn writer(&self, item: &Path) -> Result<Box<dyn WriteAt>> {
        Ok(Box::new(View::open(&self.pool, self.note(item)?, false)?))
    }

    fn attach(&self, item: &Path) -> Result<ThinDevice> {
        let note = self.note(item)?;
        let mapped = self.pool.attach(note.id, note.size)?;
        Ok(ThinDevice::new(self.pool.clone(), mapped))
    }

    fn attached(&self) -> Result<()> {
        Ok(())
    }

    fn adopt(&self, item: &Path, (): &()) -> Result<Option<ThinDevice>> {
        let mapped = self.pool.find(self.note(item)?.id)?;
        Ok(mapped.map(|mapped| ThinDevice::new(self.pool.clone(), mapped)))
    }

    fn capacity(&self) -> Result<Capacity> {
        let status = self.pool.status()?;
        // Of a pool that has failed nothing is known: it is neither full nor empty.
        if status.mode.is_none()
            && let Some(refusal) = status.refusal(&self.pool.limits)
        {
            return Err(refusal);
        }
        let (used, size) = status.data_bytes(self.pool.limits.chunk);
        Ok(Capacity {
            size,
            used,
            promised: ByteSize(0),
            metadata: Some(status.metadata_bytes()),
            threshold_percent: self.pool.limits.threshold_percent,
        })
    }

    fn writable(&self) -> Result<()> {
        self.pool.require_writable()?;
        match fsys::is_read_only(&self.root)? {
            false => Ok(()),
            true => Err(Error::io("writing to the catalog at", &self.root)(Errno::ROFS)),
        }
    }

    fn comparable(&self) -> Result<()> {
        self.pool.refuse_held_by_others()
    }

    fn answers(&self) -> Result<()> {
        self.pool.answers()
    }

    /// The catalog grows with its group alone, and what cannot be written there cannot be promised.
    fn has_room_for_notes(&self) -> Result<bool> {
        let stat =
            rustix::fs::statvfs(&self.root).map_err(|e| Error::io("asking", &self.root)(e))?;
        Ok(stat.f_bavail > stat.f_blocks / 2)
    }

    fn admit_snapshot(&self) -> Result<()> {
        self.pool.wear().admit()
    }

    fn worn_percent(&self) -> u8 {
        self.pool.wear().percent()
    }

    fn reserved(&self, item: &Path) -> Result<u64> {
        Ok(Note::find(item)?.filter(|(note, _)| self.pool.has(note.id)).map_or(0, |(n, _)| n.size))
    }

    /// Chunks are taken by writing to each: dm-thin has no other way. The note follows what is
    /// there, so that a crash only has some of it written again.
    fn reserve(&self, item: &Path, from: u64, upto: u64) -> Result<()> {
        let id = match from {
            0 => {
                self.remove(item)?;
                self.pool.create()?
            }
            _ => self.note(item)?.id,
        };
        let grown = Note { id, size: upto };
        let took = self.take_room(grown, from);
        if took.is_err() && from == 0 {
            self.pool.delete(id)?;
        }
        took?;
        grown.store(item)
    }

    /// A device that no file of the catalog names was being made or removed when a crash came. One
    /// that is named and not there was lost: nothing is guessed.
    fn settle(&self) -> Result<()> {
        let named = notes(&self.root.join("volumes"))?;
        if let Some((id, path)) = named.iter().find(|(id, _)| !self.pool.has(**id)) {
            return Err(Error::Corrupt {
                path: path.clone(),
                reason: format!("the thin pool has no device {id}"),
            });
        }
        let path = self.root.join(RESERVE);
        let mut reserve = Note::find(&path)?.map(|(note, _)| note.id);
        if reserve.is_some_and(|id| !self.pool.has(id)) {
            // A repair lost it. Its id may be another's some day, which must not be removed as this.
            durable::remove_file(&path)?;
            reserve = None;
        }
        self.pool.keep_only(&named.into_keys().chain(reserve).collect())?;
        self.settled.store(true, Ordering::SeqCst);
        Ok(())
    }
}

/// The ids that the items below `volumes` name, each with a name of it.
fn notes(volumes: &Path) -> Result<BTreeMap<u32, PathBuf>> {
    let mut named: BTreeMap<u32, PathBuf> = BTreeMap::new();
    for volume in fs::read_dir(volumes).map_err(Error::io("listing", volumes))? {
        let volume = volume.map_err(Error::io("listing", volumes))?.path();
        for item in fs::read_dir(&volume).map_err(Error::io("listing", &volume))? {
            let item = item.map_err(Error::io("listing", &volume))?.path();
            // What else is there, such as the hashes of a scrub, is no business of the pool's.
            if !is_item(&item) {
                continue;
            }
            let id = Note::load(&item)?.id;
            if let Some(other) = named.insert(id, item.clone())
                && !same_file(&other, &item)?
            {
                let reason = format!("{} names the thin device {id} too", other.display());
                return Err(Error::Corrupt { path: item, reason });
            }
        }
    }
    Ok(named)
}

fn same_file(a: &Path, b: &Path) -> Result<bool> {
    let inode = |path: &Path| {
        let meta = fs::metadata(path).map_err(Error::io("reading", path))?;
        Ok::<_, Error>((meta.dev(), meta.ino()))
    };
    Ok(inode(a)? == inode(b)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lvm::note::FIRST_ID;

    /// A node whose replicas had been scrubbed once could never open its pool again: the list of
    /// hashes was taken for an item.
    #[test]
    fn only_items_are_read_as_items() {
        let volumes = tempfile::tempdir().unwrap();
        let volume = volumes.path().join("0190-volume");
        fs::create_dir(&volume).unwrap();
        let note = Note { id: FIRST_ID, size: 8 << 20 };
        note.store(&volume.join("live-1+1")).unwrap();
        for other in ["hashes", "volume.json", "part.json", "live-2.tmp"] {
            fs::write(volume.join(other), "something else").unwrap();
        }
        let named = notes(volumes.path()).unwrap();
        assert_eq!(named.into_iter().collect::<Vec<_>>(), [(note.id, volume.join("live-1+1"))]);
    }

    #[test]
    fn one_device_under_two_names_is_damage_unless_they_are_one_file() {
        let volumes = tempfile::tempdir().unwrap();
        let volume = volumes.path().join("0190-volume");
        fs::create_dir(&volume).unwrap();
        let note = Note { id: FIRST_ID, size: 8 << 20 };
        note.store(&volume.join("live-1")).unwrap();
        fs::hard_link(volume.join("live-1"), volume.join("snap-1")).unwrap();
        assert_eq!(notes(volumes.path()).unwrap().len(), 1);
        note.store(&volume.join("snap-2")).unwrap();
        assert!(matches!(notes(volumes.path()), Err(Error::Corrupt { .. })));
    }
}
