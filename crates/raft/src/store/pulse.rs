//! How long syncs of the log take.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Shared by the thread that syncs and whoever watches it.
#[derive(Clone, Default)]
pub(crate) struct Pulse(Arc<Mutex<Beat>>);

#[derive(Default)]
struct Beat {
    /// When the sync under way began.
    began: Option<Instant>,
    worst: Duration,
}

impl Pulse {
    /// Runs a sync and measures it.
    pub(super) fn measure<T>(&self, sync: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        self.beat(|beat| beat.began = Some(began));
        let done = sync();
        self.beat(|beat| {
            beat.began = None;
            beat.worst = beat.worst.max(began.elapsed());
        });
        done
    }

    /// The longest since this was last asked; for the one under way, how long it has taken.
    pub(crate) fn worst(&self) -> Duration {
        self.beat(|beat| {
            let under_way = beat.began.map_or(Duration::ZERO, |began| began.elapsed());
            std::mem::take(&mut beat.worst).max(under_way)
        })
    }

    fn beat<T>(&self, act: impl FnOnce(&mut Beat) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_sync_counts_once_and_one_under_way_counts_while_it_lasts() {
        let (pulse, pause) = (Pulse::default(), Duration::from_millis(30));
        assert_eq!(pulse.worst(), Duration::ZERO);
        let seen = pulse.measure(|| {
            std::thread::sleep(pause);
            pulse.worst()
        });
        assert!(seen >= pause, "{seen:?}");
        pulse.measure(|| ());
        assert!(pulse.worst() >= pause, "the longest of all that ended");
        assert_eq!(pulse.worst(), Duration::ZERO, "each counts once");
    }
}
