//! When each node's next heartbeat is due: near those of others, so that one quorum round serves
//! many (DESIGN section 5 rule 2).
//!
//! Each node beats once in `T/6`. Left alone, three nodes beat at three moments and cost three
//! rounds. So an answer says when to come again: at the node's *slot* of the leader's clock. There
//! is one slot for every [`SLOT_NODES`] nodes, spread over the period, so that a large cluster does
//! not beat all at once.
//!
//! ```text
//! period   |0                      |1                      |
//! answered   a        b    c                                  the answer moves b and c
//! next                              abc
//! ```
//! It counts from the answer: one that takes long makes the next heartbeat late, for which a lease has
//! room. Counted from when it was sent or arrived, the next one would be early, and asked for once more.

use std::time::Duration;

use holdfast_types::NodeId;

/// How long a heartbeat waits for others of its slot before the round begins. A lease is three
/// hundred times as long.
pub(super) const GATHER: Duration = Duration::from_millis(10);

/// Nodes that beat together.
const SLOT_NODES: u64 = 64;

/// Milliseconds from an answer that is given at `now_ms` of the leader's clock to that node's next
/// heartbeat: more than a quarter of the period, at most five quarters.
pub(super) fn next_ms(now_ms: u64, period_ms: u64, node: NodeId, nodes: usize) -> u64 {
    let slots = (nodes as u64).div_ceil(SLOT_NODES).max(1);
    let slot_ms = node.0 % slots * period_ms / slots;
    let into_period = (now_ms + period_ms - slot_ms) % period_ms;
    let to_slot = period_ms - into_period;
    // One that comes a little early is on time.
    if to_slot * 4 <= period_ms { to_slot + period_ms } else { to_slot }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: u64 = 500;

    fn next(now_ms: u64) -> u64 {
        next_ms(now_ms, PERIOD, NodeId(1), 3)
    }

    #[test]
    fn after_one_answer_the_nodes_of_a_slot_beat_together() {
        for now_ms in 10_000..10_500 {
            assert_eq!((now_ms + next(now_ms)) % PERIOD, 0, "answered at {now_ms}");
        }
    }

    #[test]
    fn early_and_late_heartbeats_keep_the_rhythm() {
        assert_eq!(next(10_000), 500);
        assert_eq!(next(9_990), 510);
        assert_eq!(next(10_010), 490);
    }

    #[test]
    fn no_answer_asks_for_a_storm_or_a_long_silence() {
        for now_ms in 0..2_000 {
            assert!((PERIOD / 4..=PERIOD * 5 / 4).contains(&next(now_ms)));
        }
    }

    #[test]
    fn a_large_cluster_is_spread_over_the_period() {
        let due = |node| (10_000 + next_ms(10_000, PERIOD, NodeId(node), 640)) % PERIOD;
        let mut slots: Vec<_> = (1..=640).map(due).collect();
        slots.sort_unstable();
        slots.dedup();
        assert_eq!(slots, (0..10).map(|slot| slot * 50).collect::<Vec<_>>());
    }
}
