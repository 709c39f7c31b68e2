//! The committed chain of a volume's snapshots.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{Epoch, SnapshotId, VolumeUid};

/// How many branch points are remembered; snapshots from before them count as off the chain.
const BRANCHES_KEPT: usize = 64;

/// Where each epoch of a volume branched off the one before. What a lost node wrote beyond such a
/// point is *diverged*.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// The epoch in force.
    pub epoch: Epoch,
    /// The snapshot that each epoch after the first started from, the latest ones.
    pub branches: BTreeMap<Epoch, SnapshotId>,
    /// Epochs in which the same node went on with all that it had, the latest ones.
    #[serde(default)]
    pub continued: BTreeSet<Epoch>,
    /// Epochs in which the same node went on after a disaster, and the last one known before it.
    /// Those between may have been given out by a majority that is lost: they are off the chain.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub leaps: BTreeMap<Epoch, Epoch>,
}

/// How far epochs and incarnations leap when a cluster is recovered or restored (I10): more than
/// any lost majority can have given out since what is left of its log. Round, so that a person sees
/// that epoch 1000003 is epoch 3 after a disaster.
pub const LEAP: u64 = 1_000_000;

impl Chain {
    /// A chain in its first epoch.
    pub fn begin(epoch: Epoch) -> Self {
        Self { epoch, ..Self::default() }
    }

    /// Goes on in the next epoch, from `branch`.
    pub fn advance(&mut self, branch: SnapshotId) {
        self.epoch = self.epoch.next();
        self.branches.insert(self.epoch, branch);
        while self.branches.len() > BRANCHES_KEPT {
            self.branches.pop_first();
        }
    }

    /// Goes on in the next epoch, on the same node, with everything that it wrote in this one.
    pub fn go_on(&mut self) {
        self.epoch = self.epoch.next();
        self.continued.insert(self.epoch);
        while self.continued.len() > BRANCHES_KEPT {
            self.continued.pop_first();
        }
    }

    /// Goes on in an epoch far above this one, on the same node, with everything that it wrote in
    /// this one: what was given out in between by others is stale (I10, I11).
    pub fn leap(&mut self) {
        let to = Epoch(self.epoch.0.saturating_add(LEAP));
        self.leaps.insert(to, self.epoch);
        self.epoch = to;
        while self.leaps.len() > BRANCHES_KEPT {
            self.leaps.pop_first();
        }
    }

    /// The snapshot that the present assignment starts from; none for the first.
    pub fn branch(&self) -> Option<SnapshotId> {
        self.branches.get(&self.assigned_since()).copied()
    }

    /// Whether what was live under `epoch` on the assigned node goes on in the present epoch.
    pub fn goes_on_from(&self, epoch: Epoch) -> bool {
        std::iter::successors(self.before(self.epoch), |e| self.before(*e)).any(|e| e == epoch)
    }

    /// The first epoch of the present assignment.
    fn assigned_since(&self) -> Epoch {
        let ends = std::iter::successors(Some(self.epoch), |e| self.before(*e));
        ends.last().unwrap_or(self.epoch)
    }

    /// The epoch that `epoch` went on from, on the same node. Always a lower one.
    fn before(&self, epoch: Epoch) -> Option<Epoch> {
        match self.continued.contains(&epoch) {
            true => epoch.0.checked_sub(1).map(Epoch),
            false => self.leaps.get(&epoch).copied().filter(|before| *before < epoch),
        }
    }

