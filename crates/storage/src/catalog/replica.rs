//! What happens to snapshots as such: they are received, labelled, forgotten.

use holdfast_types::{Epoch, SnapshotId, SnapshotUuid};

use super::promises::label_text;
use super::{SnapshotInfo, SnapshotKind, VolumeState, outcome};
use crate::pool::{Offer, Outcome};
use crate::{Error, Result};

impl VolumeState {
    /// Whether the offer may be received (I11); its base is the driver's to find (I19).
    pub(crate) fn admit_receive(&self, offer: &Offer) -> Result<()> {
        let id = &offer.snapshot;
        let on_chain = || self.snapshots.iter().filter(|s| s.kind.on_chain());
        // What is older than the newest is never taken for it: no epoch can come back by it.
        let older = || self.newest().is_some_and(|newest| newest.id.order() > id.order());
        if !(offer.history && older()) {
            self.refuse_up_to(id.epoch, self.record.sealed)?;
            let promoted = self.record.promoted.map_or(Epoch(0), |p| p.epoch);
            let newest = on_chain().map(|s| s.id.epoch).max().unwrap_or(Epoch(0));
            let known = promoted.max(newest);
            if id.epoch < known {
                return Err(self.stale(id.epoch, Epoch(known.0 - 1)));
            }
        }
        if self.live.is_some() {
            return Err(self.wrong("it is the primary copy: demote it before it can receive"));
        }
        // A rotten one may come again.
        let taken = |s: &SnapshotInfo| s.id.order() == id.order() && !self.replaces(id);
        if on_chain().any(taken) {
            return Err(self.wrong("another snapshot has that epoch and number"));
        }
        match offer.base {
            Some(base) if self.is_rotten(base) => Err(Error::Rotten(base)),
            _ => Ok(()),
        }
    }

    /// Whether that very snapshot is here, and rotten.
    pub(crate) fn replaces(&self, id: &SnapshotId) -> bool {
        self.is_rotten(id.uuid) && self.find(id.uuid).is_some_and(|known| known.id == *id)
    }

    /// Adds a received and verified snapshot, in place of itself if that has rotted.
    pub(crate) fn add_received(&mut self, offer: &Offer) -> Result<SnapshotInfo> {
        self.admit_receive(offer)?;
        self.forget(offer.snapshot.uuid);
        let info = SnapshotInfo {
            id: offer.snapshot,
            size: offer.size,
            data: offer.data.clone(),
            taken: offer.taken,
            kind: SnapshotKind::Chain,
        };
        self.snapshots.push(info.clone());
        self.sort();
        let newest = self.newest().unwrap_or(&info).shape();
        (self.size, self.data) = (newest.root, newest.data);
        Ok(info)
    }

    /// Says what a snapshot is kept for.
    pub(crate) fn label(&mut self, uuid: SnapshotUuid, kind: SnapshotKind) -> Result<Outcome> {
        if let SnapshotKind::Kept { label } | SnapshotKind::Diverged { label } = &kind {
            label_text(label)?;
        }
        let found = self.snapshots.iter_mut().find(|s| s.id.uuid == uuid);
        let snapshot = found.ok_or(Error::NoSnapshot(uuid))?;
        if !snapshot.kind.on_chain() && kind.on_chain() {
            return Err(self.wrong("a diverged snapshot does not return to the chain"));
        }
        let changed = snapshot.kind != kind;
        snapshot.kind = kind;
        Ok(outcome(changed))
    }

    /// Forgets a snapshot.
    pub(crate) fn forget(&mut self, uuid: SnapshotUuid) -> Outcome {
        let before = self.snapshots.len();
        self.snapshots.retain(|s| s.id.uuid != uuid);
        self.scrub.rotten.remove(&uuid);
        outcome(self.snapshots.len() != before)
    }
}
