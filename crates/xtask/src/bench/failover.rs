//! RTO and RPO by the role of the node that is lost, beside the bound of DESIGN section 5.

use anyhow::{Context, Result};
use serde_json::Value;

use super::lab::{Programs, json};
use super::report::Row;
use super::statistics::Sorted;

/// Median and 99th percentile of RTO may exceed the bound by so much.
const MEDIAN_OVER_S: f64 = 0.7;
const P99_OVER_S: f64 = 1.5;

/// `replicate_every` of 5 s and one more second.
const RPO_AT_MOST_S: f64 = 6.0;

/// What the container writes besides its records, a second.
const NOISE: &str = "1MiB";

/// Measures each role.
pub(crate) fn measure(programs: &Programs, rounds: u32) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for role in ["worker", "follower", "leader"] {
        let rounds = rounds.to_string();
        let args = ["quickstart", "--json", "--kill", role, "--rounds", &rounds, "--noise", NOISE];
        let report = json(&mut programs.lab(&args), false)?;
        let measured = report["rounds"].as_array().context("a report without rounds")?;
        rows.extend(role_rows(role, measured));
    }
    Ok(rows)
}

fn role_rows(role: &str, rounds: &[Value]) -> Vec<Row> {
    let figure = |key: &str| Sorted::of(rounds.iter().filter_map(|r| r[key].as_f64()));
    let (rto, rpo) = (figure("rto_s"), figure("rpo_s"));
    let bound = figure("bound_s").max();
    // What the election cost: how much later than the bound a new leader could declare the loss.
    let election = Sorted::of(rounds.iter().filter_map(|r| Some((lost_at_s(r)? - bound).max(0.0))));
    let over = |value: f64| match role {
        "leader" => value - bound - election.median(),
        _ => value - bound,
    };
    let n = rounds.len();
    let row = |name: &str, value: f64, unit| Row::plain(format!("{role}_{name}"), value, unit, n);
    let good = rounds.iter().filter(|r| r["problems"].as_array().is_some_and(Vec::is_empty));
    let mut rows = vec![
        Row { target: format!("= {n}"), ..row("rounds_ok", good.count() as f64, "rounds") },
        row("bound", bound, "s"),
        row("rto_min", rto.min(), "s"),
        row("rto_median", rto.median(), "s"),
        row("rto_p99", rto.quantile(0.99), "s"),
        row("rto_max", rto.max(), "s"),
        row("rto_median_over_bound", over(rto.median()), "s").at_most(MEDIAN_OVER_S),
        row("rto_p99_over_bound", over(rto.quantile(0.99)), "s").at_most(P99_OVER_S),
        row("rpo_min", rpo.min(), "s"),
        row("rpo_median", rpo.median(), "s"),
        row("rpo_p99", rpo.quantile(0.99), "s"),
        row("rpo_max", rpo.max(), "s").at_most(RPO_AT_MOST_S),
        row("overlap_max", figure("overlap_ms").max(), "ms").at_most(0.0),
        row("gap_min", figure("min_gap_ms").min(), "ms"),
        row("unreported_loss", figure("records_lost_unreported").max(), "records").at_most(0.0),
    ];
    rows[0].met = Some((rows[0].value - n as f64).abs() < 0.5 && rto.len() == n);
    if role == "leader" {
        rows.push(row("election_median", election.median(), "s"));
        rows.push(row("election_max", election.max(), "s"));
    }
    rows
}

/// When the loss was in the log, in seconds after the cut.
fn lost_at_s(round: &Value) -> Option<f64> {
    let moments = round["timeline"].as_array()?;
    let lost =
        moments.iter().find(|m| m["what"].as_str().is_some_and(|w| w.contains("is lost")))?;
    lost["at_s"].as_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_leaders_bound_has_the_election_added() {
        let round = json!({
            "rto_s": 5.6, "rpo_s": 2.0, "bound_s": 4.3, "overlap_ms": 0, "min_gap_ms": 900,
            "records_lost_unreported": 0, "problems": [],
            "timeline": [{ "what": "the node is lost: a Raft entry says so", "at_s": 5.3 }],
        });
        let value = |rows: &[Row], name: &str| {
            rows.iter().find(|r| r.name == name).map(|r| (r.value * 1000.0).round())
        };
        let leader = role_rows("leader", std::slice::from_ref(&round));
        assert_eq!(value(&leader, "leader_election_median"), Some(1000.0));
        assert_eq!(value(&leader, "leader_rto_median_over_bound"), Some(300.0));
        let follower = role_rows("follower", &[round]);
        assert_eq!(value(&follower, "follower_rto_median_over_bound"), Some(1300.0));
        assert!(follower.iter().any(|r| r.met == Some(false)));
    }
}
