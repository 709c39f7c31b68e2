//! A takeover waits for a person (I22: no loss beyond what was promised without someone's word).

use holdfast_types::{Code, ContainerUid, Epoch};
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
}

impl HoldTakeover {
    pub(crate) fn apply(self, change: &mut Change<'_>) -> Response {
        let mut container = change.state.container(self.uid)?.clone();
        if container.epoch() != self.epoch {
            return Err(Refusal::new(Code::StaleEpoch, "the container has moved meanwhile"));
        }
        if container.hold.as_ref().is_some_and(|hold| !self.replaces(hold)) {
            return Ok(Outcome::Unchanged);
        }
        let message = format!("takeover of {} is held: {}", container.name, self.reason);
        container.hold = Some(Hold {
            since: change.at,
            reason: self.reason,
            cause: self.cause,
            approved: false,
            for_person: self.for_person,
        });
        container.revision = change.revision;
        change.container_event("takeover-held", &container, None, message, []);
        change.state.containers.insert(self.uid, container);
        Ok(Outcome::Done)
    }

    /// Whether it says something that the hold at hand does not. A person's word is for what that
    /// person was told: it does not outlive a want of room that nobody had told of, nor the end of
    /// one. Where a person's word is waited for, nothing but that word counts.
    fn replaces(&self, hold: &Hold) -> bool {
        let room = |cause| cause == HoldCause::Room;
        let news = !self.for_person && room(self.cause) != room(hold.cause);
        match (hold.approved, hold.for_person) {
            (true, _) => news,
            (false, true) => false,
            (false, false) => news || self.for_person,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::World;
    use crate::{Command, DecideTakeover, HoldCause, HoldTakeover, Outcome};
    use holdfast_types::{ContainerUid, Epoch};

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

    fn hold(uid: ContainerUid, cause: HoldCause, for_person: bool) -> Command {
        let (epoch, reason) = (Epoch(1), "old".into());
        Command::HoldTakeover(HoldTakeover { uid, epoch, reason, cause, for_person })
    }
}
