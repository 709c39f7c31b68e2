//! Snapshots by the clock: when one is due, and which are kept no longer.
//!
//! A rule keeps the newest snapshot of each of its latest periods (`hourly=24`: of the latest 24 hours
//! in which there is one). A snapshot stays while any rule keeps it. What people and restores keep is
//! not looked at.
//!
//! What a replica has as well is superseded only by what a replica has as well: else a replica that
//! receives nothing for a while would let all of its copies go for ones that are lost with the primary.
//! So up to twice as many are kept while replicas are behind, as long as the list has room.
//!
//! What a takeover left behind has no copy that could be used, but is told of in the list. It stays
//! until the rules would have let it go had it been there, and takes nobody's place.
//!
//! Snapshots are dated by the clock of whoever led then. What is dated more than a period ahead of now
//! was so by a clock that ran ahead: it does not count as the present's, and yields its place first.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_core::{Container, KeptState, State, Taken};
use holdfast_types::{ContainerUid, KeepRules, KeptBy, MAX_KEPT, SnapshotName, TimestampMs};

use crate::observe::Observations;

/// What is due of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotsDue {
    /// Which container.
    pub uid: ContainerUid,
    /// A snapshot to take.
    pub take: Option<SnapshotName>,
    /// Snapshots that no rule keeps any more.
    pub remove: Vec<SnapshotName>,
}

/// A snapshot that a schedule asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Scheduled {
    name: SnapshotName,
    at: TimestampMs,
    state: Progress,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Wanted,
    /// No replica is known to have it.
    Taken,
    /// A replica has it as well.
    Copied,
    /// There is no copy of it that could be used.
    Gone,
}

impl Progress {
    fn is_there(self) -> bool {
        matches!(self, Self::Taken | Self::Copied)
    }
}

/// What is due now, of every container with a schedule.
pub fn plan_snapshots(state: &State, seen: &Observations, now: TimestampMs) -> Vec<SnapshotsDue> {
    let scheduled = state.containers.values().filter(|c| !c.is_deleting());
    let due = scheduled.filter_map(|container| {
        let rules = container.schedule.as_ref()?;
        let there = of_schedule(container);
        let take = may_take(container, seen) && is_due(rules, now, container, &there);
        let name = format!("auto-{}", now.in_a_name()).parse().ok();
        let mut name = name.filter(|name| take && !container.kept.contains_key(name));
        let mut remove = superfluous(rules, now, &there);
        if let Some(new) = name.take_if(|_| is_full(container)) {
            // It comes when there is room.
            remove = superseded(rules, now, &there, new);
        }
        Some(SnapshotsDue { uid: container.uid, take: name, remove })
    });
    due.filter(|due| due.take.is_some() || !due.remove.is_empty()).collect()
}

/// How long a snapshot that a schedule asked for may be on its way before somebody is told.
const LATE_MS: u64 = 600_000;

/// What keeps the container's schedule from going on, in one line.
pub fn schedule_trouble(container: &Container, now: TimestampMs) -> Option<String> {
    let rules = container.schedule.as_ref().filter(|_| !container.is_deleting())?;
    let name = &container.name;
    let there = of_schedule(container);
    if let Some(failed) = &container.schedule_failed {
        return Some(format!("the schedule of {name} stands still: {}", failed.reason));
    }
    let late = |s: &&Scheduled| s.state == Progress::Wanted && now.since(s.at) > LATE_MS;
    if let Some(late) = there.iter().find(late) {
        return Some(format!(
            "the schedule of {name} stands still: snapshot {} is not taken yet",
            late.name
        ));
    }
    let stuck = || "new".parse().is_ok_and(|new| superseded(rules, now, &there, new).is_empty());
    if is_full(container) && is_due(rules, now, container, &there) && stuck() {
        return Some(format!(
            "the schedule of {name} stands still: it has {MAX_KEPT} snapshots, and none that a new \
             one would supersede: remove one"
        ));
    }
    let ahead = there.iter().find(|s| s.state.is_there() && is_ahead(rules, now, s.at))?;
    Some(format!(
        "snapshot {} of {name} is dated in the future: the clock of a node ran ahead",
        ahead.name
    ))
}

