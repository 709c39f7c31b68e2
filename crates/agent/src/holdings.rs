//! How old each replica's data is, and what of it the leader has been told.
//!
//! Ages are counted on this node's own clock from the moment that the primary named when it last
//! vouched for the copy, so no two clocks are compared.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use holdfast_storage::{Pool, SnapshotInfo, VolumeInfo};
use holdfast_types::{HeldSnapshot, SnapshotUuid, VolumeUid};

use crate::clock::{boottime_ms, wall};

/// The stamps of this node's replicas.
#[derive(Default)]
pub(crate) struct Holdings {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// The snapshot that was vouched for, and the BOOTTIME for which it was the whole content.
    stamps: BTreeMap<VolumeUid, (SnapshotUuid, u64)>,
    /// What the present leader has been told.
    told: BTreeMap<VolumeUid, (SnapshotUuid, u64)>,
}

/// What a heartbeat is to tell.
#[derive(Debug, Default)]
pub(crate) struct News {
    pub(crate) held: Vec<HeldSnapshot>,
    pub(crate) removed: Vec<VolumeUid>,
    now: BTreeMap<VolumeUid, (SnapshotUuid, u64)>,
}

impl Holdings {
    /// The primary vouched, `age_ms` ago, that this snapshot is its whole content.
    pub(crate) fn stamp(&self, volume: VolumeUid, snapshot: SnapshotUuid, age_ms: u64) {
        let as_of_ms = boottime_ms().saturating_sub(age_ms);
        let mut inner = self.lock();
        let entry = inner.stamps.entry(volume).or_insert((snapshot, as_of_ms));
        if entry.0 != snapshot || entry.1 < as_of_ms {
            *entry = (snapshot, as_of_ms);
        }
    }

    /// How old the data of a snapshot is: since it was vouched for if it is the one, else since it
    /// was taken.
    pub(crate) fn age_ms(&self, snapshot: &SnapshotInfo) -> u64 {
        let stamped = self.lock().stamps.get(&snapshot.id.volume).copied();
        match stamped {
            Some((uuid, as_of_ms)) if uuid == snapshot.id.uuid => {
                boottime_ms().saturating_sub(as_of_ms)
            }
            // A restart forgot the stamp: the primary's own clock must do until the next one.
            _ => wall().since(snapshot.taken),
        }
    }

    /// What changed since the leader was last told, or everything.
    pub(crate) fn news(&self, pool: &dyn Pool, full: bool) -> News {
        let replicas = pool.volumes().into_iter().filter(|v| v.state.live.is_none());
        let newest = |v: VolumeInfo| v.state.newest().cloned();
        let held: Vec<_> = replicas.filter_map(newest).collect();
        let now_ms = boottime_ms();
        let mut news = News::default();
        for snapshot in held {
            let age_ms = self.age_ms(&snapshot);
            let mark = (snapshot.id.uuid, now_ms.saturating_sub(age_ms));
            news.now.insert(snapshot.id.volume, mark);
            let told = self.lock().told.get(&snapshot.id.volume).copied();
            // An age that is computed anew wobbles by a millisecond.
            let same = told.is_some_and(|t| t.0 == mark.0 && t.1.abs_diff(mark.1) <= 2);
            if full || !same {
                news.held.push(HeldSnapshot { id: snapshot.id, age_ms });
            }
        }
        let inner = self.lock();
        let gone = |volume: &&VolumeUid| !news.now.contains_key(volume);
        news.removed = inner.told.keys().filter(gone).copied().collect();
        news
    }

    /// The leader has been told.
    pub(crate) fn told(&self, news: News) {
        self.lock().told = news.now;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
