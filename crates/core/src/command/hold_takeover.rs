//! A takeover waits for a person (I22: no loss beyond what was promised without someone's word).

use std::collections::BTreeSet;

use holdfast_types::{Code, ContainerUid, Epoch, HeldSnapshot, NodeId};
use serde::{Deserialize, Serialize};

use crate::apply::Change;
use crate::{Hold, HoldCause, Outcome, Refusal, Response};

/// Holds the takeover of a container, and says what is at stake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldTakeover {
    /// Which container.
    pub uid: ContainerUid,
    /// The assignment that would end.
    pub epoch: Epoch,
    /// What is at stake, in one line.
    pub reason: String,
    /// What stands in the way.
    #[serde(default)]
    pub cause: HoldCause,
    /// Only a person's word ends it: a better copy alone does not.
    #[serde(default)]
    pub for_person: bool,
    /// The copy that the reason offers, and the age that it states.
    #[serde(default)]
    pub offered: Option<HeldSnapshot>,
    /// The live holders without whose answer it would be decided, as the reason says.
    #[serde(default)]
    pub without: BTreeSet<NodeId>,
}

impl HoldTakeover {
    pub(crate) fn apply(self, change: &mut Change<'_>) -> Response {
        let mut container = change.state.container(self.uid)?.clone();
        if container.epoch() != self.epoch {
            return Err(Refusal::new(Code::StaleEpoch, "the container has moved meanwhile"));
        }
        if container.hold.as_ref().is_some_and(|hold| !self.is_news(hold)) {
            return Ok(Outcome::Unchanged);
        }
        let message = format!("takeover of {} is held: {}", container.name, self.reason);
        let hold = Hold {
            since: change.at,
            reason: self.reason,
            cause: self.cause,
            approved: false,
            for_person: self.for_person,
            offered: self.offered,
            without: self.without,
            brake_approved: container.hold.is_some_and(|hold| hold.brake_approved),
        };
        container.hold = Some(Box::new(hold));
        container.revision = change.revision;
        change.container_event("takeover-held", &container, None, message, []);
        change.state.containers.insert(self.uid, container);
        Ok(Outcome::Done)
    }

