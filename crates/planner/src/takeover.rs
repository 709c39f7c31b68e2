//! What to do with the containers of a lost node.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use holdfast_core::{Container, HoldCause, State};
use holdfast_types::{
    ByteSize, ContainerUid, DesiredState, Epoch, HeldSnapshot, Incarnation, NodeId, SnapshotId,
    TimestampMs,
};

use crate::observe::Observations;
use crate::room::{self, WhyNot};

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
    /// Whether it should run: what is stopped goes last.
    pub runs: bool,
    /// Higher goes first.
    pub priority: i32,
    /// Smaller goes first among equals.
    pub size: ByteSize,
}

/// Every protected container on a lost node, in the order of its takeover: those that should run,
/// then priority, then smallest first. A stopped one moves as well, so that it can be started, and
/// last, so that it takes no room from one that nobody stopped.
pub fn cases(state: &State) -> Vec<TakeoverCase> {
    let lost = state.nodes.values().filter(|node| node.is_lost(node.incarnation));
    let moves = |c: &&Container| c.is_protected() && c.desired != DesiredState::Deleted;
    let mut cases: Vec<_> = lost
        .flat_map(|node| {
            let assigned = state.containers.of_node(node.id).filter(move |c| c.node == node.id);
            assigned.filter(moves).map(move |c| TakeoverCase {
                uid: c.uid,
                epoch: c.epoch(),
                incarnation: node.incarnation,
                holders: live_holders(state, c),
                runs: c.desired == DesiredState::Running,
                priority: c.spec.priority,
                size: c.spec.promised(),
            })
        })
        .collect();
    cases.sort_by_key(|case| (!case.runs, Reverse(case.priority), case.size, case.uid));
    cases
}

