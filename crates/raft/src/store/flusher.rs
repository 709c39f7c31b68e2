//! Group commit: one thread drains what waits, makes it durable once, answers in order.
//!
//! ```text
//! append ─► sled (memory) ─► queue ─┐
//! vote   ─► sled (memory) ─► queue ─┼─► flush(sled) ─► fdatasync(own descriptor) ─► answers
//! ```
//!
//! A failed sync is final: the kernel may drop dirty pages after it and report success to the next
//! one, so the thread answers every later job with the same error and never flushes again.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{mpsc, watch};

use super::health::Health;
use crate::error::RaftError;

/// Waiting jobs; beyond it appends wait.
const QUEUE: usize = 4_096;

/// Called with what became of the writes before it.
pub(super) type Done = Box<dyn FnOnce(Result<(), RaftError>) + Send>;

/// Makes what was written durable. The seam that tests fail.
pub(super) trait Durable: Send {
    fn sync(&self) -> io::Result<()>;
}

impl Durable for File {
    fn sync(&self) -> io::Result<()> {
        self.sync_data()
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

/// The way into the thread, which ends when this is dropped.
pub(super) struct Flusher {
    jobs: mpsc::Sender<Done>,
    syncs: Syncs,
    closed: watch::Receiver<bool>,
}

impl Flusher {
    pub(super) fn spawn(
        db: sled::Db,
        durable: Box<dyn Durable>,
        file: PathBuf,
        health: Health,
    ) -> Result<Self, RaftError> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let (closed_tx, closed) = watch::channel(false);
        let syncs = Syncs::default();
        let worker = Worker { db, durable, file: file.clone(), health, syncs: syncs.clone() };
        let run = move || {
            worker.run(queue);
            closed_tx.send_replace(true);
        };
        std::thread::Builder::new()
            .name("raft-flusher".into())
            .spawn(run)
            .map_err(|e| RaftError::disk(&file, &e))?;
        Ok(Self { jobs, syncs, closed })
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

    pub(super) fn closed(&self) -> watch::Receiver<bool> {
        self.closed.clone()
    }
}

struct Worker {
    db: sled::Db,
    durable: Box<dyn Durable>,
    file: PathBuf,
    health: Health,
    syncs: Syncs,
}

impl Worker {
    fn run(self, mut queue: mpsc::Receiver<Done>) {
        let mut batch = Vec::new();
        while queue.blocking_recv_many(&mut batch, QUEUE) > 0 {
            let result = self.flush();
            for done in batch.drain(..) {
                done(result.clone());
            }
        }
    }

    fn flush(&self) -> Result<(), RaftError> {
        self.health.check()?;
        let fail =
            |what: String| self.health.fail(RaftError::DiskIo { path: self.file.clone(), what });
        self.db.flush().map_err(|e| fail(e.to_string()))?;
        self.durable.sync().map_err(|e| fail(e.to_string()))?;
        self.syncs.0.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}
