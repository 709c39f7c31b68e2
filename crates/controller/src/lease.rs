//! Who has been granted what, and who may be declared lost (DESIGN section 5 rules 2 and 4).
//!
//! One table serves one leadership of one process. Granting checks and records under one lock;
//! deciding that a node is lost takes the same lock, and from then on that life is granted nothing.
//!
//! ```text
//!            grant (records the answer)             decide: silent long enough
//! Unknown ─────────────────────────────▶ Answered ─────────────────────────────▶ Deciding ─▶ Lost in the log
//!    └── counts from the beginning of this leadership ──────────────────────────────┘
//! ```

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use holdfast_core::{Evidence, Node, State};
use holdfast_types::{Code, Incarnation, LeaseSettings, NodeId};

/// Why a heartbeat is not answered with a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GrantRefusal {
    /// This life of the node is lost, or is being declared so.
    #[error("this life of the node was declared lost: register anew")]
    Lost,
    /// The node has registered anew, or never.
    #[error("this is not the node's present incarnation: register anew")]
    Stale,
}

impl GrantRefusal {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::Lost => Code::NodeLost,
            Self::Stale => Code::StaleIncarnation,
        }
    }
}

/// The leases of one leadership. All times are CLOCK_BOOTTIME in milliseconds.
#[derive(Debug)]
pub struct LeaseTable {
    began_ms: u64,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    answered_ms: BTreeMap<NodeId, u64>,
    /// The newest life of each node, and since when this leader knows of it.
    lives: BTreeMap<NodeId, (Incarnation, u64)>,
    deciding: BTreeMap<NodeId, Incarnation>,
}

impl LeaseTable {
    /// An empty table of a leadership that *this process* gained at `began_ms`. Any grant of an
    /// older leader was made on the word of a quorum round before the vote that elected this one,
    /// so counting every life that `state` has from `began_ms` covers it. A later life counts from
    /// when it is first seen: it has had no time to be silent in.
    pub fn new(began_ms: u64, state: &State) -> Self {
        let lives = state.nodes.values().map(|n| (n.id, (n.incarnation, began_ms))).collect();
        Self { began_ms, inner: Mutex::new(Inner { lives, ..Inner::default() }) }
    }

    /// Grants a lease to that life of the node, or says why not. The caller has confirmed with a
    /// quorum round begun after the heartbeat arrived that it leads; `node` reads the applied state
    /// under the table's lock, so that no loss can be decided in between.
    pub fn grant(
        &self,
        id: NodeId,
        incarnation: Incarnation,
        now_ms: impl FnOnce() -> u64,
        node: impl FnOnce() -> Option<Node>,
    ) -> Result<(), GrantRefusal> {
        let mut inner = self.lock();
        if inner.deciding.get(&id) == Some(&incarnation) {
            return Err(GrantRefusal::Lost);
        }
        let node = node().ok_or(GrantRefusal::Stale)?;
        if node.is_lost(incarnation) {
            return Err(GrantRefusal::Lost);
        }
        if node.incarnation != incarnation || !node.is_up() {
            return Err(GrantRefusal::Stale);
        }
        inner.answered_ms.insert(id, now_ms());
        Ok(())
    }

    /// Decides that this life of the node is lost, if the leader has answered it for longer than
    /// any lease and its fence can last. From here on it is granted nothing.
    pub fn decide_lost(&self, node: &Node, lease: &LeaseSettings, now_ms: u64) -> Option<Evidence> {
        let mut inner = self.lock();
        let known = inner.lives.get(&node.id).map(|(life, _)| *life);
        if known != Some(node.incarnation) {
            inner.lives.insert(node.id, (node.incarnation, now_ms));
        }
        if !node.is_up() || inner.deciding.get(&node.id) == Some(&node.incarnation) {
            return None;
        }
        let silent_ms = now_ms.saturating_sub(self.last_ms(&inner, node.id));
        let required_ms = lease.lost_after_ms();
        if silent_ms < required_ms {
            return None;
        }
        inner.deciding.insert(node.id, node.incarnation);
        Some(Evidence::Silence { silent_ms, required_ms })
    }

    /// Whether the node's last grant may still be alive somewhere.
    pub fn is_leased(&self, id: NodeId, lease: &LeaseSettings, now_ms: u64) -> bool {
        let inner = self.lock();
        let answered = inner.answered_ms.get(&id);
        answered.is_some_and(|at| now_ms.saturating_sub(*at) < lease.lease_ms)
    }

    /// Milliseconds since this leader last answered the node; none if it never did.
    pub fn silent_ms(&self, id: NodeId, now_ms: u64) -> Option<u64> {
        self.lock().answered_ms.get(&id).map(|at| now_ms.saturating_sub(*at))
    }

