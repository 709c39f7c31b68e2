use super::*;
use crate::testing::{lose, nodes};
use holdfast_core::{Command, Entry, apply};
use holdfast_types::{RequestId, TimestampMs};
use proptest::prelude::*;
use uuid::Uuid;

const NOW: TimestampMs = TimestampMs(10_000_000);

/// Nodes 1 to so many in these roles, all there, node 1 leading.
fn cluster(roles: &[NodeRole]) -> (State, Quorum) {
    let mut state = nodes(roles.len() as u64);
    for (id, role) in (1..).zip(roles) {
        state.nodes.get_mut(&NodeId(id)).unwrap().role = *role;
    }
    let quorum = quorum_of(&state);
    (state, quorum)
}

/// Raft in line with the state, and everybody there.
fn quorum_of(state: &State) -> Quorum {
    let members = state.nodes.values().filter(|n| n.role.has_log());
    let followers = members.filter(|n| n.id != NodeId(1));
    let there = Follower { behind: 3, silent_ms: Some(20) };
    Quorum {
        leader: NodeId(1),
        voters: voters(state),
        joint: false,
        followers: followers.map(|n| (n.id, there)).collect(),
        leading_ms: 3_600_000,
        lately_ms: 1_000,
    }
}

fn silence(quorum: &mut Quorum, id: u64, ms: u64) {
    quorum.followers.get_mut(&NodeId(id)).unwrap().silent_ms = Some(ms);
}

fn label(state: &mut State, domains: &[(u64, &str)]) {
    for (id, domain) in domains {
        let node = state.nodes.get_mut(&NodeId(*id)).unwrap();
        node.labels.insert("domain".parse().unwrap(), domain.parse().unwrap());
    }
}

fn ask(state: &mut State, ids: &[u64], role: NodeRole) {
    for id in ids {
        state.nodes.get_mut(&NodeId(*id)).unwrap().asked = Some(role);
    }
}

fn step(state: &State, quorum: &Quorum) -> Vec<(u64, NodeRole)> {
    let step = plan_votes(state, quorum, |_| None);
    step.map(|s| s.roles.into_iter().map(|(id, role)| (id.0, role)).collect()).unwrap_or_default()
}

use NodeRole::{Standby, Voter, Witness, Worker};

#[test]
fn a_voter_that_was_silent_for_a_minute_is_replaced() {
    let (state, mut quorum) = cluster(&[Voter, Voter, Voter, Standby]);
    silence(&mut quorum, 3, REPLACE_AFTER_MS - 1);
    assert_eq!(step(&state, &quorum), []);
    silence(&mut quorum, 3, REPLACE_AFTER_MS);
    assert_eq!(step(&state, &quorum), [(3, Standby), (4, Voter)]);
    let reason = plan_votes(&state, &quorum, |_| None).unwrap().reason;
    assert_eq!(reason, "n3 was silent for 60 s, and n4 votes in its place");

    // One that never answered counts from when the leader began.
    quorum.followers.get_mut(&NodeId(3)).unwrap().silent_ms = None;
    quorum.leading_ms = 59_000;
    assert_eq!(step(&state, &quorum), []);
}

#[test]
fn a_lost_node_is_replaced_although_its_raft_answers() {
    let (mut state, quorum) = cluster(&[Voter, Voter, Voter, Standby]);
    lose(&mut state, 2);
    assert_eq!(step(&state, &quorum), [(2, Standby), (4, Voter)]);
    let after = |ms| plan_votes(&state, &quorum, |_| Some(ms));
    assert!(after(59_999).is_none(), "not yet a minute");
    let reason = after(60_000).unwrap().reason;
    assert_eq!(reason, "n2 is lost, and had its last lease 60 s ago, and n4 votes in its place");
}

/// A voter that was lost for a second was replaced when the wall clock went on by an hour.
#[test]
fn how_long_a_voter_was_lost_is_not_of_a_wall_clock() {
    let (mut state, mut quorum) = cluster(&[Voter, Voter, Voter, Standby]);
    lose(&mut state, 2);
    assert!(plan_votes(&state, &quorum, |_| Some(1_000)).is_none());
    // A new leader counts from when it began.
    quorum.leading_ms = REPLACE_AFTER_MS - 1;
    assert_eq!(step(&state, &quorum), []);
    quorum.leading_ms = REPLACE_AFTER_MS;
    assert_eq!(step(&state, &quorum), [(2, Standby), (4, Voter)]);
}

