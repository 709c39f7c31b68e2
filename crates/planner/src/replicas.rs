//! Which replicas to add and which to drop.

use std::collections::BTreeSet;

use holdfast_core::{Container, NodeLife, SetReplicas, State};
use holdfast_types::{NodeId, TimestampMs};

use crate::observe::Observations;
use crate::place::candidates;

/// How long a lost replica's node may take to come back before the replica is made anew elsewhere.
pub const REBUILD_AFTER_MS: u64 = 600_000;

/// The changes that bring every container to its number of copies, no more and no fewer.
pub fn plan_replicas(state: &State, seen: &Observations, now: TimestampMs) -> Vec<SetReplicas> {
    let living = state.containers.values().filter(|c| !c.is_deleting());
    living.filter_map(|c| plan_one(state, seen, now, c)).collect()
}

fn plan_one(
    state: &State,
    seen: &Observations,
    now: TimestampMs,
    container: &Container,
) -> Option<SetReplicas> {
    if !state.nodes.get(&container.node)?.is_up() {
        // Nobody could ship to a new replica; a takeover comes first.
        return None;
    }
    let wanted = usize::from(container.spec.copies.saturating_sub(1));
    let counts = |id: &NodeId| !gone_for_long(state, *id, now);
    let counted = container.replicas.iter().filter(|id| counts(id)).count();
    let mut replicas: BTreeSet<NodeId> = container.replicas.iter().copied().collect();
    if counted < wanted {
        let exclude: BTreeSet<NodeId> = container.members().collect();
        let new = candidates(state, seen, &container.spec, &exclude);
        replicas.extend(new.into_iter().take(wanted - counted));
    } else if replicas.len() > wanted
        && replicas.iter().all(|id| state.holds_current(container, *id))
    {
        // Every copy is good, so dropping one loses nothing (I18), unless its node also keeps what
        // it never shipped: that yields to a person alone (I21); or a clone is still to begin there.
        let plain = |id: &&NodeId| {
            !keeps_diverged(state, container, **id)
                && state.unmade_clone_on(container, **id).is_none()
        };
        let surplus = replicas.iter().rfind(plain).copied();
        replicas.retain(|id| Some(*id) != surplus);
    }
    (container.replicas != replicas).then_some(SetReplicas {
        uid: container.uid,
        epoch: container.epoch(),
        replicas,
    })
}

fn gone_for_long(state: &State, id: NodeId, now: TimestampMs) -> bool {
    match state.nodes.get(&id).map(|n| &n.life) {
        Some(NodeLife::Lost { at, .. }) => now.since(*at) >= REBUILD_AFTER_MS,
        Some(NodeLife::Up | NodeLife::New) => false,
        None => true,
    }
}

/// Whether the node keeps data of the container that is on no other.
fn keeps_diverged(state: &State, container: &Container, id: NodeId) -> bool {
    state.diverged.values().any(|kept| kept.uid == container.uid && kept.node == id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{add_container, lose, observed, snapshot, three_nodes};
    use holdfast_core::Copy;

    #[test]
    fn a_missing_replica_is_added_at_once_and_a_lost_one_after_a_delay() {
        let mut state = three_nodes();
        let seen = observed(&[1, 2, 3]);
        let alone = add_container(&mut state, 1, 1, &[], |_| {});
        let plan = plan_replicas(&state, &seen, TimestampMs(0));
        assert_eq!(plan.len(), 1);
        assert_eq!((plan[0].uid, plan[0].replicas.len()), (alone, 1));

        let mut state = three_nodes();
        add_container(&mut state, 1, 1, &[2], |_| {});
        lose(&mut state, 2);
        let lost_at = 1_000;
        assert!(plan_replicas(&state, &seen, TimestampMs(lost_at + 1_000)).is_empty());
        let plan = plan_replicas(&state, &seen, TimestampMs(lost_at + REBUILD_AFTER_MS));
        assert_eq!(plan[0].replicas, [NodeId(2), NodeId(3)].into());
    }

    /// I18: a surplus copy goes only when every other one is known to be good.
    #[test]
    fn a_surplus_replica_is_dropped_only_when_all_are_current() {
        let mut state = three_nodes();
        let seen = observed(&[1, 2, 3]);
        let uid = add_container(&mut state, 1, 1, &[2, 3], |_| {});
        assert!(plan_replicas(&state, &seen, TimestampMs(0)).is_empty());
        for n in [2, 3] {
            let copy = Copy { newest: snapshot(uid, 1, 1), as_of: TimestampMs(0) };
            state.containers.get_mut(&uid).unwrap().copies.insert(NodeId(n), copy);
        }
        let plan = plan_replicas(&state, &seen, TimestampMs(0));
        assert_eq!(plan[0].replicas, [NodeId(2)].into());

        // I21: its volume would go with the tail that it keeps.
        let kept = holdfast_core::Diverged {
            uid,
            container: "web".parse().unwrap(),
            node: NodeId(3),
            epoch: holdfast_types::Epoch(1),
            changed_bytes: 1,
            kept: TimestampMs(0),
        };
        state.diverged.insert(snapshot(uid, 1, 9).uuid, kept.clone());
        let plan = plan_replicas(&state, &seen, TimestampMs(0));
        assert_eq!(plan[0].replicas, [NodeId(3)].into());
        let also = holdfast_core::Diverged { node: NodeId(2), ..kept };
        state.diverged.insert(snapshot(uid, 1, 8).uuid, also);
        assert!(plan_replicas(&state, &seen, TimestampMs(0)).is_empty());
    }
}
