//! How old this node's state can be at most.
//!
//! Hearing from a leader says nothing of it: one that was deposed and does not know it still speaks.
//! A linearizable read does: what was acknowledged before it was asked for is in the state once it is
//! answered. So the newest such read counts, and one is made now and then for this alone, so that a
//! node that is cut off can say since when.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::read::Reader;
use crate::sys::boottime;

/// Between two reads that nobody asked for, and what one may take.
const PROBE: Duration = Duration::from_secs(1);

/// The newest moment up to which the state is known to be whole: CLOCK_BOOTTIME in milliseconds, 0 for
/// none.
#[derive(Clone, Default)]
pub(crate) struct Fresh(Arc<AtomicU64>);

impl Fresh {
    /// A read that was asked for at that moment has been answered.
    pub(crate) fn note(&self, asked: Duration) {
        self.0.fetch_max(millis(asked).max(1), Ordering::AcqRel);
    }

    /// The age at that moment; nothing if no read was ever answered in this process.
    pub(crate) fn age(&self, now: Duration) -> Option<Duration> {
        let whole = self.0.load(Ordering::Acquire);
        (whole > 0).then(|| now.saturating_sub(Duration::from_millis(whole)))
    }
}

/// Reads now and then.
pub(crate) async fn probe(reader: Reader) {
    loop {
        tokio::time::sleep(PROBE).await;
        let idle = reader.fresh().age(boottime()).is_none_or(|age| age >= PROBE);
        if idle && let Err(error) = reader.read(PROBE).await {
            tracing::trace!(%error, "the state's age grows");
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_counts_from_the_newest_read_and_is_unknown_before_any() {
        let (fresh, at) = (Fresh::default(), Duration::from_millis);
        assert_eq!(fresh.age(at(5_000)), None);
        fresh.note(at(4_000));
        // One that was asked for earlier is answered later.
        fresh.note(at(3_000));
        assert_eq!(fresh.age(at(5_000)), Some(at(1_000)));
    }
}
