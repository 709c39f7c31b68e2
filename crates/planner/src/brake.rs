//! When takeovers stop for a person, or wait.

use holdfast_core::{NodeLife, State};
use holdfast_types::TimestampMs;

use crate::observe::Observations;

/// How long takeovers wait for nodes to come up after the whole site was dark.
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
    if seen.cold_start && seen.leading_ms < COLD_START_GRACE_MS {
        let left_s = (COLD_START_GRACE_MS - seen.leading_ms).div_ceil(1000);
        let reason = format!("the whole site was dark; takeovers wait {left_s} s for nodes");
        return Brake::Wait { reason };
    }
    let recent = |life: &NodeLife| matches!(life, NodeLife::Lost { at, .. } if now.since(*at) < LANDSLIDE_WINDOW_MS);
    let lost = state.nodes.values().filter(|n| recent(&n.life)).count();
    let all = state.nodes.len();
    if lost > 1 && lost * 100 > all * LANDSLIDE_PERCENT {
        let reason = format!("{lost} of {all} nodes were lost within a minute");
        return Brake::Hold { reason };
    }
    Brake::Off
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{nodes, observed};
    use holdfast_core::Evidence;
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
