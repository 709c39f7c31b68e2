//! Group commit: one thread drains what waits, makes it durable once, answers in order.
//!
//! ```text
//! append ─► sled (memory) ─► queue ─┐
//! vote   ─► sled (memory) ─► queue ─┴► flush(sled) ─► synced? else fdatasync ─► tail ─► answers
//! ```
//!
//! sled's flush returns once everything before it is written, and each write was followed by the
//! call that `sys` turns into `fdatasync(2)`. Where that is seen to have happened to sled's file, a
//! second one would find nothing to do but to wait for the disk once more; where it is not, it is
//! made up for.
//!
//! A failed sync is final: the kernel may drop dirty pages after it and report success to the next
//! one, so the thread answers every later job with the same error and never flushes again.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, watch};

use super::Heads;
use super::health::Health;
use super::pulse::Pulse;
use super::tail::Tail;
use crate::error::RaftError;
use crate::fail;
use crate::sys;

/// Waiting jobs; beyond it appends wait.
const QUEUE: usize = 4_096;

/// Called with what became of the writes before it.
pub(super) type Done = Box<dyn FnOnce(Result<(), RaftError>) + Send>;

/// Makes what was written durable. The seam that tests fail.
pub(super) trait Durable: Send {
    /// Called before sled flushes.
    fn begin(&mut self) {}

    /// Called after it: what was written before [`begin`](Self::begin) is durable on return.
    fn sync(&self) -> io::Result<()>;
}

/// sled's file, by a descriptor of our own.
pub(super) struct OwnDescriptor {
    file: File,
    /// Syncs of sled's before its flush.
    before: u64,
}

impl OwnDescriptor {
    pub(super) fn new(file: File) -> Self {
        Self { file, before: 0 }
    }
}

impl Durable for OwnDescriptor {
    fn begin(&mut self) {
        self.before = sys::redirected_syncs(&self.file);
    }

    fn sync(&self) -> io::Result<()> {
        match sys::redirected_syncs(&self.file) > self.before {
            true => Ok(()),
            false => self.file.sync_data(),
        }
    }
}

/// Counts durable syncs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Syncs(Arc<AtomicU64>);

impl Syncs {
    /// How many have succeeded.
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// What the thread works on.
pub(super) struct Files {
    pub(super) db: sled::Db,
    pub(super) durable: Box<dyn Durable>,
    pub(super) tail: Tail,
    /// The file that errors name.
    pub(super) file: PathBuf,
}

/// The way into the thread, which ends when this is dropped.
pub(super) struct Flusher {
    jobs: mpsc::Sender<Done>,
    syncs: Syncs,
    pulse: Pulse,
    closed: watch::Receiver<bool>,
}

impl Flusher {
    pub(super) fn spawn(
        files: Files,
        heads: Arc<Mutex<Heads>>,
        health: Health,
    ) -> Result<Self, RaftError> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let (closed_tx, closed) = watch::channel(false);
        let (syncs, pulse) = (Syncs::default(), Pulse::default());
        let file = files.file.clone();
        let worker = Worker { files, heads, health, syncs: syncs.clone(), pulse: pulse.clone() };
        let run = move || {
            worker.run(queue);
            closed_tx.send_replace(true);
        };
        std::thread::Builder::new()
            .name("raft-flusher".into())
            .spawn(run)
            .map_err(|e| RaftError::disk(&file, &e))?;
        Ok(Self { jobs, syncs, pulse, closed })
    }

    /// Queues an answer to everything that was written before the call.
    pub(super) async fn then(&self, done: Done) {
        // The thread lives as long as this handle.
        if let Err(mpsc::error::SendError(done)) = self.jobs.send(done).await {
            done(Err(RaftError::Stopped));
        }
    }

    pub(super) fn syncs(&self) -> Syncs {
        self.syncs.clone()
    }

    pub(super) fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    pub(super) fn closed(&self) -> watch::Receiver<bool> {
        self.closed.clone()
    }
}

struct Worker {
    files: Files,
    heads: Arc<Mutex<Heads>>,
    health: Health,
    syncs: Syncs,
    pulse: Pulse,
}

impl Worker {
    fn run(mut self, mut queue: mpsc::Receiver<Done>) {
        let mut batch = Vec::new();
        while queue.blocking_recv_many(&mut batch, QUEUE) > 0 {
            let pulse = self.pulse.clone();
            let result = pulse.measure(|| self.flush());
            for done in batch.drain(..) {
                done(result.clone());
            }
        }
    }

    fn flush(&mut self) -> Result<(), RaftError> {
        self.health.check()?;
        // Read before the flush: whatever is in it has been written to sled.
        let heads = self.heads.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Files { db, durable, tail, file } = &mut self.files;
        let failed = |path: &Path, what: String| {
            self.health.fail(RaftError::DiskIo { path: path.to_owned(), what })
        };
        let at = |point| fail::at(point).map_err(|e| failed(file, e.to_string()));
        at("flush.begun")?;
        durable.begin();
        db.flush().map_err(|e| failed(file, e.to_string()))?;
        at("flush.flushed")?;
        durable.sync().map_err(|e| failed(file, e.to_string()))?;
        at("flush.synced")?;
        self.syncs.0.fetch_add(1, Ordering::SeqCst);
        tail.record(&heads).map_err(|e| failed(tail.path(), e.to_string()))?;
        at("flush.recorded")
    }
}
