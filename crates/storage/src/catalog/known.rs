//! Which blocks of a copy have a hash: a small set of ranges.

use serde::{Deserialize, Serialize};

/// At most so many ranges are kept; a volume's state is written whole at each change.
const MAX_RANGES: usize = 256;

/// Blocks, as ordered ranges that do not touch. When there are too many, the shortest are
/// forgotten: a block that is not in the set is hashed anew, which is only more work.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KnownBlocks(Vec<Run>);

/// First block, and number of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Run(u64, u64);

impl Run {
    fn end(self) -> u64 {
        self.0.saturating_add(self.1)
    }
}

impl KnownBlocks {
    /// Whether a block is in the set.
    pub fn contains(&self, block: u64) -> bool {
        let at = self.0.partition_point(|run| run.end() <= block);
        self.0.get(at).is_some_and(|run| run.0 <= block)
    }

    /// How many blocks are in it.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|run| run.1).sum()
    }

    /// Adds the blocks `first..end`.
    pub(crate) fn insert(&mut self, first: u64, end: u64) {
        self.join(first, end);
        self.bound();
    }

    /// The same, whatever it takes.
    fn join(&mut self, first: u64, end: u64) {
        if first >= end {
            return;
        }
        let from = self.0.partition_point(|run| run.end() < first);
        let to = self.0.partition_point(|run| run.0 <= end);
        let joined = &self.0[from..to];
        let first = joined.first().map_or(first, |run| run.0.min(first));
        let end = joined.last().map_or(end, |run| run.end().max(end));
        self.0.splice(from..to, [Run(first, end - first)]);
    }

    /// Adds the blocks `first..end`, unless the set cannot hold that: then it says so.
    pub(crate) fn try_insert(&mut self, first: u64, end: u64) -> bool {
        self.join(first, end);
        self.0.len() <= MAX_RANGES
    }

    /// Takes the blocks `first..end` out.
    pub(crate) fn remove(&mut self, first: u64, end: u64) {
        if first >= end {
            return;
        }
        let from = self.0.partition_point(|run| run.end() <= first);
        let to = self.0.partition_point(|run| run.0 < end);
        if from == to {
            return;
        }
        let (head, tail) = (self.0[from], self.0[to - 1]);
        let mut left = Vec::with_capacity(2);
        if head.0 < first {
            left.push(Run(head.0, first - head.0));
        }
        if tail.end() > end {
            left.push(Run(end, tail.end() - end));
        }
        self.0.splice(from..to, left);
        self.bound();
    }

    /// Takes everything out.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// The ranges, `first..end`, in order.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().map(|run| (run.0, run.end()))
    }

    fn bound(&mut self) {
        while self.0.len() > MAX_RANGES {
            if let Some(at) = (0..self.0.len()).min_by_key(|at| self.0[*at].1) {
                self.0.remove(at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(steps in prop::collection::vec((any::<bool>(), 0u64..120, 0u64..30), 0..60)) {
            let (mut known, mut model) = (KnownBlocks::default(), BTreeSet::new());
            for (add, first, len) in steps {
                let end = first + len;
                match add {
                    true => { known.insert(first, end); model.extend(first..end); }
                    false => { known.remove(first, end); model.retain(|b| !(first..end).contains(b)); }
                }
                let runs: Vec<_> = known.ranges().collect();
                prop_assert!(runs.windows(2).all(|w| w[0].1 < w[1].0), "{runs:?}");
                prop_assert_eq!(known.count(), model.len() as u64);
                prop_assert!((0..160).all(|b| known.contains(b) == model.contains(&b)));
            }
        }
    }

    #[test]
    fn it_stays_small_and_never_knows_too_much() {
        let mut known = KnownBlocks::default();
        known.insert(0, 100_000);
        for block in (0..100_000).step_by(7) {
            known.remove(block, block + 1);
        }
        assert!(known.ranges().count() <= MAX_RANGES);
        assert!((0..100_000).step_by(7).all(|block| !known.contains(block)));
    }
}