    /// Whether a snapshot of this volume is on the chain: of the present epoch, or not past the
    /// point at which a later epoch branched off.
    pub fn contains(&self, volume: VolumeUid, id: &SnapshotId) -> bool {
        if id.volume != volume || id.epoch > self.epoch {
            return false;
        }
        let mut tip = (self.epoch, None);
        while tip.0 > id.epoch {
            match (self.branches.get(&tip.0), self.before(tip.0)) {
                (None, Some(before)) => tip = (before, None),
                (Some(branch), _) if branch.epoch < tip.0 => tip = (branch.epoch, Some(branch.seq)),
                _ => return false,
            }
        }
        tip.0 == id.epoch && tip.1.is_none_or(|last| id.seq <= last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Seq, SnapshotUuid};
    use uuid::Uuid;

    fn snap(epoch: u64, seq: u64) -> SnapshotId {
        SnapshotId {
            volume: VolumeUid(Uuid::from_u128(1)),
            epoch: Epoch(epoch),
            seq: Seq(seq),
            uuid: SnapshotUuid(Uuid::from_u64_pair(epoch, seq)),
            parent: None,
        }
    }

    /// I15: of an older epoch only what the next one branched from, or older, is on the chain.
    #[test]
    fn the_chain_ends_where_the_next_epoch_branched_off() {
        let mut chain = Chain::begin(Epoch(1));
        chain.advance(snap(1, 10));
        chain.advance(snap(2, 3));
        for (epoch, seq, on) in [
            (1, 10, true),
            (1, 12, false),
            (2, 3, true),
            (2, 4, false),
            (3, 1, true),
            (4, 1, false),
        ] {
            assert_eq!(
                chain.contains(snap(1, 1).volume, &snap(epoch, seq)),
                on,
                "({epoch}, {seq})"
            );
        }
    }

    /// What a node wrote before it went on in a new epoch stays on the chain, but for what a later
    /// branch leaves behind.
    #[test]
    fn an_epoch_that_went_on_keeps_the_one_before() {
        let mut chain = Chain::begin(Epoch(1));
        chain.go_on();
        assert_eq!((chain.epoch, chain.branch()), (Epoch(2), None));
        assert!(chain.goes_on_from(Epoch(1)) && !chain.goes_on_from(Epoch(2)));
        assert!(chain.contains(snap(1, 1).volume, &snap(1, 99)));
        chain.advance(snap(2, 3));
        chain.go_on();
        assert_eq!(chain.branch(), Some(snap(2, 3)));
        assert!(chain.goes_on_from(Epoch(3)) && !chain.goes_on_from(Epoch(2)));
        for (epoch, seq, on) in [(1, 99, true), (2, 3, true), (2, 4, false), (3, 7, true)] {
            assert_eq!(chain.contains(snap(1, 1).volume, &snap(epoch, seq)), on, "{epoch} {seq}");
        }
    }

    /// A branch that skipped an epoch leaves nothing of that epoch on the chain.
    #[test]
    fn an_epoch_that_was_skipped_is_off_the_chain() {
        let mut chain = Chain::begin(Epoch(1));
        chain.advance(snap(1, 10));
        chain.advance(snap(1, 9));
        assert!(!chain.contains(snap(1, 1).volume, &snap(2, 1)));
        assert!(chain.contains(snap(1, 1).volume, &snap(1, 9)));
        assert!(!chain.contains(snap(1, 1).volume, &snap(1, 10)));
    }

    /// I10, I11: after a disaster the node goes on with what it had, and an epoch that a lost
    /// majority may have given out since is off the chain, also once the next branch comes.
    #[test]
    fn a_leap_keeps_what_was_known_and_nothing_of_what_others_gave_out() {
        let mut chain = Chain::begin(Epoch(1));
        chain.advance(snap(1, 10));
        chain.leap();
        assert_eq!(chain.epoch, Epoch(2 + LEAP));
        assert_eq!(chain.branch(), Some(snap(1, 10)));
        assert!(chain.goes_on_from(Epoch(2)));
        assert!(!chain.goes_on_from(Epoch(3)) && !chain.goes_on_from(Epoch(1)));
        let on = |chain: &Chain, epoch, seq| chain.contains(snap(1, 1).volume, &snap(epoch, seq));
        for (epoch, seq, expected) in [(2, 9, true), (1, 10, true), (1, 11, false), (3, 1, false)] {
            assert_eq!(on(&chain, epoch, seq), expected, "({epoch}, {seq})");
        }
        chain.advance(snap(2, 7));
        assert_eq!(chain.epoch, Epoch(3 + LEAP));
        assert!(on(&chain, 2, 7) && !on(&chain, 2, 8) && !on(&chain, 3, 1));
    }

    /// I27: a chain from the network that points at itself ends.
    #[test]
    fn a_leap_that_leads_nowhere_ends() {
        let mut chain = Chain::begin(Epoch(5));
        chain.leaps.insert(Epoch(5), Epoch(5));
        assert!(!chain.goes_on_from(Epoch(5)));
        assert!(!chain.contains(snap(1, 1).volume, &snap(4, 1)));
        chain.continued.insert(Epoch(0));
        chain.leaps.insert(Epoch(5), Epoch(0));
        assert!(chain.goes_on_from(Epoch(0)));
    }
}
