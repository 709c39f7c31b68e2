//! How much of the log is kept: so many entries, so many bytes, so long.
//!
//! ```text
//!   purged       purge to here      snapshot          applied
//!     │ old, too many, too large │ for followers │ not covered yet │
//! ────┴──────────────────────────┴───────────────┴─────────────────┘
//! ```
//!
//! Only what a snapshot covers can go, so a log that is large or old past its snapshot first gets
//! a new one. openraft does not spare the entries that follow a snapshot which is being sent: were
//! they gone when it has arrived, the follower would need another, and never catch up under load.
//! So they are held until it has had time to follow, unless the log then grows far beyond its limit.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;

use crate::snapshot::SnapshotFile;
use crate::store::{Spans, Usage};
use crate::sys::boottime;
use crate::types::{LogId, Raft};

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(250);
/// With so many entries too many, it is time for a purge; with few that are kept, sooner.
const STEP: u64 = 256;
/// With so small a part of its bytes too many as well: a purge keeps others waiting.
const SIZE_STEP: u64 = 8;
/// So many spans go at once: what a long transfer has held is removed bit by bit, for Raft does nothing else
/// meanwhile.
const MOST_SPANS: usize = 16;
/// Or this part of them, if that is more: else a log that grows faster would grow for ever.
const SPANS_STEP: usize = 64;
/// A follower that received a snapshot is given this long to ask for what follows it.
const GRACE: Duration = Duration::from_secs(60);
/// Nothing holds up a snapshot or a purge of a log larger than so many times its limit.
const MOST_TIMES: u64 = 4;
/// What was asked for and did not come about is asked for again after so long.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);

/// What is kept behind the snapshot, each at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
    pub(crate) age: Duration,
}

/// Where the node is. Indexes are 0 where there is nothing yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    /// CLOCK_BOOTTIME.
    pub(crate) at: Duration,
    pub(crate) applied: u64,
    pub(crate) snapshot: u64,
    pub(crate) purged: u64,
    /// The oldest snapshot that a follower is receiving, or has received lately.
    pub(crate) sending: Option<u64>,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Decision {
    /// A snapshot is due,
    pub(crate) snapshot: bool,
    /// even if the state is so large that it costs more than the log does.
    pub(crate) pressing: bool,
    /// Entries up to this one can go.
    pub(crate) purge: Option<u64>,
}

/// What is due now.
pub(crate) fn decide(spans: &Spans, now: &Position, limits: &Limits) -> Decision {
    let old = |since: Duration| now.at.saturating_sub(since) > limits.age;
    let uncovered = || spans.iter().filter(|span| span.last > now.snapshot);
    let grown: u64 = uncovered().map(|span| span.bytes).sum();
    let pressing = now.applied > now.snapshot
        && (grown > limits.bytes.saturating_mul(MOST_TIMES)
            || uncovered().any(|span| old(span.since)));
    let snapshot = pressing || now.applied > now.snapshot && grown > limits.bytes / 2;

    let too_many = now.snapshot.saturating_sub(limits.entries);
    let step = (limits.entries / 4).clamp(1, STEP);
    let by_number = (too_many >= now.purged + step).then_some(too_many);
    let by_age = spans.iter().rev().find(|span| old(span.since)).map(|span| span.last);
    let all: u64 = spans.iter().map(|span| span.bytes).sum();
    let mut total = 0;
    let by_size = spans.iter().rev().enumerate().find_map(|(newer, span)| {
        total += span.bytes;
        // Followers want the newest, however large its entries are.
        (newer > 0 && total > limits.bytes).then_some(span.last)
    });
    let by_size = by_size.filter(|_| all > limits.bytes.saturating_add(limits.bytes / SIZE_STEP));
    let held = now.sending.filter(|_| all <= limits.bytes.saturating_mul(MOST_TIMES));
    let most = MOST_SPANS.max(spans.iter().count() / SPANS_STEP);
    let some = spans.iter().nth(most - 1).map_or(u64::MAX, |span| span.last);
    let floor = held.map_or(now.snapshot, |held| held.min(now.snapshot)).min(some);
    let purge = [by_number, by_age, by_size].into_iter().flatten().max().map(|to| to.min(floor));
    Decision { snapshot, pressing, purge: purge.filter(|to| *to > now.purged) }
}

/// The snapshots that are on their way to followers. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Transfers(Arc<Mutex<Newest>>);

/// The last transfer to each follower.
#[derive(Default)]
struct Newest {
    begun: u64,
    by_target: BTreeMap<u64, Transfer>,
}

struct Transfer {
    number: u64,
    index: u64,
    /// Nothing while it is under way.
    ended: Option<Duration>,
}

impl Transfers {
    /// A snapshot up to `index` is being sent until what is returned is dropped.
    pub(crate) fn begin(&self, target: u64, index: u64) -> Sending {
        let number = self.newest(|newest| {
            newest.begun += 1;
            let transfer = Transfer { number: newest.begun, index, ended: None };
            newest.by_target.insert(target, transfer);
            newest.begun
        });
        Sending { transfers: self.clone(), target, number }
    }

