//! What the leader does besides: replicas, the coarse floor, membership, the feature level, a new
//! authority. One look a second.

use std::time::Duration;

use holdfast_core::{Command, RecordFloor, State};
use holdfast_planner::{Observations, plan_replicas, plan_votes};
use holdfast_types::{ContainerUid, NodeId, SnapshotId, TimestampMs};
use tracing::{debug, info, warn};

use crate::leadership::Leadership;
use crate::ports::Ports;

/// At most one floor entry in this time (DESIGN section 4, *Replicate*).
const EVERY: Duration = Duration::from_secs(1);

/// A copy that did not change is re-stamped in the log no more often than this.
const RESTAMP_MS: u64 = 60_000;

/// About 100 bytes a copy keep an entry below 32 KiB.
const FLOOR_BATCH: usize = 256;

/// Keeps things up, as long as this process leads.
pub(crate) async fn run<P: Ports>(ports: &P, leadership: &Leadership) {
    loop {
        tokio::time::sleep(EVERY).await;
        keep_voters(ports, leadership).await;
        let state = ports.state();
        let seen = leadership.observe(&state, ports.boottime_ms(), ports.wall());
        if let Some(raise) = leadership.levels.raise(&state) {
            propose(ports, Command::RaiseLevel(raise)).await;
        }
        if let Some(step) = leadership.standings.step(&state) {
            info!(reason = %step.reason, "authorities change");
            propose(ports, Command::SetAuthorities(step)).await;
        }
        let floor = floor(&state, &seen);
        if !floor.copies.is_empty() {
            propose(ports, Command::RecordFloor(floor)).await;
        }
        for change in plan_replicas(&state, &seen, ports.wall()) {
            debug!(container = %change.uid, replicas = ?change.replicas, "replicas change");
            propose(ports, Command::SetReplicas(change)).await;
        }
    }
}

/// One step: of Raft towards the roles in the state, or else, once it is there, of the roles. None while
/// a person's command moves votes.
async fn keep_voters<P: Ports>(ports: &P, leadership: &Leadership) {
    let Ok(_votes) = leadership.votes.try_lock() else { return };
    match ports.align_membership().await {
        Err(error) => warn!(%error, "the members of Raft could not be brought in line"),
        Ok(true) => {}
        Ok(false) => {
            let unheard_ms = |id| leadership.leases.silent_ms(id, ports.boottime_ms());
            let planned = plan_votes(&ports.state(), &ports.quorum(), unheard_ms);
            if let Some(change) = planned {
                info!(roles = ?change.roles, reason = %change.reason, "votes change");
                propose(ports, Command::SetRoles(change)).await;
            }
        }
    }
}

async fn propose<P: Ports>(ports: &P, command: Command) {
    if let Err(error) = ports.propose(command).await {
        warn!(%error, "upkeep has to wait");
    }
}

/// The copies whose newest snapshot changed, or whose stamp is old.
fn floor(state: &State, seen: &Observations) -> RecordFloor {
    let mut copies: Vec<(ContainerUid, NodeId, SnapshotId, TimestampMs)> = Vec::new();
    for (id, node) in &seen.nodes {
        for (volume, held) in &node.held {
            let uid = ContainerUid(volume.0);
            let Some(container) = state.containers.get(&uid) else { continue };
            if container.node == *id || !container.on_chain(&held.newest) {
                continue;
            }
            let due = match container.copies.get(id) {
                None => true,
                Some(copy) if copy.newest.uuid == held.newest.uuid => {
                    held.as_of.since(copy.as_of) >= RESTAMP_MS
                }
                Some(copy) => copy.newest.order() < held.newest.order(),
            };
            if due {
                copies.push((uid, *id, held.newest, held.as_of));
            }
        }
    }
    copies.truncate(FLOOR_BATCH);
    RecordFloor { copies }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FakePorts, add_container, copy, state_of};
    use holdfast_core::{Copy, NodeRole};
    use holdfast_planner::{Follower, HeldCopy, NodeObservation, Quorum};

    /// What the planner decides goes into the log, with its reason.
    #[test]
    fn a_silent_voter_is_replaced_by_an_entry() {
        let mut state = state_of(&[1, 2, 3, 4]);
        state.nodes.get_mut(&NodeId(4)).unwrap().role = NodeRole::Standby;
        let follower = |silent_ms| Follower { behind: 0, silent_ms: Some(silent_ms) };
        let mut ports = FakePorts::new(state);
        ports.quorum = Quorum {
            leader: NodeId(1),
            voters: [1, 2, 3].map(NodeId).into(),
            joint: false,
            followers: [(2, 90_000), (3, 10), (4, 10)]
                .map(|(id, silent_ms)| (NodeId(id), follower(silent_ms)))
                .into(),
            leading_ms: 100_000,
            lately_ms: 1_000,
        };
        let rt = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let leadership = Leadership::begin(1, 0, &ports.state());
        let held = leadership.votes.try_lock().unwrap();
        rt.block_on(keep_voters(&ports, &leadership));
        assert_eq!(ports.proposed(), [], "somebody else moves votes");
        drop(held);
        rt.block_on(keep_voters(&ports, &leadership));
        let proposed = ports.proposed();
        let [Command::SetRoles(change)] = &proposed[..] else { panic!("{proposed:?}") };
        let roles = [(NodeId(2), NodeRole::Standby), (NodeId(4), NodeRole::Voter)];
        assert_eq!(change.roles, roles.into());
        assert!(change.reason.starts_with("n2 was silent for 90 s"), "{}", change.reason);
    }

    #[test]
    fn only_what_moved_goes_into_the_log() {
        let mut state = state_of(&[1, 2]);
        let uid = add_container(&mut state, 1, &[2]);
        let newest = copy(uid, 2, 5).id;
        let mut seen = Observations::default();
        let held = HeldCopy { newest, as_of: TimestampMs(1_000) };
        let node = NodeObservation { held: [(uid.into(), held)].into(), ..Default::default() };
        seen.nodes.insert(NodeId(2), node);
        assert_eq!(floor(&state, &seen).copies.len(), 1);
        let known = Copy { newest, as_of: TimestampMs(900) };
        state.containers.get_mut(&uid).unwrap().copies.insert(NodeId(2), known);
        assert!(floor(&state, &seen).copies.is_empty());
    }
}
