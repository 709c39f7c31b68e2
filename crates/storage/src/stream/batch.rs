//! What goes between a disk's thread and its caller in one go.

use std::collections::VecDeque;
use std::sync::mpsc::Receiver;

use super::wire::HOLE;
use crate::aligned::{ALIGN, Aligned};
use crate::members::locate;
use crate::pool::{Extent, ExtentKind};

/// Bytes of content: in smaller pieces a disk that is far away does not get going.
pub(super) const BATCH: usize = 4 << 20;
/// Buffers at each end: one at either side of the queue, the others in it.
pub(super) const BUFFERS: usize = 4;
/// Batches that wait in the queue.
pub(super) const QUEUE: usize = BUFFERS - 2;
/// Pieces of a batch, so that a list of holes is bounded as well.
const PIECES: usize = 1024;

/// Pieces in the order of their offsets, with their content.
pub(super) struct Batch {
    /// Each with where its content is in the buffer.
    pub(super) pieces: VecDeque<(Extent, usize)>,
    buffer: Aligned,
    /// Where the next content goes.
    at: usize,
}

impl Batch {
    pub(super) fn new(buffer: Aligned) -> Self {
        Self { pieces: VecDeque::new(), buffer, at: 0 }
    }

    pub(super) fn into_buffer(self) -> Aligned {
        self.buffer
    }

    /// How many bytes of content still fit.
    pub(super) fn room(&self) -> usize {
        if self.pieces.len() < PIECES { BATCH.saturating_sub(self.at) } else { 0 }
    }

    /// The content of a piece of so many bytes.
    pub(super) fn content(&self, at: usize, len: usize) -> &[u8] {
        &self.buffer.get()[at..at + len]
    }

    pub(super) fn content_mut(&mut self, at: usize, len: usize) -> &mut [u8] {
        &mut self.buffer.get_mut()[at..at + len]
    }

    /// Adds a piece that there is room for, whose content goes to the place that is returned.
    pub(super) fn add(&mut self, extent: Extent) -> usize {
        let at = self.at;
        if extent.kind == ExtentKind::Data {
            self.at = (at + extent.len as usize).next_multiple_of(ALIGN);
        }
        self.pieces.push_back((extent, at));
        at
    }

    /// The same, but neighbours become one piece.
    pub(super) fn join(&mut self, extent: Extent) -> usize {
        if let Some((last, at)) = self.pieces.back_mut()
            && follows(last, &extent)
        {
            let (here, len) = (*at + last.len as usize, extent.len);
            match extent.kind {
                ExtentKind::Hole => {
                    last.len += len;
                    return *at;
                }
                // Only an aligned piece has its neighbour's content right behind its own.
                ExtentKind::Data if here == self.at => {
                    last.len += len;
                    self.at = (here + len as usize).next_multiple_of(ALIGN);
                    return here;
                }
                ExtentKind::Data => {}
            }
        }
        self.add(extent)
    }
}

/// Whether `next` comes right after, is of the same kind, and is in the same member.
fn follows(last: &Extent, next: &Extent) -> bool {
    let joined = last.len + next.len;
    let fits = last.kind == ExtentKind::Data || joined <= HOLE;
    let beside = last.offset + last.len == next.offset;
    beside && fits && last.kind == next.kind && locate(last.offset).0 == locate(next.offset).0
}

/// The buffers of one end, made as they are needed.
pub(super) struct Buffers {
    used: Receiver<Aligned>,
    made: usize,
}

impl Buffers {
    pub(super) fn new(used: Receiver<Aligned>) -> Self {
        Self { used, made: 0 }
    }

    /// One that is free, once there is; `None` if nobody is left to free one.
    pub(super) fn take(&mut self) -> Option<Aligned> {
        if let Ok(buffer) = self.used.try_recv() {
            return Some(buffer);
        }
        if self.made == BUFFERS {
            return self.used.recv().ok();
        }
        self.made += 1;
        Some(Aligned::new(BATCH))
    }
}