    /// The oldest of those under way, or ended shortly before `now`.
    fn oldest(&self, now: Duration) -> Option<u64> {
        self.newest(|newest| {
            newest.by_target.retain(|_, transfer| {
                transfer.ended.is_none_or(|ended| now.saturating_sub(ended) < GRACE)
            });
            newest.by_target.values().map(|transfer| transfer.index).min()
        })
    }

    fn newest<T>(&self, with: impl FnOnce(&mut Newest) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A transfer under way.
pub(crate) struct Sending {
    transfers: Transfers,
    target: u64,
    number: u64,
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.transfers.newest(|newest| {
            let last = newest.by_target.get_mut(&self.target);
            if let Some(transfer) = last.filter(|last| last.number == self.number) {
                transfer.ended = Some(boottime());
            }
        });
    }
}

/// The task that has snapshots made and the log purged.
pub(crate) struct Keeper {
    pub(crate) raft: Raft,
    pub(crate) usage: Usage,
    pub(crate) transfers: Transfers,
    pub(crate) limits: Limits,
    pub(crate) files: SnapshotFile,
}

impl Keeper {
    /// Runs until the node stops.
    pub(crate) async fn run(self) {
        let (mut asked, mut purged) = (Tried::default(), Tried::default());
        loop {
            tokio::time::sleep(PERIOD).await;
            let position = self.position();
            let Decision { snapshot, pressing, purge } =
                decide(&self.usage.now(), &position, &self.limits);
            if pressing {
                // Any that is newer will do: with what is applied meanwhile another would follow.
                self.files.ask(position.snapshot + 1);
            }
            if snapshot
                && asked.again((position.snapshot, u64::from(pressing)), position.at)
                && self.raft.trigger().snapshot().await.is_err()
            {
                return;
            }
            if let Some(upto) = purge
                && purged.again((position.purged, position.snapshot), position.at)
                && self.raft.trigger().purge_log(upto).await.is_err()
            {
                return;
            }
        }
    }

