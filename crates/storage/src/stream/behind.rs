//! Writing behind the decoder, on a thread of its own, in large pieces.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Sink;
use crate::aligned::Aligned;
use crate::members::locate;
use crate::{Error, Result};

/// Bytes that are written at once.
pub(super) const BATCH: usize = 4 << 20;
/// Buffers that there are: one being filled, one being written, the others between.
pub(super) const BUFFERS: usize = 4;

/// How much is written between two syncs, which is what a resume may have to send again; a fast
/// transfer syncs no more often than `SYNC_PAUSE`, unless so much has come that memory of the
/// kernel's might be short.
const SYNC_EVERY: u64 = 64 << 20;
const SYNC_PAUSE: Duration = Duration::from_secs(1);
const SYNC_AT_LAST: u64 = 1 << 30;

/// The writing thread, and what it is given next.
pub(super) struct Behind {
    next: Next,
    orders: SyncSender<Order>,
    /// Buffers to be used again.
    free: Receiver<Aligned>,
    made: usize,
    thread: JoinHandle<Written>,
}

/// Neighbours are gathered.
enum Next {
    Nothing,
    Data { offset: u64, len: usize, buffer: Aligned },
    Hole { offset: u64, len: u64 },
}

enum Order {
    Write { offset: u64, len: usize, buffer: Aligned },
    Zero { offset: u64, len: u64 },
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
        // With one buffer at each end.
        let (orders, taken) = sync_channel(BUFFERS - 2);
        let (used, free) = sync_channel(BUFFERS);
        let writing = Writing::new(sink, synced);
        let thread = std::thread::Builder::new()
            .name("delta-write".to_owned())
            .spawn(move || writing.run(&taken, &used))
            .map_err(Error::io("starting", "a thread that writes behind"))?;
        Ok(Self { next: Next::Nothing, orders, free, made: 0, thread })
    }

    /// Writes content, some time.
    pub(super) fn write(&mut self, mut offset: u64, mut data: &[u8]) -> Result<(), Gone> {
        while !data.is_empty() {
            let gathers = matches!(&self.next, Next::Data { offset: first, len, .. }
                if *len < BATCH && follows(*first, *len as u64, offset));
            if !gathers {
                self.flush()?;
                let buffer = self.buffer()?;
                self.next = Next::Data { offset, len: 0, buffer };
            }
            if let Next::Data { len, buffer, .. } = &mut self.next {
                let now = data.len().min(BATCH - *len);
                buffer.get_mut()[*len..*len + now].copy_from_slice(&data[..now]);
                *len += now;
                (offset, data) = (offset + now as u64, &data[now..]);
            }
        }
        Ok(())
    }

    /// Makes a range zeros, some time.
    pub(super) fn zero(&mut self, offset: u64, more: u64) -> Result<(), Gone> {
        match &mut self.next {
            Next::Hole { offset: first, len } if follows(*first, *len, offset) => *len += more,
            _ => {
                self.flush()?;
                self.next = Next::Hole { offset, len: more };
            }
        }
        Ok(())
    }

    /// Writes what is left, and waits until all is written.
    pub(super) fn end(mut self) -> Written {
        // That it is gone is in its result.
        let _ = self.flush();
        drop(self.orders);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    fn flush(&mut self) -> Result<(), Gone> {
        let order = match mem::replace(&mut self.next, Next::Nothing) {
            Next::Nothing => return Ok(()),
            Next::Data { offset, len, buffer } => Order::Write { offset, len, buffer },
            Next::Hole { offset, len } => Order::Zero { offset, len },
        };
        self.orders.send(order).map_err(|_| Gone)
    }

    fn buffer(&mut self) -> Result<Aligned, Gone> {
        if let Ok(buffer) = self.free.try_recv() {
            return Ok(buffer);
        }
        if self.made == BUFFERS {
            return self.free.recv().map_err(|_| Gone);
        }
        self.made += 1;
        Ok(Aligned::new(BATCH))
    }
}

/// Whether `offset` is next after a range, and in the same member of the volume.
fn follows(first: u64, len: u64, offset: u64) -> bool {
    first + len == offset && locate(first).0 == locate(offset).0
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

    fn run(mut self, orders: &Receiver<Order>, used: &SyncSender<Aligned>) -> Written {
        while let Ok(order) = orders.recv() {
            if let Err(error) = self.carry_out(order, used) {
                self.written.result = Err(error);
                break;
            }
        }
        self.written
    }

    fn carry_out(&mut self, order: Order, used: &SyncSender<Aligned>) -> Result<()> {
        let sink = &mut self.written.sink;
        match order {
            Order::Write { offset, len, buffer } => {
                sink.write(offset, &buffer.get()[..len])?;
                self.written.upto = offset + len as u64;
                self.unsynced += len as u64;
                // Nobody may be waiting for it any more.
                let _ = used.send(buffer);
            }
            Order::Zero { offset, len } => {
                sink.zero(offset, len)?;
                self.written.upto = offset + len;
            }
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
