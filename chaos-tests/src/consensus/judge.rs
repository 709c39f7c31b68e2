//! What a round's calls amount to: counts, and whatever does not fit.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::history::{Call, What, registers};
use super::versions;
use crate::linear::{self, Limits, Verdict};

/// A round, judged.
#[derive(Debug, Default)]
pub(super) struct Judged {
    /// Calls by what they did and how they ended.
    pub(super) operations: BTreeMap<&'static str, BTreeMap<&'static str, u64>>,
    /// Labels of nodes, each a register with a history of its own.
    pub(super) registers: u64,
    /// Operations in these histories: a read is one of each label.
    pub(super) checked: u64,
    pub(super) violations: Vec<String>,
    /// Histories of which nobody knows whether they are linearizable.
    pub(super) undecided: u64,
    /// When changes were acknowledged, in nanoseconds since the run began, in order.
    pub(super) acknowledged: Vec<u64>,
    pub(super) took: Duration,
}

pub(super) fn judge(calls: &[Call], limits: Limits) -> Judged {
    let began = Instant::now();
    let mut judged = Judged { violations: versions::check(calls), ..Judged::default() };
    for call in calls {
        let (kind, outcome) = call.name();
        *judged.operations.entry(kind).or_default().entry(outcome).or_default() += 1;
        if let (What::Write { .. } | What::Swap { .. }, Some(end)) = (&call.what, call.end) {
            judged.acknowledged.push(end);
        }
    }
    judged.acknowledged.sort_unstable();
    for ((node, key), history) in registers(calls) {
        judged.registers += 1;
        judged.checked += history.len() as u64;
        match linear::check(&history, limits) {
            Verdict::Holds => {}
            Verdict::Undecided => judged.undecided += 1,
            Verdict::Broken(broken) => {
                judged.violations.push(format!("label {key} of node {node}: {broken}"));
            }
        }
    }
    judged.took = began.elapsed();
    judged
}

impl Judged {
    /// Both rounds together, of which `later` came later.
    pub(super) fn add(&mut self, later: Self) {
        for (kind, outcomes) in later.operations {
            let all = self.operations.entry(kind).or_default();
            for (outcome, count) in outcomes {
                *all.entry(outcome).or_default() += count;
            }
        }
        self.registers += later.registers;
        self.checked += later.checked;
        self.violations.extend(later.violations);
        self.undecided += later.undecided;
        self.acknowledged.extend(later.acknowledged);
        self.took += later.took;
    }

    /// Calls of all kinds.
    pub(super) fn calls(&self) -> u64 {
        self.operations.values().flat_map(BTreeMap::values).sum()
    }

    /// The longest time without an acknowledged change that began or ended within this one.
    pub(super) fn longest_silence(&self, from: u64, to: u64) -> Duration {
        let first = self.acknowledged.partition_point(|at| *at <= from).saturating_sub(1);
        let last = self.acknowledged.partition_point(|at| *at <= to);
        let within =
            self.acknowledged.get(first..=last.min(self.acknowledged.len().saturating_sub(1)));
        let gaps = within.unwrap_or_default().windows(2).map(|pair| pair[1] - pair[0]);
        Duration::from_nanos(gaps.max().unwrap_or(0))
    }
}

impl Call {
    fn name(&self) -> (&'static str, &'static str) {
        match (&self.what, self.end) {
            (What::Read { .. }, _) => ("read", "done"),
            (What::Refused, _) => ("swap", "refused"),
            (What::Write { .. }, Some(_)) => ("write", "done"),
            (What::Write { .. }, None) => ("write", "unknown"),
            (What::Swap { .. }, Some(_)) => ("swap", "done"),
            (What::Swap { .. }, None) => ("swap", "unknown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(call: u64, value: u64, version: u64) -> Call {
        let what = What::Write { key: 0, value, version: Some(version) };
        Call { node: 0, call, end: Some(call + 1), what }
    }

    #[test]
    fn a_round_is_counted_and_what_does_not_fit_is_named() {
        let stale = What::Read { values: vec![1], version: 5 };
        let calls = [
            write(0, 1, 5),
            write(10, 2, 6),
            Call { node: 0, call: 20, end: Some(21), what: stale },
        ];
        let judged = judge(&calls, Limits::default());
        assert_eq!((judged.calls(), judged.registers, judged.checked), (3, 1, 3));
        assert_eq!(judged.operations["write"]["done"], 2);
        // The search finds it by the values alone, and the versions say so too.
        assert!(judged.violations.iter().any(|line| line.starts_with("label 0 of node 0")));
        assert!(judged.violations.iter().any(|line| line.contains("version 5 was answered")));
    }

    #[test]
    fn silence_is_counted_to_the_answers_on_both_sides() {
        let calls = [write(0, 1, 5), write(9, 2, 6), write(99, 3, 7), write(104, 4, 8)];
        let judged = judge(&calls, Limits::default());
        assert_eq!(judged.longest_silence(20, 50), Duration::from_nanos(90));
        assert_eq!(judged.longest_silence(100, 105), Duration::from_nanos(5));
        assert_eq!(Judged::default().longest_silence(1, 2), Duration::ZERO);
    }
}
