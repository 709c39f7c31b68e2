//! What to do with the containers of a lost node.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use holdfast_core::{Container, State};
use holdfast_types::{
    ByteSize, ContainerUid, DesiredState, Epoch, Incarnation, NodeId, SnapshotId, TimestampMs,
};

/// A container whose node is lost and that waits for a takeover.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakeoverCase {
    /// Which container.
    pub uid: ContainerUid,
    /// The assignment that ends.
    pub epoch: Epoch,
    /// The lost life of its node.
    pub incarnation: Incarnation,
    /// Its live holders: each is sealed before anything is decided.
    pub holders: BTreeSet<NodeId>,
    /// Higher goes first.
    pub priority: i32,
    /// Smaller goes first among equals.
    pub size: ByteSize,
}

/// Every protected container on a lost node, in the order of its takeover: priority, then
/// smallest first. A stopped one moves as well, so that it can be started.
pub fn cases(state: &State) -> Vec<TakeoverCase> {
    let mut cases: Vec<_> = state
        .containers
        .values()
        .filter(|c| c.is_protected() && c.desired != DesiredState::Deleted)
        .filter_map(|c| {
            let node = state.nodes.get(&c.node)?;
            node.is_lost(node.incarnation).then(|| TakeoverCase {
                uid: c.uid,
                epoch: c.epoch(),
                incarnation: node.incarnation,
                holders: live_holders(state, c),
                priority: c.spec.priority,
                size: c.spec.disk,
            })
        })
        .collect();
    cases.sort_by_key(|case| (Reverse(case.priority), case.size, case.uid));
    cases
}

fn live_holders(state: &State, container: &Container) -> BTreeSet<NodeId> {
    let live =
        |id: &&NodeId| **id != container.node && state.nodes.get(id).is_some_and(|n| n.is_up());
    container.holders.iter().filter(live).copied().collect()
}

/// A verified snapshot that a holder named under the seal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealedCopy {
    /// Who holds it.
    pub node: NodeId,
    /// Which snapshot.
    pub id: SnapshotId,
    /// How old the data in it is.
    pub age_ms: u64,
}

/// What to do with one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TakeoverDecision {
    /// This copy takes over.
    Take {
        /// Who runs it next.
        to: NodeId,
        /// The snapshot that it starts from.
        branch: SnapshotId,
        /// The moment for which that was the whole content.
        data_as_of: TimestampMs,
    },
    /// A person must decide.
    Hold {
        /// What is at stake, in one line.
        reason: String,
    },
}

/// Decides one case, once *every* live holder has sealed and answered with all that it holds. The
/// newest snapshot on the committed chain wins (I15); among equals the lowest node id, so that the
/// decision does not depend on the order of answers (I24). Older than promised is held (I22).
pub fn decide(
    state: &State,
    container: &Container,
    sealed: &[SealedCopy],
    now: TimestampMs,
) -> TakeoverDecision {
    let approved = container.hold.as_ref().is_some_and(|hold| hold.approved);
    let on_chain = sealed.iter().filter(|copy| container.on_chain(&copy.id));
    // A copy that was told to go may be gone before it is promoted: it serves only if no other does.
    let stays = |copy: &&SealedCopy| container.replicas.contains(&copy.node);
    let (staying, going): (Vec<&SealedCopy>, Vec<&SealedCopy>) = on_chain.partition(stays);
    let known = if staying.is_empty() { going } else { staying };
    let best = known
        .into_iter()
        .max_by_key(|copy| (copy.id.order(), Reverse(copy.age_ms), Reverse(copy.node)));
    let Some(best) = best else {
        let reason = format!("no live node holds a copy; {}", absent(state, container));
        return TakeoverDecision::Hold { reason };
    };
    if best.age_ms > container.spec.max_data_loss_ms && !approved {
        let reason = format!(
            "the best copy is {} s old, {} s were promised; {}",
            best.age_ms / 1000,
            container.spec.max_data_loss_ms / 1000,
            absent(state, container)
        );
        return TakeoverDecision::Hold { reason };
    }
    TakeoverDecision::Take { to: best.node, branch: best.id, data_as_of: now.before(best.age_ms) }
}

