//! The end of the log, as it was appended. New entries are read again at once, to be sent to each
//! follower and to be applied; this spares looking them up and decoding them.
//!
//! What is kept is always the newest entries without a hole, so it answers for every range that
//! begins in it. sled has all of them too.

use std::collections::VecDeque;
use std::ops::{Bound, RangeBounds};
use std::sync::{Mutex, MutexGuard, PoisonError};

use openraft::EntryPayload;

use crate::types::LogEntry;

/// Bytes that are kept, and what an entry counts besides its content.
const KEPT_BYTES: usize = 4 << 20;
const ENTRY_BYTES: usize = 128;

#[derive(Default)]
pub(super) struct Recent(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    entries: VecDeque<LogEntry>,
    bytes: usize,
}

impl Recent {
    /// Adds the entry that is the last of the log now.
    pub(super) fn push(&self, entry: LogEntry) {
        let mut kept = self.lock();
        if kept.entries.back().is_some_and(|last| last.log_id.index + 1 != entry.log_id.index) {
            *kept = Kept::default();
        }
        kept.bytes += bytes(&entry);
        kept.entries.push_back(entry);
        while kept.bytes > KEPT_BYTES {
            kept.drop_first();
        }
    }

    /// The log ends before `from`.
    pub(super) fn truncate(&self, from: u64) {
        let mut kept = self.lock();
        while kept.entries.back().is_some_and(|last| last.log_id.index >= from) {
            let last = kept.entries.pop_back();
            kept.bytes -= last.as_ref().map_or(0, bytes);
        }
    }

    /// The log begins after `upto`.
    pub(super) fn forget(&self, upto: u64) {
        let mut kept = self.lock();
        while kept.entries.front().is_some_and(|first| first.log_id.index <= upto) {
            kept.drop_first();
        }
    }

    /// The entries of `range`, until their bytes pass `limit`; nothing if it begins before what is
    /// kept.
    pub(super) fn read(
        &self,
        range: &impl RangeBounds<u64>,
        limit: usize,
    ) -> Option<Vec<LogEntry>> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before.checked_add(1)?,
            Bound::Unbounded => 0,
        };
        let kept = self.lock();
        let first = kept.entries.front()?.log_id.index;
        let skip = usize::try_from(start.checked_sub(first)?).ok()?;
        let mut left = limit;
        let within = kept.entries.iter().skip(skip).take_while(|entry| {
            let wanted = range.contains(&entry.log_id.index) && left > 0;
            left = left.saturating_sub(bytes(entry));
            wanted
        });
        Some(within.cloned().collect())
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn drop_first(&mut self) {
        let first = self.entries.pop_front();
        self.bytes -= first.as_ref().map_or(0, bytes);
    }
}

fn bytes(entry: &LogEntry) -> usize {
    let content = match &entry.payload {
        EntryPayload::Normal(bytes) => bytes.len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    };
    content + ENTRY_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::TypeConfig;

    fn entry(index: u64) -> LogEntry {
        openraft::testing::blank_ent::<TypeConfig>(1, 1, index)
    }

    fn filled(indexes: std::ops::Range<u64>) -> Recent {
        let recent = Recent::default();
        indexes.for_each(|index| recent.push(entry(index)));
        recent
    }

    fn indexes(read: Option<Vec<LogEntry>>) -> Option<Vec<u64>> {
        read.map(|entries| entries.iter().map(|entry| entry.log_id.index).collect())
    }

    #[test]
    fn a_range_is_answered_whole_or_not_at_all() {
        let recent = filled(5..10);
        assert_eq!(indexes(recent.read(&(6..8), usize::MAX)), Some(vec![6, 7]));
        assert_eq!(indexes(recent.read(&(8..=20), usize::MAX)), Some(vec![8, 9]));
        assert_eq!(indexes(recent.read(&(10..12), usize::MAX)), Some(vec![]));
        assert_eq!(indexes(recent.read(&(4..8), usize::MAX)), None, "sled has the fourth");
        assert_eq!(indexes(recent.read(&(..), usize::MAX)), None);
        assert_eq!(indexes(recent.read(&(5..10), ENTRY_BYTES + 1)), Some(vec![5, 6]));
        assert_eq!(indexes(Recent::default().read(&(0..1), usize::MAX)), None);
    }

    #[test]
    fn it_ends_and_begins_where_the_log_does() {
        let recent = filled(5..10);
        recent.truncate(8);
        recent.push(entry(8));
        assert_eq!(indexes(recent.read(&(7..), usize::MAX)), Some(vec![7, 8]));
        recent.forget(6);
        assert_eq!(indexes(recent.read(&(6..9), usize::MAX)), None);
        assert_eq!(indexes(recent.read(&(7..9), usize::MAX)), Some(vec![7, 8]));
        recent.push(entry(20));
        assert_eq!(indexes(recent.read(&(8..), usize::MAX)), None, "a log that began anew");
        assert_eq!(recent.lock().bytes, ENTRY_BYTES);
        recent.truncate(0);
        assert_eq!(recent.lock().bytes, 0);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let many = (KEPT_BYTES / ENTRY_BYTES) as u64 + 10;
        let recent = filled(0..many);
        assert_eq!(recent.lock().bytes, KEPT_BYTES);
        assert_eq!(indexes(recent.read(&(0..5), usize::MAX)), None);
        assert_eq!(indexes(recent.read(&(many - 1..), usize::MAX)), Some(vec![many - 1]));
    }
}
