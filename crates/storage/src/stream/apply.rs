//! The receiver that every driver shares: verifies, writes through a [`Sink`], syncs as it goes.

use super::{Decoder, Header, Record, StreamError};
use crate::catalog::SnapshotInfo;
use crate::pool::{Offer, Receiver};
use crate::{Error, Result};

/// How much is written between two syncs: what a resume may have to send again.
const SYNC_EVERY: u64 = 64 << 20;

/// Where a driver puts what is received, until it is committed. Dropping it keeps what was synced.
pub trait Sink: Send {
    /// Writes content.
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<()>;
    /// Makes a range read as zeros.
    fn zero(&mut self, offset: u64, len: u64) -> Result<()>;
    /// Makes everything written durable, then durably notes that everything below `offset` is
    /// there.
    fn sync(&mut self, offset: u64) -> Result<()>;
    /// Makes it durable and a snapshot, in one step; the epoch is checked once more.
    fn commit(self: Box<Self>) -> Result<SnapshotInfo>;
    /// Drops everything received: it is not to be trusted.
    fn discard(self: Box<Self>);
}

/// One receive in progress.
pub struct Applier {
    decoder: Decoder,
    taken: Taken,
}

/// What has been taken so far.
struct Taken {
    offer: Offer,
    resume_at: u64,
    synced: u64,
    /// Everything below has been written.
    written: u64,
    unsynced: u64,
    /// The disk refused something: what it has of the rest is not known.
    failed: bool,
    /// `None` once committed or given up.
    sink: Option<Box<dyn Sink>>,
}

impl Applier {
    /// A receiver of `offer` whose bytes below `resume_at` are durable in `sink`.
    pub fn new(offer: Offer, resume_at: u64, sink: Box<dyn Sink>) -> Self {
        let taken = Taken {
            offer,
            resume_at,
            synced: resume_at,
            written: resume_at,
            unsynced: 0,
            failed: false,
            sink: Some(sink),
        };
        Self { decoder: Decoder::default(), taken }
    }
}

impl Taken {
    fn take(&mut self, record: Record<'_>) -> Result<()> {
        let Some(sink) = self.sink.as_mut() else { return Err(StreamError::AfterEnd.into()) };
        let (end, len) = match record {
            Record::Header(Header { offer, from, .. }) => {
                let agreed = offer == self.offer && from == self.resume_at;
                return if agreed { Ok(()) } else { Err(StreamError::OtherOffer.into()) };
            }
            Record::Data { offset, data } => {
                sink.write(offset, data)?;
                (offset + data.len() as u64, data.len() as u64)
            }
            Record::Hole { offset, len } => {
                sink.zero(offset, len)?;
                (offset + len, 0)
            }
            Record::End => return Ok(()),
        };
        self.written = end;
        self.unsynced += len;
        if self.unsynced >= SYNC_EVERY {
            sink.sync(end)?;
            (self.synced, self.unsynced) = (end, 0);
        }
        Ok(())
    }
}

impl Receiver for Applier {
    fn resume_at(&self) -> u64 {
        self.taken.resume_at
    }

    fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        let Self { decoder, taken } = self;
        let result = decoder.feed(bytes, |record| taken.take(record));
        self.taken.failed |= result.is_err();
        if matches!(result, Err(Error::Stream(_)))
            // What was written before passed its checks, but a sender that errs is not resumed.
            && let Some(sink) = self.taken.sink.take()
        {
            sink.discard();
        }
        result
    }

    fn synced_offset(&self) -> u64 {
        self.taken.synced
    }

    fn finish(mut self: Box<Self>) -> Result<SnapshotInfo> {
        if !self.decoder.ended() {
            return Err(StreamError::Truncated.into());
        }
        match self.taken.sink.take() {
            Some(sink) => sink.commit(),
            None => Err(StreamError::AfterEnd.into()),
        }
    }
}

impl Drop for Taken {
    /// An interrupted receive keeps what it has. After a failure only what was durable before: the
    /// kernel says once that it lost what it could not write back, and then that all is well.
    fn drop(&mut self) {
        if let Some(mut sink) = self.sink.take()
            && !self.failed
            && self.written > self.synced
            && let Err(error) = sink.sync(self.written)
        {
            tracing::debug!(%error, "an interrupted receive could not be synced");
        }
    }
}
