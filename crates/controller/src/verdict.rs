//! What to do with one case, by what its holders have said under the seal.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_core::{Container, HoldCause, State};
use holdfast_planner::{Observations, SealedCopy, TakeoverDecision, decide, live_holders};
use holdfast_types::{HeldSnapshot, NodeId, TimestampMs, VolumeUid};

/// A holder that is up and does not answer, or has no lease, is waited for so long; then a person
/// may go without it. It cannot run the container, only hold a newer copy of it.
pub(crate) const HOLDERS_MAY_TAKE_MS: u64 = 30_000;

/// What each node said under the seal, for each volume that it sealed.
pub(crate) type Seals = BTreeMap<NodeId, BTreeMap<VolumeUid, Vec<SealedCopy>>>;

/// What cases are decided on.
pub(crate) struct World<'a> {
    pub(crate) state: &'a State,
    pub(crate) seen: &'a Observations,
    pub(crate) sealed: &'a Seals,
    /// When the holders were asked.
    pub(crate) asked: TimestampMs,
}

/// What to do with a case, and which live holders that does not wait for.
pub(crate) struct Verdict {
    pub(crate) decision: TakeoverDecision,
    pub(crate) silent: BTreeSet<NodeId>,
}

impl World<'_> {
    /// Decides once *every* holder that is live by now has sealed (I15). A holder that takes too
    /// long is left out on a person's word alone: without it only newer data can be lost.
    pub(crate) fn judge(&self, container: &Container, too_long: bool) -> Verdict {
        let volume = VolumeUid::from(container.uid);
        let holders = live_holders(self.state, container);
        let said = |id: &NodeId| self.sealed.get(id)?.get(&volume);
        let decide_with = |trusted: &BTreeSet<NodeId>| {
            let copies = trusted.iter().filter_map(said).flatten();
            let copies: Vec<_> = copies.filter(|c| c.id.volume == volume).copied().collect();
            decide(self.state, self.seen, container, &copies, self.asked)
        };
        let all = decide_with(&holders);
        if holders.iter().all(|id| said(id).is_some()) && all != TakeoverDecision::Wait {
            return Verdict { decision: all, silent: BTreeSet::new() };
        }
        let leased = |id: &NodeId| self.seen.nodes.get(id).is_some_and(|n| n.leased);
        let (trusted, silent): (BTreeSet<_>, BTreeSet<_>) =
            holders.iter().copied().partition(|id| said(id).is_some() && leased(id));
        let then = decide_with(&trusted);
        let told = container.hold.as_ref().filter(|hold| hold.permits_without(&silent));
        let permitted = told.is_some_and(|hold| match &then {
            TakeoverDecision::Take { branch, .. } => hold.permits(branch),
            TakeoverDecision::Hold { .. } | TakeoverDecision::Wait => true,
        });
        let decision = match (permitted, too_long) {
            (true, _) => then,
            (false, true) => self.without(&silent, then),
            (false, false) => TakeoverDecision::Wait,
        };
        Verdict { decision, silent }
    }

    /// Asks a person whether to go on without those holders.
    fn without(&self, silent: &BTreeSet<NodeId>, then: TakeoverDecision) -> TakeoverDecision {
        let nodes = silent.iter().filter_map(|id| self.state.nodes.get(id));
        let names: Vec<_> = nodes.map(|node| node.name.to_string()).collect();
        let who = names.join(", ");
        let offered = match &then {
            TakeoverDecision::Take { branch, data_as_of, .. } => {
                Some(HeldSnapshot { id: *branch, age_ms: self.asked.since(*data_as_of) })
            }
            TakeoverDecision::Hold { offered, .. } => *offered,
            TakeoverDecision::Wait => None,
        };
        let rest = match (&then, offered) {
            (TakeoverDecision::Hold { reason, .. }, _) => format!("without it: {reason}"),
            (_, Some(copy)) => {
                format!("or approve to go on without it, with data {} s old", copy.age_ms / 1000)
            }
            (_, None) => String::from("no other holder can tell"),
        };
        let reason = format!(
            "{who} might hold the newest copy, and has no lease or did not seal it for {} s; see its \
             log, or restart its holdfastd; {rest}",
            HOLDERS_MAY_TAKE_MS / 1000
        );
        let cause = match then {
            TakeoverDecision::Hold { cause, .. } => cause,
            TakeoverDecision::Take { .. } | TakeoverDecision::Wait => HoldCause::Data,
        };
        TakeoverDecision::Hold { cause, reason, offered }
    }
}