/// Which absent nodes might hold better.
fn absent(state: &State, container: &Container) -> String {
    let down = |id: &&NodeId| state.nodes.get(id).is_some_and(|n| !n.is_up());
    let nodes = container.holders.iter().filter(down);
    let names: Vec<_> =
        nodes.filter_map(|id| state.nodes.get(id)).map(|n| n.name.to_string()).collect();
    match names.is_empty() {
        true => "no absent node holds one".to_owned(),
        false => format!("{} might hold better and is absent", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{add_container, lose, snapshot, three_nodes};

    fn copy(uid: ContainerUid, node: u64, epoch: u64, seq: u64, age_ms: u64) -> SealedCopy {
        SealedCopy { node: NodeId(node), id: snapshot(uid, epoch, seq), age_ms }
    }

    #[test]
    fn only_protected_containers_of_lost_nodes_are_cases_in_order() {
        let mut state = three_nodes();
        let low = add_container(&mut state, 1, 1, &[2], |_| {});
        let high = add_container(&mut state, 2, 1, &[2], |c| c.spec.priority = 9);
        add_container(&mut state, 3, 2, &[1], |_| {});
        add_container(&mut state, 4, 1, &[], |c| {
            c.spec.protection = holdfast_types::Protection::Pinned;
        });
        assert!(cases(&state).is_empty());
        lose(&mut state, 1);
        let order: Vec<_> = cases(&state).iter().map(|c| c.uid).collect();
        assert_eq!(order, [high, low]);
        assert_eq!(cases(&state)[0].holders, [NodeId(2)].into());
    }

    /// I15: the newest verified copy on the chain, wherever it is.
    #[test]
    fn the_newest_copy_on_the_chain_wins() {
        let mut state = three_nodes();
        let uid = add_container(&mut state, 1, 1, &[2, 3], |_| {});
        lose(&mut state, 1);
        let web = &state.containers[&uid];
        let sealed = [copy(uid, 2, 1, 7, 900), copy(uid, 3, 1, 8, 400), copy(uid, 3, 2, 1, 0)];
        let decision = decide(&state, web, &sealed, TimestampMs(10_000));
        assert_eq!(
            decision,
            TakeoverDecision::Take {
                to: NodeId(3),
                branch: snapshot(uid, 1, 8),
                data_as_of: TimestampMs(9_600)
            }
        );
        let mut reversed = sealed;
        reversed.reverse();
        assert_eq!(decide(&state, web, &reversed, TimestampMs(10_000)), decision);
    }

    /// I18: a copy that was told to go is not chosen over one that stays; if it is all there is, it
    /// is.
    #[test]
    fn a_copy_on_its_way_out_is_the_last_choice() {
        let mut state = three_nodes();
        let uid = add_container(&mut state, 1, 1, &[2], |_| {});
        lose(&mut state, 1);
        let web = &state.containers[&uid];
        let sealed = [copy(uid, 2, 1, 7, 900), copy(uid, 3, 1, 8, 400)];
        let to = |sealed: &[SealedCopy]| match decide(&state, web, sealed, TimestampMs(10_000)) {
            TakeoverDecision::Take { to, .. } => to,
            TakeoverDecision::Hold { reason } => panic!("{reason}"),
        };
        assert_eq!(to(&sealed), NodeId(2));
        assert_eq!(to(&sealed[1..]), NodeId(3));
    }

    /// I22: older than promised goes ahead only with a person's word.
    #[test]
    fn a_copy_older_than_promised_is_held_until_approved() {
        let mut state = three_nodes();
        let uid = add_container(&mut state, 1, 1, &[2], |_| {});
        lose(&mut state, 1);
        let sealed = [copy(uid, 2, 1, 7, 61_000)];
        let decision = decide(&state, &state.containers[&uid], &sealed, TimestampMs(0));
        assert_eq!(
            decision,
            TakeoverDecision::Hold {
                reason: "the best copy is 61 s old, 60 s were promised; n1 might hold better and is absent"
                    .into()
            }
        );
        state.containers.get_mut(&uid).unwrap().hold = Some(holdfast_core::Hold {
            since: TimestampMs(0),
            reason: String::new(),
            approved: true,
            for_person: false,
        });
        let decision = decide(&state, &state.containers[&uid], &sealed, TimestampMs(0));
        assert!(matches!(decision, TakeoverDecision::Take { .. }));
    }

    #[test]
    fn without_a_copy_a_person_must_decide() {
        let mut state = three_nodes();
        let uid = add_container(&mut state, 1, 1, &[2], |_| {});
        lose(&mut state, 1);
        let decision = decide(&state, &state.containers[&uid], &[], TimestampMs(0));
        assert!(matches!(decision, TakeoverDecision::Hold { .. }));
    }
}
