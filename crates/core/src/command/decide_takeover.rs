//! A person decided a held takeover.

use holdfast_types::{Code, ContainerUid};
use serde::{Deserialize, Serialize};

use crate::apply::Change;
use crate::{HoldCause, Outcome, Refusal, Response};

/// Approves or refuses a held takeover. A refused one stays held until its node comes back or
/// someone approves after all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecideTakeover {
    /// Which container.
    pub uid: ContainerUid,
    /// Go ahead with what the hold offers, or better.
    pub approve: bool,
}

impl DecideTakeover {
    pub(crate) fn apply(self, change: &mut Change<'_>) -> Response {
        let mut container = change.state.container(self.uid)?.clone();
        let Some(hold) = &mut container.hold else {
            let message = format!("no takeover of {} is held", container.name);
            return Err(Refusal::new(Code::WrongState, message));
        };
        hold.approved = self.approve;
        hold.brake_approved =
            self.approve && (hold.brake_approved || hold.cause == HoldCause::Brake);
        hold.for_person |= !self.approve;
        container.revision = change.revision;
        let (kind, word) = match self.approve {
            true => ("takeover-approved", "approved"),
            false => ("takeover-refused", "refused"),
        };
        let message = format!("takeover of {} was {word} by a person", container.name);
        change.container_event(kind, &container, None, message, []);
        change.state.containers.insert(self.uid, container);
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::World;
    use crate::{Command, DecideTakeover, HoldCause, HoldTakeover};
    use holdfast_types::{Code, Epoch};
    use std::collections::BTreeSet;

    #[test]
    fn only_a_held_takeover_can_be_decided() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2]);
        let decide = Command::DecideTakeover(DecideTakeover { uid, approve: true });
        assert_eq!(world.refused(decide), Code::WrongState);
    }

    /// A refused takeover went by itself as soon as a copy was good enough.
    #[test]
    fn a_refused_takeover_waits_for_a_persons_word() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2]);
        let (epoch, reason) = (Epoch(1), "old".into());
        let cause = HoldCause::Data;
        let (offered, without) = (None, BTreeSet::new());
        let hold = HoldTakeover { uid, epoch, reason, cause, for_person: false, offered, without };
        world.ok(Command::HoldTakeover(hold));
        for approve in [false, true] {
            world.ok(Command::DecideTakeover(DecideTakeover { uid, approve }));
            let hold = world.state.containers[&uid].hold.as_ref().unwrap();
            assert!(hold.for_person && hold.approved == approve);
        }
    }
}
