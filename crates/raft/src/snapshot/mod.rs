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
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

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
    /// For the names of parts.
    parts: AtomicU64,
    /// A snapshot is wanted now, whatever it costs.
    asked: AtomicBool,
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
            parts: AtomicU64::new(0),
            asked: AtomicBool::new(false),
        };
        let file = Self { shared: Arc::new(shared) };
        let found = match file.current()? {
            None => None,
            Some(current) => Some((current.meta, current.snapshot.state()?)),
        };
        *file.newest() = found.as_ref().map(|(meta, _)| meta.clone());
        Ok((file, found))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.shared.path
    }

    /// The last log index in the snapshot; 0 without one.
    pub(crate) fn index(&self) -> u64 {
        let newest = self.newest();
        newest.as_ref().and_then(|meta| meta.last_log_id).map_or(0, |id| id.index)
    }

    /// Has the next snapshot that is offered be built, though not much has changed.
    pub(crate) fn ask(&self) {
        self.shared.asked.store(true, Ordering::SeqCst);
    }

    /// Whether one was asked for; once.
    pub(crate) fn was_asked(&self) -> bool {
        self.shared.asked.swap(false, Ordering::SeqCst)
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

    /// Writes a snapshot of that state and makes it the current one. Blocks.
    pub(crate) fn build(&self, meta: SnapshotMeta, state: &State) -> Result<Snapshot, RaftError> {
        let Shared { path, health, .. } = &*self.shared;
        health.check()?;
        let mut part = self.begin(&meta).map_err(|e| health.fail(RaftError::disk(path, &e)))?;
        rmp_serde::encode::write_named(&mut part, state).map_err(|e| match part.overflow() {
            Some(size_bytes) => too_large(size_bytes),
            None => health.fail(RaftError::disk(path, &io::Error::other(e))),
        })?;
        let data = part.finish().map_err(|e| health.fail(RaftError::disk(path, &e)))?;
        self.keep(Snapshot { meta, snapshot: data })
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
        Ok(Part { out, temp, final_path: path.clone(), health: health.clone() })
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
        *newest = Some(snapshot.meta.clone());
        Ok(Snapshot { meta: snapshot.meta, snapshot: data })
    }

    fn newest(&self) -> std::sync::MutexGuard<'_, Option<SnapshotMeta>> {
        self.shared.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

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
}

impl Part {
    /// How large it would be, once it is larger than any may be.
    pub(crate) fn overflow(&self) -> Option<u64> {
        self.out.overflow()
    }

    /// Makes it durable, under its name for now.
    pub(crate) fn finish(self) -> io::Result<SnapshotData> {
        let Self { out, temp, final_path, health } = self;
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
        self.out.write(bytes)
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
