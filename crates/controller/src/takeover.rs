//! Takes over what lost nodes ran: seal, decide, commit (DESIGN section 4, *Take over*).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use holdfast_core::{Command, Container, HoldCause, HoldTakeover, State, TakeOver};
use holdfast_planner::{
    Brake, Observations, SealedCopy, TakeoverCase, TakeoverDecision, brake, cases, decide,
};
use holdfast_types::{ContainerUid, Epoch, NodeId, TimestampMs, VolumeUid};
use tracing::{debug, info, warn};

use crate::leadership::Leadership;
use crate::ports::Ports;

/// A case that could not be decided is looked at again after this.
const RETRY_EVERY: Duration = Duration::from_millis(250);

/// A held case is looked at again after this: an absent node may have come back with a copy.
const HELD_EVERY: Duration = Duration::from_secs(2);

/// A node is asked to seal this many volumes at once.
const SEAL_BATCH: usize = 1024;

/// Takes over, as long as this process leads.
pub(crate) async fn run<P: Ports>(ports: &P, leadership: &Leadership) {
    loop {
        let state = ports.state();
        let open = cases(&state);
        let wait = match open.is_empty() {
            true => None,
            false => round(ports, leadership, &state, open).await,
        };
        match wait {
            None => ports.changed().await,
            Some(wait) => {
                // Whichever comes first; both lead to another look.
                let _ = tokio::time::timeout(wait, ports.changed()).await;
            }
        }
    }
}

/// Looks at every open case once. Returns how soon to look again without any change.
async fn round<P: Ports>(
    ports: &P,
    leadership: &Leadership,
    state: &State,
    open: Vec<TakeoverCase>,
) -> Option<Duration> {
    let seen = leadership.observe(state, ports.boottime_ms(), ports.wall());
    let brake = brake(state, &seen, ports.wall());
    if let Brake::Wait { reason } = &brake {
        debug!(cases = open.len(), reason, "takeovers wait");
        return Some(RETRY_EVERY);
    }
    let approved = |c: &Container| c.hold.as_ref().is_some_and(|h| h.approved);
    let held = |c: &Container| c.hold.is_some() && !approved(c);
    let of = |case: &TakeoverCase| state.containers.get(&case.uid);
    let may_go = |case: &&TakeoverCase| match &brake {
        // What a landslide held, or a person refused, does not go by itself when the minute is over.
        Brake::Off => !of(case).is_some_and(waits_for_person),
        Brake::Wait { .. } | Brake::Hold { .. } => of(case).is_some_and(approved),
    };
    if let Brake::Hold { reason } = &brake {
        let unbraked = |c: &Container| c.hold.as_ref().is_none_or(|h| !h.for_person && !h.approved);
        for case in open.iter().filter(|case| of(case).is_some_and(unbraked)) {
            hold(ports, case, HoldCause::Brake, reason.clone()).await;
        }
    }
    let going: Vec<_> = open.iter().filter(may_go).collect();
    // Holders name ages as of some moment after this one: counted back from here, no copy is said
    // to be newer than it is (I22).
    let asked = ports.wall();
    let sealed = seal_all(ports, state, &going).await;
    for case in &going {
        // What a takeover before this one took is not free any more (I23).
        let now = ports.state();
        let known = now.containers.get(&case.uid).filter(|c| c.epoch() == case.epoch);
        let Some(container) = known else { continue };
        match case.holders.iter().all(|id| sealed.contains_key(id)) {
            true => settle(ports, (&now, &seen), case, container, &sealed, asked).await,
            // A live holder has not answered: it may hold the newest copy. Either it answers next
            // time, or its own silence makes it lost.
            false => debug!(container = %container.name, "a holder has not sealed yet"),
        }
    }
    let all_held = going.iter().all(|case| of(case).is_some_and(held));
    Some(if all_held { HELD_EVERY } else { RETRY_EVERY })
}

/// Seals every case on each of its holders, one conversation per node, all nodes at once. A node
/// is in the answer only if every one of its seals was answered.
async fn seal_all<P: Ports>(
    ports: &P,
    state: &State,
    going: &[&TakeoverCase],
) -> BTreeMap<NodeId, Vec<SealedCopy>> {
    let mut wanted: BTreeMap<NodeId, Vec<(VolumeUid, Epoch)>> = BTreeMap::new();
    for case in going {
        for id in &case.holders {
            wanted.entry(*id).or_default().push((case.uid.into(), case.epoch));
        }
    }
    let asks = wanted.into_iter().map(|(id, items)| async move {
        let node = state.nodes.get(&id)?;
        let mut copies = Vec::new();
        for batch in items.chunks(SEAL_BATCH) {
            match ports.seal(node, batch.to_vec()).await {
                Ok(answer) => copies.extend(answer),
                Err(error) => {
                    warn!(node = %node.name, %error, "could not seal");
                    return None;
                }
            }
        }
        Some((id, copies))
    });
    futures::future::join_all(asks).await.into_iter().flatten().collect()
}

