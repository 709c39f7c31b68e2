//! Rot is found, never chosen, and received again (I15, I16).

use std::os::unix::fs::FileExt;

use super::*;
use crate::catalog::HASH_BLOCK;
use crate::conformance::{offer, ship, snap};
use crate::{Result, SnapshotInfo, SnapshotKind};
use holdfast_types::SnapshotUuid;

const SIZE: ByteSize = ByteSize::mib(24);

/// A source with an active volume, a target with a replica of it, and the newest snapshot.
struct Pair {
    source: XfsRig,
    target: XfsRig,
    uid: VolumeUid,
    newest: SnapshotInfo,
}

impl Pair {
    fn new() -> Self {
        Self::sized(SIZE)
    }

    fn sized(size: ByteSize) -> Self {
        let pool = ByteSize(size.bytes() + (1 << 30));
        let (source, target) = (XfsRig::of(pool), XfsRig::of(pool));
        let uid = VolumeUid::generate();
        source.pool().create(uid, size, Epoch(1)).unwrap();
        source.pool().activate(uid, Epoch(1)).unwrap();
        source.write(uid, 0, &[7; 10 << 20]);
        let newest = transfer(&source, &target, uid, None).unwrap();
        Self { source, target, uid, newest }
    }

    fn look(&self, blocks: u32) -> crate::Scrubbed {
        self.target.pool().scrub(self.uid, blocks).unwrap()
    }

    /// Another byte at that place of the replica's newest snapshot, behind the pool's back.
    fn spoil(&self, offset: u64) {
        let name = format!("volumes/{}/snap-{}", self.uid, self.newest.id.uuid);
        let file = OpenOptions::new().write(true).open(self.target.root().join(name)).unwrap();
        file.write_all_at(b"rot", offset).unwrap();
        file.sync_all().unwrap();
    }

    fn state(&self) -> crate::VolumeState {
        self.target.pool().volume(self.uid).unwrap().state
    }

    /// A delta of three bytes at `offset`.
    fn write_and_ship(&mut self, offset: u64) {
        self.source.write(self.uid, offset, b"new");
        let base = Some(self.newest.id.uuid);
        self.newest = transfer(&self.source, &self.target, self.uid, base).unwrap();
    }
}

/// A snapshot of the source, on the target.
fn transfer(
    source: &XfsRig,
    target: &XfsRig,
    uid: VolumeUid,
    base: Option<SnapshotUuid>,
) -> Result<SnapshotInfo> {
    let id = snap(source, uid);
    ship(source, target, &offer(source, &id, base))
}

impl Drop for Pair {
    fn drop(&mut self) {
        let _ = self.source.pool().deactivate(self.uid);
    }
}

#[test]
fn rot_is_found_and_is_no_copy_any_more() {
    let mut pair = Pair::new();
    let first = pair.look(100);
    assert_eq!((first.read, first.compared, first.whole), (SIZE.bytes(), 0, true));
    let second = pair.look(100);
    assert_eq!((second.compared, second.rot), (SIZE.bytes(), None));
    pair.spoil(5 << 20);
    let found = pair.look(100).rot.unwrap();
    assert_eq!((found.snapshot, found.offset), (pair.newest.id.uuid, HASH_BLOCK));
    for _ in 0..2 {
        let state = pair.state();
        assert!(state.newest().is_none() && state.is_rotten(pair.newest.id.uuid));
        assert_eq!(state.sound().count(), 0, "I15: a seal lists none");
        let promoted = pair.target.pool().promote(pair.uid, pair.newest.id.uuid, Epoch(2));
        assert!(matches!(promoted, Err(Error::Rotten(_))), "I15");
        let (uuid, other) = (pair.newest.id.uuid, VolumeUid::generate());
        let cloned = pair.target.pool().clone_volume(uuid, other, SIZE, Epoch(1));
        assert!(matches!(cloned, Err(Error::Rotten(_))));
        pair.target.reopen();
    }
    let base = Some(pair.newest.id.uuid);
    pair.source.write(pair.uid, 0, b"more");
    let delta = transfer(&pair.source, &pair.target, pair.uid, base);
    assert!(matches!(delta, Err(Error::Rotten(_))), "I19: no delta on rot");
}

/// What is here and rotten is no reason to refuse it.
#[test]
fn the_same_snapshot_is_received_again() {
    let mut pair = Pair::new();
    pair.look(100);
    pair.spoil(0);
    assert!(pair.look(100).rot.is_some());
    let id = pair.newest.id;
    let offer = offer(&pair.source, &id, None);
    ship(&pair.source, &pair.target, &offer).unwrap();
    for _ in 0..2 {
        assert_eq!(pair.state().newest().map(|s| s.id), Some(id));
        let dir = pair.target.root().join("volumes").join(pair.uid.to_string());
        let names = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name());
        assert!(names.into_iter().all(|name| !name.to_string_lossy().starts_with("part")));
        pair.target.reopen();
    }
    assert_eq!(pair.look(100).compared, 0, "its hashes are of the rotten one");
    assert_eq!((pair.look(100).compared, pair.look(100).rot), (SIZE.bytes(), None));
}

