//! When takeovers stop for a person, or wait.
//!
//! ```text
//! dark site, recovery, restore ──120 s: wait for nodes──▶ ──60 s: all losses since count──▶ as ever
//! as ever: the losses of the last 60 s count together
//! ```
//! Nodes that are known from a backup alone were never there: they are no loss.

use holdfast_core::{Evidence, NodeLife, State};
use holdfast_types::TimestampMs;

use crate::observe::Observations;

/// How long takeovers wait for nodes to come up after the whole site was dark, or the cluster was
/// recovered or restored.
pub const COLD_START_GRACE_MS: u64 = 120_000;

/// Losses within this time count together.
const LANDSLIDE_WINDOW_MS: u64 = 60_000;

/// More than this share of all nodes, in percent, is a landslide.
const LANDSLIDE_PERCENT: usize = 34;

/// Whether takeovers may go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Brake {
    /// They may.
    Off,
    /// They wait by themselves.
    Wait {
        /// Why, in one line.
        reason: String,
    },
    /// They wait for a person.
    Hold {
        /// Why, in one line.
        reason: String,
    },
}

/// Looks at how many nodes were lost lately, and at how this leader began.
pub fn brake(state: &State, seen: &Observations, now: TimestampMs) -> Brake {
    let begun = begun(state, seen, now);
    if let Some((since_ms, why)) = begun.filter(|(ms, _)| *ms < COLD_START_GRACE_MS) {
        let left_s = (COLD_START_GRACE_MS - since_ms).div_ceil(1000);
        return Brake::Wait { reason: format!("{why}; takeovers wait {left_s} s for nodes") };
    }
    // What did not come back within the grace was lost at its beginning.
    let begun = begun.filter(|(ms, _)| *ms < COLD_START_GRACE_MS + LANDSLIDE_WINDOW_MS);
    let window_ms = begun.map_or(LANDSLIDE_WINDOW_MS, |(since_ms, _)| since_ms);
    let there = || state.nodes.values().filter(|n| !is_absent(&n.life));
    let recent =
        |life: &NodeLife| matches!(life, NodeLife::Lost { at, .. } if now.since(*at) < window_ms);
    let lost = there().filter(|n| recent(&n.life)).count();
    let all = there().count();
    if lost > 1 && lost * 100 > all * LANDSLIDE_PERCENT {
        let within = match begun {
            Some((_, why)) => format!("since {why}"),
            None => "within a minute".into(),
        };
        return Brake::Hold { reason: format!("{lost} of {all} nodes were lost {within}") };
    }
    Brake::Off
}

/// For how long the cluster has been there again after it was not, and what had happened.
fn begun(state: &State, seen: &Observations, now: TimestampMs) -> Option<(u64, &'static str)> {
    // That was before this leader began, whatever the clock says.
    let age_ms = |at| now.since(at).max(seen.leading_ms);
    // This leader's clock may be behind the one that wrote it. One that is further ahead was written by a
    // clock that is wrong, and would hold up every new leader.
    let anew = state
        .began_anew()
        .filter(|at| at.since(now) < COLD_START_GRACE_MS)
        .map(|at| (age_ms(at), "the cluster was recovered or restored"));
    let cold = seen.cold_start.then_some((seen.leading_ms, "the whole site was dark"));
    anew.into_iter().chain(cold).min()
}