    /// The earliest moment at which one of these nodes could be decided lost.
    pub fn next_due_ms(
        &self,
        nodes: impl Iterator<Item = NodeId>,
        lease: &LeaseSettings,
    ) -> Option<u64> {
        let inner = self.lock();
        nodes.map(|id| self.last_ms(&inner, id) + lease.lost_after_ms()).min()
    }

    fn last_ms(&self, inner: &Inner, id: NodeId) -> u64 {
        let answered_ms = inner.answered_ms.get(&id).copied();
        let since_ms = inner.lives.get(&id).map(|(_, since_ms)| *since_ms);
        self.began_ms.max(answered_ms.unwrap_or(0)).max(since_ms.unwrap_or(0))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while holding it leaves plain maps, each entry of which is whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{node, state_of};
    use holdfast_core::NodeLife;
    use holdfast_types::TimestampMs;

    const LEASE: LeaseSettings =
        LeaseSettings { lease_ms: 3_000, fence_budget_ms: 500, margin_ms: 200, drift_ppm: 10_000 };

    fn table(began_ms: u64) -> LeaseTable {
        LeaseTable::new(began_ms, &state_of(&[2]))
    }

    fn grant(table: &LeaseTable, incarnation: u64, now_ms: u64) -> Result<(), GrantRefusal> {
        table.grant(NodeId(2), Incarnation(incarnation), || now_ms, || Some(node(2)))
    }

    /// Rule 4: no sooner than the constants demand, counted from the last answer.
    #[test]
    fn a_node_is_lost_no_sooner_than_its_last_answer_allows() {
        let table = table(0);
        grant(&table, 1, 1_000).unwrap();
        assert_eq!(table.decide_lost(&node(2), &LEASE, 1_000 + 4_280), None);
        assert_eq!(
            table.decide_lost(&node(2), &LEASE, 1_000 + 4_281),
            Some(Evidence::Silence { silent_ms: 4_281, required_ms: 4_281 })
        );
    }

    /// Rule 4: a new leader counts every node from its own start.
    #[test]
    fn a_new_leader_counts_from_its_own_start() {
        let table = table(10_000);
        assert_eq!(table.decide_lost(&node(2), &LEASE, 14_280), None);
        assert!(table.decide_lost(&node(2), &LEASE, 14_281).is_some());
    }

    /// Rule 4: from deciding until it applies, that life is granted nothing; a newer one is.
    #[test]
    fn from_the_decision_on_nothing_is_granted() {
        let table = table(0);
        assert!(table.decide_lost(&node(2), &LEASE, 5_000).is_some());
        assert_eq!(grant(&table, 1, 5_001), Err(GrantRefusal::Lost));
        assert_eq!(table.decide_lost(&node(2), &LEASE, 5_002), None, "decided once");
        let reborn = Node { incarnation: Incarnation(2), ..node(2) };
        let granted = table.grant(NodeId(2), Incarnation(2), || 5_003, || Some(reborn));
        assert_eq!(granted, Ok(()));
    }

    /// A node that comes back, or joins, long after the leader's last answer to that id is not
    /// lost before it could ask.
    #[test]
    fn a_new_life_is_not_silent_for_what_the_old_one_was() {
        let table = table(0);
        grant(&table, 1, 1_000).unwrap();
        assert!(table.decide_lost(&node(2), &LEASE, 6_000).is_some());
        let reborn = Node { incarnation: Incarnation(2), ..node(2) };
        assert_eq!(table.decide_lost(&reborn, &LEASE, 60_000), None);
        assert_eq!(table.decide_lost(&reborn, &LEASE, 60_000 + 4_280), None);
        assert!(table.decide_lost(&reborn, &LEASE, 60_000 + 4_281).is_some());
        assert_eq!(table.decide_lost(&node(3), &LEASE, 90_000), None, "joined later");
    }

    #[test]
    fn lost_stale_and_unknown_lives_are_granted_nothing() {
        let table = table(0);
        let life = NodeLife::Lost { at: TimestampMs(0), evidence: Evidence::Relinquished };
        let lost = Node { life, ..node(2) };
        let ask =
            |incarnation, node| table.grant(NodeId(2), Incarnation(incarnation), || 1, || node);
        assert_eq!(ask(1, Some(lost)), Err(GrantRefusal::Lost));
        assert_eq!(ask(0, Some(node(2))), Err(GrantRefusal::Stale));
        assert_eq!(ask(1, None), Err(GrantRefusal::Stale));
        assert_eq!(table.silent_ms(NodeId(2), 5), None, "a refusal is no answer");
    }
}
