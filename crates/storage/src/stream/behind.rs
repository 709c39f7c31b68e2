//! Writing behind the decoder, on a thread of its own, in large pieces.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Sink;
use super::batch::{BUFFERS, Batch, Buffers, QUEUE};
use crate::aligned::Aligned;
use crate::pool::{Extent, ExtentKind};
use crate::{Error, Result};

/// How much is written between two syncs, which is what a resume may have to send again; a fast
/// transfer syncs no more often than `SYNC_PAUSE`, unless so much has come that memory of the
/// kernel's might be short.
const SYNC_EVERY: u64 = 64 << 20;
const SYNC_PAUSE: Duration = Duration::from_secs(1);
const SYNC_AT_LAST: u64 = 1 << 30;

/// The writing thread, and what it is given next.
pub(super) struct Behind {
    next: Option<Batch>,
    batches: SyncSender<Batch>,
    free: Buffers,
    thread: JoinHandle<Written>,
}

/// The thread is gone; how it ended says [`Behind::end`].
pub(super) struct Gone;

/// How far the thread came.
pub(super) struct Written {
    pub(super) sink: Box<dyn Sink>,
    /// Everything below has been written.
    upto: u64,
    /// Everything below is durable.
    synced: u64,
    result: Result<()>,
}

impl Behind {
    /// Everything below `from` is durable in `sink`, and `synced` says so.
    pub(super) fn start(sink: Box<dyn Sink>, synced: Arc<AtomicU64>) -> Result<Self> {
        let (batches, taken) = sync_channel(QUEUE);
        let (used, free) = sync_channel(BUFFERS);
        let writing = Writing::new(sink, synced);
        let thread = std::thread::Builder::new()
            .name("delta-write".to_owned())
            .spawn(move || writing.run(&taken, &used))
            .map_err(Error::io("starting", "a thread that writes behind"))?;
        Ok(Self { next: None, batches, free: Buffers::new(free), thread })
    }

    /// Writes content, some time.
    pub(super) fn write(&mut self, mut offset: u64, mut data: &[u8]) -> Result<(), Gone> {
        while !data.is_empty() {
            let batch = self.batch()?;
            let (now, rest) = data.split_at(data.len().min(batch.room()));
            let len = now.len();
            let at = batch.join(Extent { offset, len: len as u64, kind: ExtentKind::Data });
            batch.content_mut(at, len).copy_from_slice(now);
            (offset, data) = (offset + len as u64, rest);
        }
        Ok(())
    }

    /// Makes a range zeros, some time.
    pub(super) fn zero(&mut self, offset: u64, len: u64) -> Result<(), Gone> {
        self.batch()?.join(Extent { offset, len, kind: ExtentKind::Hole });
        Ok(())
    }

    /// Writes what is left, and waits until all is written.
    pub(super) fn end(mut self) -> Written {
        // That it is gone is in its result.
        let _ = self.flush();
        drop(self.batches);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// One that has room.
    fn batch(&mut self) -> Result<&mut Batch, Gone> {
        if self.next.as_ref().is_some_and(|batch| batch.room() == 0) {
            self.flush()?;
        }
        if self.next.is_none() {
            self.next = Some(Batch::new(self.free.take().ok_or(Gone)?));
        }
        self.next.as_mut().ok_or(Gone)
    }

    fn flush(&mut self) -> Result<(), Gone> {
        match self.next.take() {
            Some(batch) => self.batches.send(batch).map_err(|_| Gone),
            None => Ok(()),
        }
    }
}

struct Writing {
    written: Written,
    told: Arc<AtomicU64>,
    unsynced: u64,
    last_sync: Instant,
}

impl Writing {
    fn new(sink: Box<dyn Sink>, told: Arc<AtomicU64>) -> Self {
        let from = told.load(Ordering::Acquire);
        let written = Written::nothing(sink, from);
        Self { written, told, unsynced: 0, last_sync: Instant::now() }
    }

    fn run(mut self, batches: &Receiver<Batch>, used: &SyncSender<Aligned>) -> Written {
        while let Ok(batch) = batches.recv() {
            if let Err(error) = self.carry_out(&batch) {
                self.written.result = Err(error);
                break;
            }
            // Nobody may be waiting for it any more.
            let _ = used.send(batch.into_buffer());
        }
        self.written
    }

    fn carry_out(&mut self, batch: &Batch) -> Result<()> {
        for (Extent { offset, len, kind }, at) in &batch.pieces {
            let sink = &mut self.written.sink;
            match kind {
                ExtentKind::Data => {
                    sink.write(*offset, batch.content(*at, *len as usize))?;
                    self.unsynced += len;
                }
                ExtentKind::Hole => sink.zero(*offset, *len)?,
            }
            self.written.upto = offset + len;
        }
        let due = self.unsynced >= SYNC_EVERY && self.last_sync.elapsed() >= SYNC_PAUSE;
        if due || self.unsynced >= SYNC_AT_LAST {
            self.written.sync()?;
            self.told.store(self.written.synced, Ordering::Release);
            (self.unsynced, self.last_sync) = (0, Instant::now());
        }
        Ok(())
    }
}

impl Written {
    /// Everything below `from` is durable, and nothing came.
    pub(super) fn nothing(sink: Box<dyn Sink>, from: u64) -> Self {
        Self { sink, upto: from, synced: from, result: Ok(()) }
    }

    /// The sink, with everything written to it.
    pub(super) fn complete(self) -> Result<Box<dyn Sink>> {
        self.result.map(|()| self.sink)
    }

    /// Makes durable what was written, for a resume. After a failure only what was durable before is
    /// kept: the kernel says once that it lost what it could not write back, and then that all is well.
    pub(super) fn keep(mut self) -> Result<Box<dyn Sink>> {
        if self.result.is_ok()
            && let Err(error) = self.sync()
        {
            tracing::debug!(%error, "an interrupted receive could not be synced");
        }
        self.complete()
    }

    fn sync(&mut self) -> Result<()> {
        if self.upto > self.synced {
            self.sink.sync(self.upto)?;
            self.synced = self.upto;
        }
        Ok(())
    }
}
