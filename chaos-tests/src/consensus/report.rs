//! What a run has to say.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::plan::Kind;

/// A run's account. It passes if there are neither violations nor problems.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Whether it passes.
    pub ok: bool,
    /// What chance was made of: the same seed plans the same harm.
    pub seed: u64,
    /// How long clients asked.
    pub seconds: f64,
    /// How many nodes there were.
    pub nodes: usize,
    /// How many clients.
    pub clients: usize,
    /// Calls by what they did and how they ended.
    pub operations: BTreeMap<&'static str, BTreeMap<&'static str, u64>>,
    /// All of these.
    pub total: u64,
    /// A second.
    pub per_second: f64,
    /// Calls without an answer that says what became of them, reads too, by what was said instead.
    pub unknown: BTreeMap<String, u64>,
    /// Acknowledged requests that were sent again.
    pub repeated: u64,
    /// Histories that were judged.
    pub registers: u64,
    /// Operations in them.
    pub checked: u64,
    /// How long that took.
    pub check_seconds: f64,
    /// Harm, by kind.
    pub faults: BTreeMap<Kind, FaultReport>,
    /// How often somebody else began to lead.
    pub leader_changes: u64,
    /// How often a node's state was compared with another's at the same entry.
    pub hashes_compared: u64,
    /// What must never be.
    pub violations: Vec<String>,
    /// Why the run says nothing, or not enough, although nothing was violated.
    pub problems: Vec<String>,
}

/// Harm of one kind.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct FaultReport {
    /// How often.
    pub count: u64,
    /// The longest time without any acknowledged change, in milliseconds.
    pub longest_unavailable_ms: u64,
    /// The longest time until every node answered again, from its beginning, in milliseconds.
    pub longest_recovery_ms: u64,
}

/// So many lines of each are printed.
const SHOWN: usize = 20;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "seed {}: {} nodes, {} clients, {:.0} s, {} operations ({:.0}/s)",
            self.seed, self.nodes, self.clients, self.seconds, self.total, self.per_second
        )?;
        writeln!(f, "\n{:<12} {:<10} {:>10}", "OPERATION", "OUTCOME", "COUNT")?;
        for (kind, outcomes) in &self.operations {
            for (outcome, count) in outcomes {
                writeln!(f, "{kind:<12} {outcome:<10} {count:>10}")?;
            }
        }
        for (why, count) in &self.unknown {
            writeln!(f, "unanswered: {why}: {count}")?;
        }
        writeln!(
            f,
            "\n{:<16} {:>6} {:>16} {:>14}",
            "FAULT", "COUNT", "UNAVAILABLE ms", "RECOVERED ms"
        )?;
        for (kind, fault) in &self.faults {
            let FaultReport { count, longest_unavailable_ms, longest_recovery_ms } = fault;
            let kind = kind.to_string();
            writeln!(
                f,
                "{kind:<16} {count:>6} {longest_unavailable_ms:>16} {longest_recovery_ms:>14}"
            )?;
        }
        writeln!(f, "\nleader changes    {:>10}", self.leader_changes)?;
        writeln!(f, "hashes compared   {:>10}", self.hashes_compared)?;
        writeln!(f, "requests repeated {:>10}", self.repeated)?;
        writeln!(
            f,
            "histories judged  {:>10} of {} operations, in {:.1} s",
            self.registers, self.checked, self.check_seconds
        )?;
        writeln!(f, "violations        {:>10}", self.violations.len())?;
        for line in self.violations.iter().take(SHOWN) {
            writeln!(f, "  VIOLATION: {line}")?;
        }
        for line in self.problems.iter().take(SHOWN) {
            writeln!(f, "  problem: {line}")?;
        }
        write!(f, "{}", if self.ok { "passed" } else { "FAILED" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_is_printed_and_is_in_the_json() {
        let faults = [(Kind::OneWay, FaultReport { count: 2, ..FaultReport::default() })].into();
        let violations = vec!["a stale read".to_owned()];
        let report = Report { faults, violations, ..Report::default() };
        let text = report.to_string();
        assert!(text.contains("VIOLATION: a stale read") && text.ends_with("FAILED"), "{text}");
        assert!(text.contains("one-way               2"), "{text}");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["faults"]["one-way"]["count"], 2);
        assert_eq!(json["violations"][0], "a stale read");
    }
}
