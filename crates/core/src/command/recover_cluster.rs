//! A lost majority is given up, and the cluster goes on with what one survivor knows.

use std::collections::BTreeSet;

use holdfast_types::{Code, NodeId};
use serde::{Deserialize, Serialize};

use crate::apply::Change;
use crate::{Gap, Node, NodeRole, Outcome, Refusal, Response};

/// Lets the cluster go on with one voter. Never proposed: `holdfast_raft` applies it to what the
/// survivor's log amounts to, and makes a new log that begins with the result.
///
/// Nobody is declared lost here (see [`crate::Lineage`]), so nothing is taken over sooner than by any
/// new leader. What others committed and the survivor never heard of is gone; what it has and others
/// never committed stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoverCluster {
    /// Which recovery of this cluster it is.
    pub generation: u64,
    /// The survivor.
    pub survivor: NodeId,
    /// Who had a part in consensus besides, by the survivor's log.
    pub members: BTreeSet<NodeId>,
    /// Who did it, for people.
    pub by: String,
    /// The last entry of the survivor's log.
    pub log_end: u64,
    /// The last one that it knew to be committed.
    pub committed: u64,
}

impl RecoverCluster {
    pub(crate) fn apply(self, change: &mut Change<'_>) -> Response {
        change.state.cluster()?;
        let survivor = change.state.node(self.survivor)?.name.clone();
        let before = change.state.lineage.generation;
        if self.generation <= before {
            let message = format!("the cluster was recovered {before} times already");
            return Err(Refusal::new(Code::WrongState, message));
        }
        change.leap();
        change.state.lineage.generation = self.generation;
        let gap = Gap { after: self.log_end, before: change.revision.0, at: change.at };
        change.state.lineage.gaps.push(gap);
        let mut gave_up = Vec::new();
        let given_up = &mut change.state.lineage.given_up;
        change.state.nodes.for_each_mut(|node| {
            let had_part = node.role != NodeRole::Worker || self.members.contains(&node.id);
            if node.is_witness() {
                // Also while it is a worker: it still stores and runs nothing.
                node.asked = Some(NodeRole::Witness);
            }
            if node.id != self.survivor && had_part {
                node.role = NodeRole::Worker;
                given_up.insert(node.id);
                gave_up.push(node.name.to_string());
            }
        });
        if let Some(node) = change.state.nodes.get_mut(&self.survivor) {
            node.role = node.voting_role();
        }
        self.tell(change, &survivor.to_string(), &gave_up.join(", "));
        Ok(Outcome::Done)
    }

    fn tell(&self, change: &mut Change<'_>, survivor: &str, gave_up: &str) {
        let message = format!(
            "cluster recovered by {} from the log of {survivor}, which ends at entry {} ({} known to \
             be committed); what was committed elsewhere is lost, and these have no vote any more: \
             {gave_up}",
            self.by, self.log_end, self.committed
        );
        let fields = [
            ("by", self.by.clone()),
            ("generation", self.generation.to_string()),
            ("log_end", self.log_end.to_string()),
            ("committed", self.committed.to_string()),
            ("gave_up", gave_up.to_owned()),
        ];
        change.node_event("cluster-recovered", self.survivor, message, fields);
    }
}

