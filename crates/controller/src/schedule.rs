//! Has snapshots taken by the clock, and removes those that no rule keeps any more.

use std::time::Duration;

use holdfast_core::{Command, CreateSnapshot, RemoveSnapshot};
use holdfast_planner::{SnapshotsDue, plan_snapshots};
use holdfast_types::{KeptBy, SnapshotUuid};
use tracing::{debug, warn};

use crate::leadership::Leadership;
use crate::ports::Ports;

/// The shortest period is a minute.
const EVERY: Duration = Duration::from_secs(10);

/// Looks at every schedule now and then, as long as this process leads.
pub(crate) async fn run<P: Ports>(ports: &P, leadership: &Leadership) {
    loop {
        tokio::time::sleep(EVERY).await;
        let state = ports.state();
        let seen = leadership.observe(&state, ports.boottime_ms(), ports.wall());
        for due in plan_snapshots(&state, &seen, ports.wall()) {
            debug!(container = %due.uid, take = ?due.take, remove = due.remove.len(), "by the clock");
            for command in commands(due) {
                if let Err(error) = ports.propose(command).await {
                    warn!(%error, "a schedule has to wait");
                }
            }
        }
    }
}

/// What is new comes before what is old goes.
fn commands(due: SnapshotsDue) -> Vec<Command> {
    let uid = due.uid;
    let take = due.take.map(|name| {
        let uuid = SnapshotUuid::generate();
        let by = KeptBy::Schedule;
        Command::CreateSnapshot(CreateSnapshot { uid, name, uuid, by, operation: None })
    });
    let only = Some(KeptBy::Schedule);
    let remove = |name| Command::RemoveSnapshot(RemoveSnapshot { uid, name, only });
    take.into_iter().chain(due.remove.into_iter().map(remove)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_types::ContainerUid;
    use uuid::Uuid;

    /// A schedule can only remove what is its own, whatever the planner says.
    #[test]
    fn a_schedule_speaks_for_itself_alone() {
        let due = SnapshotsDue {
            uid: ContainerUid(Uuid::from_u128(1)),
            take: "auto-2".parse().ok(),
            remove: vec!["auto-1".parse().unwrap()],
        };
        let [Command::CreateSnapshot(take), Command::RemoveSnapshot(remove)] = &commands(due)[..]
        else {
            panic!("in another order");
        };
        assert_eq!((take.by, take.operation), (KeptBy::Schedule, None));
        assert_eq!(remove.only, Some(KeptBy::Schedule));
    }
}
