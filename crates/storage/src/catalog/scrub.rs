//! What a copy knows of its own soundness.
//!
//! A replica's newest snapshot is read block by block, slowly, and compared with hashes taken
//! before. Blocks that a delta has touched since have none until they are read again: the delta
//! itself was checked when it came. What does not match is rot, and then no snapshot of this copy
//! is trusted any more, because they share blocks.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_types::SnapshotUuid;
use serde::{Deserialize, Serialize};

use super::VolumeState;
use super::known::KnownBlocks;
use crate::pool::Offer;

/// Bytes that one hash is over (DESIGN section 7).
pub const HASH_BLOCK: u64 = 4 << 20;

/// How far a copy's content has been checked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ScrubState {
    /// The snapshot whose content the hashes are of.
    pub of: Option<SnapshotUuid>,
    /// The blocks of it that have a hash, by offset in [`HASH_BLOCK`]s.
    pub known: KnownBlocks,
    /// The block that is looked at next.
    pub next: u64,
    /// Snapshots that are not to be trusted.
    pub rotten: BTreeSet<SnapshotUuid>,
    /// What a newer version wrote, kept as it is.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, serde_json::Value>,
}

impl ScrubState {
    /// Nothing is known of what the volume holds now.
    pub(super) fn forget(&mut self) {
        self.known.clear();
        (self.of, self.next) = (None, 0);
    }
}

/// The blocks that a delta writes to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Touched {
    blocks: KnownBlocks,
    /// Too scattered to be listed: it may be any.
    any: bool,
}

impl Touched {
    /// What it was before an interruption that nothing is known of.
    pub(crate) fn anything() -> Self {
        Self { any: true, ..Self::default() }
    }

    /// Something was written there.
    pub(crate) fn add(&mut self, offset: u64, len: u64) {
        let (first, end) = (offset / HASH_BLOCK, (offset + len).div_ceil(HASH_BLOCK));
        if !self.any && !self.blocks.try_insert(first, end) {
            *self = Self::anything();
        }
    }

    pub(crate) fn take_from(&self, known: &mut KnownBlocks) {
        match self.any {
            true => known.clear(),
            false => self.blocks.ranges().for_each(|(first, end)| known.remove(first, end)),
        }
    }

    pub(crate) fn join(&mut self, other: &Self) {
        self.any |= other.any;
        for (first, end) in other.blocks.ranges() {
            self.add(first * HASH_BLOCK, (end - first) * HASH_BLOCK);
        }
    }
}

impl VolumeState {
    /// Whether a snapshot is here and not to be trusted.
    pub fn is_rotten(&self, snapshot: SnapshotUuid) -> bool {
        self.scrub.rotten.contains(&snapshot)
    }

    /// A received snapshot has become the newest: its delta was checked, and the rest is as known
    /// as it was in the base.
    pub(crate) fn received(&mut self, offer: &Offer, touched: &Touched) {
        if self.newest().is_none_or(|newest| newest.id.uuid != offer.snapshot.uuid) {
            return;
        }
        match offer.base.is_some() && offer.base == self.scrub.of {
            true => {
                touched.take_from(&mut self.scrub.known);
                self.scrub.of = Some(offer.snapshot.uuid);
            }
            false => {
                self.scrub.forget();
                self.scrub.of = Some(offer.snapshot.uuid);
            }
        }
    }

    /// Nothing that is here now is to be trusted: its snapshots share what has rotted.
    pub(crate) fn rot(&mut self) {
        let all = self.snapshots.iter().filter(|s| s.kind.on_chain()).map(|s| s.id.uuid);
        self.scrub.rotten.extend(all);
        self.scrub.forget();
    }
}
