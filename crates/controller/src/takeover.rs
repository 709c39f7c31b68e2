//! Takes over what lost nodes ran: seal, decide, commit (DESIGN section 4, *Take over*).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use holdfast_core::{Command, Container, HoldCause, HoldTakeover, State, TakeOver};
use holdfast_planner::{Brake, TakeoverCase, TakeoverDecision, brake, cases};
use holdfast_types::{ContainerUid, Epoch, NodeId, VolumeUid};
use tracing::{debug, info, warn};

use crate::leadership::Leadership;
use crate::ports::Ports;
use crate::verdict::{HOLDERS_MAY_TAKE_MS, Seals, Verdict, World};

/// A case that could not be decided is looked at again after this.
const RETRY_EVERY: Duration = Duration::from_millis(250);

/// A held case is looked at again after this: an absent node may have come back with a copy.
const HELD_EVERY: Duration = Duration::from_secs(2);

/// A node is asked to seal this many volumes at once.
const SEAL_BATCH: usize = 1024;

/// Since when (BOOTTIME, in milliseconds) each case has waited for a holder, under which epoch.
type Waits = BTreeMap<ContainerUid, (Epoch, u64)>;

/// Takes over, as long as this process leads.
pub(crate) async fn run<P: Ports>(ports: &P, leadership: &Leadership) {
    let mut waits = Waits::new();
    loop {
        let state = ports.state();
        let open = cases(&state);
        let wait = match open.is_empty() {
            true => None,
            false => round(ports, leadership, &mut waits, &state, open).await,
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
    waits: &mut Waits,
    state: &State,
    open: Vec<TakeoverCase>,
) -> Option<Duration> {
    let seen = leadership.observe(state, ports.boottime_ms(), ports.wall());
    waits.retain(|uid, (epoch, _)| open.iter().any(|c| c.uid == *uid && c.epoch == *epoch));
    let brake = brake(state, &seen, ports.wall());
    if let Brake::Wait { reason } = &brake {
        debug!(cases = open.len(), reason, "takeovers wait");
        return Some(RETRY_EVERY);
    }
    let of = |case: &TakeoverCase| state.containers.get(&case.uid);
    let unbraked = |c: &Container| c.hold.as_ref().is_some_and(|h| h.approved || h.brake_approved);
    let may_go = |case: &&TakeoverCase| match &brake {
        // What a landslide held, or a person refused, does not go by itself when the minute is over.
        Brake::Off => !of(case).is_some_and(waits_for_person),
        Brake::Wait { .. } | Brake::Hold { .. } => of(case).is_some_and(unbraked),
    };
    if let Brake::Hold { reason } = &brake {
        for (case, container) in open.iter().filter_map(|case| Some((case, of(case)?))) {
            hold(ports, container, braked(case, reason.clone())).await;
        }
    }
    let going: Vec<_> = open.iter().filter(may_go).collect();
    // Holders name ages as of some moment after this one: counted back from here, no copy is said
    // to be newer than it is (I22).
    let asked = ports.wall();
    let sealed = seal_all(ports, state, &going).await;
    let mut again = HELD_EVERY;
    for case in &going {
        // What a takeover before this one took is not free any more (I23).
        let now = ports.state();
        let known = now.containers.get(&case.uid).filter(|c| c.epoch() == case.epoch);
        let Some(container) = known else { continue };
        let world = World { state: &now, seen: &seen, sealed: &sealed, asked };
        let since_ms = waits.get(&case.uid).map(|(_, since_ms)| *since_ms);
        let waited_ms = since_ms.map_or(0, |since| ports.boottime_ms().saturating_sub(since));
        let verdict = world.judge(container, waited_ms >= HOLDERS_MAY_TAKE_MS);
        match verdict.silent.is_empty() {
            true => drop(waits.remove(&case.uid)),
            false => {
                waits.entry(case.uid).or_insert((case.epoch, ports.boottime_ms()));
            }
        }
        if !settle(ports, case, container, verdict).await {
            again = RETRY_EVERY;
        }
    }
    Some(again)
}

/// Seals every case on each of its holders, one conversation per node, all nodes at once. What a
/// node did not answer for is not in the answer.
async fn seal_all<P: Ports>(ports: &P, state: &State, going: &[&TakeoverCase]) -> Seals {
    let mut wanted: BTreeMap<NodeId, Vec<(VolumeUid, Epoch)>> = BTreeMap::new();
    for case in going {
        for id in &case.holders {
            wanted.entry(*id).or_default().push((case.uid.into(), case.epoch));
        }
    }
    let asks = wanted.into_iter().map(|(id, items)| async move {
        let node = state.nodes.get(&id)?;
        let mut sealed = BTreeMap::new();
        for batch in items.chunks(SEAL_BATCH) {
            match ports.seal(node, batch.to_vec()).await {
                Ok(answer) => sealed.extend(answer),
                Err(error) => {
                    warn!(node = %node.name, %error, "could not seal");
                    break;
                }
            }
        }
        Some((id, sealed))
    });
    futures::future::join_all(asks).await.into_iter().flatten().collect()
}

/// Does what was decided. Returns whether nothing is to be done but to look again now and then.
async fn settle<P: Ports>(
    ports: &P,
    case: &TakeoverCase,
    container: &Container,
    verdict: Verdict,
) -> bool {
    match verdict.decision {
        TakeoverDecision::Hold { cause, reason, offered } => {
            let without = verdict.silent;
            let told = HoldTakeover { cause, offered, without, ..braked(case, reason) };
            hold(ports, container, HoldTakeover { for_person: false, ..told }).await;
            true
        }
        // A live holder has not answered, or has no lease: it may hold the newest copy. Either it
        // answers next time, or its own silence makes it lost.
        TakeoverDecision::Wait => {
            debug!(container = %container.name, silent = ?verdict.silent, "a holder is waited for");
            false
        }
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
            false
        }
    }
}

fn waits_for_person(container: &Container) -> bool {
    container.hold.as_ref().is_some_and(|hold| hold.for_person && !hold.approved)
}

/// What the brake says of a case.
fn braked(case: &TakeoverCase, reason: String) -> HoldTakeover {
    HoldTakeover {
        uid: case.uid,
        epoch: case.epoch,
        reason,
        cause: HoldCause::Brake,
        for_person: true,
        offered: None,
        without: BTreeSet::new(),
    }
}

/// Records a hold that says something new. Every entry wakes this loop: one for each look at a held
/// case would never end.
async fn hold<P: Ports>(ports: &P, container: &Container, told: HoldTakeover) {
    if container.hold.as_ref().is_some_and(|hold| !told.is_news(hold)) {
        return;
    }
    if let Err(error) = ports.propose(Command::HoldTakeover(told)).await {
        warn!(container = %container.name, %error, "the hold could not be recorded");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sighting;
    use crate::testing::{FakePorts, add_container, copy, state_of};
    use holdfast_planner::SealedCopy;
    use holdfast_types::{ByteSize, HeldSnapshot, TimestampMs};
    use std::sync::Arc;

    /// One round of a leader that has answered every node that is up.
    fn one_round(ports: &FakePorts) -> Duration {
        round_after(ports, 0)
    }

    /// The same, where every case has waited so long already.
    fn round_after(ports: &FakePorts, waited_ms: u64) -> Duration {
        let state = ports.state();
        let since_ms = crate::testing::BOOTTIME_MS - waited_ms;
        let waits = cases(&state).into_iter().map(|case| (case.uid, (case.epoch, since_ms)));
        let leadership = leads(&state);
        let rt = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut waits = waits.collect();
        rt.block_on(round(ports, &leadership, &mut waits, &state, cases(&state))).unwrap()
    }

    fn held(cause: HoldCause, approved: bool, offered: Option<SealedCopy>) -> holdfast_core::Hold {
        holdfast_core::Hold {
            since: TimestampMs(0),
            reason: "x".into(),
            cause,
            approved,
            for_person: cause == HoldCause::Brake,
            offered: offered.map(|copy| HeldSnapshot { id: copy.id, age_ms: copy.age_ms }),
            without: BTreeSet::new(),
            brake_approved: false,
        }
    }

    /// A failed seal of one volume kept back the node's other containers.
    #[test]
    fn a_volume_that_cannot_be_sealed_holds_back_its_own_container_alone() {
        let mut state = state_of(&[1, 2]);
        let [one, two] = [1, 2].map(|n| crate::testing::add_container_as(&mut state, n, 1, &[2]));
        crate::testing::lose(&mut state, 1);
        let mut ports = FakePorts::new(state);
        ports.answers.insert(NodeId(2), vec![copy(one, 2, 5), copy(two, 2, 5)]);
        ports.unsealed.insert((NodeId(2), one.into()));
        assert_eq!(one_round(&ports), RETRY_EVERY);
        let proposed = ports.proposed();
        assert!(matches!(&proposed[..], [Command::TakeOver(t)] if t.uid == two), "{proposed:?}");
    }

    /// I15, I22: a holder that does not answer blocks nobody in silence, and is left out only on the
    /// word of a person who was told of it.
    #[test]
    fn a_holder_that_never_seals_is_named_and_left_out_on_a_persons_word() {
        let mut state = state_of(&[1, 2, 3, 4]);
        let uid = add_container(&mut state, 1, &[2, 3]);
        crate::testing::lose(&mut state, 1);
        let ports = |state: &State| {
            let mut ports = FakePorts::new(state.clone());
            ports.answers.insert(NodeId(2), vec![copy(uid, 2, 5)]);
            ports
        };
        let early = ports(&state);
        round_after(&early, HOLDERS_MAY_TAKE_MS - 1);
        assert!(early.proposed().is_empty(), "it is waited for");
        let late = ports(&state);
        round_after(&late, HOLDERS_MAY_TAKE_MS);
        let [Command::HoldTakeover(told)] = &late.proposed()[..] else { panic!() };
        assert!(told.reason.starts_with("n3 might hold the newest copy"), "{}", told.reason);
        assert_eq!(told.without, [NodeId(3)].into());
        // Whoever approved the age of a copy was not told of n3.
        let n3 = told.without.clone();
        for (seq, without, goes) in
            [(5, BTreeSet::new(), false), (6, n3.clone(), false), (5, n3, true)]
        {
            let word = held(HoldCause::Data, true, Some(copy(uid, 2, seq)));
            let word = holdfast_core::Hold { without, ..word };
            state.containers.get_mut(&uid).unwrap().hold = Some(word.into());
            let ports = ports(&state);
            one_round(&ports);
            assert_eq!(ports.proposed().len(), usize::from(goes));
        }
    }

    /// I15: what became a live holder while others sealed has not sealed.
    #[test]
    fn a_holder_that_came_meanwhile_is_asked_as_well() {
        let mut state = state_of(&[1, 2, 3]);
        let uid = add_container(&mut state, 1, &[2, 3]);
        crate::testing::lose(&mut state, 1);
        let mut before = state.clone();
        crate::testing::lose(&mut before, 3);
        let mut ports = FakePorts::new(state);
        ports.answers.insert(NodeId(2), vec![copy(uid, 2, 5)]);
        ports.answers.insert(NodeId(3), vec![copy(uid, 3, 6)]);
        let seen = leads(&ports.state()).observe(&before, ports.boottime_ms(), ports.wall());
        let rt = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let open = cases(&before);
        let sealed = rt.block_on(seal_all(&ports, &before, &open.iter().collect::<Vec<_>>()));
        let state = ports.state();
        let world = World { state: &state, seen: &seen, sealed: &sealed, asked: ports.wall() };
        let verdict = world.judge(&state.containers[&uid], false);
        assert_eq!(verdict.decision, TakeoverDecision::Wait);
        assert_eq!(verdict.silent, [NodeId(3)].into());
    }

    /// I15: nor does a holder that sealed and never gets a lease block in silence.
    #[test]
    fn a_holder_that_stays_without_a_lease_is_named() {
        let mut state = state_of(&[1, 2, 3]);
        let uid = add_container(&mut state, 1, &[2, 3]);
        crate::testing::lose(&mut state, 1);
        let mut seen = leads(&state).observe(&state, crate::testing::BOOTTIME_MS, TimestampMs(0));
        seen.nodes.get_mut(&NodeId(3)).unwrap().leased = false;
        let said = |node, seq| (NodeId(node), [(uid.into(), vec![copy(uid, node, seq)])].into());
        let sealed: Seals = [said(2, 5), said(3, 6)].into();
        let asked = TimestampMs(2_000);
        let world = World { state: &state, seen: &seen, sealed: &sealed, asked };
        let verdict = world.judge(&state.containers[&uid], false);
        assert_eq!(verdict.decision, TakeoverDecision::Wait);
        let TakeoverDecision::Hold { offered: Some(offered), reason, .. } =
            world.judge(&state.containers[&uid], true).decision
        else {
            panic!("it is told");
        };
        assert!(offered.id == copy(uid, 2, 5).id && reason.starts_with("n3 might"), "{reason}");
        assert!(reason.ends_with("approve to go on without it, with data 0 s old"), "{reason}");
    }

    /// A word for the brake is not asked for again after another hold.
    #[test]
    fn a_word_for_the_brake_is_kept() {
        let mut state = state_of(&[1, 2, 3]);
        let uid = add_container(&mut state, 1, &[3]);
        crate::testing::lose(&mut state, 1);
        crate::testing::lose(&mut state, 2);
        let hold = held(HoldCause::Room, false, Some(copy(uid, 3, 5)));
        let hold = holdfast_core::Hold { brake_approved: true, ..hold };
        state.containers.get_mut(&uid).unwrap().hold = Some(hold.into());
        let mut ports = FakePorts::new(state);
        ports.answers.insert(NodeId(3), vec![copy(uid, 3, 5)]);
        one_round(&ports);
        let proposed = ports.proposed();
        assert!(matches!(&proposed[..], [Command::TakeOver(_)]), "{proposed:?}");
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
            let hold = held(HoldCause::Data, approved, None);
            state.containers.get_mut(&uid).unwrap().hold = Some(hold.into());
            let mut ports = FakePorts::new(state.clone());
            ports.answers.insert(NodeId(2), Vec::new());
            assert_eq!(one_round(&ports), HELD_EVERY, "approved: {approved}");
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
            let hold = held(HoldCause::Brake, approved, None);
            state.containers.get_mut(&uid).unwrap().hold = Some(hold.into());
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
            let mut web = state.containers.get_mut(&uid).unwrap();
            web.spec.limits.memory = Some(ByteSize::gib(2));
            web.hold = Some(held(cause, false, Some(copy(uid, 2, 5))).into());
            drop(web);
            let mut ports = FakePorts::new(state.clone());
            ports.answers.insert(NodeId(2), vec![copy(uid, 2, 5)]);
            one_round(&ports);
            assert_eq!(ports.proposed().len(), told, "{cause:?}");
        }
    }
}