impl Node {
    /// Why that node cannot have a part in consensus, if it cannot.
    pub(crate) fn no_part(&self, given_up: &BTreeSet<NodeId>) -> Result<(), Refusal> {
        if !given_up.contains(&self.id) {
            return Ok(());
        }
        let message = format!(
            "node {} was given up when the cluster was recovered and is a worker for good: remove \
             it, and let it join anew",
            self.name
        );
        Err(Refusal::new(Code::WrongState, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, admit, lost, register, report, take_over};
    use crate::{
        Command, DecideTakeover, Entry, HoldCause, HoldTakeover, NodeLife, SetRole, SetRoles, apply,
    };
    use holdfast_types::{
        Code, Epoch, FeatureLevel, Incarnation, LEAP, Report, RequestId, RunState, TimestampMs,
    };

    fn recover(generation: u64, survivor: u64) -> Command {
        Command::RecoverCluster(RecoverCluster {
            generation,
            survivor: NodeId(survivor),
            members: [NodeId(1), NodeId(2), NodeId(3)].into(),
            by: "root on n2".into(),
            log_end: 90,
            committed: 88,
        })
    }

    /// I10, I11, I8: every epoch is above all that the lost majority can have given out, no life
    /// that it knew can be granted anything, and nobody is lost by it.
    #[test]
    fn every_number_leaps_and_nobody_is_lost() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2]);
        world.running(uid, 1);
        world.ok(recover(1, 2));
        let web = &world.state.containers[&uid];
        assert_eq!((web.node, web.epoch()), (NodeId(1), Epoch(1 + LEAP)));
        assert!(web.chain.goes_on_from(Epoch(1)) && !web.chain.goes_on_from(Epoch(2)));
        for node in world.state.nodes.values() {
            assert_eq!(node.incarnation, Incarnation(1 + LEAP));
            assert_eq!(node.life, NodeLife::Up);
            assert_eq!(node.assignment_revision, world.state.revision);
        }
        // What the old life still says, and what it was to lose, is refused.
        let old = Report::Run { uid, epoch: Epoch(1), state: RunState::Stopped };
        assert_eq!(world.refused(report(1, 1, old)), Code::StaleIncarnation);
        assert_eq!(world.refused(take_over(uid, 1, 1, 2)), Code::StaleEpoch);
        assert_eq!(world.refused(take_over(uid, 1 + LEAP, 1 + LEAP, 2)), Code::WrongState);
        world.ok(lost(1, 1 + LEAP));
        world.ok(take_over(uid, 1 + LEAP, 1 + LEAP, 2));
    }

    /// The dead majority's nodes may return, as workers and never with a vote.
    #[test]
    fn who_was_given_up_never_votes_again() {
        let mut world = World::three_nodes();
        world.ok(recover(1, 2));
        let roles: Vec<_> = world.state.nodes.values().map(|n| n.role).collect();
        assert_eq!(roles, [NodeRole::Worker, NodeRole::Voter, NodeRole::Worker]);
        world.ok(register(3));
        for role in [NodeRole::Voter, NodeRole::Standby] {
            let set = Command::SetRole(SetRole { node: NodeId(3), role });
            assert_eq!(world.refused(set), Code::WrongState);
        }
        assert_eq!(world.state.feature_level, FeatureLevel::DISASTERS);
        let event = world.state.events.iter().find(|e| e.kind == "cluster-recovered").unwrap();
        assert_eq!((&event.fields["gave_up"][..], &event.fields["log_end"][..]), ("n1, n3", "90"));
    }

    /// A node that the lost majority had let in was told that somebody had removed it.
    #[test]
    fn who_joined_in_what_was_lost_was_not_removed() {
        let mut world = World::three_nodes();
        let entry = Entry {
            request: RequestId::generate(),
            at: TimestampMs(9_000_000),
            command: recover(1, 2),
        };
        apply(&mut world.state, 1_000, entry).unwrap();
        world.index = 1_000;
        for id in [91, 999] {
            let id = NodeId(id);
            assert!(world.state.lost_in(id).is_some() && !world.state.is_removed(id, 1_000));
        }
        for id in [4, 90, 1_000] {
            let id = NodeId(id);
            assert!(world.state.lost_in(id).is_none() && world.state.is_removed(id, 1_000));
        }
        world.ok(admit("n4"));
        assert!(world.state.lost_in(NodeId(1_001)).is_none());
        let bytes = rmp_serde::to_vec_named(&world.state).unwrap();
        let back: crate::State = rmp_serde::from_slice(&bytes).unwrap();
        assert_eq!(back.lineage, world.state.lineage);
    }

    /// A witness that survived was a voter from then on, and one that was given up a worker.
    #[test]
    fn a_witness_stays_one() {
        for survivor in [2, 3] {
            let mut world = World::three_nodes();
            let witness = (NodeId(3), NodeRole::Witness);
            let roles = [witness].into();
            world.ok(Command::SetRoles(SetRoles { roles, reason: String::new() }));
            world.ok(recover(1, survivor));
            let third = &world.state.nodes[&NodeId(3)];
            assert!(third.is_witness() && third.asked == Some(NodeRole::Witness));
            assert_eq!(third.role.votes(), survivor == 3);
            assert!(!world.state.nodes[&NodeId(2)].is_witness());
        }
    }

    /// What a person had refused went by itself after the recovery (I22).
    #[test]
    fn a_refusal_outlives_it_and_an_approval_does_not() {
        for (approve, stays) in [(false, true), (true, false)] {
            let mut world = World::three_nodes();
            let uid = world.container("web", 1, &[2]);
            world.ok(lost(1, 1));
            world.ok(Command::HoldTakeover(HoldTakeover {
                uid,
                epoch: Epoch(1),
                reason: "too old".into(),
                cause: HoldCause::Data,
                for_person: false,
                offered: None,
                without: BTreeSet::new(),
            }));
            world.ok(Command::DecideTakeover(DecideTakeover { uid, approve }));
            world.ok(recover(1, 2));
            let hold = &world.state.containers[&uid].hold;
            assert_eq!(hold.as_ref().is_some_and(|h| h.for_person && !h.approved), stays);
            assert_eq!(hold.is_some(), stays);
        }
    }

    #[test]
    fn each_recovery_is_a_new_generation() {
        let mut world = World::three_nodes();
        world.ok(recover(1, 2));
        assert_eq!(world.refused(recover(1, 1)), Code::WrongState);
        world.ok(recover(2, 2));
        assert_eq!(world.state.lineage.generation, 2);
    }

    /// Never silently made anew: an entry that the survivor lacks may have been *it is made*.
    #[test]
    fn nothing_is_made_of_its_image_again() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[]);
        assert!(!world.state.node_view(NodeId(1)).unwrap().assigned[0].made);
        world.ok(recover(1, 2));
        assert!(world.state.node_view(NodeId(1)).unwrap().assigned[0].made);
        assert_eq!(world.state.containers[&uid].hold, None);
    }
}
