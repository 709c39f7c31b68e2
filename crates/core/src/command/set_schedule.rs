//! Snapshots of a container are to be taken by the clock, or not any more.

use holdfast_types::{Code, ContainerUid, KeepRules};
use serde::{Deserialize, Serialize};

use crate::apply::Change;
use crate::{Outcome, Refusal, Response};

/// Sets or ends a schedule. What it took is kept or removed by the rules in force; without any it
/// stays until a person removes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetSchedule {
    /// Of which container.
    pub uid: ContainerUid,
    /// How many are kept; nothing ends the schedule.
    pub keep: Option<KeepRules>,
}

impl SetSchedule {
    pub(crate) fn apply(self, change: &mut Change<'_>) -> Response {
        let container = change.state.container(self.uid)?;
        if container.is_deleting() {
            let message = format!("container {} is being deleted", container.name);
            return Err(Refusal::new(Code::WrongState, message));
        }
        if container.schedule == self.keep {
            return Ok(Outcome::Unchanged);
        }
        let mut container = container.clone();
        let name = &container.name;
        let message = match &self.keep {
            Some(keep) => format!("snapshots of {name} are taken by the clock: {keep}"),
            None => format!("no more snapshots of {name} are taken by the clock"),
        };
        container.schedule = self.keep;
        container.schedule_failed = None;
        container.revision = change.revision;
        change.container_event("schedule-changed", &container, None, message, []);
        change.state.containers.insert(self.uid, container);
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::World;
    use crate::{Command, Outcome, SetSchedule};

    #[test]
    fn a_schedule_is_set_and_ended() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2]);
        let keep = "hourly=24,daily=7".parse().ok();
        let set = |keep| Command::SetSchedule(SetSchedule { uid, keep });
        let keep: Option<holdfast_types::KeepRules> = keep;
        assert_eq!(world.ok(set(keep.clone())), Outcome::Done);
        assert_eq!(world.ok(set(keep.clone())), Outcome::Unchanged);
        assert_eq!(world.state.containers[&uid].schedule, keep);
        world.ok(set(None));
        assert_eq!(world.state.containers[&uid].schedule, None);
    }
}
