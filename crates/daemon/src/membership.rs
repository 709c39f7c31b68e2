//! Brings the members of Raft in line with the nodes' roles, one careful step at a time: first a
//! learner, and a voter only once it is there and has the log, since a voter that is not costs the
//! quorum. Votes are taken away last, and never so many that no majority would answer.
//!
//! ```text
//! admitted ─▶ learner ─has the log─▶ voter ─another role─▶ learner ─removed─▶ no member
//! ```
//! Each step can be the last that this leader takes: the next one looks at the same two things, the
//! state and the members, and goes on from there.

use std::collections::BTreeSet;

use holdfast_core::{MAX_VOTERS, Node, State};
use holdfast_planner::{Follower, Quorum};
use holdfast_raft::{Metrics, RaftError, RaftNode};
use holdfast_types::NodeId;
use tracing::info;

use crate::clock;

/// The next change of the members.
#[derive(Debug, PartialEq, Eq)]
enum Step<'a> {
    Add(&'a Node),
    Voters(BTreeSet<NodeId>),
    /// This leader is to vote no longer.
    HandOver(NodeId),
    Remove(NodeId),
}

/// Raft as this leader sees it.
pub(crate) fn quorum(raft: &RaftNode) -> Quorum {
    let reign = raft.leadership_now().reign;
    let since_ms = reign.map(|r| u64::try_from(r.since.as_millis()).unwrap_or(u64::MAX));
    let leading_ms = since_ms.map_or(0, |since| clock::boottime_ms().saturating_sub(since));
    quorum_of(raft.id(), &raft.metrics(), leading_ms, raft.lately_ms())
}

fn quorum_of(leader: NodeId, metrics: &Metrics, leading_ms: u64, lately_ms: u64) -> Quorum {
    let follower =
        |lag: &holdfast_raft::Lag| Follower { behind: lag.behind, silent_ms: lag.silent_ms };
    Quorum {
        leader,
        voters: metrics.voters.clone(),
        joint: metrics.joint,
        followers: metrics.lag.iter().map(|lag| (lag.node, follower(lag))).collect(),
        leading_ms,
        lately_ms,
    }
}

/// Takes the next step, if there is one; returns whether there was. On the leader.
pub(crate) async fn align(raft: &RaftNode) -> Result<bool, RaftError> {
    let state = raft.state();
    let unfit = raft.unfit_peers().into_keys().collect();
    match next_step(&state, &raft.metrics(), &quorum(raft), &unfit) {
        None => return Ok(false),
        Some(Step::Add(node)) => raft.add_learner(node.id, &node.address).await?,
        Some(Step::Voters(voters)) => {
            info!(?voters, "the voters change");
            raft.change_voters(voters).await?;
        }
        Some(Step::HandOver(to)) => {
            info!(%to, "leadership goes to a voter");
            raft.transfer_leadership(to).await?;
        }
        Some(Step::Remove(node)) => {
            info!(%node, "a member is removed");
            raft.remove_learner(node).await?;
        }
    }
    Ok(true)
}

/// Who is unfit to lead declines, and nothing is proposed until it has.
fn next_step<'a>(
    state: &'a State,
    metrics: &Metrics,
    quorum: &Quorum,
    unfit: &BTreeSet<NodeId>,
) -> Option<Step<'a>> {
    let known = |n: &&Node| metrics.members.iter().any(|m| m.node == n.id && m.addr == n.address);
    if let Some(node) = state.nodes.values().filter(|n| n.role.has_log()).find(|n| !known(n)) {
        return Some(Step::Add(node));
    }
    votes(state, quorum, unfit).or_else(|| {
        let belongs = |id: &NodeId| state.nodes.get(id).is_some_and(|n| n.role.has_log());
        let gone = metrics.learners.iter().find(|id| !belongs(id))?;
        (!quorum.joint).then_some(Step::Remove(*gone))
    })
}

