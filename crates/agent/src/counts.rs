//! What has become of transfers since the agent began, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};

use holdfast_storage::Error;
use holdfast_storage::stream::StreamError;
use holdfast_types::Code;

use crate::error::AgentError;

/// Transfers out and in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TransferCounts {
    /// What this node ships.
    pub sent: SideCounts,
    /// What it receives.
    pub received: SideCounts,
}

/// Transfers in one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SideCounts {
    /// Streams that were begun, resumed ones included.
    pub begun: u64,
    /// Of these, such as went on where one had been interrupted.
    pub resumed: u64,
    /// Streams whose snapshot was verified and durable in the end.
    pub finished: u64,
    /// Streams that ended early: a broken connection, a full pool, a node that went away.
    pub interrupted: u64,
    /// Streams that ended because their content did not match its checksums.
    pub corrupt: u64,
    /// Transfers that were refused or interrupted to make way for others.
    pub made_way: u64,
    /// Bytes of streams, as they travel.
    pub bytes: u64,
}

/// The counters behind them.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) sent: Side,
    pub(crate) received: Side,
}

/// Those of one direction.
#[derive(Debug, Default)]
pub(crate) struct Side {
    begun: AtomicU64,
    resumed: AtomicU64,
    finished: AtomicU64,
    interrupted: AtomicU64,
    corrupt: AtomicU64,
    made_way: AtomicU64,
    bytes: AtomicU64,
}

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Finished,
    Interrupted,
    Corrupt,
    MadeWay,
}

impl End {
    /// By what became of it.
    pub(crate) fn of<T>(ended: &Result<T, AgentError>) -> Self {
        match ended {
            Ok(_) => Self::Finished,
            // It says nothing of what came before.
            Err(AgentError::Storage(Error::Stream(StreamError::Truncated))) => Self::Interrupted,
            Err(error) => match error.code() {
                Code::StreamCorrupt => Self::Corrupt,
                Code::Busy => Self::MadeWay,
                _ => Self::Interrupted,
            },
        }
    }
}

/// A stream under way. It counts as interrupted unless it is said how it ended.
#[derive(Debug)]
pub(crate) struct Stream<'a> {
    side: &'a Side,
    end: End,
}

impl Counters {
    pub(crate) fn read(&self) -> TransferCounts {
        TransferCounts { sent: self.sent.read(), received: self.received.read() }
    }
}

impl Side {
    /// A stream begins, at that offset.
    pub(crate) fn begin(&self, resume_at: u64) -> Stream<'_> {
        add(&self.begun, 1);
        if resume_at > 0 {
            add(&self.resumed, 1);
        }
        Stream { side: self, end: End::Interrupted }
    }

    /// So many bytes of a stream passed.
    pub(crate) fn moved(&self, bytes: usize) {
        add(&self.bytes, bytes as u64);
    }

    /// A transfer was refused for want of a place.
    pub(crate) fn refused(&self) {
        add(&self.made_way, 1);
    }

    fn read(&self) -> SideCounts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SideCounts {
            begun: get(&self.begun),
            resumed: get(&self.resumed),
            finished: get(&self.finished),
            interrupted: get(&self.interrupted),
            corrupt: get(&self.corrupt),
            made_way: get(&self.made_way),
            bytes: get(&self.bytes),
        }
    }
}

impl Stream<'_> {
    /// Says how it ends.
    pub(crate) fn ended(mut self, end: End) {
        self.end = end;
    }
}

impl Drop for Stream<'_> {
    fn drop(&mut self) {
        let counter = match self.end {
            End::Finished => &self.side.finished,
            End::Interrupted => &self.side.interrupted,
            End::Corrupt => &self.side.corrupt,
            End::MadeWay => &self.side.made_way,
        };
        add(counter, 1);
    }
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_is_dropped_was_interrupted() {
        let side = Side::default();
        side.begin(0).ended(End::Finished);
        drop(side.begin(4096));
        side.begin(0).ended(End::Corrupt);
        side.moved(10);
        let counts = side.read();
        assert_eq!((counts.begun, counts.resumed, counts.bytes), (3, 1, 10));
        assert_eq!((counts.finished, counts.interrupted, counts.corrupt), (1, 1, 1));
    }
}
