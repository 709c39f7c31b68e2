//! Snapshots of the state: one plain file, whole or absent, checked before it is believed, and of any
//! size: neither writing, sending, receiving nor reading one holds more of it than a few blocks.
//!
//! ```text
//! "HFSNAP1\n" | header length u32 LE | header (named MessagePack) | state | blake3 of all before
//! ```
//!
//! The state is [`State`] in named MessagePack, as it is sent to peers too, so that every version reads
//! what every other wrote.
//!
//! ```text
//! build:   a clone of the state ─► encoder ─► snapshot.N.part ─┐
//! receive: parts from the leader ─► hash ───► snapshot.N.part ─┴► synced ─► renamed to `snapshot`
//! start:   snapshot ─► hash ─► rows ─► decoders, one a processor ─► state
//! ```
//!
//! A `.part` that nobody finishes goes with whoever was writing it, or at the next start.

mod content;
mod format;
mod read;
mod scan;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use holdfast_core::State;
use holdfast_types::ClusterId;

pub(crate) use content::SnapshotData;
pub(crate) use format::{Encoder, Fault, Header, MAX_SNAPSHOT_BYTES};
pub(crate) use read::decode;

use crate::dir::sync_dir;
use crate::error::RaftError;
use crate::fail;
use crate::store::Health;
use crate::types::{Snapshot, SnapshotMeta};
use content::Steady;

/// What was on disk at the start: its position, and the state.
pub(crate) type Found = (SnapshotMeta, State);

/// The node's one snapshot file. Cheap to clone.
#[derive(Clone)]
pub(crate) struct SnapshotFile {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    cluster: ClusterId,
    health: Health,
    /// Held while the file is replaced: a slow build must not undo a newer install.
    newest: Mutex<Option<SnapshotMeta>>,
    /// Its index, for those who must not wait for that.
    index: AtomicU64,
    /// For the names of parts.
    parts: AtomicU64,
    /// A snapshot up to there at least is wanted, whatever it costs.
    asked: AtomicU64,
    /// When there was no room for one, and in what words.
    full: Mutex<Option<(Instant, RaftError)>>,
}

impl SnapshotFile {
    /// Reads and checks the file if there is one, and removes what a crash left beside it.
    pub(crate) fn open(
        path: PathBuf,
        cluster: ClusterId,
        health: Health,
    ) -> Result<(Self, Option<Found>), RaftError> {
        remove_parts(&path)?;
        let shared = Shared {
            path,
            cluster,
            health,
            newest: Mutex::default(),
            index: AtomicU64::new(0),
            parts: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            full: Mutex::default(),
        };
        let file = Self { shared: Arc::new(shared) };
        let found = match file.current()? {
            None => None,
            Some(current) => Some((current.meta, current.snapshot.state()?)),
        };
        if let Some((meta, _)) = &found {
            file.is_now(&mut file.newest(), meta);
        }
        Ok((file, found))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.shared.path
    }

    /// The last log index in the snapshot; 0 without one.
    pub(crate) fn index(&self) -> u64 {
        self.shared.index.load(Ordering::SeqCst)
    }

    /// Has the next snapshot that is offered be built unless there is one that reaches `index`,
    /// though not much has changed.
    pub(crate) fn ask(&self, index: u64) {
        self.shared.asked.fetch_max(index, Ordering::SeqCst);
    }

    /// Whether one is wanted that there is not.
    pub(crate) fn is_asked(&self) -> bool {
        self.shared.asked.load(Ordering::SeqCst) > self.index()
    }

    /// That there was no room for a snapshot a moment ago, and nobody needs to try again yet.
    pub(crate) fn was_full(&self) -> Option<RaftError> {
        let full = self.shared.full.lock().unwrap_or_else(PoisonError::into_inner);
        full.as_ref().filter(|(at, _)| at.elapsed() < ROOM_PAUSE).map(|(_, error)| error.clone())
    }