fn is_absent(life: &NodeLife) -> bool {
    matches!(life, NodeLife::Lost { evidence: Evidence::Restored, .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{nodes, observed};
    use holdfast_types::NodeId;

    fn lose(state: &mut State, ids: &[u64]) {
        for id in ids {
            let evidence = Evidence::Relinquished;
            let life = NodeLife::Lost { at: TimestampMs(10_000), evidence };
            state.nodes.get_mut(&NodeId(*id)).unwrap().life = life;
        }
    }

    #[test]
    fn a_landslide_is_held_and_a_single_loss_is_not() {
        let mut state = nodes(5);
        let seen = observed(&[1, 2, 3]);
        lose(&mut state, &[4]);
        assert_eq!(brake(&state, &seen, TimestampMs(11_000)), Brake::Off);
        lose(&mut state, &[4, 5]);
        assert!(matches!(brake(&state, &seen, TimestampMs(11_000)), Brake::Hold { .. }));
        assert_eq!(brake(&state, &seen, TimestampMs(80_000)), Brake::Off);
    }

    /// The minute in which losses count together was over before the wait for nodes was.
    #[test]
    fn what_did_not_come_back_after_a_dark_site_is_a_landslide() {
        let mut state = nodes(3);
        lose(&mut state, &[1, 3]);
        let mut seen = observed(&[2]);
        (seen.cold_start, seen.leading_ms) = (true, COLD_START_GRACE_MS);
        // They were lost when this leader had led for five seconds.
        let now = |led_ms: u64| TimestampMs(10_000 - 5_000 + led_ms);
        let held = brake(&state, &seen, now(seen.leading_ms));
        assert!(matches!(held, Brake::Hold { .. }), "{held:?}");
        seen.leading_ms += LANDSLIDE_WINDOW_MS;
        assert_eq!(
            brake(&state, &seen, now(seen.leading_ms)),
            Brake::Off,
            "each loss by itself again"
        );
        lose(&mut state, &[1]);
        state.nodes.get_mut(&NodeId(3)).unwrap().life = NodeLife::Up;
        seen.leading_ms = COLD_START_GRACE_MS;
        assert_eq!(brake(&state, &seen, now(seen.leading_ms)), Brake::Off, "one alone");
    }

    /// A restart of the only voter, minutes after the recovery, ended the wait.
    #[test]
    fn takeovers_wait_after_a_recovery_whoever_leads() {
        let mut state = nodes(3);
        let at = TimestampMs(4_000);
        state.lineage.gaps.push(holdfast_core::Gap { after: 9, before: 1_000, at });
        let seen = observed(&[1]);
        let wait = |now: u64| matches!(brake(&state, &seen, TimestampMs(now)), Brake::Wait { .. });
        assert!(wait(4_000 + COLD_START_GRACE_MS - 1) && !wait(4_000 + COLD_START_GRACE_MS));
        lose(&mut state, &[2, 3]);
        let held = brake(&state, &seen, TimestampMs(4_000 + COLD_START_GRACE_MS));
        assert!(matches!(held, Brake::Hold { .. }), "{held:?}");
    }

    /// A leader whose clock was a second behind did not wait at all.
    #[test]
    fn a_leader_whose_clock_is_behind_waits_by_how_long_it_has_led() {
        let mut state = nodes(3);
        let at = TimestampMs(500_000);
        state.lineage.gaps.push(holdfast_core::Gap { after: 9, before: 1_000, at });
        let mut seen = observed(&[1]);
        let wait = |seen: &Observations, behind: u64| {
            matches!(brake(&state, seen, TimestampMs(500_000 - behind)), Brake::Wait { .. })
        };
        assert!(wait(&seen, 1) && wait(&seen, COLD_START_GRACE_MS - 1));
        assert!(!wait(&seen, COLD_START_GRACE_MS), "the other's clock was ahead");
        seen.leading_ms = COLD_START_GRACE_MS;
        assert!(!wait(&seen, 1));
    }

    /// The nodes of a backup were a landslide, and of two nodes none was waited for.
    #[test]
    fn absent_nodes_are_waited_for_and_are_no_landslide() {
        for count in [2, 5] {
            let mut state = nodes(count);
            let at = TimestampMs(10_000);
            for id in 2..=count {
                let life = NodeLife::Lost { at, evidence: Evidence::Restored };
                state.nodes.get_mut(&NodeId(id)).unwrap().life = life;
            }
            let mut seen = observed(&[1]);
            (seen.cold_start, seen.leading_ms) = (true, 5_000);
            assert!(matches!(brake(&state, &seen, at), Brake::Wait { .. }));
            seen.leading_ms = COLD_START_GRACE_MS;
            assert_eq!(brake(&state, &seen, at), Brake::Off);
        }
    }

    #[test]
    fn one_lost_of_two_is_no_landslide() {
        let mut state = nodes(2);
        lose(&mut state, &[2]);
        assert_eq!(brake(&state, &observed(&[1]), TimestampMs(11_000)), Brake::Off);
    }

    #[test]
    fn after_a_dark_site_takeovers_wait_for_nodes() {
        let mut seen = observed(&[1]);
        seen.cold_start = true;
        seen.leading_ms = 5_000;
        assert!(matches!(brake(&nodes(3), &seen, TimestampMs(0)), Brake::Wait { .. }));
        seen.leading_ms = COLD_START_GRACE_MS;
        assert_eq!(brake(&nodes(3), &seen, TimestampMs(0)), Brake::Off);
    }
}
