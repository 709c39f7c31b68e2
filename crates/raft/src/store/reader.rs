//! Reading the log, for replication and for applying.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use openraft::storage::RaftLogReader;

use super::{Inner, LogStore, key};
use crate::codec::unseal;
use crate::error::RaftError;
use crate::types::{LogEntry, TypeConfig, Vote};

/// What one request to a follower carries at most, before its last entry. With an entry's limit
/// it stays well below what the transport accepts.
const BATCH_BYTES: usize = 1 << 20;

/// A handle for reading; any number may exist.
#[derive(Clone)]
pub(crate) struct LogReader {
    inner: Arc<Inner>,
}

impl LogReader {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self { inner }
    }
}

impl Inner {
    /// Entries of `range`, in order, without holes, until their bytes pass `limit`.
    fn entries(
        &self,
        range: impl RangeBounds<u64>,
        limit: usize,
    ) -> Result<Vec<LogEntry>, RaftError> {
        self.health.check()?;
        if let Some(entries) = self.recent.read(&range, limit) {
            return Ok(entries);
        }
        let bounds = (map(range.start_bound()), map(range.end_bound()));
        if empty(&bounds) {
            return Ok(Vec::new());
        }
        let mut entries: Vec<LogEntry> = Vec::new();
        let mut bytes = 0;
        for item in self.log.range::<[u8; 8], _>(bounds) {
            let (k, v) = item.map_err(|e| self.failed(&e))?;
            let entry: LogEntry =
                unseal(&v).map_err(|e| self.corrupt(format!("log entry {k:?}: {e}")))?;
            if entries.last().is_some_and(|last| last.log_id.index + 1 != entry.log_id.index) {
                let what = format!("entries before log entry {} are missing", entry.log_id.index);
                return Err(self.corrupt(what));
            }
            entries.push(entry);
            bytes += v.len();
            if bytes >= limit {
                break;
            }
        }
        Ok(entries)
    }
}

fn map(bound: Bound<&u64>) -> Bound<[u8; 8]> {
    bound.map(|index| key(*index))
}

/// sled panics on a range that ends before it starts.
fn empty(bounds: &(Bound<[u8; 8]>, Bound<[u8; 8]>)) -> bool {
    match bounds {
        (Bound::Included(a), Bound::Included(b)) => a > b,
        (Bound::Included(a) | Bound::Excluded(a), Bound::Included(b) | Bound::Excluded(b)) => {
            a >= b
        }
        _ => false,
    }
}

impl RaftLogReader<TypeConfig> for LogReader {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> Result<Vec<LogEntry>, io::Error> {
        Ok(self.inner.entries(range, usize::MAX)?)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<LogEntry>, io::Error> {
        Ok(self.inner.entries(start..end, BATCH_BYTES)?)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.inner.heads().vote)
    }
}

impl LogStore {
    pub(super) fn reader(&self) -> LogReader {
        LogReader::new(self.inner.clone())
    }
}