/// The nodes that are up and hold a copy of what another node ran.
pub fn live_holders(state: &State, container: &Container) -> BTreeSet<NodeId> {
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

impl SealedCopy {
    fn offer(&self) -> HeldSnapshot {
        HeldSnapshot { id: self.id, age_ms: self.age_ms }
    }
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
    /// It does not go by itself: a person must decide, or room must be made.
    Hold {
        /// What stands in the way.
        cause: HoldCause,
        /// What is at stake, in one line.
        reason: String,
        /// The copy that the reason offers: a person's word is for it, and for newer ones.
        offered: Option<HeldSnapshot>,
    },
    /// The holder of the newest copy is up and has no lease: soon it has one, or is lost.
    Wait,
}

/// Decides one case, once *every* live holder has sealed and answered with all that it holds. The
/// newest snapshot on the committed chain wins (I15), on a node that has room to run it (I23); among
/// equals the lowest node id, so that the decision does not depend on the order of answers (I24).
/// Older than promised is held (I22), and so is a newest copy that fits nowhere: an older one takes
/// its place only on the word of a person who was told. A word covers no more than was said.
pub fn decide(
    state: &State,
    seen: &Observations,
    container: &Container,
    sealed: &[SealedCopy],
    now: TimestampMs,
) -> TakeoverDecision {
    let approved = container.hold.as_ref().filter(|hold| hold.approved);
    // What one holder knows of a snapshot's age is true of it wherever it is.
    let youngest = |copy: &SealedCopy| {
        let same = sealed.iter().filter(|other| other.id.uuid == copy.id.uuid);
        let age_ms = same.map(|other| other.age_ms).min().unwrap_or(copy.age_ms);
        SealedCopy { age_ms, ..*copy }
    };
    let on_chain: Vec<_> =
        sealed.iter().filter(|copy| container.on_chain(&copy.id)).map(youngest).collect();
    // A copy that was told to go may be gone before it is promoted: it serves only if no other does.
    let stays = |copy: &&SealedCopy| container.replicas.contains(&copy.node);
    let (staying, going): (Vec<&SealedCopy>, Vec<&SealedCopy>) = on_chain.iter().partition(stays);
    let known = if staying.is_empty() { going } else { staying };
    let Some(newest) = known.iter().copied().max_by_key(|copy| copy.id.order()) else {
        let reason = format!("no live node holds a copy; {}", absent(state, container));
        return TakeoverDecision::Hold { cause: HoldCause::Data, reason, offered: None };
    };
    let obstacles = |copy: &SealedCopy| obstacle(state, seen, container, copy.node);
    let fitting = known.iter().copied().filter(|copy| obstacles(copy).is_none());
    let best = fitting.max_by_key(|copy| (copy.id.order(), Reverse(copy.node)));
    let refused: Vec<_> = known
        .iter()
        .filter(|copy| copy.id.order() == newest.id.order())
        .filter_map(|copy| Some((copy.node, obstacles(copy)?)))
        .collect();
    let told_of = |copy: &SealedCopy| approved.filter(|hold| hold.permits(&copy.id));
    let told_of_room = |copy| told_of(copy).is_some_and(|hold| hold.cause == HoldCause::Room);
    let best = match best {
        Some(best) if best.id.order() == newest.id.order() || told_of_room(best) => best,
        _ if refused.iter().any(|(_, why)| *why == WhyNot::Down) => return TakeoverDecision::Wait,
        older => {
            let reason = no_room(state, container, newest, &refused, older);
            let offered = Some(older.unwrap_or(newest).offer());
            return TakeoverDecision::Hold { cause: HoldCause::Room, reason, offered };
        }
    };
    if best.age_ms > container.spec.max_data_loss_ms && told_of(best).is_none() {
        let reason = format!(
            "the best copy is {} s old, {} s were promised; {}",
            best.age_ms / 1000,
            container.spec.max_data_loss_ms / 1000,
            absent(state, container)
        );
        let offered = Some(best.offer());
        return TakeoverDecision::Hold { cause: HoldCause::Data, reason, offered };
    }
    TakeoverDecision::Take { to: best.node, branch: best.id, data_as_of: now.before(best.age_ms) }
}

/// What keeps that node from running the container with the copy that it holds.
fn obstacle(
    state: &State,
    seen: &Observations,
    container: &Container,
    node: NodeId,
) -> Option<WhyNot> {
    match state.nodes.get(&node) {
        Some(node) => room::to_promote(state, seen, node, container).err(),
        None => Some(WhyNot::Down),
    }
}

/// What does not fit where, and what a person can do about it.
fn no_room(
    state: &State,
    container: &Container,
    newest: &SealedCopy,
    refused: &[(NodeId, WhyNot)],
    older: Option<&SealedCopy>,
) -> String {
    let name = |id: NodeId| state.nodes.get(&id).map_or(id.to_string(), |n| n.name.to_string());
    let refused: Vec<_> = refused.iter().map(|(id, why)| format!("{} {why}", name(*id))).collect();
    let otherwise = match older {
        Some(copy) => format!(
            "; or approve to start the older copy on {}, {} s old",
            name(copy.node),
            copy.age_ms / 1000
        ),
        None => String::new(),
    };
    let promised = container.spec.max_data_loss_ms;
    let then = match newest.age_ms > promised {
        true => format!("approve it as well: {} s were promised", promised / 1000),
        false => "it goes by itself, unless a person has refused it".to_owned(),
    };
    format!(
        "the newest copy, {} s old, fits nowhere: {}; make room there and {then}{otherwise}",
        newest.age_ms / 1000,
        refused.join(", ")
    )
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
    use crate::testing::{add_container, lose, observed, snapshot, three_nodes};

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
        let seen = observed(&[2, 3]);
        let web = &state.containers[&uid];
        let sealed = [copy(uid, 2, 1, 7, 900), copy(uid, 3, 1, 8, 400), copy(uid, 3, 2, 1, 0)];
        let decision = decide(&state, &seen, web, &sealed, TimestampMs(10_000));
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
        assert_eq!(decide(&state, &seen, web, &reversed, TimestampMs(10_000)), decision);
    }

    /// I18: a copy that was told to go is not chosen over one that stays; if it is all there is, it
    /// is.
    #[test]
    fn a_copy_on_its_way_out_is_the_last_choice() {
        let mut state = three_nodes();
        let uid = add_container(&mut state, 1, 1, &[2], |_| {});
        lose(&mut state, 1);
        let seen = observed(&[2, 3]);
        let web = &state.containers[&uid];
        let sealed = [copy(uid, 2, 1, 7, 900), copy(uid, 3, 1, 8, 400)];
        let to =
            |sealed: &[SealedCopy]| match decide(&state, &seen, web, sealed, TimestampMs(10_000)) {
                TakeoverDecision::Take { to, .. } => to,
                other => panic!("{other:?}"),
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
        let seen = observed(&[2, 3]);
        let sealed = [copy(uid, 2, 1, 7, 61_000)];
        let decision = decide(&state, &seen, &state.containers[&uid], &sealed, TimestampMs(0));
        assert_eq!(
            decision,
            TakeoverDecision::Hold {
                cause: HoldCause::Data,
                reason: "the best copy is 61 s old, 60 s were promised; n1 might hold better and is absent"
                    .into(),
                offered: Some(sealed[0].offer())
            }
        );
        // A word for a landslide, or for a newer copy, says nothing of this one's age.
        for (cause, offered, goes) in [
            (HoldCause::Data, Some(7), true),
            (HoldCause::Data, Some(6), true),
            (HoldCause::Data, Some(8), false),
            (HoldCause::Data, None, false),
            (HoldCause::Room, Some(7), true),
            (HoldCause::Brake, None, false),
        ] {
            state.containers.get_mut(&uid).unwrap().hold =
                Some(approved(uid, cause, offered).into());
            let decision = decide(&state, &seen, &state.containers[&uid], &sealed, TimestampMs(0));
            assert_eq!(winner(&decision).is_some(), goes, "{cause:?} {offered:?}");
        }
    }

    fn approved(uid: ContainerUid, cause: HoldCause, offered: Option<u64>) -> holdfast_core::Hold {
        let offered = offered.map(|seq| copy(uid, 2, 1, seq, 61_000).offer());
        holdfast_core::Hold {
            since: TimestampMs(0),
            reason: String::new(),
            cause,
            approved: true,
            for_person: false,
            offered,
            without: BTreeSet::new(),
            brake_approved: false,
        }
    }

    /// I22: whoever heard last that a snapshot was current, it was.
    #[test]
    fn a_snapshot_is_as_old_as_the_one_says_who_knows_best() {
        let (state, seen, mut sealed) = cramped(&[3], [8, 8]);
        sealed[0].age_ms = 90_000;
        let TakeoverDecision::Take { to, data_as_of, .. } = decided(&state, &seen, &sealed) else {
            panic!("n3 knows that it is 400 ms old");
        };
        assert_eq!((to, data_as_of), (NodeId(2), TimestampMs(9_600)));
    }

    /// I23: what is stopped neither goes first nor asks for memory.
    #[test]
    fn a_stopped_container_goes_last_and_needs_no_memory() {
        let (mut state, seen, sealed) = cramped(&[2, 3], [8, 8]);
        let uid = ContainerUid(sealed[0].id.volume.0);
        let low = add_container(&mut state, 50, 1, &[2], |c| c.spec.priority = -5);
        assert_eq!(winner(&decided(&state, &seen, &sealed)), None);
        state.containers.get_mut(&uid).unwrap().desired = DesiredState::Stopped;
        assert_eq!(winner(&decided(&state, &seen, &sealed)), Some(2));
        assert_eq!(cases(&state).iter().map(|c| c.uid).collect::<Vec<_>>(), [low, uid]);
    }

    #[test]
    fn without_a_copy_a_person_must_decide() {
        let mut state = three_nodes();
        let uid = add_container(&mut state, 1, 1, &[2], |_| {});
        lose(&mut state, 1);
        let seen = observed(&[2, 3]);
        let decision = decide(&state, &seen, &state.containers[&uid], &[], TimestampMs(0));
        assert!(matches!(decision, TakeoverDecision::Hold { .. }));
    }

    /// A lost container of 600 MiB whose copies on n2 and n3 are of these numbers; each node may
    /// promise about 900 MiB, and those in `full` have promised 600 of them.
    fn cramped(full: &[u64], seqs: [u64; 2]) -> (State, Observations, [SealedCopy; 2]) {
        let limit = |c: &mut Container| c.spec.limits.memory = Some(ByteSize::mib(600));
        let mut state = three_nodes();
        let uid = add_container(&mut state, 1, 1, &[2, 3], limit);
        for (number, node) in full.iter().enumerate() {
            add_container(&mut state, 10 + number as u128, *node, &[], limit);
        }
        lose(&mut state, 1);
        let mut seen = observed(&[2, 3]);
        seen.nodes.values_mut().for_each(|n| n.memory = Some(ByteSize::mib(1000)));
        let sealed = [copy(uid, 2, 1, seqs[0], 400), copy(uid, 3, 1, seqs[1], 400)];
        (state, seen, sealed)
    }

    fn decided(state: &State, seen: &Observations, sealed: &[SealedCopy]) -> TakeoverDecision {
        let uid = ContainerUid(sealed[0].id.volume.0);
        decide(state, seen, &state.containers[&uid], sealed, TimestampMs(10_000))
    }

    fn winner(decision: &TakeoverDecision) -> Option<u64> {
        match decision {
            TakeoverDecision::Take { to, .. } => Some(to.0),
            TakeoverDecision::Hold { .. } | TakeoverDecision::Wait => None,
        }
    }

    /// I23, I24: of copies that are equally new the one whose node has room, whatever the order.
    #[test]
    fn an_equally_new_copy_on_a_node_with_room_takes_over() {
        let (state, seen, mut sealed) = cramped(&[2], [8, 8]);
        assert_eq!(winner(&decided(&state, &seen, &sealed)), Some(3));
        sealed.reverse();
        assert_eq!(winner(&decided(&state, &seen, &sealed)), Some(3));
        let (state, seen, sealed) = cramped(&[], [8, 8]);
        assert_eq!(winner(&decided(&state, &seen, &sealed)), Some(2));
    }

    /// I15, I22: an older copy on a node with room does not stand in for the newest by itself.
    #[test]
    fn an_older_copy_is_never_chosen_silently() {
        let (mut state, seen, sealed) = cramped(&[2], [8, 7]);
        let decision = decided(&state, &seen, &sealed);
        let TakeoverDecision::Hold { cause: HoldCause::Room, reason, offered } = &decision else {
            panic!("{decision:?}");
        };
        assert!(reason.contains("n2 has 300") && reason.contains("600MiB are needed"), "{reason}");
        assert!(reason.contains("approve to start the older copy on n3"), "{reason}");
        assert!(reason.starts_with("the newest copy, 0 s old, fits nowhere"), "{reason}");
        assert_eq!(*offered, Some(sealed[1].offer()));
        // A person who approved one copy was not asked about an older one.
        let uid = ContainerUid(sealed[0].id.volume.0);
        for (cause, offered, expected) in
            [(HoldCause::Data, 7, None), (HoldCause::Room, 8, None), (HoldCause::Room, 7, Some(3))]
        {
            state.containers.get_mut(&uid).unwrap().hold =
                Some(approved(uid, cause, Some(offered)).into());
            assert_eq!(winner(&decided(&state, &seen, &sealed)), expected);
        }
    }

    /// I23: a person's word makes no room; room does.
    #[test]
    fn without_room_anywhere_it_waits_for_room() {
        let (mut state, seen, sealed) = cramped(&[2, 3], [8, 7]);
        let uid = ContainerUid(sealed[0].id.volume.0);
        let hold =
            |yes| holdfast_core::Hold { approved: yes, ..approved(uid, HoldCause::Room, Some(7)) };
        for yes in [false, true] {
            state.containers.get_mut(&uid).unwrap().hold = Some(hold(yes).into());
            let decision = decided(&state, &seen, &sealed);
            let held = matches!(decision, TakeoverDecision::Hold { cause: HoldCause::Room, .. });
            assert!(held, "{decision:?}");
        }
        state.containers.get_mut(&uid).unwrap().hold = Some(hold(false).into());
        state.containers.retain(|_, c| c.node != NodeId(2));
        assert_eq!(winner(&decided(&state, &seen, &sealed)), Some(2));
    }

    /// I15: a holder between two leases is not passed over, and nobody is called for it.
    #[test]
    fn a_holder_without_a_lease_is_waited_for() {
        let (state, mut seen, sealed) = cramped(&[], [8, 7]);
        seen.nodes.get_mut(&NodeId(2)).unwrap().leased = false;
        assert_eq!(decided(&state, &seen, &sealed), TakeoverDecision::Wait);
        seen.nodes.get_mut(&NodeId(2)).unwrap().leased = true;
        assert_eq!(winner(&decided(&state, &seen, &sealed)), Some(2));
    }
}
