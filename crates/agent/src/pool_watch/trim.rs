//! Trims what is mounted now and then, one filesystem after the other: what containers deleted goes
//! back to the pool, and as holes to the replicas.

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_storage::fsys;
use holdfast_types::ContainerUid;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{debug, info};

use super::level::Level;
use crate::context::Context;

/// In a pool past its threshold trimming is the least that can be tried; but no sooner than this
/// after the last time.
const FULL_EVERY: Duration = Duration::from_secs(3600);

/// When each was trimmed last, or seen first.
#[derive(Default)]
pub(super) struct Trimmer {
    last: BTreeMap<ContainerUid, Instant>,
    running: Option<JoinHandle<()>>,
}

impl Trimmer {
    /// Starts the next one, if it is due.
    pub(super) fn look(&mut self, context: &Context, level: Level) {
        let every = context.config.trim_every;
        if every.is_zero() || self.running.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let Some(view) = context.view() else { return };
        let assigned = view.assigned.iter().map(|assigned| assigned.uid);
        let every = if level == Level::Full { every.min(FULL_EVERY) } else { every };
        let Some(uid) = self.due(assigned, Instant::now(), every) else { return };
        let places = context.places(uid);
        self.running = Some(tokio::task::spawn_blocking(move || {
            // A container that is stopped now is trimmed another time.
            let mounted = fsys::mounted(places.all());
            let trimmed = match mounted {
                Ok(mounted) if mounted.is_empty() => return,
                Ok(mounted) => mounted.into_iter().map(|at| fsys::trim(at)).sum::<Result<u64, _>>(),
                Err(error) => Err(error),
            };
            match trimmed {
                Ok(bytes) => info!(container = %uid, bytes, "trimmed"),
                Err(error) => debug!(container = %uid, %error, "it cannot be trimmed"),
            }
        }));
    }

    /// Who was trimmed longest ago, if that is long enough; it counts as trimmed now.
    fn due(
        &mut self,
        assigned: impl Iterator<Item = ContainerUid>,
        now: Instant,
        every: Duration,
    ) -> Option<ContainerUid> {
        self.last = assigned.map(|uid| (uid, *self.last.get(&uid).unwrap_or(&now))).collect();
        let (uid, last) = self.last.iter_mut().min_by_key(|(_, last)| **last)?;
        let is_due = now.duration_since(*last) >= every;
        is_due.then(|| {
            *last = now;
            *uid
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(n: u128) -> ContainerUid {
        ContainerUid(uuid::Uuid::from_u128(n))
    }

    /// One after the other, each once in its time; who is gone is forgotten.
    #[test]
    fn each_is_trimmed_once_in_its_time() {
        let (mut trimmer, begun) = (Trimmer::default(), Instant::now());
        let day = Duration::from_secs(24 * 3600);
        let mut due = |hours: u32, assigned: &[u128]| {
            trimmer.due(assigned.iter().copied().map(uid), begun + day / 24 * hours, day)
        };
        assert_eq!(due(0, &[1]), None, "a daemon that starts often trims nothing");
        assert_eq!(due(5, &[1, 2]), None);
        assert_eq!(due(24, &[1, 2]), Some(uid(1)));
        assert_eq!(due(25, &[1, 2]), None);
        assert_eq!(due(29, &[1, 2]), Some(uid(2)));
        assert_eq!(due(29, &[1, 2]), None);
        assert_eq!(due(50, &[2]), None);
        assert_eq!(due(53, &[2]), Some(uid(2)));
    }
}
