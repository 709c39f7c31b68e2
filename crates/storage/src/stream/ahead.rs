//! Reading ahead of the encoder, on a thread of its own.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::batch::{BUFFERS, Batch, Buffers, QUEUE};
use super::wire::HOLE;
use crate::aligned::Aligned;
use crate::pool::{Extent, ExtentKind, SnapshotReader};
use crate::{Error, Result};

/// The reading thread. Dropping it waits until it has ended.
pub(super) struct Ahead {
    read: Option<Receiver<Result<Batch>>>,
    /// Where buffers go to be used again.
    used: Option<SyncSender<Aligned>>,
    thread: Option<JoinHandle<()>>,
}

impl Ahead {
    pub(super) fn start(
        extents: VecDeque<Extent>,
        reader: Box<dyn SnapshotReader>,
    ) -> Result<Self> {
        let (used, free) = sync_channel(BUFFERS);
        let (full, read) = sync_channel(QUEUE);
        let reading = Reading { extents, reader, free: Buffers::new(free) };
        let thread = std::thread::Builder::new()
            .name("delta-read".to_owned())
            .spawn(move || reading.run(&full))
            .map_err(Error::io("starting", "a thread that reads ahead"))?;
        Ok(Self { read: Some(read), used: Some(used), thread: Some(thread) })
    }

    /// The next batch in order; `None` after the last.
    pub(super) fn next(&self) -> Option<Result<Batch>> {
        self.read.as_ref()?.recv().ok()
    }

    /// Gives a batch's buffer back.
    pub(super) fn done(&self, batch: Batch) {
        if let Some(used) = &self.used {
            // The thread may have read everything.
            let _ = used.send(batch.into_buffer());
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        // Whatever it waits for does not come any more.
        (self.read, self.used) = (None, None);
        if let Some(thread) = self.thread.take() {
            // Its panic was told already.
            let _ = thread.join();
        }
    }
}

struct Reading {
    extents: VecDeque<Extent>,
    reader: Box<dyn SnapshotReader>,
    free: Buffers,
}

impl Reading {
    fn run(mut self, full: &SyncSender<Result<Batch>>) {
        while !self.extents.is_empty() {
            let Some(buffer) = self.free.take() else { return };
            let batch = self.batch(buffer);
            let failed = batch.is_err();
            if full.send(batch).is_err() || failed {
                return;
            }
        }
    }

    fn batch(&mut self, buffer: Aligned) -> Result<Batch> {
        let mut batch = Batch::new(buffer);
        while batch.room() > 0
            && let Some(extent) = self.extents.pop_front()
        {
            let (now, later) = split(extent, batch.room() as u64);
            batch.add(now);
            if let Some(later) = later {
                self.extents.push_front(later);
            }
        }
        let data = |(extent, at): &(Extent, usize)| {
            (extent.kind == ExtentKind::Data).then_some((extent.offset, extent.len as usize, *at))
        };
        let pieces: Vec<_> = batch.pieces.iter().filter_map(data).collect();
        // All of them at once, so that the disk need not wait for us between small ones.
        if pieces.len() > 1 {
            pieces.iter().for_each(|(offset, len, _)| self.reader.expect(*offset, *len as u64));
        }
        for (offset, len, at) in pieces {
            self.reader.read_at(offset, batch.content_mut(at, len))?;
        }
        Ok(batch)
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