    /// The snapshot on disk. Its content is checked by whoever reads it. Blocks.
    pub(crate) fn current(&self) -> Result<Option<Snapshot>, RaftError> {
        let Shared { path, cluster, health, .. } = &*self.shared;
        let file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(health.fail(RaftError::disk(path, &e))),
        };
        let (header, snapshot) = SnapshotData::open(file, path.clone(), health.clone())?;
        if header.cluster != *cluster {
            snapshot.check()?;
            return Err(RaftError::WrongCluster {
                file: path.clone(),
                expected: *cluster,
                found: header.cluster,
            });
        }
        Ok(Some(Snapshot { meta: header.meta, snapshot }))
    }

    /// Writes a snapshot of that state and makes it the current one. For want of room it fails with
    /// nothing changed: the one before and the log go on. Blocks.
    pub(crate) fn build(&self, meta: SnapshotMeta, state: &State) -> Result<Snapshot, RaftError> {
        let Shared { health, full, .. } = &*self.shared;
        health.check()?;
        let built = self.write(&meta, state);
        let no_room = built.as_ref().err().filter(|error| error.is_full());
        *full.lock().unwrap_or_else(PoisonError::into_inner) =
            no_room.map(|error| (Instant::now(), error.clone()));
        self.keep(Snapshot { meta, snapshot: built? })
    }

    fn write(&self, meta: &SnapshotMeta, state: &State) -> Result<SnapshotData, RaftError> {
        let disk = |e: io::Error| RaftError::disk(self.path(), &e);
        let mut part = self.begin(meta).map_err(disk)?;
        rmp_serde::encode::write_named(&mut part, state).map_err(|e| match part.overflow() {
            Some(size_bytes) => too_large(size_bytes),
            // The encoder does not pass on the disk's words.
            None => disk(part.failed.take().unwrap_or_else(|| io::Error::other(e))),
        })?;
        part.finish().map_err(disk)
    }

    /// As if the pause were over.
    #[cfg(test)]
    pub(crate) fn has_room_again(&self) {
        *self.shared.full.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// What openraft gets of a build that came to nothing: no position, so nothing follows from it.
    /// Blocks shortly.
    pub(crate) fn nothing(&self) -> Result<Snapshot, RaftError> {
        let Shared { path, health, .. } = &*self.shared;
        let dir = path.parent().unwrap_or(Path::new("/"));
        // Something that is there, and that nobody reads.
        let none = File::open(dir).map_err(|e| RaftError::disk(dir, &e))?;
        let snapshot = SnapshotData::new(none, path.clone(), 0..0, None, health.clone());
        Ok(Snapshot { meta: SnapshotMeta::default(), snapshot })
    }

    /// Begins a snapshot whose state is written by the caller. Nothing is left of it unless it is
    /// finished and kept. Its failures are of that snapshot alone. Blocks.
    pub(crate) fn begin(&self, meta: &SnapshotMeta) -> io::Result<Part> {
        let Shared { path, cluster, health, parts, .. } = &*self.shared;
        let number = parts.fetch_add(1, Ordering::Relaxed);
        let name = path.with_extension(format!("{number}.{PART}"));
        let file = File::options().read(true).write(true).create_new(true).open(&name)?;
        let temp = Temp(name);
        fail::at_file(path, "created")?;
        let header = Header { cluster: *cluster, meta: meta.clone() };
        let out = Encoder::new(Steady::new(file), &header)?;
        let (final_path, health) = (path.clone(), health.clone());
        Ok(Part { out, temp, final_path, health, failed: None })
    }

    /// Makes `snapshot` the current one, durably, unless a newer one is there already; returns
    /// the one that is current then. Blocks.
    pub(crate) fn keep(&self, snapshot: Snapshot) -> Result<Snapshot, RaftError> {
        let Shared { path, health, .. } = &*self.shared;
        health.check()?;
        let mut newest = self.newest();
        if newest.as_ref().is_some_and(|n| n.last_log_id > snapshot.meta.last_log_id)
            && let Some(current) = self.current()?
        {
            return Ok(current);
        }
        let disk = |e: io::Error| health.fail(RaftError::disk(path, &e));
        let data = match snapshot.snapshot.take_temp() {
            Some(temp) => {
                temp.rename_to(path).map_err(disk)?;
                fail::at_file(path, "renamed").map_err(disk)?;
                snapshot.snapshot.clone()
            }
            // Somebody's current one, which stays theirs.
            None => {
                let mut part = self.begin(&snapshot.meta).map_err(disk)?;
                snapshot.snapshot.copy_to(&mut part).map_err(disk)?;
                let copy = part.finish().map_err(disk)?;
                if let Some(temp) = copy.take_temp() {
                    temp.rename_to(path).map_err(disk)?;
                }
                copy
            }
        };
        sync_dir(self.path().parent().unwrap_or(Path::new("/"))).map_err(|e| health.fail(e))?;
        fail::at_file(path, "durable").map_err(disk)?;
        self.is_now(&mut newest, &snapshot.meta);
        Ok(Snapshot { meta: snapshot.meta, snapshot: data })
    }

    fn is_now(&self, newest: &mut Option<SnapshotMeta>, meta: &SnapshotMeta) {
        *newest = Some(meta.clone());
        let index = meta.last_log_id.map_or(0, |id| id.index);
        self.shared.index.store(index, Ordering::SeqCst);
    }

    fn newest(&self) -> std::sync::MutexGuard<'_, Option<SnapshotMeta>> {
        self.shared.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// After a build for which there was no room the next one is as long in coming.
const ROOM_PAUSE: Duration = Duration::from_secs(30);

/// The extension of what is still being written.
const PART: &str = "part";

fn remove_parts(path: &Path) -> Result<(), RaftError> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let prefix = path.file_name().unwrap_or_default().to_string_lossy().into_owned() + ".";
    let disk = |e: io::Error| RaftError::disk(dir, &e);
    for entry in fs::read_dir(dir).map_err(disk)? {
        let name = entry.map_err(disk)?.file_name();
        let name = name.to_string_lossy();
        if name.strip_prefix(&prefix).is_some_and(|rest| rest.ends_with(PART) || rest == "new") {
            fs::remove_file(dir.join(&*name)).map_err(disk)?;
        }
    }
    Ok(())
}