/// An even number of voters stayed when only the leader was not asked to vote.
#[test]
fn a_leader_loses_its_vote_when_nobody_else_can() {
    let (mut state, mut quorum) = cluster(&[Voter; 4]);
    ask(&mut state, &[2, 3], Voter);
    assert_eq!(step(&state, &quorum), [(4, Standby)], "not before others");
    ask(&mut state, &[4], Voter);
    let planned = plan_votes(&state, &quorum, |_| None).unwrap();
    assert_eq!(planned.roles, [(NodeId(1), Standby)].into());
    take(&mut state, &mut quorum, planned, 1_000);
    assert_eq!(quorum.leader, NodeId(2), "it hands over");
    assert_eq!(step(&state, &quorum), []);
}

/// No lost voter was replaced while the leader waited for one that is fit to lead.
#[test]
fn a_lost_voter_is_replaced_while_the_leader_waits_to_hand_over() {
    let (mut state, mut quorum) = cluster(&[Voter, Voter, Voter, Voter, Standby]);
    state.nodes.get_mut(&NodeId(1)).unwrap().role = Standby;
    assert_eq!(step(&state, &quorum), []);
    silence(&mut quorum, 3, REPLACE_AFTER_MS);
    assert_eq!(step(&state, &quorum), [(1, Voter), (3, Standby)], "it keeps its own instead");
}

/// A voter that cannot answer, or lacks the log, would cost the quorum.
#[test]
fn only_a_standby_that_is_there_and_has_the_log_gets_the_vote() {
    for (behind, silent_ms) in [(CAUGHT_UP + 1, Some(10)), (0, Some(5_000)), (0, None)] {
        let (state, mut quorum) = cluster(&[Voter, Voter, Voter, Standby]);
        silence(&mut quorum, 3, 90_000);
        quorum.leading_ms = 500;
        quorum.followers.insert(NodeId(4), Follower { behind, silent_ms });
        assert_eq!(step(&state, &quorum), [], "{behind} behind, silent for {silent_ms:?}");
    }
    let (mut state, mut quorum) = cluster(&[Voter, Voter, Voter, Standby]);
    silence(&mut quorum, 3, 90_000);
    lose(&mut state, 4);
    assert_eq!(step(&state, &quorum), [], "it is lost itself");
}

#[test]
fn nothing_is_done_without_a_majority_or_before_the_last_step_is() {
    let (state, mut quorum) = cluster(&[Voter, Voter, Voter, Standby]);
    silence(&mut quorum, 2, 90_000);
    silence(&mut quorum, 3, 90_000);
    assert_eq!(step(&state, &quorum), []);
    silence(&mut quorum, 2, 10);
    quorum.joint = true;
    assert_eq!(step(&state, &quorum), []);
    quorum.joint = false;
    quorum.voters.remove(&NodeId(2));
    assert_eq!(step(&state, &quorum), [], "n2 is still to become a voter");
}

/// Everything waited for a node that was to vote and died before it had the log.
#[test]
fn a_voter_that_raft_never_had_is_given_up() {
    let (state, mut quorum) = cluster(&[Voter, Voter, Voter]);
    quorum.voters.remove(&NodeId(3));
    silence(&mut quorum, 3, 90_000);
    assert_eq!(step(&state, &quorum), [(3, Standby)]);
}

#[test]
fn the_number_of_voters_follows_the_number_of_nodes() {
    for (roles, expected) in [
        (&[Voter, Standby][..], vec![(2, Voter)]),
        (&[Voter, Standby, Standby], vec![(2, Voter), (3, Voter)]),
        (&[Voter, Voter, Voter, Standby], vec![]),
        (&[Voter, Voter, Voter, Standby, Worker], vec![]),
        (&[Voter, Voter, Voter, Standby, Standby], vec![(4, Voter), (5, Voter)]),
        (&[Voter, Voter, Voter, Voter], vec![(4, Standby)]),
        (&[Voter, Voter, Voter, Voter, Worker], vec![(4, Standby)]),
        (&[Voter, Voter, Voter, Voter, Standby], vec![(5, Voter)]),
        (&[Voter; 6], vec![(6, Standby)]),
        (&[Voter; 7], vec![(6, Standby), (7, Standby)]),
    ] {
        let (state, quorum) = cluster(roles);
        assert_eq!(step(&state, &quorum), expected, "{roles:?}");
    }
}