fn votes(state: &State, quorum: &Quorum, unfit: &BTreeSet<NodeId>) -> Option<Step<'static>> {
    let current = &quorum.voters;
    let voting = state.nodes.values().filter(|n| n.role.votes()).map(|n| n.id);
    let wanted: BTreeSet<NodeId> = voting.take(MAX_VOTERS).collect();
    let ready = |id: &NodeId| current.contains(id) || quorum.has_log(*id);
    // Who is to lose the vote to one that is not there yet keeps it until then. Who was removed
    // does not.
    let complete = wanted.iter().all(ready);
    let leaving = current.difference(&wanted).filter(|id| state.nodes.contains_key(id));
    let stay = leaving.filter(|_| !complete);
    let target: BTreeSet<NodeId> =
        wanted.iter().filter(|id| ready(id)).chain(stay).copied().collect();
    let is_done = !quorum.joint && target == *current;
    if is_done || !quorum.carries(&target) {
        return None;
    }
    if target.contains(&quorum.leader) {
        return Some(Step::Voters(target));
    }
    let mut fit = target.difference(unfit);
    let next = fit.find(|id| current.contains(id) && quorum.has_log(**id));
    if let Some(to) = next {
        return Some(Step::HandOver(*to));
    }
    // It leads on until one is fit, and the others' votes do not wait for that.
    let target = target.into_iter().chain([quorum.leader]).collect();
    (quorum.joint || target != *current).then_some(Step::Voters(target))
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_core::{NodeLife, NodeRole};
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
                asked: None,
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
        let learners = members.iter().filter(|n| !voters.contains(n));
        Metrics {
            members: members.iter().map(peer).collect(),
            voters: voters.iter().map(|n| NodeId(*n)).collect(),
            learners: learners.map(|n| NodeId(*n)).collect(),
            lag: lag.collect(),
            ..Default::default()
        }
    }

    /// Node 1 leads, for long.
    fn step<'a>(state: &'a State, metrics: &Metrics) -> Option<Step<'a>> {
        step_past(state, metrics, &[])
    }

    fn step_past<'a>(state: &'a State, metrics: &Metrics, unfit: &[u64]) -> Option<Step<'a>> {
        let unfit = unfit.iter().copied().map(NodeId).collect();
        next_step(state, metrics, &quorum_of(NodeId(1), metrics, 100_000, 1_000), &unfit)
    }

    fn voters(of: &[u64]) -> Option<Step<'static>> {
        Some(Step::Voters(of.iter().map(|n| NodeId(*n)).collect()))
    }

    const THERE: Option<u64> = Some(10);
    const AWAY: Option<u64> = Some(90_000);

    #[test]
    fn a_new_voter_begins_as_a_learner() {
        let state = state(&[NodeRole::Voter, NodeRole::Voter]);
        assert_eq!(
            step(&state, &metrics(&[1], &[1], &[])),
            Some(Step::Add(&state.nodes[&NodeId(2)]))
        );
    }

    /// A voter that cannot answer would cost the quorum.
    #[test]
    fn a_learner_votes_only_when_it_is_there_and_has_the_log() {
        let state = state(&[NodeRole::Voter, NodeRole::Voter]);
        for (behind, silent_ms) in [(5_000, THERE), (0, None), (0, Some(5_000))] {
            let lag = [(2, behind, silent_ms)];
            assert_eq!(step(&state, &metrics(&[1, 2], &[1], &lag)), None);
        }
        assert_eq!(step(&state, &metrics(&[1, 2], &[1], &[(2, 3, THERE)])), voters(&[1, 2]));
    }

    #[test]
    fn workers_stay_out_and_standbys_do_not_vote() {
        let state = state(&[NodeRole::Voter, NodeRole::Standby, NodeRole::Worker]);
        assert_eq!(step(&state, &metrics(&[1, 2], &[1], &[(2, 0, Some(1))])), None);
    }

    #[test]
    fn a_change_that_was_cut_short_is_completed() {
        let state = state(&[NodeRole::Voter, NodeRole::Voter]);
        let joint = Metrics { joint: true, ..metrics(&[1, 2], &[1, 2], &[(2, 0, THERE)]) };
        assert_eq!(step(&state, &joint), voters(&[1, 2]));
    }

    /// A vote was taken from one node before another could have it.
    #[test]
    fn a_vote_is_kept_until_its_successor_has_the_log() {
        use NodeRole::{Standby, Voter};
        let state = state(&[Voter, Voter, Standby, Voter]);
        let of = |behind| {
            let lag = [(2, 0, THERE), (3, 0, AWAY), (4, behind, THERE)];
            metrics(&[1, 2, 3, 4], &[1, 2, 3], &lag)
        };
        assert_eq!(step(&state, &of(9_000)), None);
        assert_eq!(step(&state, &of(0)), voters(&[1, 2, 4]));
    }

    #[test]
    fn no_step_leaves_a_minority_that_answers() {
        use NodeRole::{Standby, Voter};
        let state = state(&[Voter, Standby, Voter, Standby]);
        let lag = [(2, 0, THERE), (3, 0, AWAY), (4, 0, THERE)];
        let four = metrics(&[1, 2, 3, 4], &[1, 2, 3, 4], &lag);
        assert_eq!(step(&state, &four), None, "n1 alone of two would answer");
        let lag = [(2, 0, THERE), (3, 0, THERE), (4, 0, THERE)];
        assert_eq!(step(&state, &metrics(&[1, 2, 3, 4], &[1, 2, 3, 4], &lag)), voters(&[1, 3]));
    }

    #[test]
    fn a_removed_node_loses_its_vote_and_then_its_membership() {
        use NodeRole::Voter;
        let mut state = state(&[Voter, Voter, Voter, Voter]);
        state.nodes.remove(&NodeId(3));
        // n4 is still on its way: the removed one is not kept for it.
        let lag = [(2, 0, THERE), (3, 0, AWAY), (4, 9_000, THERE)];
        assert_eq!(step(&state, &metrics(&[1, 2, 3, 4], &[1, 2, 3], &lag)), voters(&[1, 2]));
        let gone = step(&state, &metrics(&[1, 2, 3, 4], &[1, 2], &lag));
        assert_eq!(gone, Some(Step::Remove(NodeId(3))));
        let joint = metrics(&[1, 2, 3, 4], &[1, 2], &lag);
        let joint = Metrics { joint: true, ..joint };
        assert_eq!(step(&state, &joint), voters(&[1, 2]), "first what was begun");
    }

    /// The new leader was about to lose its vote when the old one died.
    #[test]
    fn a_leader_without_a_vote_hands_over_first() {
        use NodeRole::{Standby, Voter};
        let state = state(&[Standby, Voter, Voter, Voter]);
        let lag = [(2, 0, AWAY), (3, 0, THERE), (4, 0, THERE)];
        let of = metrics(&[1, 2, 3, 4], &[1, 2, 3], &lag);
        assert_eq!(step(&state, &of), Some(Step::HandOver(NodeId(3))));
    }

    /// Who should not lead declines: the cluster stood still each time that it was asked.
    #[test]
    fn leadership_is_offered_to_no_voter_that_is_unfit() {
        use NodeRole::{Standby, Voter};
        let state = state(&[Standby, Voter, Voter, Voter]);
        let lag = [(2, 0, AWAY), (3, 0, THERE), (4, 0, THERE)];
        let of = metrics(&[1, 2, 3, 4], &[1, 2, 3, 4], &lag);
        assert_eq!(step_past(&state, &of, &[3]), Some(Step::HandOver(NodeId(4))));
        assert_eq!(step_past(&state, &of, &[3, 4]), None, "it leads on until one is fit");
        // A lost voter was not replaced for as long.
        let of = metrics(&[1, 2, 3, 4], &[1, 2, 3], &lag);
        let state = self::state(&[Standby, Standby, Voter, Voter]);
        assert_eq!(step_past(&state, &of, &[3, 4]), voters(&[1, 3, 4]));
    }

    #[test]
    fn a_witness_votes() {
        let state = state(&[NodeRole::Voter, NodeRole::Voter, NodeRole::Witness]);
        let lag = [(2, 0, THERE), (3, 0, THERE)];
        assert_eq!(step(&state, &metrics(&[1, 2, 3], &[1, 2], &lag)), voters(&[1, 2, 3]));
    }
}
