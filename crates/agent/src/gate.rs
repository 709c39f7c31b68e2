//! Whether protected containers may start now (DESIGN section 5 rule 6).

use holdfast_fence::boottime_ns;
use holdfast_reconcile::Gate;
use holdfast_types::{Incarnation, NodeView, Revision};

/// What the lease loop last achieved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LeaseState {
    /// The life that holds the lease.
    pub(crate) incarnation: Incarnation,
    /// When the lease that the guardian holds ends, on CLOCK_BOOTTIME; 0 when fenced.
    pub(crate) deadline_ns: u64,
    /// The highest assignment revision that any grant of this life carried.
    pub(crate) assignment_revision: Revision,
}

impl LeaseState {
    /// A live lease that a guardian holds, and a view that has reached the grant's revision.
    pub(crate) fn gate(&self, view: &NodeView) -> Gate {
        let live = self.deadline_ns > boottime_ns();
        match live && self.view_is_fresh(view) {
            true => Gate::Open,
            false => Gate::Closed,
        }
    }

    /// Whether the view is one of this life and has reached the grant's assignment revision.
    pub(crate) fn view_is_fresh(&self, view: &NodeView) -> bool {
        view.incarnation == self.incarnation && view.assignment_revision >= self.assignment_revision
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_types::{CidrV4, ClusterId, LeaseSettings, NodeId};
    use uuid::Uuid;

    fn view(incarnation: u64, assignment: u64) -> NodeView {
        NodeView {
            revision: Revision(assignment),
            assignment_revision: Revision(assignment),
            cluster: ClusterId(Uuid::nil()),
            node: NodeId(1),
            incarnation: Incarnation(incarnation),
            lease: LeaseSettings::default(),
            overlay: "10.77.0.0/16".parse::<CidrV4>().unwrap(),
            peers: Vec::new(),
            assigned: Vec::new(),
            replicas: Vec::new(),
            deleting: Vec::new(),
            images: Vec::new(),
        }
    }

    /// I9, I13, rule 6: each condition alone closes the gate.
    #[test]
    fn every_condition_is_needed() {
        let lease = LeaseState {
            incarnation: Incarnation(2),
            deadline_ns: boottime_ns() + 60_000_000_000,
            assignment_revision: Revision(10),
        };
        assert_eq!(lease.gate(&view(2, 10)), Gate::Open);
        assert_eq!(lease.gate(&view(2, 9)), Gate::Closed, "the view is behind the grant");
        assert_eq!(lease.gate(&view(1, 10)), Gate::Closed, "the view is of an older life");
        let over = LeaseState { deadline_ns: boottime_ns() - 1, ..lease };
        assert_eq!(over.gate(&view(2, 10)), Gate::Closed, "the lease is over");
        assert_eq!(LeaseState::default().gate(&view(0, 0)), Gate::Closed, "never granted");
    }
}
