//! Brings the members of Raft in line with the nodes' roles, one careful step at a time: first a
//! learner, and a voter only once it is there and has the log, since a voter that is not costs the
//! quorum.

use std::collections::BTreeSet;

use holdfast_core::{Node, NodeRole, State};
use holdfast_raft::{Metrics, RaftError, RaftNode};
use holdfast_types::NodeId;

/// No more voters than this (DESIGN section 2).
pub(crate) const MAX_VOTERS: usize = 7;

/// A learner that lacks at most so many entries has the log.
const CAUGHT_UP: u64 = 256;

/// And it has answered lately.
const ANSWERED_MS: u64 = 1_000;

/// The next change of the members.
#[derive(Debug, PartialEq, Eq)]
enum Step<'a> {
    Add(&'a Node),
    Voters(BTreeSet<NodeId>),
}

/// Takes the next step, if there is one. On the leader.
pub(crate) async fn align(raft: &RaftNode) -> Result<(), RaftError> {
    let state = raft.state();
    match next_step(&state, &raft.metrics()) {
        None => Ok(()),
        Some(Step::Add(node)) => raft.add_learner(node.id, &node.address).await,
        Some(Step::Voters(voters)) => raft.change_voters(voters).await,
    }
}

fn next_step<'a>(state: &'a State, metrics: &Metrics) -> Option<Step<'a>> {
    let part = |n: &&Node| n.role != NodeRole::Worker;
    let known = |n: &&Node| metrics.members.iter().any(|m| m.node == n.id && m.addr == n.address);
    if let Some(node) = state.nodes.values().filter(part).find(|n| !known(n)) {
        return Some(Step::Add(node));
    }
    let votes = state.nodes.values().filter(|n| n.role == NodeRole::Voter).map(|n| n.id);
    let ready = |id: &NodeId| metrics.voters.contains(id) || has_log(metrics, *id);
    let voters: BTreeSet<NodeId> = votes.take(MAX_VOTERS).filter(ready).collect();
    (!voters.is_empty() && (metrics.joint || voters != metrics.voters))
        .then_some(Step::Voters(voters))
}

fn has_log(metrics: &Metrics, id: NodeId) -> bool {
    metrics.lag.iter().any(|lag| {
        lag.node == id
            && lag.behind <= CAUGHT_UP
            && lag.silent_ms.is_some_and(|silent| silent < ANSWERED_MS)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_core::NodeLife;
    use holdfast_raft::{Lag, Peer};
    use holdfast_types::{Incarnation, Revision};

    fn state(roles: &[NodeRole]) -> State {
        let node = |(i, role): (usize, &NodeRole)| {
            let id = NodeId(i as u64 + 1);
            let node = Node {
                id,
                name: format!("n{id}").parse().unwrap(),
                address: format!("n{id}:7443"),
                underlay: "10.88.0.1".parse().unwrap(),
                role: *role,
                incarnation: Incarnation(1),
                life: NodeLife::Up,
                assignment_revision: Revision(1),
                view_revision: Revision(1),
                labels: Default::default(),
                revision: Revision(1),
            };
            (id, node)
        };
        State { nodes: roles.iter().enumerate().map(node).collect(), ..Default::default() }
    }

    fn metrics(members: &[u64], voters: &[u64], lag: &[(u64, u64, Option<u64>)]) -> Metrics {
        let peer = |n: &u64| Peer { node: NodeId(*n), addr: format!("n{n}:7443") };
        let lag = lag.iter().map(|(node, behind, silent_ms)| Lag {
            node: NodeId(*node),
            matched: 0,
            behind: *behind,
            silent_ms: *silent_ms,
        });
        Metrics {
            members: members.iter().map(peer).collect(),
            voters: voters.iter().map(|n| NodeId(*n)).collect(),
            lag: lag.collect(),
            ..Default::default()
        }
    }

    #[test]
    fn a_new_voter_begins_as_a_learner() {
        let state = state(&[NodeRole::Voter, NodeRole::Voter]);
        let step = next_step(&state, &metrics(&[1], &[1], &[]));
        assert_eq!(step, Some(Step::Add(&state.nodes[&NodeId(2)])));
    }

    /// A voter that cannot answer would cost the quorum.
    #[test]
    fn a_learner_votes_only_when_it_is_there_and_has_the_log() {
        let state = state(&[NodeRole::Voter, NodeRole::Voter]);
        for (behind, silent_ms) in [(5_000, Some(10)), (0, None), (0, Some(5_000))] {
            let lag = [(2, behind, silent_ms)];
            assert_eq!(next_step(&state, &metrics(&[1, 2], &[1], &lag)), None);
        }
        let step = next_step(&state, &metrics(&[1, 2], &[1], &[(2, 3, Some(10))]));
        assert_eq!(step, Some(Step::Voters([NodeId(1), NodeId(2)].into())));
    }

    #[test]
    fn workers_stay_out_and_standbys_do_not_vote() {
        let state = state(&[NodeRole::Voter, NodeRole::Standby, NodeRole::Worker]);
        let step = next_step(&state, &metrics(&[1, 2], &[1], &[(2, 0, Some(1))]));
        assert_eq!(step, None);
    }

    #[test]
    fn a_change_that_was_cut_short_is_completed() {
        let state = state(&[NodeRole::Voter, NodeRole::Voter]);
        let joint = Metrics { joint: true, ..metrics(&[1, 2], &[1, 2], &[]) };
        assert!(matches!(next_step(&state, &joint), Some(Step::Voters(_))));
    }
}
