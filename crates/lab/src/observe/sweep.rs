//! The judgement on run intervals: pure.

use serde::{Deserialize, Serialize};

use crate::clock::BootInstant;

/// A container was seen running on a node from the first to the last of an unbroken row of polls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interval {
    /// Where.
    pub node: String,
    /// When it was first seen to run.
    pub first: BootInstant,
    /// When it was last seen to run. Never before `first`.
    pub last: BootInstant,
}

/// What the intervals of one container show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Verdict {
    /// For how long, in all, two nodes ran it at once. Two that touch in one instant overlap.
    pub overlap_ns: u64,
    /// How often two intervals of different nodes overlapped, however shortly.
    pub overlaps: usize,
    /// The shortest time between a run on one node and the next run on another.
    pub min_gap_ns: Option<u64>,
}

impl Verdict {
    /// Whether the container never ran twice (I8).
    pub fn holds(&self) -> bool {
        self.overlaps == 0
    }

    /// The overlap in milliseconds, rounded up: an overlap is never shown as none.
    pub fn overlap_ms(&self) -> u64 {
        let shown = self.overlap_ns.div_ceil(1_000_000);
        if self.overlaps > 0 { shown.max(1) } else { shown }
    }

    /// The gap in milliseconds, rounded down.
    pub fn min_gap_ms(&self) -> Option<u64> {
        self.min_gap_ns.map(|ns| ns / 1_000_000)
    }
}

/// Judges the run intervals of one container, in any order.
pub fn sweep(intervals: &[Interval]) -> Verdict {
    let mut sorted: Vec<&Interval> = intervals.iter().collect();
    sorted.sort_by_key(|i| (i.first, i.last));
    let mut verdict = Verdict::default();
    for (at, next) in sorted.iter().enumerate() {
        let others = || sorted[..at].iter().filter(|earlier| earlier.node != next.node);
        for earlier in others().filter(|earlier| earlier.last >= next.first) {
            let until = earlier.last.min(next.last);
            verdict.overlaps += 1;
            verdict.overlap_ns += until.0 - next.first.0;
        }
        let before = others().map(|earlier| earlier.last).max().filter(|last| *last < next.first);
        if let Some(last) = before {
            let gap = next.first.0 - last.0;
            verdict.min_gap_ns = Some(verdict.min_gap_ns.map_or(gap, |least| least.min(gap)));
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn run(node: &str, first_ms: u64, last_ms: u64) -> Interval {
        let at = |ms| BootInstant(ms * MS);
        Interval { node: node.into(), first: at(first_ms), last: at(last_ms) }
    }

    #[test]
    fn one_run_after_another_shows_the_gap() {
        let verdict = sweep(&[run("n2", 1350, 2000), run("n1", 0, 1000), run("n1", 2500, 3000)]);
        assert!(verdict.holds());
        assert_eq!((verdict.overlap_ms(), verdict.min_gap_ms()), (0, Some(350)));
    }

    /// I8: this is what must never be seen, and must be seen if it is there.
    #[test]
    fn two_at_once_is_an_overlap_however_it_lies() {
        let cases = [
            ([run("n1", 0, 1000), run("n2", 900, 2000)], 100),
            ([run("n1", 0, 1000), run("n2", 200, 300)], 100),
            ([run("n2", 0, 1000), run("n1", 0, 1000)], 1000),
            ([run("n1", 0, 1000), run("n2", 1000, 2000)], 1),
        ];
        for (intervals, expected_ms) in cases {
            let verdict = sweep(&intervals);
            assert!(!verdict.holds(), "{intervals:?}");
            assert_eq!(verdict.overlap_ms(), expected_ms, "{intervals:?}");
        }
    }

    #[test]
    fn a_long_run_hides_behind_a_short_one_in_vain() {
        let all = [run("n1", 0, 5000), run("n3", 100, 200), run("n2", 4000, 6000)];
        assert_eq!(sweep(&all).overlaps, 2);
        assert_eq!(sweep(&all).overlap_ms(), 1100);
    }

    #[test]
    fn runs_on_one_node_are_no_conflict_and_no_gap() {
        let verdict = sweep(&[run("n1", 0, 10), run("n1", 20, 30)]);
        assert_eq!(verdict, Verdict::default());
        assert_eq!(sweep(&[]), Verdict::default());
    }
}
