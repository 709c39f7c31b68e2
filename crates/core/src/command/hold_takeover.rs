//! A takeover waits for a person (I22: no loss beyond what was promised without someone's word).

use holdfast_types::{Code, ContainerUid, Epoch};
use serde::{Deserialize, Serialize};

use crate::apply::Change;
use crate::{Hold, Outcome, Refusal, Response};

/// Holds the takeover of a container, and says what is at stake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldTakeover {
    /// Which container.
    pub uid: ContainerUid,
    /// The assignment that would end.
    pub epoch: Epoch,
    /// What is at stake, in one line.
    pub reason: String,
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
        let stays = |hold: &Hold| hold.approved || hold.for_person || !self.for_person;
        if container.hold.as_ref().is_some_and(stays) {
            return Ok(Outcome::Unchanged);
        }
        let message = format!("takeover of {} is held: {}", container.name, self.reason);
        container.hold = Some(Hold {
            since: change.at,
            reason: self.reason,
            approved: false,
            for_person: self.for_person,
        });
        container.revision = change.revision;
        change.container_event("takeover-held", &container, None, message, []);
        change.state.containers.insert(self.uid, container);
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::World;
    use crate::{Command, HoldTakeover, Outcome};
    use holdfast_types::{ContainerUid, Epoch};

    #[test]
    fn a_hold_is_told_once() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2]);
        for for_person in [false, true] {
            assert_eq!(world.ok(hold(uid, for_person)), Outcome::Done);
            let events = world.state.events.len();
            assert_eq!(world.ok(hold(uid, for_person)), Outcome::Unchanged);
            assert_eq!(world.ok(hold(uid, false)), Outcome::Unchanged);
            assert_eq!(world.state.events.len(), events);
        }
    }

    fn hold(uid: ContainerUid, for_person: bool) -> Command {
        let (epoch, reason) = (Epoch(1), "old".into());
        Command::HoldTakeover(HoldTakeover { uid, epoch, reason, for_person })
    }
}
