//! What one leadership of this process knows: made when it is ready to lead, dropped when it ends.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use holdfast_core::{Evidence, Node, NodeLife, State};
use holdfast_planner::Observations;
use holdfast_types::{Incarnation, NodeId, TimestampMs};

use crate::lease::{GrantRefusal, LeaseTable};
use crate::levels::Levels;
use crate::sightings::Sightings;
use crate::standings::Standings;

/// One leadership.
#[derive(Debug)]
pub struct Leadership {
    /// The Raft term of it.
    pub term: u64,
    /// Grants and losses.
    pub leases: LeaseTable,
    /// Pools and holdings.
    pub sightings: Sightings,
    /// The nodes' versions.
    pub levels: Levels,
    /// Whom the nodes believe.
    pub standings: Standings,
    /// Held by who moves votes.
    pub votes: tokio::sync::Mutex<()>,
    began_ms: u64,
    lives_at_start: BTreeMap<NodeId, Incarnation>,
    /// Whether there were nodes at all, be it in a backup.
    had_nodes: bool,
    old_life_heard: AtomicBool,
}

impl Leadership {
    /// Begins a leadership: `state` has every entry applied that was in the log when it began, and
    /// `began_ms` is when this process gained it, on CLOCK_BOOTTIME.
    pub fn begin(term: u64, began_ms: u64, state: &State) -> Self {
        let up = state.nodes.values().filter(|n| n.is_up());
        Self {
            term,
            leases: LeaseTable::new(began_ms, state),
            sightings: Sightings::default(),
            levels: Levels::default(),
            standings: Standings::default(),
            votes: tokio::sync::Mutex::default(),
            began_ms,
            had_nodes: state.nodes.values().any(|n| n.is_up() || is_restored(n)),
            lives_at_start: up.map(|n| (n.id, n.incarnation)).collect(),
            old_life_heard: AtomicBool::new(false),
        }
    }

    /// Grants a lease (see [`LeaseTable::grant`]), and notes whether any life from before this
    /// leadership is still there: if none ever shows, the whole site was dark.
    pub fn grant(
        &self,
        id: NodeId,
        incarnation: Incarnation,
        now_ms: impl FnOnce() -> u64,
        node: impl FnOnce() -> Option<Node>,
    ) -> Result<(), GrantRefusal> {
        self.leases.grant(id, incarnation, now_ms, node)?;
        if self.lives_at_start.get(&id) == Some(&incarnation) {
            self.old_life_heard.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// What the planner is to see.
    pub fn observe(&self, state: &State, now_ms: u64, wall: TimestampMs) -> Observations {
        let lease = state.cluster.as_ref().map(|c| c.lease).unwrap_or_default();
        let leased = |id| self.leases.is_leased(id, &lease, now_ms);
        Observations {
            nodes: self.sightings.observe(now_ms, wall, leased),
            leading_ms: now_ms.saturating_sub(self.began_ms),
            cold_start: self.had_nodes && !self.old_life_heard.load(Ordering::Relaxed),
        }
    }
}

fn is_restored(node: &Node) -> bool {
    matches!(node.life, NodeLife::Lost { evidence: Evidence::Restored, .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{node, state_of};

    #[test]
    fn a_life_from_before_the_leadership_shows_that_the_site_was_not_dark() {
        let state = state_of(&[1, 2]);
        let leadership = Leadership::begin(1, 1_000, &state);
        let cold = || leadership.observe(&state, 2_000, TimestampMs(0)).cold_start;
        assert!(cold());
        let reborn = Node { incarnation: Incarnation(2), ..node(2) };
        leadership.grant(NodeId(2), Incarnation(2), || 1_100, || Some(reborn)).unwrap();
        assert!(cold(), "a node that registered anew says nothing of the time before");
        leadership.grant(NodeId(1), Incarnation(1), || 1_100, || Some(node(1))).unwrap();
        assert!(!cold());
    }

    /// A restored cluster has no life from before, and was taken for a new one: nobody was waited for.
    #[test]
    fn a_restored_cluster_is_a_cold_start() {
        let mut state = state_of(&[1, 2]);
        let life = NodeLife::Lost { at: TimestampMs(0), evidence: Evidence::Restored };
        state.nodes.get_mut(&NodeId(2)).unwrap().life = life;
        let founder = state.nodes.get_mut(&NodeId(1)).unwrap();
        founder.life = NodeLife::New;
        let leadership = Leadership::begin(1, 1_000, &state);
        leadership.grant(NodeId(1), Incarnation(1), || 1_100, || Some(node(1))).unwrap();
        assert!(leadership.observe(&state, 2_000, TimestampMs(0)).cold_start);
    }

    #[test]
    fn a_fresh_cluster_is_not_a_dark_site() {
        let state = State::default();
        let leadership = Leadership::begin(1, 1_000, &state);
        assert!(!leadership.observe(&state, 2_000, TimestampMs(0)).cold_start);
    }
}
