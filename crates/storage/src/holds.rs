//! Guards that keep a snapshot from being removed while something reads it or builds on it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_types::SnapshotUuid;

/// How many holds each snapshot has. Held in memory only: a crash ends every transfer.
#[derive(Debug, Default, Clone)]
pub(crate) struct Holds(Arc<Mutex<HashMap<SnapshotUuid, usize>>>);

impl Holds {
    /// One more hold on `snapshot`.
    pub(crate) fn take(&self, snapshot: SnapshotUuid) -> Hold {
        self.with(|map| *map.entry(snapshot).or_default() += 1);
        Hold { snapshot, holds: self.clone() }
    }

    /// Whether anything holds `snapshot`.
    pub(crate) fn held(&self, snapshot: SnapshotUuid) -> bool {
        self.with(|map| map.contains_key(&snapshot))
    }

    fn with<T>(&self, f: impl FnOnce(&mut HashMap<SnapshotUuid, usize>) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Keeps one snapshot from being removed until dropped.
#[derive(Debug)]
pub struct Hold {
    snapshot: SnapshotUuid,
    holds: Holds,
}

impl Hold {
    /// Which snapshot is held.
    pub fn snapshot(&self) -> SnapshotUuid {
        self.snapshot
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.holds.with(|map| {
            if let Some(count) = map.get_mut(&self.snapshot) {
                *count -= 1;
                if *count == 0 {
                    map.remove(&self.snapshot);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_held_until_the_last_hold_goes() {
        let holds = Holds::default();
        let uuid = SnapshotUuid::generate();
        let (a, b) = (holds.take(uuid), holds.take(uuid));
        drop(a);
        assert!(holds.held(uuid));
        drop(b);
        assert!(!holds.held(uuid));
    }
}
