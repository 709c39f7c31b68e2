//! What disasters have left in the state: which recovery this is, who lost the vote for good, what
//! a restored cluster still waits for.
//!
//! After a disaster the state is what *one* log or backup knows; others may have been told more. So
//! every number that others may have been given leaps far above it: epochs (I10, I11), incarnations,
//! and, in `holdfast_raft`, the term and the log's index. Nothing is taken for lost on the word of the
//! person who recovers: each node keeps its life, which nobody can go on with under its new number,
//! until it registers anew or the leader has waited as any new leader does (DESIGN section 5 rule 4).

use std::collections::BTreeSet;

use holdfast_types::{ClusterId, FeatureLevel, Incarnation, LEAP, NodeId, NodeName, TimestampMs};
use serde::{Deserialize, Serialize};

use crate::apply::Change;
use crate::{NewNode, Node, NodeLife, State};

/// What disasters have left.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Lineage {
    /// How many times the cluster was recovered from a lost majority. Consensus refuses those of
    /// an older one.
    pub generation: u64,
    /// Nodes whose logs went on without a majority: none of them ever has a vote again.
    pub given_up: BTreeSet<NodeId>,
    /// The backup that the cluster was restored from.
    pub restored: Option<RestoredFrom>,
    /// Nodes that are known from that backup alone. One that joins under its old name is itself
    /// again, and what its pool holds is its own.
    pub absent: BTreeSet<NodeId>,
    /// What each recovery may have lost: what a majority wrote there, nobody knows.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<Gap>,
}

/// Indexes that no entry of this log has: a recovery left them out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The last entry of the survivor's log.
    pub after: u64,
    /// The entry that the recovery is.
    pub before: u64,
    /// When that was, by the clock of the machine that recovered.
    pub at: TimestampMs,
}

/// The backup that a cluster was restored from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredFrom {
    /// The cluster that it was taken of.
    pub cluster: ClusterId,
    /// The last log entry in it.
    pub index: u64,
    /// When it was taken.
    pub taken: TimestampMs,
}

impl Lineage {
    /// Whether nothing ever happened: not worth a byte in what older versions hash (I4).
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }
}

impl State {
    /// The recovery that lost that node: ids are log indexes, and this one is of an entry that others
    /// had and the survivor did not.
    pub fn lost_in(&self, id: NodeId) -> Option<&Gap> {
        self.lineage.gaps.iter().find(|gap| gap.after < id.0 && id.0 < gap.before)
    }

    /// When the cluster was last recovered or restored, by the wall clock. For waiting, not for safety.
    pub fn began_anew(&self) -> Option<TimestampMs> {
        let restored = self.lineage.restored.as_ref().and(self.cluster.as_ref()).map(|c| c.created);
        restored.max(self.lineage.gaps.last().map(|gap| gap.at))
    }

    /// The cluster whose pool may still be that node's own: that of the backup, if it knows the node. Or if
    /// the node is the founder under a new name and has not begun yet: others are to find out that the
    /// pool which they were given is another's.
    pub fn heir_of(&self, id: NodeId) -> Option<ClusterId> {
        let from = self.lineage.restored.as_ref()?;
        // Ids are log indexes.
        let is_new = |id: NodeId| id.0 > from.index;
        let is_founder = || self.nodes.keys().copied().find(|other| is_new(*other)) == Some(id);
        let begins = || self.nodes.get(&id).is_some_and(|node| node.life == NodeLife::New);
        (!is_new(id) || is_founder() && begins()).then_some(from.cluster)
    }

    /// The node of that name that is known from a backup alone.
    pub fn absent_named(&self, name: &NodeName) -> Option<&Node> {
        let mut absent = self.lineage.absent.iter().filter_map(|id| self.nodes.get(id));
        absent.find(|node| node.name == *name)
    }
}

impl Change<'_> {
    /// Makes every number leap that others may have given out since (see the module's text), and
    /// says that everything which ever was asked for may have been made.
    pub(crate) fn leap(&mut self) {
        let state = &mut *self.state;
        state.feature_level = state.feature_level.max(FeatureLevel::DISASTERS);
        let revision = self.revision;
        state.nodes.for_each_mut(|node| {
            node.incarnation = Incarnation(node.incarnation.0.saturating_add(LEAP));
            node.revision = revision;
        });
        state.containers.for_each_mut(|container| {
            container.chain.leap();
            // An approval was for what could be seen then. A refusal stays, as does a question to a person.
            container.hold = container.hold.take().filter(|hold| hold.for_person && !hold.approved);
            container.made = true;
            container.revision = revision;
        });
        let all: Vec<NodeId> = self.state.nodes.keys().copied().collect();
        self.touch_assignments(all);
    }

    /// A node that was known from a backup alone is there again, under the id that it had. It stays lost
    /// until it registers, so that one that fails in between keeps nothing from being taken over.
    pub(crate) fn return_as(&mut self, id: NodeId, again: NewNode) {
        self.state.lineage.absent.remove(&id);
        let Some(node) = self.state.nodes.get_mut(&id) else { return };
        let message = format!("node {} joined again as {}", again.name, again.role);
        node.address = again.address;
        node.underlay = again.underlay;
        node.role = again.role;
        node.asked = again.asked;
        node.revision = self.revision;
        self.touch_assignments([id]);
        self.touch_all_views();
        self.node_event("node-admitted", id, message, []);
    }
}
