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
        look(ports, leadership).await;
    }
}

async fn look<P: Ports>(ports: &P, leadership: &Leadership) {
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
    use crate::sightings::Sighting;
    use crate::testing::{BOOTTIME_MS, FakePorts, add_container, node, state_of};
    use holdfast_planner::PoolObservation;
    use holdfast_types::{ByteSize, ContainerUid, Incarnation, NodeId};
    use uuid::Uuid;

    /// A leader knows of a pool what its node has told it, and asks nothing of one that it has not
    /// heard of.
    #[test]
    fn a_schedule_goes_on_once_its_node_is_heard() {
        let mut state = state_of(&[1, 2]);
        let uid = add_container(&mut state, 1, &[2]);
        state.containers.get_mut(&uid).unwrap().schedule = "minutely=1".parse().ok();
        let leadership = Leadership::begin(1, BOOTTIME_MS, &state);
        let ports = FakePorts::new(state);
        let rt = tokio::runtime::Builder::new_current_thread().build().unwrap();
        rt.block_on(look(&ports, &leadership));
        assert_eq!(ports.proposed(), []);
        let (id, life) = (NodeId(1), Incarnation(1));
        leadership.grant(id, life, || BOOTTIME_MS, || Some(node(1))).unwrap();
        let pool = PoolObservation {
            name: "default".into(),
            driver: "xfs".into(),
            size: ByteSize::gib(10),
            used: ByteSize::gib(1),
            promised: ByteSize::gib(1),
            metadata: None,
            admits: true,
        };
        let sighting = Sighting { full: true, pool: Some(pool), ..Default::default() };
        leadership.sightings.heard(id, life, sighting, BOOTTIME_MS);
        rt.block_on(look(&ports, &leadership));
        let [Command::CreateSnapshot(take)] = &ports.proposed()[..] else {
            panic!("{:?}", ports.proposed());
        };
        assert_eq!((take.uid, take.by), (uid, KeptBy::Schedule));
    }

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
