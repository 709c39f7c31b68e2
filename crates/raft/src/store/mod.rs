//! The log and the vote, in sled. Nothing is acknowledged before an `fdatasync` has covered it.
//!
//! What is known of sled 0.34 and done here: its `flush` is not durable on Linux ([`flusher`],
//! `sys`); a crash can leave files that it refuses to open ([`open`]); large values become files
//! that are never synced (segments of 8 MiB and [`MAX_VALUE_BYTES`]). It is opened for small use,
//! with every value behind a CRC and every index checked at the start ([`check`]). It drops what
//! follows a damaged byte without a word; [`tail`] notices.
//!
//! Order on disk: a purge marker is durable before what it covers is deleted; a vote and a
//! truncation are durable when the call returns; an append when its callback fires.

mod check;
mod flusher;
mod health;
mod log;
mod open;
mod pulse;
mod reader;
mod recent;
mod spans;
mod tail;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::error::RaftError;
use crate::fail;
use crate::types::{LogId, Vote};

pub(crate) use flusher::Syncs;
use flusher::{Durable, Files, Flusher, OwnDescriptor};
pub(crate) use health::Health;
pub(crate) use pulse::Pulse;
pub(crate) use reader::LogReader;
use recent::Recent;
pub(crate) use spans::{Spans, Usage};
use tail::Tail;
#[cfg(any(test, fuzzing))]
pub(crate) use tail::is_record;

/// The largest sealed value. sled would put one above about 128 KiB into a file of its own.
const MAX_VALUE_BYTES: usize = 96 << 10;

const VOTE: &[u8] = b"vote";
const PURGED: &[u8] = b"purged";
const COMMITTED: &[u8] = b"committed";

/// openraft's log storage. One owner writes; readers are [`LogReader`]s.
pub(crate) struct LogStore {
    inner: Arc<Inner>,
}

/// Fields drop in this order: the flusher's thread holds the last handle to sled's file and says
/// when it has let go.
struct Inner {
    log: sled::Tree,
    meta: sled::Tree,
    heads: Arc<Mutex<Heads>>,
    usage: Usage,
    /// The end of the log.
    recent: Recent,
    /// The file that errors name.
    file: PathBuf,
    health: Health,
    flusher: Flusher,
}

/// What is asked for all the time, kept in memory. Changed after sled has the change, except that
/// `last` goes back before entries are removed.
#[derive(Debug, Clone, Default, PartialEq)]
struct Heads {
    vote: Option<Vote>,
    purged: Option<LogId>,
    last: Option<LogId>,
}

impl LogStore {
    /// Opens and checks the store in `dir`, which is made if absent. Blocks.
    pub(crate) fn open(dir: &Path, health: Health) -> Result<Self, RaftError> {
        Self::open_with(dir, health, |file| Box::new(OwnDescriptor::new(file)))
    }

    fn open_with(
        dir: &Path,
        health: Health,
        durable: impl FnOnce(File) -> Box<dyn Durable>,
    ) -> Result<Self, RaftError> {
        let tail = Tail::open(dir)?;
        let opened = open::open(dir)?;
        let (heads, spans) = check::check(&opened.log, &opened.meta, &opened.file)?;
        tail.check(&heads, &opened.file)?;
        let heads = Arc::new(Mutex::new(heads));
        let files = Files {
            db: opened.db,
            durable: durable(opened.descriptor),
            tail,
            file: opened.file.clone(),
        };
        let flusher = Flusher::spawn(files, heads.clone(), health.clone())?;
        let inner = Inner {
            log: opened.log,
            meta: opened.meta,
            heads,
            usage: Usage::new(spans),
            recent: Recent::default(),
            file: opened.file,
            health,
            flusher,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The last purged index, for the check that a snapshot covers it.
    pub(crate) fn purged_index(&self) -> Option<u64> {
        self.inner.heads().purged.map(|id| id.index)
    }

    /// How much the log holds.
    pub(crate) fn usage(&self) -> Usage {
        self.inner.usage.clone()
    }

    /// Becomes true once sled's file is closed and its lock released.
    pub(crate) fn closed(&self) -> watch::Receiver<bool> {
        self.inner.flusher.closed()
    }

    /// How long syncs take.
    pub(crate) fn pulse(&self) -> Pulse {
        self.inner.flusher.pulse()
    }

    /// The count of durable syncs so far.
    pub(crate) fn syncs(&self) -> Syncs {
        self.inner.flusher.syncs()
    }
}

impl Inner {
    fn heads(&self) -> Heads {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn update(&self, change: impl FnOnce(&mut Heads)) {
        change(&mut self.heads.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Whatever sled says while running ends the trust in its file.
    fn failed(&self, error: &sled::Error) -> RaftError {
        let error = RaftError::DiskIo { path: self.file.clone(), what: error.to_string() };
        self.health.fail(error)
    }

    /// Names the point that a durable step has come to; see [`fail`].
    fn at(&self, point: &str) -> Result<(), RaftError> {
        fail::at(point).map_err(|e| self.health.fail(RaftError::disk(&self.file, &e)))
    }

    fn corrupt(&self, what: String) -> RaftError {
        self.health.fail(RaftError::corrupt(&self.file, what))
    }
}

/// Keys sort as their numbers do.
fn key(index: u64) -> [u8; 8] {
    index.to_be_bytes()
}

#[cfg(test)]
mod tests;
