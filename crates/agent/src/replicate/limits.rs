//! A node's limits on what it ships, applied to each piece of a stream before it leaves.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_types::ByteSize;

use super::bucket::Bucket;

/// Pieces are small enough that one of each transfer passes in a second or two, however low the
/// rate: neither end takes a slow stream for a dead one.
const PIECES_PER_SECOND: u64 = 8;
const SMALLEST_PIECE: u64 = 4 << 10;

/// How many transfers a node has at a time, and how fast they go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransferLimits {
    /// Bytes that all that the node ships takes in a second; `None` is no limit.
    pub rate: Option<ByteSize>,
    /// The same for each transfer by itself.
    pub job_rate: Option<ByteSize>,
    /// What it ships at a time.
    pub sends: usize,
    /// What it receives at a time.
    pub receives: usize,
}

impl Default for TransferLimits {
    fn default() -> Self {
        Self { rate: None, job_rate: None, sends: 4, receives: 8 }
    }
}

/// The node's limit, which its transfers share.
#[derive(Clone)]
pub(crate) struct Limits {
    node: Option<Arc<Mutex<Bucket>>>,
    limits: TransferLimits,
}

/// The limits of one transfer.
#[derive(Clone)]
pub(crate) struct JobLimits {
    buckets: Vec<Arc<Mutex<Bucket>>>,
    piece: usize,
}

impl Limits {
    pub(crate) fn new(limits: TransferLimits) -> Self {
        let node = limits.rate.map(|rate| Arc::new(Mutex::new(Bucket::new(rate))));
        Self { node, limits }
    }

    /// Those of one more transfer.
    pub(crate) fn job(&self) -> JobLimits {
        let own = self.limits.job_rate.map(|rate| Arc::new(Mutex::new(Bucket::new(rate))));
        let lowest = self.limits.rate.into_iter().chain(self.limits.job_rate).min();
        let piece = lowest.map(|rate| (rate.bytes() / PIECES_PER_SECOND).max(SMALLEST_PIECE));
        let piece = piece.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(usize::MAX);
        JobLimits { buckets: self.node.clone().into_iter().chain(own).collect(), piece }
    }
}

impl JobLimits {
    /// The most bytes that are sent in one piece.
    pub(crate) fn piece(&self) -> usize {
        self.piece
    }

    /// Waits until so many bytes may go.
    pub(crate) async fn pass(&self, bytes: usize) {
        let now_ns = holdfast_fence::boottime_ns();
        let take = |bucket: &Arc<Mutex<Bucket>>| {
            let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
            bucket.take(now_ns, bytes as u64)
        };
        let wait = self.buckets.iter().map(take).max().unwrap_or_default();
        if wait > Duration::ZERO {
            tokio::time::sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_follow_the_lowest_rate() {
        let piece = |rate: Option<u64>, job: Option<u64>| {
            let (rate, job_rate) = (rate.map(ByteSize), job.map(ByteSize));
            Limits::new(TransferLimits { rate, job_rate, ..TransferLimits::default() }).job().piece
        };
        assert_eq!(piece(None, None), usize::MAX);
        assert_eq!(piece(Some(8 << 20), None), 1 << 20);
        assert_eq!(piece(Some(8 << 20), Some(1 << 20)), 128 << 10);
        assert_eq!(piece(Some(1), None), 4 << 10);
    }

    /// Each transfer has a bucket of its own, and all have the node's in common.
    #[test]
    fn the_nodes_limit_is_shared_and_a_jobs_is_not() {
        let limits = TransferLimits {
            rate: Some(ByteSize::mib(2)),
            job_rate: Some(ByteSize::mib(1)),
            ..TransferLimits::default()
        };
        let limits = Limits::new(limits);
        let (a, b) = (limits.job(), limits.job());
        assert!(Arc::ptr_eq(&a.buckets[0], &b.buckets[0]));
        assert!(!Arc::ptr_eq(&a.buckets[1], &b.buckets[1]));
    }
}
