//! The thin pool: messages to it, and the ids and devices of ours in it.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::dm::{Dm, Mapped, Thin};
use super::note::{FIRST_ID, LAST_ID};
use super::status::{Limits, Mode, Status};
use super::wear::Wear;
use crate::{Error, Result, wait};

const NO_DATA: i32 = Errno::NODATA.raw_os_error();
const EXISTS: i32 = Errno::EXIST.raw_os_error();
pub(super) const BUSY: i32 = Errno::BUSY.raw_os_error();

/// How long LVM may keep its group locked before a snapshot is given up: a filesystem may be frozen
/// meanwhile.
const LOCK_TIME: Duration = Duration::from_millis(500);
/// How long a device may still be open after its last user said that it is done.
const CLOSE_TIME: Duration = Duration::from_secs(5);

/// Ids of ours.
#[derive(Debug, Default)]
struct Ids {
    /// In use.
    used: BTreeSet<u32>,
    /// The last that was handed out in this life: none is handed out twice in one.
    last: Option<u32>,
    /// What nothing names and could not be deleted.
    left: BTreeSet<u32>,
}

impl Ids {
    fn next(&self) -> Option<u32> {
        let last = self.last.or(self.used.last().copied());
        let next = last.map_or(FIRST_ID, |last| last + 1);
        // Only after millions of snapshots of one pool are old ids used again.
        let free = |id: &u32| !self.used.contains(id);
        (next..=LAST_ID).chain(FIRST_ID..=LAST_ID).find(free)
    }
}

/// A thin pool.
#[derive(Debug)]
pub(super) struct ThinPool {
    dm: Dm,
    vg: String,
    /// The device that takes messages, `…-tpool`.
    pub(super) name: String,
    pub(super) number: (u32, u32),
    pub(super) limits: Limits,
    pub(super) metadata: PathBuf,
    /// What the names of our devices begin with.
    prefix: String,
    ids: Mutex<Ids>,
    /// One metadata snapshot at a time.
    pub(super) reading: Mutex<()>,
    /// Whether a metadata snapshot of ours is held, or could not be released.
    pub(super) unreleased: AtomicBool,
    pub(super) time: AtomicU32,
    views: AtomicU64,
}

impl ThinPool {
    /// The active pool whose device is at `dm_path`, as LVM names it.
    pub(super) fn connect(vg: &str, dm_path: &str, threshold_percent: u8) -> Result<Self> {
        let device = |suffix: &str| format!("{dm_path}{suffix}");
        let dm = Dm::open().map_err(Error::io("opening", "/dev/mapper/control"))?;
        let name = device("-tpool").trim_start_matches("/dev/mapper/").to_owned();
        let (_, number) = dm.status(&name).map_err(Error::io("asking the thin pool", &name))?;
        let chunk = chunk(&dm, &name)?;
        Ok(Self {
            limits: Limits { name: name.clone(), chunk, threshold_percent },
            prefix: prefix(number),
            dm,
            vg: vg.to_owned(),
            name,
            number,
            metadata: device("_tmeta").into(),
            ids: Mutex::default(),
            reading: Mutex::default(),
            unreleased: AtomicBool::new(false),
            time: AtomicU32::new(0),
            views: AtomicU64::new(0),
        })
    }

    /// Lets go of devices that a crash left suspended, whatever state the pool is in: whoever uses
    /// them could not even be stopped.
    pub(super) fn resume(&self) -> Result<()> {
        for Mapped { name, .. } in self.devices()? {
            let (suspended, _) = self.dm.status(&name).map_err(Error::io("asking", &name))?;
            if suspended {
                let resumed = self.dm.resume(&name, self.is_view(&name));
                resumed.map_err(Error::io("resuming", &name))?;
            }
        }
        Ok(())
    }

    /// Undoes what else a crash left: views, a held metadata snapshot.
    pub(super) fn recover(&self) -> Result<()> {
        for mapped in self.devices()?.iter().filter(|mapped| self.is_view(&mapped.name)) {
            self.remove_device(&mapped.name)?;
        }
        if self.status()?.held {
            self.message("release_metadata_snap")?;
        }
        self.time.store(self.read_time()?, Ordering::SeqCst);
        self.ids().used = self.list_ids()?;
        Ok(())
    }

    /// Every device of ours on this pool.
    pub(super) fn devices(&self) -> Result<Vec<Mapped>> {
        let all = self.dm.list().map_err(Error::io("listing", "device-mapper's devices"))?;
        Ok(all.into_iter().filter(|mapped| mapped.name.starts_with(&self.prefix)).collect())
    }

    fn is_view(&self, name: &str) -> bool {
        name.strip_prefix(&self.prefix).is_some_and(|rest| rest.starts_with("view-"))
    }

    /// The pool's state now.
    pub(super) fn status(&self) -> Result<Status> {
        let line = self.dm.target_status(&self.name);
        let line = line.map_err(Error::io("asking the thin pool", &self.name))?;
        Status::parse(&line).ok_or_else(|| Error::Unusable {
            path: (&self.name).into(),
            reason: format!("its state is not understood: {line}"),
        })
    }