fn too_large(size_bytes: u64) -> RaftError {
    let bytes = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    RaftError::TooLarge { size_bytes: bytes(size_bytes), limit_bytes: bytes(MAX_SNAPSHOT_BYTES) }
}

/// A snapshot that is being written.
pub(crate) struct Part {
    out: Encoder<Steady>,
    temp: Temp,
    final_path: PathBuf,
    health: Health,
    /// What the disk said last, if it refused.
    failed: Option<io::Error>,
}

impl Part {
    /// How large it would be, once it is larger than any may be.
    pub(crate) fn overflow(&self) -> Option<u64> {
        self.out.overflow()
    }

    /// Makes it durable, under its name for now.
    pub(crate) fn finish(self) -> io::Result<SnapshotData> {
        let Self { out, temp, final_path, health, failed: _ } = self;
        let content = out.content();
        let (out, end) = out.finish()?;
        fail::at_file(&final_path, "written")?;
        let file = out.finish()?;
        fail::at_file(&final_path, "synced")?;
        Ok(SnapshotData::new(file, final_path, content..end, Some(temp), health))
    }
}

impl Write for Part {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes).map_err(|e| {
            let (again, kind) = (e.raw_os_error(), e.kind());
            self.failed = Some(e);
            again.map_or_else(|| kind.into(), io::Error::from_raw_os_error)
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A file that is removed unless it gets another name.
#[derive(Debug)]
pub(crate) struct Temp(PathBuf);

impl Temp {
    fn rename_to(mut self, path: &Path) -> io::Result<()> {
        fs::rename(&self.0, path)?;
        // Nothing has that name any more.
        self.0 = PathBuf::new();
        Ok(())
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        if self.0.as_os_str().is_empty() {
            return;
        }
        match fs::remove_file(&self.0) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(file = %self.0.display(), %error, "a part stays until the next start");
            }
        }
    }
}

#[cfg(test)]
mod tests;
