//! What a node can say about its part in consensus.

use std::collections::BTreeSet;

use holdfast_types::NodeId;
use openraft::Instant as _;
use openraft::async_runtime::WatchReceiver as _;

use crate::leadership::Peer;
use crate::types::LogId;
use crate::types::Raft;

/// A summary for status pages and metrics. Indexes are 0 where there is nothing yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metrics {
    /// The newest term that this node knows.
    pub term: u64,
    /// The last entry in the log.
    pub last_log: u64,
    /// The last entry known to be committed.
    pub committed: u64,
    /// The last entry applied.
    pub applied: u64,
    /// The last entry in the snapshot.
    pub snapshot: u64,
    /// The last entry removed from the log.
    pub purged: u64,
    /// Voters. During a change, those of both memberships.
    pub voters: BTreeSet<NodeId>,
    /// Learners.
    pub learners: BTreeSet<NodeId>,
    /// Every member and its address.
    pub members: Vec<Peer>,
    /// Whether a change of the voters is under way.
    pub joint: bool,
    /// While this node leads: how far each other member is.
    pub lag: Vec<Lag>,
    /// Durable syncs of the log since the start.
    pub syncs: u64,
}

/// How far a follower is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lag {
    /// The follower.
    pub node: NodeId,
    /// The last entry known to be on it.
    pub matched: u64,
    /// How many entries it lacks.
    pub behind: u64,
    /// How long ago it last answered; nothing if it never did in this reign.
    pub silent_ms: Option<u64>,
}

pub(crate) fn collect(raft: &Raft, syncs: u64) -> Metrics {
    let rx = raft.metrics();
    let m = rx.borrow_watched();
    let index = |id: &Option<LogId>| id.as_ref().map_or(0, |id| id.index);
    let membership = &m.membership_config;
    let last_log = m.last_log_index.unwrap_or(0);
    let lag =
        m.replication.iter().flatten().filter(|(node, _)| **node != m.id).map(|(node, matched)| {
            let matched = index(matched);
            let seen = m.heartbeat.as_ref().and_then(|h| h.get(node)).and_then(Option::as_ref);
            let silent_ms =
                seen.map(|at| u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX));
            let behind = last_log.saturating_sub(matched);
            Lag { node: NodeId(*node), matched, behind, silent_ms }
        });
    Metrics {
        term: m.current_term,
        last_log,
        committed: index(&m.local_committed),
        applied: index(&m.last_applied),
        snapshot: index(&m.snapshot),
        purged: index(&m.purged),
        voters: membership.voter_ids().map(NodeId).collect(),
        learners: membership.membership().learner_ids().map(NodeId).collect(),
        members: membership
            .nodes()
            .map(|(node, n)| Peer { node: NodeId(*node), addr: n.addr.clone() })
            .collect(),
        joint: membership.get_joint_config().len() > 1,
        lag: lag.collect(),
        syncs,
    }
}
