//! How much the log holds, and since when: one figure for a few hundred entries, in memory.
//!
//! Ages are counted on this process's clock (CLOCK_BOOTTIME) from when the entry was written here,
//! so no jump of the wall clock makes an entry old; after a restart all ages begin anew.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A span is full with so many entries,
const SPAN_ENTRIES: u64 = 256;
/// with so many bytes,
const SPAN_BYTES: u64 = 256 << 10;
/// or when it is this old.
const SPAN_AGE: Duration = Duration::from_secs(60);

/// Entries in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    /// The first entry's index.
    pub(crate) first: u64,
    /// The last one's.
    pub(crate) last: u64,
    /// What they take, sealed. After a part is gone: about.
    pub(crate) bytes: u64,
    /// When the first was written.
    pub(crate) since: Duration,
}

/// The whole log, oldest span first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Spans(VecDeque<Span>);

impl Spans {
    pub(crate) fn append(&mut self, index: u64, bytes: u64, now: Duration) {
        match self.0.back_mut() {
            Some(span) if span.takes(index, now) => {
                span.last = index;
                span.bytes += bytes;
            }
            _ => self.0.push_back(Span { first: index, last: index, bytes, since: now }),
        }
    }

    /// Entries at `from` and after it are gone.
    pub(crate) fn truncate(&mut self, from: u64) {
        while self.0.back().is_some_and(|span| span.first >= from) {
            self.0.pop_back();
        }
        if let Some(span) = self.0.back_mut()
            && span.last >= from
        {
            span.bytes = span.share(from - span.first);
            span.last = from - 1;
        }
    }

    /// Entries up to and including `upto` are gone.
    pub(crate) fn purge(&mut self, upto: u64) {
        while self.0.front().is_some_and(|span| span.last <= upto) {
            self.0.pop_front();
        }
        if let Some(span) = self.0.front_mut()
            && span.first <= upto
        {
            span.bytes = span.share(span.last - upto);
            span.first = upto + 1;
        }
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Span> {
        self.0.iter()
    }
}

impl Span {
    fn takes(&self, index: u64, now: Duration) -> bool {
        index == self.last + 1
            && index - self.first < SPAN_ENTRIES
            && self.bytes < SPAN_BYTES
            && now.saturating_sub(self.since) < SPAN_AGE
    }

    /// What `entries` of it take, if all are alike.
    fn share(&self, entries: u64) -> u64 {
        self.bytes * entries / (self.last - self.first + 1)
    }
}

/// The spans of a log in use. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Usage(Arc<Mutex<Spans>>);

impl Usage {
    pub(crate) fn new(spans: Spans) -> Self {
        Self(Arc::new(Mutex::new(spans)))
    }

    pub(crate) fn now(&self) -> Spans {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut Spans)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn bounds(spans: &Spans) -> Vec<(u64, u64, u64)> {
        spans.iter().map(|s| (s.first, s.last, s.bytes)).collect()
    }

    #[test]
    fn a_span_is_full_by_number_by_bytes_and_by_age() {
        let mut spans = Spans::default();
        for index in 0..SPAN_ENTRIES + 1 {
            spans.append(index, 1, secs(1));
        }
        spans.append(SPAN_ENTRIES + 1, SPAN_BYTES, secs(1));
        spans.append(SPAN_ENTRIES + 2, 1, secs(1));
        spans.append(SPAN_ENTRIES + 3, 1, secs(61));
        let n = SPAN_ENTRIES;
        let expected =
            [(0, n - 1, n), (n, n + 1, SPAN_BYTES + 1), (n + 2, n + 2, 1), (n + 3, n + 3, 1)];
        assert_eq!(bounds(&spans), expected);
    }

    #[test]
    fn what_is_gone_at_either_end_is_not_counted() {
        let mut spans = Spans::default();
        for index in 0..600 {
            spans.append(index, 10, secs(1));
        }
        spans.truncate(520);
        spans.purge(99);
        assert_eq!(bounds(&spans), [(100, 255, 1560), (256, 511, 2560), (512, 519, 80)]);
        spans.truncate(256);
        assert_eq!(bounds(&spans), [(100, 255, 1560)]);
        spans.append(256, 10, secs(1));
        spans.purge(1_000);
        assert_eq!(bounds(&spans), []);
        spans.truncate(0);
        spans.append(7, 10, secs(1));
        assert_eq!(bounds(&spans), [(7, 7, 10)]);
    }
}