/// Whether its node would take a snapshot now. What a full pool would refuse is not asked for again
/// and again: that the pool is full is said elsewhere.
fn may_take(container: &Container, seen: &Observations) -> bool {
    let node = seen.nodes.get(&container.node);
    let admits = node.is_some_and(|n| n.leased && n.pool.as_ref().is_some_and(|p| p.admits));
    let busy = container.hold.is_some() || container.restore.is_some() || container.is_unmade();
    admits && !busy
}

/// Whether one must go before another can come.
fn is_full(container: &Container) -> bool {
    container.kept.len() >= MAX_KEPT
}

/// Whether a moment is further ahead of now than a clock that was set back a little explains.
fn is_ahead(rules: &KeepRules, now: TimestampMs, at: TimestampMs) -> bool {
    let shortest = rules.iter().map(|(period, _)| period).min();
    shortest.is_some_and(|period| period.number(at) > period.number(now) + 1)
}

fn of_schedule(container: &Container) -> Vec<Scheduled> {
    let its = container.kept.iter().filter(|(_, kept)| kept.by == KeptBy::Schedule);
    let copied = |taken: &Taken| taken.holders.iter().any(|id| container.replicas.contains(id));
    let one = |(name, kept): (&SnapshotName, &holdfast_core::Kept)| Scheduled {
        name: name.clone(),
        at: kept.created,
        state: match &kept.state {
            KeptState::Wanted => Progress::Wanted,
            KeptState::Taken(taken) if copied(taken) => Progress::Copied,
            KeptState::Taken(_) => Progress::Taken,
            KeptState::LeftBehind(_) => Progress::Gone,
        },
    };
    its.map(one).collect()
}

/// Whether some rule's present period has no snapshot. One at a time: what is wanted comes first, and
/// what could not be taken is asked for again in the next period. A clock that was set back a little
/// waits until it is where it was.
fn is_due(rules: &KeepRules, now: TimestampMs, container: &Container, there: &[Scheduled]) -> bool {
    let waiting = there.iter().any(|s| s.state == Progress::Wanted);
    let taken = there.iter().filter(|s| s.state.is_there()).map(|s| s.at);
    let failed = container.schedule_failed.iter().map(|failed| failed.at);
    let newest = taken.chain(failed).filter(|at| !is_ahead(rules, now, *at)).max();
    let lacks = |period: holdfast_types::Period| {
        newest.is_none_or(|newest| period.number(newest) < period.number(now))
    };
    !waiting && rules.iter().any(|(period, _)| lacks(period))
}

/// What goes so that there is room for one more: what nothing would keep if that were taken now; else
/// one that is only told of, or whose place only replicas that are behind keep.
fn superseded(
    rules: &KeepRules,
    now: TimestampMs,
    there: &[Scheduled],
    new: SnapshotName,
) -> Vec<SnapshotName> {
    let mut then = there.to_vec();
    then.push(Scheduled { name: new.clone(), at: now, state: Progress::Taken });
    let mut gone = superfluous(rules, now, &then);
    gone.retain(|name| *name != new);
    if gone.is_empty() {
        let kept = kept_of(rules, now, &then, Progress::is_there);
        let yields = |s: &&Scheduled| match s.state {
            Progress::Gone => true,
            Progress::Copied => !kept.contains(&s.name),
            Progress::Wanted | Progress::Taken => false,
        };
        let first = then.iter().filter(yields).min_by_key(|s| (s.state != Progress::Gone, s.at));
        gone.extend(first.map(|s| s.name.clone()));
    }
    gone
}

/// What nothing keeps. What is still to be taken is not counted: it may come to nothing.
fn superfluous(rules: &KeepRules, now: TimestampMs, there: &[Scheduled]) -> Vec<SnapshotName> {
    let kept = kept_of(rules, now, there, Progress::is_there);
    let of_copied = kept_of(rules, now, there, |state| state == Progress::Copied);
    let of_ended = kept_of(rules, now, there, |state| state != Progress::Wanted);
    let stays = |s: &&Scheduled| match s.state {
        Progress::Wanted => true,
        Progress::Taken => kept.contains(&s.name),
        Progress::Copied => kept.contains(&s.name) || of_copied.contains(&s.name),
        Progress::Gone => of_ended.contains(&s.name),
    };
    there.iter().filter(|s| !stays(s)).map(|s| s.name.clone()).collect()
}

