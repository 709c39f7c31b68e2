//! Watches how full the pool is, and says so before it hurts.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holdfast_proto::internal;
use holdfast_storage::Capacity;
use holdfast_types::Report;
use tracing::warn;

use crate::context::Context;
use crate::error::blocking;
use crate::report;

const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Past this, operators are told.
const WARN_PERCENT: u8 = 80;

/// So far below a mark it counts as left: a pool at the mark must not be told of at each look.
const CALM_PERCENT: u8 = 2;

/// What the last look says to those who would fill the pool further.
#[derive(Debug, Default)]
pub(crate) struct Fullness {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    full: bool,
    looks: u64,
    /// How many looks there had been when room was last made.
    made_room_at: Option<u64>,
}

impl Fullness {
    /// Whether the pool is past its threshold.
    pub(crate) fn is_full(&self) -> bool {
        self.lock().full
    }

    /// Whether to make room now. Yes to one caller at a time, and to the next one only when a whole
    /// look since has found the pool as full as before: no more is given up than must be.
    pub(crate) fn make_room(&self) -> bool {
        let mut inner = self.lock();
        let seen_since = inner.made_room_at.is_none_or(|at| inner.looks >= at + 2);
        let now = inner.full && seen_since;
        if now {
            inner.made_room_at = Some(inner.looks);
        }
        now
    }

    /// The caller that was told to make room had nothing to give up: the next may try at once.
    pub(crate) fn made_none(&self) {
        self.lock().made_room_at = None;
    }

    fn looked(&self, full: bool) {
        let mut inner = self.lock();
        inner.full = full;
        inner.looks += 1;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while holding it.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Fine,
    Filling,
    Full,
}

impl Level {
    /// The level of a pool so full, which was at `before`.
    fn of(percent: u8, threshold_percent: u8, before: Self) -> Self {
        let at = |percent: u8| match percent {
            p if p >= threshold_percent => Self::Full,
            p if p >= WARN_PERCENT => Self::Filling,
            _ => Self::Fine,
        };
        at(percent).max(before.min(at(percent.saturating_add(CALM_PERCENT))))
    }
}

/// Watches for ever.
pub(crate) async fn run(context: Arc<Context>) {
    let (mut level, mut told) = (Level::Fine, Level::Fine);
    loop {
        if let Some(parts) = context.parts() {
            let pool = parts.pool.clone();
            match blocking(move || pool.capacity()).await {
                Ok(capacity) => {
                    let percent = capacity.used_percent();
                    level = Level::of(percent, capacity.threshold_percent, level);
                    let name = parts.name.clone();
                    let said = message(&parts.driver, &capacity, level);
                    context.set_capacity(internal::Capacity { name, ..said });
                    context.fullness.looked(level == Level::Full);
                    if level != told && tell(&context, percent, level).await {
                        told = level;
                    }
                }
                Err(error) => warn!(error = %error.line(), "the pool cannot be measured"),
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// One mark for both: where no snapshots are taken, nothing new is admitted either.
fn message(driver: &str, capacity: &Capacity, level: Level) -> internal::Capacity {
    internal::Capacity {
        name: String::new(),
        driver: driver.to_owned(),
        size_bytes: capacity.size.bytes(),
        used_bytes: capacity.used.bytes(),
        promised_bytes: capacity.promised.bytes(),
        metadata_used_bytes: capacity.metadata.map(|(used, _)| used.bytes()),
        metadata_size_bytes: capacity.metadata.map(|(_, size)| size.bytes()),
        admits: level != Level::Full && capacity.admit(holdfast_types::ByteSize(0)).is_ok(),
    }
}

/// Returns whether the cluster knows it now.
async fn tell(context: &Context, percent: u8, level: Level) -> bool {
    let (kind, message) = match level {
        Level::Fine => ("pool-ok", format!("the pool is at {percent} % again")),
        Level::Filling => ("pool-filling", format!("the pool is at {percent} %")),
        Level::Full => (
            "pool-full",
            format!(
                "the pool is at {percent} %: nothing new is admitted, no replicas are received and \
                 no snapshots taken; delete what is not needed, or grow the pool"
            ),
        ),
    };
    let report = Report::Notice { kind: kind.to_owned(), uid: None, message };
    report::send(context, &report).await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// I20: operators hear of it before and when admission stops, and not at each look.
    #[test]
    fn a_pool_is_told_of_once_at_each_mark() {
        let mut level = Level::Fine;
        let mut levels = Vec::new();
        for percent in [70, 80, 79, 80, 91, 89, 90, 87, 78, 77] {
            level = Level::of(percent, 90, level);
            levels.push(level);
        }
        use Level::{Filling, Fine, Full};
        let expected = [Fine, Filling, Filling, Filling, Full, Full, Full, Filling, Filling, Fine];
        assert_eq!(levels, expected);
    }

    /// I20: between the marks a pool that was full neither admits nor replicates, as it said.
    #[test]
    fn a_pool_that_was_full_admits_again_when_it_replicates_again() {
        let capacity = Capacity {
            size: holdfast_types::ByteSize(100),
            used: holdfast_types::ByteSize(89),
            promised: holdfast_types::ByteSize(0),
            metadata: None,
            threshold_percent: 90,
        };
        assert!(!message("xfs", &capacity, Level::of(89, 90, Level::Full)).admits);
        assert!(message("xfs", &capacity, Level::of(89, 90, Level::Filling)).admits);
    }

    /// I20: bases go one volume at a time, and only while the pool is found as full as before.
    #[test]
    fn room_is_made_once_between_two_looks() {
        let fullness = Fullness::default();
        fullness.looked(false);
        assert!(!fullness.is_full() && !fullness.make_room(), "there is room");
        fullness.looked(true);
        assert!(fullness.is_full() && fullness.make_room());
        assert!(!fullness.make_room(), "nobody has looked since");
        fullness.looked(true);
        assert!(!fullness.make_room(), "the look may have begun before");
        fullness.looked(true);
        assert!(fullness.make_room());
        fullness.looked(true);
        fullness.looked(false);
        assert!(!fullness.make_room(), "it was enough");
    }

    /// A volume with nothing to give kept the others from being asked.
    #[test]
    fn who_has_nothing_to_give_up_does_not_hold_the_others_back() {
        let fullness = Fullness::default();
        fullness.looked(true);
        assert!(fullness.make_room());
        fullness.made_none();
        assert!(fullness.make_room());
    }
}
