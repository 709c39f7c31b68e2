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

#[cfg(test)]
mod tests {
    use holdfast_types::{ByteSize, Epoch, Seq, TimestampMs, VolumeUid};

    use super::*;

    /// A replica that has received three, each on the one before.
    fn replica() -> (VolumeState, Vec<Offer>) {
        let volume = VolumeUid::generate();
        let mut state = VolumeState::empty(volume, ByteSize::mib(8));
        let mut offers: Vec<Offer> = Vec::new();
        for n in 1..=3 {
            let base = offers.last().map(|offer| offer.snapshot.uuid);
            let snapshot = SnapshotId {
                volume,
                epoch: Epoch(1),
                seq: Seq(n),
                uuid: SnapshotUuid::generate(),
                parent: base,
            };
            let (size, taken) = (ByteSize::mib(8), TimestampMs(n));
            offers.push(Offer { snapshot, base, size, data: Vec::new(), taken, history: false });
            state.add_received(&offers[offers.len() - 1]).unwrap();
        }
        (state, offers)
    }

    /// I15: a block that has rotted is also a block of what is older and had it already; what came
    /// later may have another in its place only if it was received on it.
    #[test]
    fn what_is_older_than_the_rotten_one_is_not_trusted_either() {
        let (mut state, offers) = replica();
        state.rot(&[offers[1].snapshot.uuid]);
        let rotten: Vec<_> = offers.iter().map(|o| state.is_rotten(o.snapshot.uuid)).collect();
        assert_eq!(rotten, [true, true, false]);
        state.rot(&[offers[1].snapshot.uuid, offers[2].snapshot.uuid]);
        assert!(state.is_rotten(offers[2].snapshot.uuid));
    }

    /// Hashes of blocks that an interrupted receive may have written to would be taken for rot.
    #[test]
    fn no_hash_outlives_a_receive_that_may_have_written_anywhere() {
        let (mut state, offers) = replica();
        let (base, last) = (offers[1].snapshot.uuid, &offers[2]);
        state.scrub.begin_anew(Some(base));
        let life = state.scrub.life;
        let mut known = state.clone();
        known.received(last, &Touched::default());
        assert_eq!((known.scrub.of, known.scrub.life), (Some(last.snapshot.uuid), life));
        state.received(last, &Touched::anything());
        assert_eq!((state.scrub.of, state.scrub.life), (Some(last.snapshot.uuid), life + 1));
    }
}