async fn settle<P: Ports>(
    ports: &P,
    (state, seen): (&State, &Observations),
    case: &TakeoverCase,
    container: &Container,
    sealed: &BTreeMap<NodeId, Vec<SealedCopy>>,
    asked: TimestampMs,
) {
    let volume = VolumeUid::from(case.uid);
    let holders: BTreeSet<NodeId> = case.holders.iter().copied().collect();
    let mine = sealed.iter().filter(|(id, _)| holders.contains(id)).flat_map(|(_, copies)| copies);
    let copies: Vec<_> = mine.filter(|copy| copy.id.volume == volume).copied().collect();
    let room = |cause| cause == HoldCause::Room;
    let told = |cause| container.hold.as_ref().is_some_and(|h| room(h.cause) == room(cause));
    match decide(state, seen, container, &copies, asked) {
        // Every entry wakes this loop: one for each look at a held case would never end.
        TakeoverDecision::Hold { cause, .. } if told(cause) => {}
        TakeoverDecision::Hold { cause, reason } => hold(ports, case, cause, reason).await,
        TakeoverDecision::Wait => debug!(container = %container.name, "a holder has no lease now"),
        TakeoverDecision::Take { to, branch, data_as_of } => {
            let command = TakeOver {
                uid: case.uid,
                from_epoch: case.epoch,
                from_incarnation: case.incarnation,
                to,
                branch,
                data_as_of,
            };
            match ports.propose(Command::TakeOver(command)).await {
                Ok(_) => info!(container = %container.name, %to, "takeover committed"),
                Err(error) => warn!(container = %container.name, %error, "takeover refused"),
            }
        }
    }
}

fn waits_for_person(container: &Container) -> bool {
    container.hold.as_ref().is_some_and(|hold| hold.for_person && !hold.approved)
}

