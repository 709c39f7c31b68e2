//! The receiver that every driver shares: verifies, and writes behind through a [`Sink`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::behind::{Behind, Gone, Written};
use super::{Decoder, Header, Record, StreamError};
use crate::catalog::SnapshotInfo;
use crate::pool::{Offer, Receiver};
use crate::{Error, Result};

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
    synced: Arc<AtomicU64>,
    stage: Stage,
}

enum Stage {
    /// Nothing has come yet.
    Begun(Box<dyn Sink>),
    Writing(Behind),
    /// Committed or given up.
    Over,
}

impl Applier {
    /// A receiver of `offer` whose bytes below `resume_at` are durable in `sink`.
    pub fn new(offer: Offer, resume_at: u64, sink: Box<dyn Sink>) -> Self {
        let synced = Arc::new(AtomicU64::new(resume_at));
        let taken = Taken { offer, resume_at, synced, stage: Stage::Begun(sink) };
        Self { decoder: Decoder::default(), taken }
    }
}

impl Taken {
    fn take(&mut self, record: Record<'_>) -> Result<()> {
        let taken = match record {
            Record::Header(Header { offer, from, .. }) => {
                // Whether it is kept for somebody is known to the receiver alone.
                let offer = Offer { history: self.offer.history, ..offer };
                let agreed = offer == self.offer && from == self.resume_at;
                return if agreed { Ok(()) } else { Err(StreamError::OtherOffer.into()) };
            }
            Record::Data { offset, data } => self.behind()?.write(offset, data),
            Record::Hole { offset, len } => self.behind()?.zero(offset, len),
            Record::End => Ok(()),
        };
        match taken {
            Ok(()) => Ok(()),
            // It has ended early: for what reason is in its last words.
            Err(Gone) => self.end().map_or(Ok(()), |written| written.keep().map(drop)),
        }
    }

    fn behind(&mut self) -> Result<&mut Behind> {
        if let Stage::Begun(_) = self.stage
            && let Stage::Begun(sink) = std::mem::replace(&mut self.stage, Stage::Over)
        {
            self.stage = Stage::Writing(Behind::start(sink, self.synced.clone())?);
        }
        match &mut self.stage {
            Stage::Writing(behind) => Ok(behind),
            _ => Err(StreamError::AfterEnd.into()),
        }
    }

    /// Waits until everything taken is written, or could not be.
    fn end(&mut self) -> Option<Written> {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Begun(sink) => Some(Written::nothing(sink, self.resume_at)),
            Stage::Writing(behind) => Some(behind.end()),
            Stage::Over => None,
        }
    }
}

impl Receiver for Applier {
    fn resume_at(&self) -> u64 {
        self.taken.resume_at
    }

    fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        let Self { decoder, taken } = self;
        let result = decoder.feed(bytes, |record| taken.take(record));
        if matches!(result, Err(Error::Stream(_)))
            // What was written before passed its checks, but a sender that errs is not resumed.
            && let Some(written) = self.taken.end()
        {
            written.sink.discard();
        }
        result
    }

    fn synced_offset(&self) -> u64 {
        self.taken.synced.load(Ordering::Acquire)
    }

    fn finish(mut self: Box<Self>) -> Result<SnapshotInfo> {
        if !self.decoder.ended() {
            return Err(StreamError::Truncated.into());
        }
        let written = self.taken.end().ok_or(StreamError::AfterEnd)?;
        written.complete()?.commit()
    }
}

impl Drop for Taken {
    /// An interrupted receive keeps what it has.
    fn drop(&mut self) {
        if let Some(written) = self.end()
            && let Err(error) = written.keep()
        {
            tracing::debug!(%error, "an interrupted receive had failed");
        }
    }
}