    /// How much a thin device maps.
    pub(super) fn mapped_bytes(&self, name: &str) -> Result<u64> {
        // MAPPED HIGHEST, in sectors.
        let status = self.dm.target_status(name).map_err(Error::io("asking", name))?;
        let sectors = status.split_whitespace().next().and_then(|word| word.parse::<u64>().ok());
        sectors.map(|sectors| sectors * 512).ok_or_else(|| Error::Unusable {
            path: name.into(),
            reason: format!("its state is not understood: {status}"),
        })
    }

    /// How worn it is.
    pub(super) fn wear(&self) -> Wear {
        Wear { time: self.time.load(Ordering::SeqCst) }
    }

    /// Makes an empty device, and says its id.
    pub(super) fn create(&self) -> Result<u32> {
        self.with_new_id(|id| format!("create_thin {id}"))
    }

    /// Makes a clone of a device that nothing writes to at this moment, and says its id.
    pub(super) fn snapshot(&self, origin: u32) -> Result<u32> {
        self.wear().admit_last()?;
        let id = self.with_new_id(|id| format!("create_snap {id} {origin}"))?;
        self.time.fetch_add(1, Ordering::SeqCst);
        Ok(id)
    }

    fn with_new_id(&self, message: impl Fn(u32) -> String) -> Result<u32> {
        let mut ids = self.ids();
        loop {
            let id = ids.next().ok_or_else(|| Error::InUse("every id of the thin pool".into()))?;
            ids.last = Some(id);
            match self.dm.message(&self.name, &message(id)) {
                Ok(()) => {
                    // The kernel does not say when it could not commit.
                    return match self.require_writable() {
                        Ok(()) => {
                            ids.used.insert(id);
                            Ok(id)
                        }
                        Err(error) => {
                            // What was not committed may be gone with the next life, or not.
                            let _ = self.dm.message(&self.name, &format!("delete {id}"));
                            Err(error)
                        }
                    };
                }
                // Not ours to overwrite; if nothing names it, the next open deletes it.
                Err(e) if e.raw_os_error() == Some(EXISTS) => {
                    ids.used.insert(id);
                }
                // A pool that is full or damaged refuses in many ways.
                Err(e) => {
                    self.require_writable()?;
                    return Err(Error::io("messaging the thin pool", &self.name)(e));
                }
            }
        }
    }

    /// Refuses a pool that takes no writes, whose metadata would not be committed.
    pub(super) fn require_writable(&self) -> Result<()> {
        self.status()?.refusal(&self.limits).map_or(Ok(()), Err)
    }

    /// Refuses a pool that would delete nothing. One that is full of data deletes.
    pub(super) fn require_messages(&self) -> Result<()> {
        let status = self.status()?;
        match status.mode {
            Some(Mode::ReadWrite | Mode::OutOfData) => Ok(()),
            _ => status.refusal(&self.limits).map_or(Ok(()), Err),
        }
    }

    /// Takes an item's own device away, if it has one, and its content; and those that could not be
    /// taken away before.
    pub(super) fn discard(&self, id: u32) -> Result<()> {
        let left = std::mem::take(&mut self.ids().left);
        let again = left.into_iter().map(|id| self.discard_or_keep(id)).fold(Ok(()), Result::and);
        self.discard_or_keep(id).and(again)
    }

    /// What cannot be taken away is tried again with the next one.
    fn discard_or_keep(&self, id: u32) -> Result<()> {
        let discarded = self.discard_one(id);
        if discarded.is_err() {
            self.ids().left.insert(id);
        }
        discarded
    }

    fn discard_one(&self, id: u32) -> Result<()> {
        if let Some(mapped) = self.find(id)? {
            self.remove_device(&mapped.name)?;
        }
        self.delete(id)
    }

    /// Removes a device's content. It may be gone already.
    pub(super) fn delete(&self, id: u32) -> Result<()> {
        let mut last = Ok(());
        wait::until(CLOSE_TIME, || {
            last = self.dm.message(&self.name, &format!("delete {id}"));
            !matches!(&last, Err(e) if e.raw_os_error() == Some(BUSY))
        });
        match last {
            Err(e) if e.raw_os_error() != Some(NO_DATA) => {
                Err(Error::io("messaging the thin pool", &self.name)(e))
            }
            _ => {
                self.ids().used.remove(&id);
                Ok(())
            }
        }
    }

    /// Deletes every id of ours that nothing names.
    pub(super) fn keep_only(&self, named: &BTreeSet<u32>) -> Result<()> {
        let leaked: Vec<u32> = self.ids().used.difference(named).copied().collect();
        for id in leaked {
            tracing::info!(id, "a thin device that nothing names is deleted");
            if let Err(error) = self.discard(id) {
                tracing::warn!(%error, id, "a thin device that nothing names stays");
            }
        }
        Ok(())
    }

    /// How many devices of ours it has.
    pub(super) fn count(&self) -> usize {
        self.ids().used.len()
    }

    /// Whether the pool has that device.
    pub(super) fn has(&self, id: u32) -> bool {
        self.ids().used.contains(&id)
    }