#[test]
fn wishes_are_respected() {
    let (mut state, quorum) = cluster(&[Voter; 7]);
    ask(&mut state, &[1, 2, 3, 4, 5, 6, 7], Voter);
    assert_eq!(step(&state, &quorum), [], "seven by choice");
    let (mut state, quorum) = cluster(&[Voter; 4]);
    ask(&mut state, &[1, 2, 3, 4], Voter);
    assert_eq!(step(&state, &quorum), [], "so was it wanted");
    ask(&mut state, &[3], Standby);
    assert_eq!(step(&state, &quorum), [(3, Standby)]);
    ask(&mut state, &[3], Voter);
    ask(&mut state, &[1], Standby);
    assert_eq!(step(&state, &quorum), [(1, Standby)], "the leader too");
    let (mut state, mut quorum) = cluster(&[Voter; 7]);
    ask(&mut state, &[1, 2, 3, 4, 5, 7], Voter);
    silence(&mut quorum, 2, 90_000);
    assert_eq!(step(&state, &quorum), [], "six were asked for, and seven are better");
    let (mut state, mut quorum) = cluster(&[Voter, Voter, Standby]);
    ask(&mut state, &[3], Standby);
    assert_eq!(step(&state, &quorum), [], "it does not vote to make a third");
    silence(&mut quorum, 2, 10);
    let (mut state, mut quorum) = cluster(&[Voter, Voter, Voter, Standby, Standby]);
    ask(&mut state, &[4], Standby);
    silence(&mut quorum, 2, 90_000);
    assert_eq!(
        step(&state, &quorum),
        [(2, Standby), (5, Voter)],
        "last, and in a lost one's place"
    );
    lose(&mut state, 5);
    assert_eq!(step(&state, &quorum), [(2, Standby), (4, Voter)]);
}

#[test]
fn a_witness_is_a_voter_and_stays_a_witness() {
    let (mut state, mut quorum) = cluster(&[Voter, Voter, Standby]);
    ask(&mut state, &[3], Witness);
    assert_eq!(step(&state, &quorum), [(3, Witness)]);
    state.nodes.get_mut(&NodeId(3)).unwrap().role = Witness;
    quorum.voters.insert(NodeId(3));
    assert_eq!(step(&state, &quorum), []);
    silence(&mut quorum, 3, 90_000);
    assert_eq!(step(&state, &quorum), [], "there is nobody in its place");
}

#[test]
fn a_node_does_not_leave_when_that_costs_the_quorum() {
    let (state, mut quorum) = cluster(&[Voter, Voter, Voter, Standby, Worker]);
    let leave = |quorum: &Quorum, id, successor: Option<u64>| {
        may_leave(&state, quorum, &state.nodes[&NodeId(id)], successor.map(NodeId))
    };
    assert_eq!(leave(&quorum, 3, None), Ok(()));
    silence(&mut quorum, 2, 5_000);
    let why = leave(&quorum, 3, None).unwrap_err();
    assert_eq!(why, "without n3, 1 of 2 voters would answer, and 2 must; these do not: n2");
    assert_eq!(substitute(&state, &quorum, NodeId(3)), Some(NodeId(4)));
    assert_eq!(leave(&quorum, 3, Some(4)), Ok(()));
    assert_eq!(leave(&quorum, 2, None), Ok(()), "the silent one itself");
    assert_eq!(leave(&quorum, 5, None), Ok(()), "it has no vote");
}

/// The removal was cut short after the roles: nobody chooses once more, nor the node itself.
#[test]
fn a_removal_that_goes_on_keeps_its_successor() {
    let (mut state, mut quorum) = cluster(&[Voter, Voter, Voter, Standby, Standby]);
    for (id, role) in [(3, Standby), (4, Voter)] {
        state.nodes.get_mut(&NodeId(id)).unwrap().role = role;
    }
    assert_eq!(substitute(&state, &quorum, NodeId(3)), Some(NodeId(4)));
    quorum.voters.insert(NodeId(4));
    assert_eq!(substitute(&state, &quorum, NodeId(3)), None);
}