/// What the rules keep of those that count. What is dated ahead keeps the places that the others
/// leave: else each new one would be the first to go. What was left behind goes before what was taken
/// in its period since, which was taken because it was gone.
fn kept_of<'a>(
    rules: &KeepRules,
    now: TimestampMs,
    there: &'a [Scheduled],
    counts: impl Fn(Progress) -> bool,
) -> BTreeSet<&'a SnapshotName> {
    let rank = |s: &'a Scheduled| (s.state == Progress::Gone, s.at, &s.name);
    let mut kept = BTreeSet::new();
    for (period, count) in rules.iter() {
        let mut newest: BTreeMap<(bool, u64), &Scheduled> = BTreeMap::new();
        for snapshot in there.iter().filter(|s| counts(s.state)) {
            let is_past = !is_ahead(rules, now, snapshot.at);
            let of_period = newest.entry((is_past, period.number(snapshot.at))).or_insert(snapshot);
            if rank(snapshot) > rank(of_period) {
                *of_period = snapshot;
            }
        }
        kept.extend(newest.values().rev().take(count).map(|s| &s.name));
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{add_container, observed, three_nodes};
    use holdfast_core::{Kept, ScheduleFailed};
    use holdfast_types::{ByteSize, NodeId, Period, SnapshotId, SnapshotUuid};
    use proptest::prelude::*;
    use uuid::Uuid;

    const HOUR: u64 = 3_600_000;

    fn rules(text: &str) -> KeepRules {
        text.parse().unwrap()
    }

    fn at(times: &[u64]) -> Vec<Scheduled> {
        let one = |ms: &u64| Scheduled {
            name: format!("auto-{ms}").parse().unwrap(),
            at: TimestampMs(*ms),
            state: Progress::Taken,
        };
        times.iter().map(one).collect()
    }

    /// A container whose schedule has not failed.
    fn plain() -> Container {
        let mut state = three_nodes();
        let uid = add_container(&mut state, 1, 1, &[2], |_| {});
        state.containers[&uid].clone()
    }

    fn is_due(rules: &KeepRules, now: TimestampMs, there: &[Scheduled]) -> bool {
        super::is_due(rules, now, &plain(), there)
    }

    /// As it is when nothing is dated ahead.
    fn superfluous(rules: &KeepRules, there: &[Scheduled]) -> Vec<SnapshotName> {
        super::superfluous(rules, TimestampMs(u64::MAX / 2), there)
    }

    /// One leader's clock was a day ahead: nothing was due until that day, and what had been taken by
    /// then would have been the first to go.
    #[test]
    fn a_clock_that_ran_ahead_ended_the_schedule() {
        let rules = rules("hourly=2");
        let (now, day) = (TimestampMs(10 * HOUR), 24 * HOUR);
        let mut there = at(&[day + HOUR, day + 2 * HOUR]);
        assert!(is_due(&rules, now, &there));
        there.extend(at(&[now.0]));
        assert!(!is_due(&rules, now, &there));
        let first = format!("auto-{}", day + HOUR).parse().unwrap();
        assert_eq!(super::superfluous(&rules, now, &there), [first]);
        let mut web = plain();
        web.schedule = Some(rules);
        assert_eq!(schedule_trouble(&web, now), None);
        let id = web.image_snapshot;
        keep(&mut web, "auto-x", 1, day, taken_as(id));
        let said = schedule_trouble(&web, now).unwrap();
        assert!(said.contains("dated in the future"), "{said}");
        assert_eq!(schedule_trouble(&web, TimestampMs(day)), None);
    }

    /// It had as many snapshots as it may have, most of them of people.
    #[test]
    fn a_full_list_ended_the_schedule() {
        let mut state = three_nodes();
        let uid = add_container(&mut state, 1, 1, &[2], |_| {});
        let mut web = state.containers.get_mut(&uid).unwrap();
        web.schedule = Some(rules("hourly=2"));
        let id = web.image_snapshot;
        keep(&mut web, "auto-1", 1, HOUR, taken_as(id));
        keep(&mut web, "auto-2", 2, 2 * HOUR, taken_as(id));
        for n in 3..=MAX_KEPT as u64 {
            keep(&mut web, &format!("mine-{n}"), n, 0, taken_as(id));
            web.kept.get_mut(&format!("mine-{n}").parse().unwrap()).unwrap().by = KeptBy::Person;
        }
        drop(web);
        let now = TimestampMs(3 * HOUR);
        let due = plan_snapshots(&state, &observed(&[1, 2, 3]), now);
        let remove = vec!["auto-1".parse().unwrap()];
        assert_eq!(due, [SnapshotsDue { uid, take: None, remove }], "the new one supersedes it");
        state.containers.get_mut(&uid).unwrap().kept.remove(&"auto-1".parse().unwrap());
        let due = plan_snapshots(&state, &observed(&[1, 2, 3]), now);
        assert!(due[0].take.is_some() && due[0].remove.is_empty(), "{due:?}");
    }

    /// The rules keep more than there is room for beside what people keep.
    #[test]
    fn a_schedule_that_stands_still_says_so() {
        let mut web = plain();
        let now = TimestampMs(3 * HOUR);
        web.schedule = Some(rules("hourly=2"));
        let id = web.image_snapshot;
        keep(&mut web, "auto-1", 1, HOUR, KeptState::Wanted);
        let said = schedule_trouble(&web, now).unwrap();
        assert!(said.contains("auto-1 is not taken yet"), "{said}");
        web.kept.clear();
        for n in 1..=MAX_KEPT as u64 {
            keep(&mut web, &format!("s{n}"), n, 0, taken_as(id));
            web.kept.get_mut(&format!("s{n}").parse().unwrap()).unwrap().by = KeptBy::Person;
        }
        let said = schedule_trouble(&web, now).unwrap();
        assert!(said.contains("remove one"), "{said}");
        web.schedule_failed = Some(ScheduleFailed { at: now, reason: "worn".into() });
        let said = schedule_trouble(&web, now).unwrap();
        assert!(said.ends_with("stands still: worn"), "{said}");
        web.schedule = None;
        assert_eq!(schedule_trouble(&web, now), None);
    }

    /// It was asked for again every ten seconds.
    #[test]
    fn what_could_not_be_taken_waits_for_the_next_period() {
        let hourly = rules("hourly=2");
        let mut web = plain();
        web.schedule_failed = Some(ScheduleFailed { at: TimestampMs(HOUR), reason: "x".into() });
        assert!(!super::is_due(&hourly, TimestampMs(2 * HOUR - 1), &web, &[]));
        assert!(super::is_due(&hourly, TimestampMs(2 * HOUR), &web, &[]));
    }

    fn taken_as(id: SnapshotId) -> KeptState {
        taken_on(id, &[])
    }

    fn taken_on(id: SnapshotId, holders: &[u64]) -> KeptState {
        KeptState::Taken(taken_by(id, holders))
    }

    fn left_behind_as(id: SnapshotId) -> KeptState {
        KeptState::LeftBehind(taken_by(id, &[1]))
    }

    fn taken_by(id: SnapshotId, holders: &[u64]) -> Taken {
        let holders = holders.iter().map(|n| NodeId(*n)).collect();
        Taken { id, taken: TimestampMs(0), size: ByteSize::gib(1), holders }
    }

    /// A snapshot of the schedule's.
    fn keep(c: &mut Container, name: &str, n: u64, created: u64, state: KeptState) {
        let uuid = SnapshotUuid(Uuid::from_u128(n.into()));
        let (by, created) = (KeptBy::Schedule, TimestampMs(created));
        let kept = Kept { uuid, by, created, operation: None, state, missed: false };
        c.kept.insert(name.parse().unwrap(), kept);
    }

    #[test]
    fn one_is_due_when_a_period_has_none() {
        let hourly = rules("hourly=2,daily=1");
        assert!(is_due(&hourly, TimestampMs(HOUR), &[]));
        let mut there = at(&[HOUR + 5]);
        assert!(!is_due(&hourly, TimestampMs(2 * HOUR - 1), &there));
        assert!(is_due(&hourly, TimestampMs(2 * HOUR), &there));
        assert!(!is_due(&hourly, TimestampMs(HOUR - 1), &there), "a clock that was set back a bit");
        there[0].state = Progress::Wanted;
        assert!(!is_due(&hourly, TimestampMs(9 * HOUR), &there), "one at a time");
        there[0].state = Progress::Gone;
        assert!(is_due(&hourly, TimestampMs(HOUR + 6), &there), "it was left behind");
    }

    /// The replica's pool was full for a day: the primary took 24 new ones meanwhile, the replica let
    /// go the 24 that it had, and when the primary was lost there was none.
    #[test]
    fn a_replica_that_was_behind_let_all_of_its_snapshots_go() {
        let mut web = plain();
        let rules = rules("hourly=24");
        let id = web.image_snapshot;
        let mut hour = 0;
        let mut run = |web: &mut Container, hours: u64, holders: &[u64]| {
            for _ in 0..hours {
                hour += 1;
                let taken = taken_on(id, holders);
                keep(web, &format!("auto-{hour:03}"), hour, hour * HOUR, taken);
                let gone = super::superfluous(&rules, TimestampMs(hour * HOUR), &of_schedule(web));
                web.kept.retain(|name, _| !gone.contains(name));
            }
        };
        let names = |web: &Container| web.kept.keys().map(ToString::to_string).collect::<Vec<_>>();
        let from_to = |from: u64, to: u64| (from..=to).map(|n| format!("auto-{n:03}"));
        run(&mut web, 30, &[1, 2]);
        assert_eq!(names(&web), from_to(7, 30).collect::<Vec<_>>());
        run(&mut web, 24, &[1]);
        assert_eq!(names(&web), from_to(7, 54).collect::<Vec<_>>(), "the replica's stay");
        run(&mut web, 2_000, &[1]);
        let expected: Vec<_> = from_to(7, 30).chain(from_to(2_031, 2_054)).collect();
        assert_eq!(names(&web), expected, "those of the primary alone pile up no further");
        // It receives again, the newest first.
        run(&mut web, 1, &[1, 2]);
        let expected: Vec<_> = from_to(8, 30).chain(from_to(2_032, 2_055)).collect();
        assert_eq!(names(&web), expected, "one for one");
        // Who has no replica is not waited for.
        web.replicas.clear();
        run(&mut web, 1, &[1]);
        assert_eq!(names(&web), from_to(2_033, 2_056).collect::<Vec<_>>());
    }

    /// Kept for a replica that is behind, the list was full, and nothing new came.
    #[test]
    fn what_replicas_keep_ends_no_schedule() {
        let mut web = plain();
        let (rules, now) = (rules("hourly=64"), TimestampMs(1_000 * HOUR));
        let id = web.image_snapshot;
        for hour in 1..=64 {
            keep(&mut web, &format!("auto-{hour:03}"), hour, hour * HOUR, taken_on(id, &[1, 2]));
            let later = 900 + hour;
            keep(&mut web, &format!("auto-{later:03}"), later, later * HOUR, taken_on(id, &[1]));
        }
        assert!(is_full(&web));
        let superseded = |web: &Container| {
            super::superseded(&rules, now, &of_schedule(web), "auto-new".parse().unwrap())
        };
        assert_eq!(superseded(&web), ["auto-901".parse().unwrap()], "as if there were no replica");
        web.kept.remove(&"auto-901".parse().unwrap());
        assert_eq!(superseded(&web), ["auto-001".parse().unwrap()]);
        keep(&mut web, "auto-800", 800, 990 * HOUR, left_behind_as(id));
        assert_eq!(superseded(&web), ["auto-800".parse().unwrap()], "nobody can use it");
    }

    /// Seconds after a takeover the list said no more of what only the lost node has.
    #[test]
    fn a_schedule_hid_what_a_takeover_left_behind() {
        let mut web = plain();
        (web.node, web.replicas) = (NodeId(2), [NodeId(1)].into());
        let hourly = rules("hourly=2");
        let id = web.image_snapshot;
        let gone = |web: &Container, now: u64| {
            let gone = super::superfluous(&hourly, TimestampMs(now), &of_schedule(web));
            gone.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        keep(&mut web, "auto-1", 1, HOUR, taken_on(id, &[1, 2]));
        keep(&mut web, "auto-2", 2, 2 * HOUR, taken_on(id, &[1, 2]));
        for hour in 3..=5 {
            keep(&mut web, &format!("auto-{hour}"), hour, hour * HOUR, left_behind_as(id));
        }
        assert_eq!(gone(&web, 5 * HOUR + 1), ["auto-3"], "it would have gone on the lost node too");
        web.kept.remove(&"auto-3".parse().unwrap());
        // The next one comes at once, in the period of the last that is gone.
        keep(&mut web, "auto-5b", 50, 5 * HOUR + 2, taken_on(id, &[2]));
        assert_eq!(gone(&web, 5 * HOUR + 3), Vec::<String>::new());
        keep(&mut web, "auto-6", 6, 6 * HOUR, taken_on(id, &[1, 2]));
        assert_eq!(gone(&web, 6 * HOUR), ["auto-1", "auto-4"]);
        keep(&mut web, "auto-7", 7, 7 * HOUR, taken_on(id, &[1, 2]));
        let left = gone(&web, 7 * HOUR);
        assert!(left.contains(&"auto-5".to_owned()), "two newer ones are there: {left:?}");
    }

    proptest! {
        /// Of each rule's latest periods exactly the newest one is kept, and nothing else.
        #[test]
        fn the_newest_of_each_period_is_kept(
            times in prop::collection::btree_set(0u64..40 * 24 * HOUR, 0..80),
            hourly in 1u16..30,
            daily in 1u16..10,
        ) {
            let times: Vec<_> = times.into_iter().collect();
            let there = at(&times);
            let rules = rules(&format!("hourly={hourly},daily={daily}"));
            let removed: BTreeSet<_> = superfluous(&rules, &there).into_iter().collect();
            for snapshot in &there {
                let newest_of_latest = |period: Period, count: u16| {
                    let mine = period.number(snapshot.at);
                    let newer = there.iter().filter(|s| s.at > snapshot.at);
                    let numbers: BTreeSet<_> = newer.map(|s| period.number(s.at)).collect();
                    !numbers.contains(&mine) && numbers.len() < usize::from(count)
                };
                let keep = newest_of_latest(Period::Hourly, hourly)
                    || newest_of_latest(Period::Daily, daily);
                prop_assert_eq!(!removed.contains(&snapshot.name), keep, "{:?}", snapshot);
            }
        }

        /// Run for days, a schedule keeps no more than its rules say, and never lacks the present.
        #[test]
        fn a_schedule_that_runs_stays_within_its_rules(gaps in prop::collection::vec(1u64..3 * HOUR, 1..200)) {
            let rules = rules("hourly=5,daily=3");
            let (mut there, mut now) = (Vec::new(), 0);
            for gap in gaps {
                now += gap;
                if is_due(&rules, TimestampMs(now), &there) {
                    there.extend(at(&[now]));
                }
                let gone = superfluous(&rules, &there);
                there.retain(|s| !gone.contains(&s.name));
                prop_assert!(there.len() <= 8);
                let present = Period::Hourly.number(TimestampMs(now));
                prop_assert!(there.iter().any(|s| Period::Hourly.number(s.at) == present));
            }
        }
    }

    /// A person's snapshot is never removed, nor one that is not taken yet; and a node that takes
    /// none is not asked.
    #[test]
    fn only_what_the_schedule_took_is_removed() {
        let mut state = three_nodes();
        let uid = add_container(&mut state, 1, 1, &[2], |c| {
            c.schedule = "minutely=1".parse().ok();
            let id = c.image_snapshot;
            let (taken, size) = (TimestampMs(0), ByteSize::gib(1));
            let done = KeptState::Taken(Taken { id, taken, size, holders: [c.node].into() });
            for (n, by, state) in [
                (1, KeptBy::Person, done.clone()),
                (2, KeptBy::Restore, done.clone()),
                (3, KeptBy::Schedule, done.clone()),
                (4, KeptBy::Schedule, done),
                (5, KeptBy::Person, KeptState::Wanted),
            ] {
                let uuid = SnapshotUuid(Uuid::from_u128(n));
                let created = TimestampMs(n as u64 * 60_000);
                let kept = Kept { uuid, by, created, operation: None, state, missed: false };
                c.kept.insert(format!("s{n}").parse().unwrap(), kept);
            }
        });
        let now = TimestampMs(10 * 60_000);
        let due = plan_snapshots(&state, &observed(&[1, 2, 3]), now);
        let name = |text: &str| text.parse::<SnapshotName>().unwrap();
        let take = Some(name("auto-19700101t001000z"));
        assert_eq!(due, [SnapshotsDue { uid, take, remove: vec![name("s3")] }]);
        let mut full = observed(&[1, 2, 3]);
        full.nodes.get_mut(&NodeId(1)).unwrap().pool.as_mut().unwrap().admits = false;
        assert_eq!(plan_snapshots(&state, &full, now)[0].take, None);
        state.containers.get_mut(&uid).unwrap().schedule = None;
        assert_eq!(plan_snapshots(&state, &observed(&[1, 2, 3]), now), []);
    }
}
