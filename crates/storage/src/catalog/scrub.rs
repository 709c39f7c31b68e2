//! What a copy knows of its own soundness.
//!
//! A replica's newest snapshot is read block by block, slowly, and compared with hashes taken
//! before. Blocks that a delta has touched since have none until they are read again: the delta
//! itself was checked when it came. What does not match is rot, and then no snapshot that shares
//! blocks with it is trusted any more.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_types::{SnapshotId, SnapshotUuid};
use serde::{Deserialize, Serialize};

use super::{Touched, VolumeState};
use crate::pool::Offer;

/// Bytes that one hash is over (DESIGN section 7).
pub const HASH_BLOCK: u64 = 4 << 20;

/// How far a copy's content has been checked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ScrubState {
    /// The snapshot whose content the hashes are of.
    pub of: Option<SnapshotUuid>,
    /// Which hashes count: those that were written under this number.
    pub life: u64,
    /// The block that is looked at next.
    pub next: u64,
    /// Snapshots that are not to be trusted.
    pub rotten: BTreeSet<SnapshotUuid>,
    /// What a newer version wrote, kept as it is.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, serde_json::Value>,
}

impl ScrubState {
    /// Nothing is known of what the volume holds now, which is `of`.
    pub(crate) fn begin_anew(&mut self, of: Option<SnapshotUuid>) {
        (self.of, self.next) = (of, 0);
        self.life += 1;
    }
}

impl VolumeState {
    /// Whether a snapshot is here and not to be trusted.
    pub fn is_rotten(&self, snapshot: SnapshotUuid) -> bool {
        self.scrub.rotten.contains(&snapshot)
    }

    /// A received snapshot has become the newest: its delta was checked, and the rest is as known
    /// as it was in the base. Whoever commits this takes the hashes of what was touched away first.
    pub(crate) fn received(&mut self, offer: &Offer, touched: &Touched) {
        let uuid = offer.snapshot.uuid;
        if self.newest().is_none_or(|newest| newest.id.uuid != uuid) {
            return;
        }
        match offer.base.is_some() && offer.base == self.scrub.of && !touched.is_anything() {
            true => self.scrub.of = Some(uuid),
            false => self.scrub.begin_anew(Some(uuid)),
        }
    }

    /// A snapshot has rotted, which is the first of `lineage`; the others were received on it. What
    /// shares its blocks is not to be trusted: these, and what is older.
    pub(crate) fn rot(&mut self, lineage: &[SnapshotUuid]) {
        let first = lineage.first().and_then(|uuid| self.find(*uuid)).map(|s| s.id.order());
        let shares = |id: &SnapshotId| {
            lineage.contains(&id.uuid) || first.is_some_and(|first| id.order() < first)
        };
        let sharing = self.snapshots.iter().filter(|s| s.kind.on_chain() && shares(&s.id));
        let sharing: Vec<_> = sharing.map(|s| s.id.uuid).collect();
        if self.scrub.of.is_none_or(|of| sharing.contains(&of)) {
            self.scrub.begin_anew(None);
        }
        self.scrub.rotten.extend(sharing);
    }
}