    /// Whether it says something that the hold at hand does not. A person's word is for what that
    /// person was told: it does not outlive another cause, a worse copy, or one more holder that
    /// does not answer. Where a person's word is waited for, nothing but that word counts.
    pub fn is_news(&self, hold: &Hold) -> bool {
        if hold.for_person && !hold.approved {
            return false;
        }
        if self.for_person {
            return !hold.approved && !hold.brake_approved;
        }
        let id = |offered: &Option<HeldSnapshot>| offered.map(|copy| copy.id);
        let told = match &self.offered {
            Some(copy) if hold.approved => hold.permits(&copy.id),
            _ => id(&self.offered) == id(&hold.offered),
        };
        self.cause != hold.cause || !told || !self.without.is_subset(&hold.without)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;
    use crate::{Command, DecideTakeover};
    use holdfast_types::{Seq, SnapshotId, SnapshotUuid};

    #[test]
    fn a_hold_is_told_once() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2]);
        for for_person in [false, true] {
            assert_eq!(world.ok(hold(uid, HoldCause::Data, for_person)), Outcome::Done);
            let events = world.state.events.len();
            assert_eq!(world.ok(hold(uid, HoldCause::Data, for_person)), Outcome::Unchanged);
            assert_eq!(world.ok(hold(uid, HoldCause::Data, false)), Outcome::Unchanged);
            assert_eq!(world.state.events.len(), events);
        }
    }

    /// I15, I22: who approved an old copy did not approve whichever has room.
    #[test]
    fn a_word_given_for_one_cause_does_not_hold_for_another() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2]);
        world.ok(hold(uid, HoldCause::Data, false));
        world.ok(Command::DecideTakeover(DecideTakeover { uid, approve: true }));
        assert_eq!(world.ok(hold(uid, HoldCause::Data, false)), Outcome::Unchanged);
        assert_eq!(world.ok(hold(uid, HoldCause::Room, false)), Outcome::Done);
        let hold_now = |world: &World| world.state.containers[&uid].hold.clone().unwrap();
        assert!(!hold_now(&world).approved && hold_now(&world).cause == HoldCause::Room);
        // What a person refused is theirs to take up again.
        world.ok(Command::DecideTakeover(DecideTakeover { uid, approve: false }));
        assert_eq!(world.ok(hold(uid, HoldCause::Data, false)), Outcome::Unchanged);
    }

    /// I15, I22: a word covers what was offered and better, not an older copy or more silence.
    #[test]
    fn a_word_given_for_one_copy_does_not_hold_for_an_older_one() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2]);
        let offer = |seq: u64, without: &[u64]| {
            let mut id = world_copy(uid);
            id.seq = Seq(seq);
            let without = without.iter().map(|n| NodeId(*n)).collect();
            let offered = Some(HeldSnapshot { id, age_ms: 1000 });
            let Command::HoldTakeover(told) = hold(uid, HoldCause::Room, false) else { panic!() };
            Command::HoldTakeover(HoldTakeover { offered, without, ..told })
        };
        let approve = Command::DecideTakeover(DecideTakeover { uid, approve: true });
        assert_eq!(world.ok(offer(7, &[])), Outcome::Done);
        assert_eq!(world.ok(offer(8, &[])), Outcome::Done, "it is told anew before it is approved");
        assert_eq!(world.ok(offer(7, &[3])), Outcome::Done);
        world.ok(approve.clone());
        for (seq, without) in [(7, &[3][..]), (8, &[])] {
            assert_eq!(world.ok(offer(seq, without)), Outcome::Unchanged, "{seq}");
        }
        assert_eq!(world.ok(offer(7, &[2, 3])), Outcome::Done);
        world.ok(approve);
        assert_eq!(world.ok(offer(6, &[])), Outcome::Done);
        assert!(!world.state.containers[&uid].hold.as_ref().unwrap().approved);
    }

    /// A word for the brake was forgotten at the next hold, and the brake held again, for ever.
    #[test]
    fn a_word_for_the_brake_outlives_another_hold() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2]);
        let decide = |approve| Command::DecideTakeover(DecideTakeover { uid, approve });
        for cause in [HoldCause::Room, HoldCause::Data] {
            let brake = hold(uid, HoldCause::Brake, true);
            assert_eq!(world.ok(brake.clone()), Outcome::Done);
            world.ok(decide(true));
            assert_eq!(world.ok(hold(uid, cause, false)), Outcome::Done, "it is told");
            assert_eq!(world.ok(brake), Outcome::Unchanged);
            let now = world.state.containers[&uid].hold.clone().unwrap();
            assert!(now.brake_approved && !now.approved && now.cause == cause);
            world.ok(decide(false));
            assert!(!world.state.containers[&uid].hold.as_ref().unwrap().brake_approved);
            world.ok(Command::RegisterNode(crate::RegisterNode { node: NodeId(1) }));
        }
    }

    /// A newer version's cause is read as one that permits nothing.
    #[test]
    fn an_unknown_cause_is_read() {
        for (name, expected) in [("of-tomorrow", HoldCause::Unknown), ("room", HoldCause::Room)] {
            let bytes = rmp_serde::to_vec_named(name).unwrap();
            assert_eq!(rmp_serde::from_slice::<HoldCause>(&bytes).unwrap(), expected);
        }
    }

    fn world_copy(uid: ContainerUid) -> SnapshotId {
        let (volume, uuid) = (uid.into(), SnapshotUuid(uid.0));
        SnapshotId { volume, epoch: Epoch(1), seq: Seq(1), uuid, parent: None }
    }

    fn hold(uid: ContainerUid, cause: HoldCause, for_person: bool) -> Command {
        Command::HoldTakeover(HoldTakeover {
            uid,
            epoch: Epoch(1),
            reason: "old".into(),
            cause,
            for_person,
            offered: None,
            without: BTreeSet::new(),
        })
    }
}