#[test]
fn votes_are_spread_over_failure_domains() {
    let (mut state, mut quorum) = cluster(&[Voter, Voter, Voter, Standby, Worker, Worker]);
    label(&mut state, &[(1, "a"), (2, "a"), (3, "b"), (4, "c")]);
    assert_eq!(step(&state, &quorum), [(2, Standby), (4, Voter)]);
    label(&mut state, &[(4, "a")]);
    assert_eq!(step(&state, &quorum), [], "it would not help");
    assert!(
        vote_trouble(&state, &quorum)[0].starts_with("2 of 3 voters are in the failure domain a")
    );
    // The leader keeps its vote.
    label(&mut state, &[(1, "b"), (2, "c"), (4, "d")]);
    assert_eq!(step(&state, &quorum), [(3, Standby), (4, Voter)]);

    // In place of a lost one, the standby elsewhere.
    let (mut other, _) = cluster(&[Voter, Voter, Voter, Standby, Standby]);
    label(&mut other, &[(1, "a"), (2, "b"), (3, "c"), (4, "a"), (5, "d")]);
    quorum = quorum_of(&other);
    silence(&mut quorum, 3, 90_000);
    assert_eq!(step(&other, &quorum), [(3, Standby), (5, Voter)]);
}

#[test]
fn newcomers_get_the_part_that_is_missing() {
    for (roles, part) in [
        (&[Voter][..], Voter),
        (&[Voter, Witness], Voter),
        (&[Voter, Voter, Voter], Standby),
        (&[Voter, Voter, Voter, Standby, Standby], Standby),
        (&[Voter, Voter, Voter, Voter, Voter, Standby], Standby),
        (&[Voter, Voter, Voter, Voter, Voter, Standby, Standby], Worker),
    ] {
        assert_eq!(part_of_newcomer(&cluster(roles).0), part, "{roles:?}");
    }
}

#[test]
fn what_is_missing_is_told() {
    let told = |roles: &[NodeRole]| {
        let (state, quorum) = cluster(roles);
        vote_trouble(&state, &quorum)
    };
    assert!(told(&[Voter]).is_empty() && told(&[Voter; 3]).is_empty());
    assert!(told(&[Voter, Worker])[0].starts_with("one voter for 2 nodes"));
    assert!(told(&[Voter, Voter])[0].starts_with("two voters: the loss of either"));
    assert!(told(&[Voter, Voter, Voter, Voter])[0].starts_with("4 voters survive no more"));

    let (state, mut quorum) = cluster(&[Voter, Voter, Voter]);
    silence(&mut quorum, 2, 30_000);
    quorum.voters.remove(&NodeId(3));
    let lines = vote_trouble(&state, &quorum);
    assert_eq!(
        lines,
        ["voter n2 does not answer (2 of 3 do, 2 must): there is no standby to vote in its place"]
    );
    let note = |id| vote_note(&state, &quorum, &state.nodes[&NodeId(id)]);
    assert_eq!(note(1), None);
    assert_eq!(note(2).unwrap(), "silent for 30 s, no standby");
    assert_eq!(note(3).unwrap(), "no vote yet: 3 entries behind");
}

/// Carries a step out, as the log and the leader would. One that has no vote any more hands over.
fn take(state: &mut State, quorum: &mut Quorum, step: SetRoles, index: u64) {
    let request = RequestId(Uuid::from_u128(u128::from(index)));
    let entry = Entry { request, at: NOW, command: Command::SetRoles(step) };
    apply(state, index, entry).unwrap();
    quorum.voters = voters(state);
    if !quorum.voters.contains(&quorum.leader) {
        let there = Follower { behind: 0, silent_ms: Some(10) };
        let next = *quorum.voters.iter().find(|id| quorum.has_log(**id)).unwrap();
        quorum.followers.insert(quorum.leader, there);
        quorum.followers.remove(&next);
        quorum.leader = next;
    }
}