async fn hold<P: Ports>(ports: &P, case: &TakeoverCase, cause: HoldCause, reason: String) {
    let uid: ContainerUid = case.uid;
    let for_person = cause == HoldCause::Brake;
    let command = HoldTakeover { uid, epoch: case.epoch, reason, cause, for_person };
    if let Err(error) = ports.propose(Command::HoldTakeover(command)).await {
        warn!(container = %uid, %error, "the hold could not be recorded");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sighting;
    use crate::testing::{FakePorts, add_container, copy, state_of};
    use holdfast_types::ByteSize;
    use std::sync::Arc;

    /// One round of a leader that has answered every node that is up.
    fn one_round(ports: &FakePorts) {
        let state = ports.state();
        let leadership = leads(&state);
        let rt = tokio::runtime::Builder::new_current_thread().build().unwrap();
        rt.block_on(round(ports, &leadership, &state, cases(&state)));
    }

    fn leads(state: &State) -> Leadership {
        let leadership = Leadership::begin(1, 0, &State::default());
        for node in state.nodes.values().filter(|n| n.is_up()) {
            let granted_ms = || crate::testing::BOOTTIME_MS;
            leadership.grant(node.id, node.incarnation, granted_ms, || Some(node.clone())).unwrap();
            let memory = Some(ByteSize::mib(1000));
            let sighting = Sighting { full: true, memory, ..Default::default() };
            let now_ms = crate::testing::BOOTTIME_MS;
            leadership.sightings.heard(node.id, node.incarnation, sighting, now_ms);
        }
        leadership
    }

    /// I15, I11: nothing is decided before every live holder has sealed.
    #[test]
    fn a_takeover_waits_for_every_live_holder() {
        let mut state = state_of(&[1, 2, 3]);
        let uid = add_container(&mut state, 1, &[2, 3]);
        crate::testing::lose(&mut state, 1);
        let mut ports = FakePorts::new(state);
        ports.answers.insert(NodeId(2), vec![copy(uid, 2, 5)]);
        one_round(&ports);
        assert!(ports.proposed().is_empty(), "n3 has not sealed");
        ports.answers.insert(NodeId(3), vec![copy(uid, 3, 6)]);
        one_round(&ports);
        let proposed = ports.proposed();
        assert!(
            matches!(&proposed[..], [Command::TakeOver(t)] if t.to == NodeId(3)),
            "{proposed:?}"
        );
    }

    #[test]
    fn a_container_without_a_copy_is_held() {
        let mut state = state_of(&[1, 2, 3]);
        add_container(&mut state, 1, &[2]);
        crate::testing::lose(&mut state, 1);
        let mut ports = FakePorts::new(state);
        ports.answers.insert(NodeId(2), Vec::new());
        one_round(&ports);
        assert!(matches!(&ports.proposed()[..], [Command::HoldTakeover(_)]));
    }

    /// A held case that was held again at each look filled the log as fast as it would commit.
    #[test]
    fn a_held_case_writes_no_more_entries() {
        let mut state = state_of(&[1, 2, 3]);
        let uid = add_container(&mut state, 1, &[2]);
        crate::testing::lose(&mut state, 1);
        for approved in [false, true] {
            let hold = holdfast_core::Hold {
                since: TimestampMs(0),
                reason: "none".into(),
                cause: HoldCause::Data,
                approved,
                for_person: false,
            };
            state.containers.get_mut(&uid).unwrap().hold = Some(hold);
            let mut ports = FakePorts::new(state.clone());
            ports.answers.insert(NodeId(2), Vec::new());
            one_round(&ports);
            assert!(ports.proposed().is_empty(), "approved: {approved}");
        }
    }

    /// A landslide's takeovers, and those that a person refused, went by themselves once the minute
    /// of the brake was over.
    #[test]
    fn what_waits_for_a_person_does_not_go_by_itself() {
        let mut state = state_of(&[1, 2, 3]);
        let uid = add_container(&mut state, 1, &[2]);
        crate::testing::lose(&mut state, 1);
        for approved in [false, true] {
            let since = TimestampMs(0);
            let hold = holdfast_core::Hold {
                since,
                reason: "x".into(),
                cause: HoldCause::Brake,
                approved,
                for_person: true,
            };
            state.containers.get_mut(&uid).unwrap().hold = Some(hold);
            let mut ports = FakePorts::new(state.clone());
            ports.answers.insert(NodeId(2), vec![copy(uid, 2, 5)]);
            one_round(&ports);
            assert_eq!(ports.proposed().len(), usize::from(approved));
        }
    }

    /// I22: a holder that answers late does not make the data of another look newer.
    #[test]
    fn a_slow_seal_does_not_understate_the_loss() {
        let mut state = state_of(&[1, 2]);
        let uid = add_container(&mut state, 1, &[2]);
        crate::testing::lose(&mut state, 1);
        let mut ports = FakePorts::new(state);
        ports.answers.insert(NodeId(2), vec![copy(uid, 2, 5)]);
        ports.seal_takes_ms = 900;
        let asked = ports.wall();
        one_round(&ports);
        let as_of = asked.before(copy(uid, 2, 5).age_ms);
        let proposed = ports.proposed();
        assert!(
            matches!(&proposed[..], [Command::TakeOver(t)] if t.data_as_of == as_of),
            "{proposed:?}"
        );
    }

    #[test]
    fn a_landslide_holds_instead_of_taking_over() {
        let mut state = state_of(&[1, 2, 3]);
        let uid = add_container(&mut state, 1, &[3]);
        crate::testing::lose(&mut state, 1);
        crate::testing::lose(&mut state, 2);
        let mut ports = FakePorts::new(state);
        ports.answers.insert(NodeId(3), vec![copy(uid, 3, 5)]);
        one_round(&ports);
        assert!(matches!(&ports.proposed()[..], [Command::HoldTakeover(_)]));
        let _: Arc<State> = ports.state();
    }

    /// I23: each of two lost containers has room, both have not: the second saw the room that the
    /// first one took.
    #[test]
    fn two_takeovers_do_not_share_one_room() {
        let mut state = state_of(&[1, 2]);
        let limit = Some(ByteSize::mib(600));
        for n in [1, 2] {
            let uid = crate::testing::add_container_as(&mut state, n, 1, &[2]);
            state.containers.get_mut(&uid).unwrap().spec.limits.memory = limit;
        }
        crate::testing::lose(&mut state, 1);
        let mut ports = FakePorts::new(state.clone());
        let copies = state.containers.keys().map(|uid| copy(*uid, 2, 5)).collect();
        ports.answers.insert(NodeId(2), copies);
        ports.applies_takeovers = true;
        one_round(&ports);
        let proposed = ports.proposed();
        let [Command::TakeOver(_), Command::HoldTakeover(held)] = &proposed[..] else {
            panic!("{proposed:?}");
        };
        assert_eq!(held.cause, HoldCause::Room);
    }

    /// A want of room is told also of what was held for something else, and once.
    #[test]
    fn a_want_of_room_is_told_once() {
        let mut state = state_of(&[1, 2]);
        let uid = add_container(&mut state, 1, &[2]);
        crate::testing::lose(&mut state, 1);
        for (cause, told) in [(HoldCause::Data, 1), (HoldCause::Room, 0)] {
            let web = state.containers.get_mut(&uid).unwrap();
            web.spec.limits.memory = Some(ByteSize::gib(2));
            web.hold = Some(holdfast_core::Hold {
                since: TimestampMs(0),
                reason: "x".into(),
                cause,
                approved: false,
                for_person: false,
            });
            let mut ports = FakePorts::new(state.clone());
            ports.answers.insert(NodeId(2), vec![copy(uid, 2, 5)]);
            one_round(&ports);
            assert_eq!(ports.proposed().len(), told, "{cause:?}");
        }
    }
}