/// A delta is no rot; and what it did not touch is still compared.
#[test]
fn what_a_delta_wrote_is_hashed_anew() {
    let mut pair = Pair::new();
    pair.look(100);
    pair.write_and_ship(9 << 20);
    let look = pair.look(100);
    assert_eq!((look.compared, look.rot), (SIZE.bytes() - HASH_BLOCK, None));
    assert_eq!(pair.look(100).compared, SIZE.bytes());
    pair.write_and_ship(0);
    pair.spoil(9 << 20);
    assert_eq!(pair.look(100).rot.map(|rot| rot.offset), Some(2 * HASH_BLOCK));
}

/// Looks go on where they ended, over a restart and deltas.
#[test]
fn looks_go_round() {
    let mut pair = Pair::new();
    for round in 0..2 {
        let wholes: Vec<_> = (0..3).map(|_| pair.look(2).whole).collect();
        assert_eq!(wholes, [false, false, true], "round {round}");
        pair.target.reopen();
        pair.write_and_ship(round);
    }
    assert_eq!(pair.look(2).compared, HASH_BLOCK, "the other one was written to");
}

/// A damaged list of hashes is no damaged copy.
#[test]
fn damaged_hashes_are_no_rot() {
    let pair = Pair::new();
    pair.look(100);
    let path = pair.target.root().join("volumes").join(pair.uid.to_string()).join("hashes");
    let mut bytes = fs::read(&path).unwrap();
    bytes[3] ^= 1;
    bytes.truncate(100);
    fs::write(&path, bytes).unwrap();
    let look = pair.look(100);
    assert_eq!((look.compared, look.rot), (2 * HASH_BLOCK, None));
}

/// A primary copy changes at any time: only what was received is compared.
#[test]
fn a_primary_is_left_alone() {
    let pair = Pair::new();
    assert_eq!(pair.source.pool().scrub(pair.uid, 100).unwrap(), crate::Scrubbed::default());
    pair.look(100);
    pair.target.pool().promote(pair.uid, pair.newest.id.uuid, Epoch(2)).unwrap();
    assert_eq!(pair.look(100), crate::Scrubbed::default());
}

/// What is looked at becomes a dead end meanwhile: the next newest one was given its hashes, and was
/// rotten then.
#[test]
fn a_look_says_nothing_of_another_snapshot() {
    let mut pair = Pair::new();
    let first = pair.newest.id.uuid;
    pair.write_and_ship(0);
    let label = SnapshotKind::Diverged { label: "taken over elsewhere".into() };
    let target = pair.target.pool.as_ref().unwrap();
    let diverge = || {
        target.label_snapshot(pair.newest.id.uuid, label).unwrap();
    };
    target.look_while(pair.uid, 100, diverge).unwrap();
    assert_eq!(pair.state().newest().map(|s| s.id.uuid), Some(first));
    assert_eq!((pair.look(100).compared, pair.look(100).rot), (0, None));
}

/// The same for what comes whole while the old content is read, be that sound or rotten.
#[test]
fn a_look_says_nothing_of_what_came_whole() {
    for rotten in [false, true] {
        let pair = Pair::new();
        pair.look(100);
        if rotten {
            pair.spoil(0);
        }
        pair.source.write(pair.uid, 0, b"other");
        let come = || {
            transfer(&pair.source, &pair.target, pair.uid, None).unwrap();
        };
        let target = pair.target.pool.as_ref().unwrap();
        let look = target.look_while(pair.uid, 100, come).unwrap();
        assert_eq!(look.rot.is_some(), rotten);
        let state = pair.state();
        assert_eq!(state.is_rotten(pair.newest.id.uuid), rotten);
        assert!(state.newest().is_some_and(|newest| newest.id.uuid != pair.newest.id.uuid));
        assert_eq!((pair.look(100).compared, pair.look(100).rot), (0, None));
        assert_eq!(pair.look(100).compared, SIZE.bytes());
    }
}

/// What a delta writes while the base is looked at is not what was read; the rest still is.
#[test]
fn a_look_says_nothing_of_what_a_delta_wrote_meanwhile() {
    let pair = Pair::new();
    pair.source.write(pair.uid, 9 << 20, b"other");
    let base = Some(pair.newest.id.uuid);
    let come = || {
        transfer(&pair.source, &pair.target, pair.uid, base).unwrap();
    };
    pair.target.pool.as_ref().unwrap().look_while(pair.uid, 100, come).unwrap();
    let look = pair.look(100);
    assert_eq!((look.compared, look.rot), (SIZE.bytes() - HASH_BLOCK, None));
}

/// A volume written all over had no hash left to be compared with: they were kept in a list of 256
/// ranges.
#[test]
fn a_volume_written_all_over_is_still_compared() {
    let blocks = 520;
    let mut pair = Pair::sized(ByteSize(blocks * HASH_BLOCK));
    pair.look(u32::MAX);
    for block in (0..blocks).step_by(2) {
        pair.source.write(pair.uid, block * HASH_BLOCK, b"new");
    }
    pair.write_and_ship(0);
    let look = pair.look(u32::MAX);
    assert_eq!((look.compared, look.rot), (blocks / 2 * HASH_BLOCK, None));
}
