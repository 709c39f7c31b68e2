//! Places for transfers, and who gets the next one.
//!
//! A node has a few places each for what it ships and for what it receives, so that memory and disks
//! are not shared by any number of transfers. A full copy of a large volume may need its place for
//! hours; two rules keep it from holding back everybody's small deltas meanwhile:
//!
//! - One place is for short transfers: what has had a place before and was not done waits while all
//!   others are taken by such as itself.
//! - What has been running for [`LONG_MS`] counts as long from then on. When all places are taken by
//!   long ones and somebody waits who is not, the one that came last makes way. It is interrupted as
//!   if its connection had broken, keeps what the receiver has made durable, and waits for one of the
//!   other places.
//!
//! So long transfers get all places but one and are finished one after another, not all at the same
//! crawl; short ones wait for one another at most. Nothing is ever interrupted for nobody.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use holdfast_types::ContainerSpec;

/// What has been running for so long is no short transfer.
pub(crate) const LONG_MS: u64 = 5_000;

/// Missed rounds that make a replica overdue.
const ROUNDS: u64 = 6;

/// How many times as patient a named snapshot of the past is as a replica's newest copy.
const PATIENCE: u64 = 10;

/// The bounds of the number of places: one for short transfers, and one for others.
pub(crate) const FEWEST: usize = 2;

/// Since when something waits to be shipped, and how long it may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Due {
    since_ms: u64,
    term_ms: u64,
}

impl Due {
    /// A replica that has everything as of `since_ms`: overdue after six rounds, or half of the
    /// promised age if that is sooner; the other half is for noticing that a node is lost.
    pub(crate) fn of(spec: &ContainerSpec, since_ms: u64) -> Self {
        let every_ms = spec.replicate_every_ms;
        let rounds_ms = every_ms.saturating_mul(ROUNDS);
        let term_ms = rounds_ms.min(spec.max_data_loss_ms / 2).max(every_ms).max(1);
        Self { since_ms, term_ms }
    }

    /// Named snapshots of the past: they yield to newest copies, but not for ever.
    pub(crate) fn patient(self) -> Self {
        Self { term_ms: self.term_ms.saturating_mul(PATIENCE), ..self }
    }

    /// How long it is until its term is over.
    pub(crate) fn left_ms(&self, now_ms: u64) -> u64 {
        self.since_ms.saturating_add(self.term_ms).saturating_sub(now_ms)
    }

    /// How many thousandths of its term are over.
    pub(crate) fn overdue(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.since_ms).saturating_mul(1_000) / self.term_ms
    }
}

/// The places, and who has them.
#[derive(Debug)]
pub(crate) struct Lanes {
    places: usize,
    long_ms: u64,
    running: BTreeMap<u64, Running>,
}

#[derive(Debug)]
struct Running {
    since_ms: u64,
    long: bool,
}

impl Lanes {
    /// So many places. What has been running for `long_ms` is long.
    pub(crate) fn new(places: usize, long_ms: u64) -> Self {
        Self { places: places.max(FEWEST), long_ms, running: BTreeMap::new() }
    }

    /// Whether another may begin; `long` if it has had a place before and was not done.
    pub(crate) fn admit(&self, long: bool, now_ms: u64) -> bool {
        let free = self.running.len() < self.places;
        free && (!long || self.long(now_ms) < self.places - 1)
    }

    pub(crate) fn enter(&mut self, id: u64, long: bool, now_ms: u64) {
        self.running.insert(id, Running { since_ms: now_ms, long });
    }

    pub(crate) fn leave(&mut self, id: u64) {
        self.running.remove(&id);
    }

    /// Whether it is a long one by now.
    pub(crate) fn is_long(&self, id: u64, now_ms: u64) -> bool {
        self.running.get(&id).is_some_and(|r| self.has_become_long(r, now_ms))
    }

    /// Which one makes way if somebody waits who is not long.
    pub(crate) fn makes_way(&self, now_ms: u64) -> Option<u64> {
        let taken = self.long(now_ms) == self.places;
        let last = self.running.iter().max_by_key(|(id, r)| (r.since_ms, **id));
        last.map(|(id, _)| *id).filter(|_| taken)
    }

    fn long(&self, now_ms: u64) -> usize {
        self.running.values().filter(|r| self.has_become_long(r, now_ms)).count()
    }

    fn has_become_long(&self, running: &Running, now_ms: u64) -> bool {
        running.long || now_ms.saturating_sub(running.since_ms) >= self.long_ms
    }
}

/// The places, and who waits for one.
#[derive(Debug)]
pub(crate) struct Queue {
    lanes: Lanes,
    waiting: BTreeMap<u64, Waiting>,
    next: u64,
}

#[derive(Debug)]
struct Waiting {
    due: Due,
    long: bool,
}

impl Queue {
    pub(crate) fn new(places: usize, long_ms: u64) -> Self {
        Self { lanes: Lanes::new(places, long_ms), waiting: BTreeMap::new(), next: 0 }
    }

    /// Joins those who wait. Returns what it is called from now on.
    pub(crate) fn join(&mut self, due: Due, long: bool) -> u64 {
        self.next += 1;
        self.waiting.insert(self.next, Waiting { due, long });
        self.next
    }

    /// Waits no longer, or is done.
    pub(crate) fn leave(&mut self, id: u64) {
        self.waiting.remove(&id);
        self.lanes.leave(id);
    }

