//! What a rehearsal found, for scripts and for people.

use std::fmt;

use serde::Serialize;

use super::story::Story;

/// One round.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RoundReport {
    /// The node that lost its power.
    pub victim: String,
    /// What it was: `leader`, `voter` or `worker`.
    pub role: String,
    /// From the last good answer to the first one after, in seconds.
    pub rto_s: Option<f64>,
    /// From the oldest lost record's acknowledgement to the last good answer, in seconds; 0 if
    /// nothing was lost.
    pub rpo_s: Option<f64>,
    /// The least time between the leader's last answer and the takeover, from the constants.
    pub bound_s: f64,
    /// How long it was.
    pub took_over_after_s: Option<f64>,
    /// For how long two nodes ran the container at once, as the observer saw it.
    pub overlap_ms: u64,
    /// The shortest time between its runs on two nodes.
    pub min_gap_ms: Option<u64>,
    /// The longest time that the observer did not look.
    pub observer_blink_ms: u64,
    /// Records that the client was answered with.
    pub records_acked: usize,
    /// Those that the disk no longer has.
    pub records_lost: usize,
    /// Those of them that were acknowledged before what the takeover stated.
    pub records_lost_unreported: usize,
    /// Whether the chain on the disk is whole.
    pub chain_ok: bool,
    /// Where the container runs now.
    pub target: Option<String>,
    /// Whether the old copy was listed as diverged when its node had come back.
    pub diverged_kept: bool,
    /// From the power's return until the old node's copy was current again, in seconds.
    pub caught_up_after_s: Option<f64>,
    /// What went wrong, one line each. Empty is what one wants to see.
    pub problems: Vec<String>,
    /// What happened when.
    pub timeline: Story,
}

impl RoundReport {
    /// Whether all that was to be shown was shown.
    pub fn ok(&self) -> bool {
        self.problems.is_empty()
    }
}

/// All rounds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Whether every round was as it must be.
    pub ok: bool,
    /// The rounds, in order.
    pub rounds: Vec<RoundReport>,
}

impl Report {
    pub(super) fn of(rounds: Vec<RoundReport>) -> Self {
        Self { ok: !rounds.is_empty() && rounds.iter().all(RoundReport::ok), rounds }
    }
}

impl fmt::Display for RoundReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "The power of {} ({}) was cut.", self.victim, self.role)?;
        writeln!(f, "{}", self.timeline)?;
        let target = self.target.as_deref().unwrap_or("no node");
        writeln!(f, "  runs now on       {target}")?;
        writeln!(f, "  RTO               {}", seconds(self.rto_s))?;
        writeln!(f, "  RPO               {}", seconds(self.rpo_s))?;
        writeln!(
            f,
            "  takeover          {} after the leader's last answer (no sooner than {:.3} s)",
            seconds(self.took_over_after_s),
            self.bound_s
        )?;
        let gap = self.min_gap_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms"));
        writeln!(
            f,
            "  ran twice for     {} ms (gap between the two runs: {gap})",
            self.overlap_ms
        )?;
        writeln!(
            f,
            "  records           {} answered, {} lost, {} of them unreported",
            self.records_acked, self.records_lost, self.records_lost_unreported
        )?;
        let chain = if self.chain_ok { "whole" } else { "DAMAGED" };
        writeln!(f, "  record chain      {chain}")?;
        let kept = if self.diverged_kept { "kept, and listed as diverged" } else { "not listed" };
        writeln!(f, "  the old copy      {kept}")?;
        write!(f, "  caught up again   {} after power on", seconds(self.caught_up_after_s))?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n  PROBLEM: {problem}"))
    }
}

fn seconds(value: Option<f64>) -> String {
    value.map_or_else(|| "never".to_owned(), |s| format!("{s:.3} s"))
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    pub(in super::super) fn good_round() -> RoundReport {
        RoundReport {
            victim: "n2".into(),
            role: "voter".into(),
            rto_s: Some(4.9),
            rpo_s: Some(2.0),
            bound_s: 4.281,
            took_over_after_s: Some(4.3),
            overlap_ms: 0,
            min_gap_ms: Some(350),
            observer_blink_ms: 9,
            records_acked: 900,
            records_lost: 3,
            records_lost_unreported: 0,
            chain_ok: true,
            target: Some("n3".into()),
            diverged_kept: true,
            caught_up_after_s: Some(3.0),
            problems: vec![],
            timeline: Story::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::good_round;
    use super::*;

    #[test]
    fn one_bad_round_spoils_all_and_none_is_no_success() {
        assert!(Report::of(vec![good_round()]).ok);
        let bad = RoundReport { problems: vec!["two ran at once".into()], ..good_round() };
        assert!(!Report::of(vec![good_round(), bad]).ok);
        assert!(!Report::of(vec![]).ok);
    }

    #[test]
    fn scripts_find_the_promised_keys() {
        let json = serde_json::to_value(Report::of(vec![good_round()])).unwrap();
        let round = &json["rounds"][0];
        let keys = [
            "victim",
            "role",
            "rto_s",
            "rpo_s",
            "bound_s",
            "took_over_after_s",
            "overlap_ms",
            "min_gap_ms",
            "records_acked",
            "records_lost",
            "records_lost_unreported",
            "chain_ok",
            "target",
        ];
        assert!(json["ok"].is_boolean());
        for key in keys {
            assert!(!round[key].is_null(), "{key}");
        }
    }
}