    /// The name of an item's own device.
    fn own_name(&self, id: u32) -> String {
        format!("{}item-{id}", self.prefix)
    }

    /// Makes a device writable under its own name, or finds it there.
    pub(super) fn attach(&self, id: u32, size: u64) -> Result<Mapped> {
        match self.find(id)? {
            Some(mapped) => Ok(mapped),
            None => self.map(&self.own_name(id), id, size, false),
        }
    }

    /// An item's own device, if it is there. One that a crash left without its table goes.
    pub(super) fn find(&self, id: u32) -> Result<Option<Mapped>> {
        let name = self.own_name(id);
        let Some(mapped) = self.devices()?.into_iter().find(|mapped| mapped.name == name) else {
            return Ok(None);
        };
        let table = self.dm.target_table(&name).unwrap_or_default();
        if table.trim() == format!("{}:{} {id}", self.number.0, self.number.1) {
            return Ok(Some(mapped));
        }
        self.remove_device(&name).map(|()| None)
    }

    /// A device of its own for reading or filling, which opening the pool takes away after a crash.
    pub(super) fn view(&self, id: u32, size: u64, readonly: bool) -> Result<Mapped> {
        let number = self.views.fetch_add(1, Ordering::SeqCst);
        self.map(&format!("{}view-{number}", self.prefix), id, size, readonly)
    }

    fn map(&self, name: &str, id: u32, size: u64, readonly: bool) -> Result<Mapped> {
        let thin = Thin { pool: self.number, id, size, readonly };
        self.dm.create_thin(name, &thin).map_err(Error::io("mapping", name))
    }

    /// Takes a device away, once its last user has closed it.
    pub(super) fn remove_device(&self, name: &str) -> Result<()> {
        let mut last = Ok(());
        wait::until(CLOSE_TIME, || {
            last = self.dm.remove(name);
            !matches!(&last, Err(e) if e.raw_os_error() == Some(BUSY))
        });
        match last {
            Err(e) if e.raw_os_error() == Some(BUSY) => {
                Err(Error::InUse(format!("the device {name}")))
            }
            last => last.map_err(Error::io("removing", name)),
        }
    }

    /// Makes a device as large as its volume has become.
    pub(super) fn resize(&self, mapped: &Mapped, id: u32, size: u64) -> Result<()> {
        // A full pool holds requests back, and the change waits for those under way.
        self.require_writable()?;
        let _group = self.lock_group()?;
        let thin = Thin { pool: self.number, id, size, readonly: false };
        let grow = self.dm.load(&mapped.name, &thin);
        let grown = grow.and_then(|()| self.dm.resume(&mapped.name, false));
        grown.map_err(Error::io("growing", &mapped.name))
    }

    /// LVM's own lock of the group, which its commands wait for (lvmlockd is not involved).
    pub(super) fn lock_group(&self) -> Result<File> {
        let path = PathBuf::from(format!("/run/lock/lvm/V_{}", self.vg));
        let io = |e: io::Error| Error::io("locking", &path)(e);
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(io)?;
        }
        let deadline = Instant::now() + LOCK_TIME;
        while Instant::now() < deadline {
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
            let file = file.map_err(io)?;
            let locked = wait::until(LOCK_TIME, || {
                flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
            });
            // LVM unlinks the file when it is done: a lock of a file without a name is none.
            let inode = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
            let ours = file.metadata().map(inode).map_err(io)?;
            if locked && std::fs::metadata(&path).map(inode).is_ok_and(|now| now == ours) {
                return Ok(file);
            }
        }
        Err(Error::InUse(format!("the volume group {}", self.vg)))
    }

    pub(super) fn message(&self, text: &str) -> Result<()> {
        self.dm.message(&self.name, text).map_err(Error::io("messaging the thin pool", &self.name))
    }

    fn ids(&self) -> MutexGuard<'_, Ids> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the names of our devices on a pool begin with.
pub(super) fn prefix(pool: (u32, u32)) -> String {
    format!("holdfast-{}-{}-", pool.0, pool.1)
}

/// Bytes of a chunk, as the pool was made.
fn chunk(dm: &Dm, pool: &str) -> Result<u64> {
    let table = dm.target_table(pool).map_err(Error::io("asking the thin pool", pool))?;
    // METADATA DATA BLOCKSIZE LOWWATER …, in sectors.
    let sectors = table.split_whitespace().nth(2).and_then(|word| word.parse::<u64>().ok());
    sectors.map(|sectors| sectors * 512).ok_or_else(|| Error::Unusable {
        path: pool.into(),
        reason: format!("its table is not understood: {table}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Once the last id was in use, the first free one was given out again and again.
    #[test]
    fn ids_go_round() {
        let mut ids =
            Ids { used: [LAST_ID, FIRST_ID + 1].into(), last: None, left: BTreeSet::new() };
        assert_eq!(ids.next(), Some(FIRST_ID));
        ids.last = Some(FIRST_ID);
        assert_eq!(ids.next(), Some(FIRST_ID + 2), "that one may have been deleted a moment ago");
        ids.last = Some(LAST_ID - 1);
        assert_eq!(ids.next(), Some(FIRST_ID));
    }
}