    fn position(&self) -> Position {
        let at = boottime();
        let rx = self.raft.metrics();
        let metrics = rx.borrow_watched();
        let index = |id: &Option<LogId>| id.as_ref().map_or(0, |id| id.index);
        Position {
            at,
            applied: index(&metrics.last_applied),
            snapshot: index(&metrics.snapshot),
            purged: index(&metrics.purged),
            sending: self.transfers.oldest(at),
        }
    }
}

/// What was tried last, and when.
#[derive(Default)]
struct Tried(Option<((u64, u64), Duration)>);

impl Tried {
    /// Whether it is time to try: not again where nothing has come of it, but after a while.
    fn again(&mut self, from: (u64, u64), now: Duration) -> bool {
        let in_vain =
            |(last, at): (_, Duration)| last == from && now.saturating_sub(at) < REFUSED_PAUSE;
        let due = !self.0.is_some_and(in_vain);
        if due {
            self.0 = Some((from, now));
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { entries: 1_000, bytes: 10_000, age: Duration::from_secs(3600) };

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    /// Entries 1 to `n` of so many bytes, written at second 10.
    fn log(n: u64, bytes: u64) -> Spans {
        let mut spans = Spans::default();
        (1..=n).for_each(|index| spans.append(index, bytes, secs(10)));
        spans
    }

    fn position(applied: u64, snapshot: u64, purged: u64) -> Position {
        Position { at: secs(20), applied, snapshot, purged, sending: None }
    }

    fn purge(upto: u64) -> Decision {
        Decision { purge: Some(upto), ..Decision::default() }
    }

    #[test]
    fn entries_go_by_their_number_some_at_a_time() {
        let spans = log(2_000, 1);
        let decide = |position| decide(&spans, &position, &LIMITS);
        assert_eq!(decide(position(2_000, 900, 0)), Decision::default());
        assert_eq!(decide(position(2_000, 1_249, 0)), Decision::default());
        assert_eq!(decide(position(2_000, 1_250, 0)), purge(250));
        assert_eq!(decide(position(2_000, 1_400, 250)), Decision::default());
    }

    /// After a transfer of an hour millions went in one go, and nobody heard from the leader meanwhile.
    #[test]
    fn a_purge_of_many_goes_on_at_the_next_look() {
        let mut spans = log(20_000, 1);
        let mut steps = vec![0];
        for _ in 0..9 {
            let purged = steps.last().copied().unwrap();
            let Some(to) = decide(&spans, &position(20_000, 20_000, purged), &LIMITS).purge else {
                break;
            };
            spans.purge(to);
            steps.push(to);
        }
        assert_eq!(steps, [0, 4_096, 8_192, 12_288, 16_384, 19_000]);
    }

    /// A log that grew by more than 16 spans at each look was never purged fast enough.
    #[test]
    fn a_purge_outruns_whoever_writes() {
        let all = 2_048 * 256;
        let purge = decide(&log(all, 1), &position(all, all, 0), &LIMITS).purge;
        assert_eq!(purge, Some(32 * 256));
    }

    #[test]
    fn a_large_log_gets_a_snapshot_and_loses_what_it_covers() {
        // Spans of 256 entries: 1 to 256, 257 to 512, 513 to 600.
        let spans = log(600, 40);
        let decide = |position| decide(&spans, &position, &LIMITS);
        let due = Decision { snapshot: true, ..Decision::default() };
        assert_eq!(decide(position(600, 0, 0)), due);
        assert_eq!(decide(position(600, 600, 0)), purge(512));
        assert_eq!(decide(position(600, 300, 0)), Decision { purge: Some(300), ..due });
        // However large the state is: the log must not fill the disk.
        let huge = super::decide(&log(1_001, 40), &position(1_001, 0, 0), &LIMITS);
        assert_eq!(huge, Decision { pressing: true, ..due });
        // Nothing to make one of.
        assert!(!decide(position(0, 0, 0)).snapshot);
    }

    /// Under load some went at every look, each time before everything else that Raft had to do.
    #[test]
    fn entries_go_by_their_size_some_at_a_time() {
        let of = |n| decide(&log(n, 10), &position(n, n, 0), &LIMITS).purge;
        assert_eq!(of(1_000), None);
        assert_eq!(of(1_125), None);
        assert_eq!(of(1_126), Some(256));
        // The entries that are written now stay, were they larger than all may be.
        assert_eq!(decide(&log(200, 60), &position(200, 200, 0), &LIMITS).purge, None);
    }

    #[test]
    fn an_idle_log_grows_old_and_goes_once() {
        let mut spans = log(10, 1);
        let at = |second, snapshot, purged| Position {
            at: secs(second),
            ..position(10, snapshot, purged)
        };
        assert_eq!(decide(&spans, &at(3_610, 0, 0), &LIMITS), Decision::default());
        let due = Decision { snapshot: true, pressing: true, purge: None };
        assert_eq!(decide(&spans, &at(3_611, 0, 0), &LIMITS), due);
        assert_eq!(decide(&spans, &at(3_612, 10, 0), &LIMITS), purge(10));
        spans.purge(10);
        assert_eq!(decide(&spans, &at(99_999, 10, 10), &LIMITS), Decision::default());
        // What came later stays.
        spans.append(11, 1, secs(99_999));
        let later = Position { applied: 11, ..at(99_999, 10, 10) };
        assert_eq!(decide(&spans, &later, &LIMITS), Decision::default());
    }

    /// Else a follower that is slower than the writers would get one snapshot after another.
    #[test]
    fn what_follows_a_snapshot_that_is_being_sent_is_held_within_bounds() {
        let held = |spans: &Spans, sending| {
            let position = Position { sending, ..position(4_000, 4_000, 100) };
            decide(spans, &position, &LIMITS).purge
        };
        let large = log(4_000, 8);
        assert_eq!(held(&large, None), Some(3_000));
        assert_eq!(held(&large, Some(2_000)), Some(2_000));
        assert_eq!(held(&large, Some(50)), None);
        let huge = log(4_000, 11);
        assert_eq!(held(&huge, Some(50)), held(&huge, None));
    }

    /// A snapshot that is not worth its cost yet was asked for four times a second.
    #[test]
    fn what_was_refused_is_not_asked_for_at_every_look() {
        let mut tried = Tried::default();
        assert!(tried.again((5, 0), secs(10)));
        assert!(!tried.again((5, 0), secs(11)) && !tried.again((5, 0), secs(14)));
        assert!(tried.again((5, 1), secs(14)), "it has become pressing");
        assert!(tried.again((9, 0), secs(15)), "the last one came about");
        assert!(!tried.again((9, 0), secs(19)));
        assert!(tried.again((9, 0), secs(20)));
    }

    #[test]
    fn a_transfer_counts_while_it_runs_and_shortly_after() {
        let transfers = Transfers::default();
        assert_eq!(transfers.oldest(boottime()), None);
        let (first, second) = (transfers.begin(2, 50), transfers.begin(3, 40));
        assert_eq!(transfers.oldest(boottime() + GRACE * 9), Some(40));
        drop(second);
        assert_eq!(transfers.oldest(boottime()), Some(40));
        assert_eq!(transfers.oldest(boottime() + GRACE * 2), Some(50));
        // A second try, with a newer snapshot.
        let again = transfers.begin(2, 60);
        drop(first);
        assert_eq!(transfers.oldest(boottime() + GRACE * 9), Some(60));
        // A third, with the same.
        let third = transfers.begin(2, 60);
        drop(again);
        assert_eq!(transfers.oldest(boottime() + GRACE * 9), Some(60));
        drop(third);
        assert_eq!(transfers.oldest(boottime() + GRACE * 2), None);
    }
}