    /// Gives one of those who wait a place, if there is one: the most overdue that may have it, and
    /// of two the one that came first.
    pub(crate) fn admit(&mut self, now_ms: u64) -> Option<u64> {
        let may = self.waiting.iter().filter(|(_, w)| self.lanes.admit(w.long, now_ms));
        let most = may.max_by_key(|(id, w)| (w.due.overdue(now_ms), Reverse(**id)));
        let (id, long) = most.map(|(id, w)| (*id, w.long))?;
        self.waiting.remove(&id);
        self.lanes.enter(id, long, now_ms);
        Some(id)
    }

    /// Whether this one is to make way.
    pub(crate) fn makes_way(&self, id: u64, now_ms: u64) -> bool {
        let wanted = self.waiting.values().any(|w| !w.long);
        wanted && self.lanes.makes_way(now_ms) == Some(id)
    }

    /// Whether it is a long one by now.
    pub(crate) fn is_long(&self, id: u64, now_ms: u64) -> bool {
        self.lanes.is_long(id, now_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(every_ms: u64, loss_ms: u64) -> ContainerSpec {
        let default = ContainerSpec::default();
        ContainerSpec { replicate_every_ms: every_ms, max_data_loss_ms: loss_ms, ..default }
    }

    fn due(since_ms: u64) -> Due {
        Due::of(&ContainerSpec::default(), since_ms)
    }

    /// I22: what is nearest to breaking its own promise, not what is oldest.
    #[test]
    fn overdue_is_relative_to_what_was_asked_for() {
        let overdue = |every_ms, loss_ms| Due::of(&spec(every_ms, loss_ms), 0).overdue(30_000);
        assert_eq!(overdue(5_000, 60_000), 1_000);
        assert_eq!(overdue(1_000, 60_000), 5_000, "each round counts");
        assert_eq!(overdue(5_000, 20_000), 3_000, "the promise counts");
        assert_eq!(overdue(60_000, 600_000), 100);
        assert_eq!(overdue(60_000, 60_000), 500, "never before its round is over");
        assert_eq!(Due::of(&spec(5_000, 60_000), 0).patient().overdue(30_000), 100);
        assert_eq!(Due::of(&spec(0, 0), 40_000).overdue(30_000), 0);
        let left_ms = |now_ms| Due::of(&spec(5_000, 60_000), 10_000).left_ms(now_ms);
        assert_eq!([0, 15_000, 40_000, 90_000].map(left_ms), [40_000, 25_000, 0, 0]);
    }

    #[test]
    fn the_most_overdue_gets_the_next_place() {
        let mut queue = Queue::new(2, LONG_MS);
        let now_ms = 100_000;
        let first = queue.join(due(99_000), false);
        let second = queue.join(due(99_000), false);
        assert_eq!([queue.admit(now_ms), queue.admit(now_ms)], [Some(first), Some(second)]);
        let named = queue.join(due(30_000).patient(), false);
        let young = queue.join(due(80_000), false);
        let old = queue.join(due(50_000), false);
        let gone = queue.join(due(0), false);
        assert_eq!(queue.admit(now_ms), None, "both places are taken");
        queue.leave(gone);
        queue.leave(first);
        assert_eq!([queue.admit(now_ms), queue.admit(now_ms)], [Some(old), None]);
        queue.leave(second);
        assert_eq!(queue.admit(now_ms), Some(young));
        queue.leave(old);
        assert_eq!(queue.admit(now_ms), Some(named));
    }

    /// However many keep coming, what waits becomes the most overdue.
    #[test]
    fn nothing_waits_for_ever() {
        let mut queue = Queue::new(2, LONG_MS);
        let named = queue.join(due(0).patient(), false);
        let mut rounds = 5..1_000_u64;
        let got = rounds.find(|round| {
            let now_ms = round * 1_000;
            let others = [1, 2, 3].map(|_| queue.join(due(now_ms - 5_000), false));
            let got = [queue.admit(now_ms), queue.admit(now_ms)].contains(&Some(named));
            others.into_iter().for_each(|id| queue.leave(id));
            got
        });
        assert_eq!(got, Some(50), "ten times as old as the others");
    }

    /// Three full copies that take hours, and small deltas of others all the while.
    #[test]
    fn full_copies_leave_a_place_to_small_deltas() {
        let mut queue = Queue::new(3, LONG_MS);
        let full = [0, 1, 2].map(|_| queue.join(due(0), false));
        for id in full {
            assert_eq!(queue.admit(10_000), Some(id));
        }
        let later_ms = 10_000 + LONG_MS;
        assert!(full.iter().all(|id| !queue.makes_way(*id, later_ms)), "nobody waits");
        let small = queue.join(due(later_ms - 1_000), false);
        assert_eq!(queue.admit(later_ms), None);
        assert!(!queue.makes_way(full[2], later_ms - 1), "it may be short yet");
        assert_eq!(full.map(|id| queue.makes_way(id, later_ms)), [false, false, true]);
        queue.leave(full[2]);
        let again = queue.join(due(0), true);
        assert_eq!(queue.admit(later_ms), Some(small), "though the full copy is more overdue");
        assert_eq!(queue.admit(later_ms), None);
        queue.leave(small);
        assert_eq!(queue.admit(later_ms), None, "the last place is for short ones");
        queue.leave(full[0]);
        assert_eq!(queue.admit(later_ms), Some(again));
        assert!(queue.is_long(again, later_ms));
    }

    #[test]
    fn long_ones_that_wait_interrupt_nobody() {
        let mut queue = Queue::new(2, LONG_MS);
        let running = [1, 2].map(|_| queue.join(due(0), false));
        while queue.admit(0).is_some() {}
        queue.join(due(0), true);
        assert!(running.iter().all(|id| !queue.makes_way(*id, LONG_MS)));
    }
}
