//! What of a volume changes under its lock, and the view that others read meanwhile.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use holdfast_types::SnapshotUuid;
use serde::{Deserialize, Serialize};

use super::blocks::{Blocks, Device};
use crate::catalog::{Touched, VolumeState};
use crate::holds::Holds;
use crate::pool::{Offer, Partial, VolumeInfo};
use crate::{Error, Result};

/// What changes of a volume, under its lock.
pub(super) struct Inner<B: Blocks> {
    pub(super) state: VolumeState,
    /// The devices of the live part's members.
    pub(super) active: BTreeMap<usize, B::Device>,
    pub(super) partial: Option<StoredPartial>,
    pub(super) removed: bool,
    /// The look that is under way.
    pub(super) looking: Option<Looking>,
}

/// What has come since a look at the newest snapshot began.
#[derive(Debug)]
pub(super) struct Looking {
    /// The snapshot that is read, and those that were received on it or on one another since.
    pub(super) lineage: Vec<SnapshotUuid>,
    /// What those wrote.
    pub(super) touched: Touched,
}

/// How far a receive is, as part.json has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredPartial {
    pub(super) offer: Offer,
    pub(super) synced: u64,
    /// The blocks that it has written to.
    #[serde(default = "Touched::anything")]
    pub(super) touched: Touched,
}

/// The volume's lock. What it leaves behind becomes the view.
pub(super) struct Guard<'a, B: Blocks> {
    inner: MutexGuard<'a, Inner<B>>,
    view: &'a Mutex<Option<VolumeInfo>>,
}

impl<'a, B: Blocks> Guard<'a, B> {
    pub(super) fn new(
        inner: MutexGuard<'a, Inner<B>>,
        view: &'a Mutex<Option<VolumeInfo>>,
    ) -> Self {
        Self { inner, view }
    }
}

impl<B: Blocks> Deref for Guard<'_, B> {
    type Target = Inner<B>;
    fn deref(&self) -> &Inner<B> {
        &self.inner
    }
}

impl<B: Blocks> DerefMut for Guard<'_, B> {
    fn deref_mut(&mut self) -> &mut Inner<B> {
        &mut self.inner
    }
}

impl<B: Blocks> Drop for Guard<'_, B> {
    fn drop(&mut self) {
        let view = (!self.inner.removed).then(|| self.inner.info());
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = view;
    }
}

impl<B: Blocks> Inner<B> {
    pub(super) fn new(state: VolumeState, partial: Option<StoredPartial>) -> Self {
        Self { state, active: BTreeMap::new(), partial, removed: false, looking: None }
    }

    pub(super) fn info(&self) -> VolumeInfo {
        let partial = self.partial.as_ref().map(|p| Partial {
            snapshot: p.offer.snapshot.uuid,
            base: p.offer.base,
            synced: p.synced,
        });
        let path = |device: &B::Device| device.path().to_owned();
        let device = self.active.get(&0).map(path);
        let data: Option<Vec<PathBuf>> =
            (1..=self.state.data.len()).map(|m| self.active.get(&m).map(path)).collect();
        let data_devices = data.unwrap_or_default();
        VolumeInfo { state: self.state.clone(), device, data_devices, partial }
    }

    /// A delta was committed: a look under way must not take for known what it has written.
    pub(super) fn written(&mut self, partial: &StoredPartial) {
        let Some(look) = &mut self.looking else { return };
        if partial.offer.base.is_some_and(|base| look.lineage.contains(&base)) {
            look.lineage.push(partial.offer.snapshot.uuid);
            look.touched.join(&partial.touched);
        }
    }

    pub(super) fn is_removed(&self) -> bool {
        self.removed
    }

    pub(super) fn refuse_active(&self) -> Result<()> {
        match self.active.values().next() {
            Some(device) => Err(Error::InUse(format!("the device {}", device.path().display()))),
            None => Ok(()),
        }
    }

    /// Refuses while a receiver lives: it holds the snapshot that it is to make.
    pub(super) fn refuse_receiving(&self, holds: &Holds) -> Result<()> {
        match &self.partial {
            Some(p) if holds.held(p.offer.snapshot.uuid) => {
                Err(Error::InUse(format!("the receive into volume {}", self.state.uid)))
            }
            _ => Ok(()),
        }
    }
}
