//! Reading ahead of the encoder, on a thread of its own.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::wire::HOLE;
use crate::aligned::{ALIGN, Aligned};
use crate::pool::{Extent, ExtentKind, SnapshotReader};
use crate::{Error, Result};

/// Bytes that are read at once: in smaller pieces a disk that is far away does not get going.
pub(super) const BATCH: usize = 4 << 20;
/// Buffers that there are: one being read into, one being encoded, the others between.
pub(super) const BUFFERS: usize = 4;
/// Pieces of a batch, so that a list of holes is bounded as well.
const PIECES: usize = 1024;

/// What was read in one go.
pub(super) struct Batch {
    /// Each with where its content is in the buffer.
    pub(super) pieces: VecDeque<(Extent, usize)>,
    buffer: Aligned,
}

impl Batch {
    /// The content of a piece of so many bytes.
    pub(super) fn content(&self, at: usize, len: usize) -> &[u8] {
        &self.buffer.get()[at..at + len]
    }
}

/// The reading thread. Dropping it waits until it has ended.
pub(super) struct Ahead {
    read: Option<Receiver<Result<Batch>>>,
    /// Where buffers go to be used again.
    used: SyncSender<Aligned>,
    thread: Option<JoinHandle<()>>,
}

impl Ahead {
    pub(super) fn start(
        extents: VecDeque<Extent>,
        reader: Box<dyn SnapshotReader>,
    ) -> Result<Self> {
        let (used, free) = sync_channel(BUFFERS);
        // With one at each end.
        let (full, read) = sync_channel(BUFFERS - 2);
        let reading = Reading { extents, reader, free, made: 0 };
        let thread = std::thread::Builder::new()
            .name("delta-read".to_owned())
            .spawn(move || reading.run(&full))
            .map_err(Error::io("starting", "a thread that reads ahead"))?;
        Ok(Self { read: Some(read), used, thread: Some(thread) })
    }

    /// The next batch in order; `None` after the last.
    pub(super) fn next(&self) -> Option<Result<Batch>> {
        self.read.as_ref()?.recv().ok()
    }

    /// Gives a batch's buffer back.
    pub(super) fn done(&self, batch: Batch) {
        // The thread may have read everything.
        let _ = self.used.send(batch.buffer);
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.read = None;
        if let Some(thread) = self.thread.take() {
            // Its panic was told already.
            let _ = thread.join();
        }
    }
}

struct Reading {
    extents: VecDeque<Extent>,
    reader: Box<dyn SnapshotReader>,
    free: Receiver<Aligned>,
    made: usize,
}

impl Reading {
    fn run(mut self, full: &SyncSender<Result<Batch>>) {
        while !self.extents.is_empty() {
            let Some(buffer) = self.buffer() else { return };
            let batch = self.batch(buffer);
            let failed = batch.is_err();
            if full.send(batch).is_err() || failed {
                return;
            }
        }
    }

    fn buffer(&mut self) -> Option<Aligned> {
        if let Ok(buffer) = self.free.try_recv() {
            return Some(buffer);
        }
        if self.made == BUFFERS {
            return self.free.recv().ok();
        }
        self.made += 1;
        Some(Aligned::new(BATCH))
    }

    fn batch(&mut self, mut buffer: Aligned) -> Result<Batch> {
        let mut pieces = VecDeque::new();
        let mut at = 0;
        while let Some(extent) = self.extents.pop_front() {
            let (now, later) = split(extent, (BATCH - at) as u64);
            if now.kind == ExtentKind::Data {
                let len = now.len as usize;
                self.reader.read_at(now.offset, &mut buffer.get_mut()[at..at + len])?;
                pieces.push_back((now, at));
                at = (at + len).next_multiple_of(ALIGN);
            } else {
                pieces.push_back((now, 0));
            }
            if let Some(later) = later {
                self.extents.push_front(later);
            }
            if at >= BATCH || pieces.len() == PIECES {
                break;
            }
        }
        Ok(Batch { pieces, buffer })
    }
}

/// As much of an extent as fits, and the rest.
fn split(extent: Extent, room: u64) -> (Extent, Option<Extent>) {
    let most = match extent.kind {
        ExtentKind::Data => room,
        ExtentKind::Hole => HOLE,
    };
    let now = extent.len.min(most);
    let later = Extent { offset: extent.offset + now, len: extent.len - now, ..extent };
    (Extent { len: now, ..extent }, (later.len > 0).then_some(later))
}
