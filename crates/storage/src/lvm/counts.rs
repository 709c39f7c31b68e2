//! What takes long to count, and is counted now and then.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::Result;

/// A volume that lies in many pieces does not come together sooner.
const COUNT_EVERY: Duration = Duration::from_secs(600);

/// Counts, by the volume's directory.
#[derive(Debug, Default)]
pub(super) struct Counts(Mutex<BTreeMap<PathBuf, (Instant, u64)>>);

impl Counts {
    /// The count of that volume: the last one, if that is not old.
    pub(super) fn of(&self, volume: &Path, count: impl FnOnce() -> Result<u64>) -> Result<u64> {
        let fresh = |(at, n): &(Instant, u64)| (at.elapsed() < COUNT_EVERY).then_some(*n);
        if let Some(known) = self.lock().get(volume).and_then(fresh) {
            return Ok(known);
        }
        let counted = count()?;
        let mut all = self.lock();
        // Those of volumes that are gone are old.
        all.retain(|_, known| fresh(known).is_some());
        all.insert(volume.to_owned(), (Instant::now(), counted));
        Ok(counted)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<PathBuf, (Instant, u64)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_counted_now_and_then() {
        let counts = Counts::default();
        let (a, b) = (Path::new("a"), Path::new("b"));
        assert_eq!(counts.of(a, || Ok(7)).unwrap(), 7);
        assert_eq!(counts.of(a, || panic!("it was counted")).unwrap(), 7);
        assert_eq!(counts.of(b, || Ok(9)).unwrap(), 9);
    }
}