fn role() -> impl Strategy<Value = (NodeRole, Option<NodeRole>)> {
    let asked = prop_oneof![
        3 => Just(None),
        1 => Just(Some(Voter)),
        1 => Just(Some(Standby)),
        1 => Just(Some(Witness)),
    ];
    let role = prop_oneof![3 => Just(Voter), 3 => Just(Standby), 1 => Just(Worker)];
    (role, asked).prop_map(|(role, asked)| match (role, asked) {
        (Voter, Some(Witness)) => (Witness, asked),
        (Worker, _) => (Worker, None),
        (role, asked) => (role, asked),
    })
}

type Member = ((NodeRole, Option<NodeRole>), u8, bool, u64);

proptest! {
    /// I24, and the quorum: whatever is there, each step leaves a majority that answers both before
    /// and after it, is the same for the same input, and after a few steps there is none left.
    #[test]
    fn steps_keep_the_quorum_and_come_to_an_end(
        members in prop::collection::vec((role(), 0u8..4, any::<bool>(), 0u64..90_000), 1..12),
    ) {
        let (mut state, mut quorum) = world(&members);
        let carried = quorum.carries(&quorum.voters);
        for index in 0..40 {
            let planned = plan_votes(&state, &quorum, |_| None);
            prop_assert_eq!(&planned, &plan_votes(&state, &quorum, |_| None));
            let Some(planned) = planned else {
                check_end(&state, &quorum)?;
                return Ok(());
            };
            prop_assert!(carried, "a step without a majority");
            for (id, role) in &planned.roles {
                let node = &state.nodes[id];
                prop_assert!(node.role != Worker && *role != Worker);
                if role.votes() {
                    prop_assert!(quorum.has_log(*id), "{} cannot vote", node.name);
                    prop_assert_eq!(*role == Witness, node.asked == Some(Witness));
                } else {
                    let others = quorum.voters.iter().filter(|other| !planned.roles.contains_key(other));
                    let asked = others.into_iter().all(|other| asked_to_vote(&state.nodes[other]));
                    prop_assert!(*id != quorum.leader || asked, "the leader lost its vote");
                }
            }
            take(&mut state, &mut quorum, planned, 1_000 + index);
            prop_assert!(quorum.carries(&quorum.voters), "the quorum is gone");
        }
        prop_assert!(false, "there is no end to it");
    }
}

fn world(members: &[Member]) -> (State, Quorum) {
    let mut state = nodes(members.len() as u64);
    for (id, ((role, asked), domain, _, _)) in (1..).zip(members) {
        let node = state.nodes.get_mut(&NodeId(id)).unwrap();
        (node.role, node.asked) = (*role, *asked);
        if *domain > 0 {
            let domain = format!("d{domain}").parse().unwrap();
            node.labels.insert("domain".parse().unwrap(), domain);
        }
    }
    // The leader votes.
    let leader = state.nodes.get_mut(&NodeId(1)).unwrap();
    leader.role = leader.voting_role();
    let mut quorum = quorum_of(&state);
    for (id, (_, _, there, silent_ms)) in (1..).zip(members) {
        if let Some(follower) = quorum.followers.get_mut(&NodeId(id)) {
            follower.silent_ms = Some(if *there { 10 } else { *silent_ms });
        }
    }
    (state, quorum)
}

/// What must be so when nothing is left to do.
fn check_end(state: &State, quorum: &Quorum) -> Result<(), TestCaseError> {
    if !quorum.carries(&quorum.voters) {
        return Ok(());
    }
    let ballot = Ballot { state, quorum, unheard_ms: &|_| None, voters: voters(state) };
    let count = ballot.voters.len();
    let all_there = ballot.voters.iter().all(|id| quorum.answers(*id));
    let unasked = |id: &NodeId| !asked_to_vote(&state.nodes[id]);
    let wanted = count % 2 == 1 || count <= 2 || !ballot.voters.iter().any(unasked);
    prop_assert!(wanted || !all_there, "an even number of voters is left: {}", count);
    prop_assert!(count <= MAX_VOTERS || !all_there || !ballot.voters.iter().any(unasked));
    let spare = ballot.best(&ballot.voters, |_| true).is_some();
    let gone = ballot.voters.iter().any(|id| ballot.gone(*id).is_some());
    prop_assert!(!gone || !spare, "a lost voter was not replaced");
    Ok(())
}
