//! The life of a volume in one pool.

use holdfast_types::{ByteSize, Epoch, SnapshotId, SnapshotUuid, VolumeUid};

use super::{KIB, NOW, Rig, SIZE, bytes, hash, new_volume, noise, remove, snap};
use crate::{AlreadyQuiet, AtRest, Error, ExtentKind, Outcome, SnapshotKind};

pub(super) fn a_volume_lives(rig: &mut dyn Rig, _: &mut dyn Rig) {
    let uid = new_volume(rig);
    rig.write(uid, 64 * KIB, b"first");
    let one = snap(rig, uid);
    rig.write(uid, 64 * KIB, b"other");
    rig.discard(uid, 0, 64 * KIB);
    let two = snap(rig, uid);
    assert_eq!(bytes(rig, one.uuid, 64 * KIB, 5), b"first");
    assert_eq!(bytes(rig, two.uuid, 64 * KIB, 5), b"other");
    assert_eq!(two.parent, Some(one.uuid));

    let changes = rig.pool().diff(Some(one.uuid), two.uuid).unwrap();
    assert!(changes.iter().any(|e| e.offset <= 64 * KIB && e.kind == ExtentKind::Data));
    assert!(changes.iter().map(|e| e.len).sum::<u64>() <= 256 * KIB, "{changes:?}");
    assert_eq!(rig.pool().diff(Some(two.uuid), two.uuid).unwrap(), []);

    let mut past_end = [0; 2];
    let mut reader = rig.pool().open_snapshot(two.uuid).unwrap();
    assert!(reader.read_at(SIZE.bytes() - 1, &mut past_end).is_err());
    drop(reader);
    remove(rig, uid);
}

pub(super) fn verbs_may_be_repeated(rig: &mut dyn Rig, _: &mut dyn Rig) {
    let uid = new_volume(rig);
    let pool = rig.pool();
    assert_eq!(pool.create(uid, SIZE, Epoch(1)).unwrap(), Outcome::AlreadyThere);
    assert!(matches!(pool.create(uid, SIZE, Epoch(2)), Err(Error::VolumeExists(_))));
    let device = pool.activate(uid, Epoch(1)).unwrap();
    assert_eq!(pool.activate(uid, Epoch(1)).unwrap(), device);
    assert_eq!(pool.volume(uid).unwrap().device, Some(device));

    let id = snap(rig, uid);
    let again = pool.snapshot(&id, NOW, &mut AlreadyQuiet);
    assert_eq!(again.unwrap(), Outcome::AlreadyThere);
    let kept = SnapshotKind::Kept { label: "before the upgrade".into() };
    assert_eq!(pool.label_snapshot(id.uuid, kept.clone()).unwrap(), Outcome::Changed);
    assert_eq!(pool.label_snapshot(id.uuid, kept).unwrap(), Outcome::AlreadyThere);
    let bad = SnapshotKind::Kept { label: "a\nb".into() };
    assert!(matches!(pool.label_snapshot(id.uuid, bad), Err(Error::BadText(_))));

    assert_eq!(pool.set_role(uid, "primary").unwrap(), Outcome::Changed);
    assert_eq!(pool.set_role(uid, "primary").unwrap(), Outcome::AlreadyThere);
    assert!(matches!(pool.remove_volume(uid), Err(Error::InUse(_))));
    assert_eq!(pool.deactivate(uid).unwrap(), Outcome::Changed);
    assert_eq!(pool.deactivate(uid).unwrap(), Outcome::AlreadyThere);
    assert_eq!(pool.remove_snapshot(id.uuid).unwrap(), Outcome::Changed);
    assert_eq!(pool.remove_snapshot(id.uuid).unwrap(), Outcome::AlreadyThere);
    assert_eq!(pool.remove_volume(uid).unwrap(), Outcome::Changed);
    assert_eq!(pool.remove_volume(uid).unwrap(), Outcome::AlreadyThere);
    assert!(matches!(pool.activate(uid, Epoch(1)), Err(Error::NoVolume(_))));
}

pub(super) fn clones_are_independent(rig: &mut dyn Rig, _: &mut dyn Rig) {
    let original = new_volume(rig);
    rig.write(original, 0, &noise(1, 1 << 20));
    let image = snap(rig, original);
    let before = rig.pool().capacity().unwrap().used.bytes();
    let uid = VolumeUid::generate();
    let size = ByteSize::mib(16);
    let clone = |size| rig.pool().clone_volume(image.uuid, uid, size, Epoch(1));
    assert!(matches!(clone(ByteSize::mib(4)), Err(Error::BadSize { .. })));
    assert_eq!(clone(size).unwrap(), Outcome::Changed);
    assert_eq!(clone(size).unwrap(), Outcome::AlreadyThere);
    rig.pool().activate(uid, Epoch(1)).unwrap();
    rig.write(original, 0, b"original");
    rig.write(uid, SIZE.bytes(), b"in the grown part");
    let first = snap(rig, uid);
    assert_eq!(first.parent, Some(image.uuid));
    assert_eq!(bytes(rig, first.uuid, 0, 1 << 20), noise(1, 1 << 20));
    let changes = rig.pool().diff(Some(image.uuid), first.uuid).unwrap();
    assert!(changes.iter().all(|e| e.offset >= SIZE.bytes()), "{changes:?}");
    // What is remembered of a thin clone is not its content over again.
    let grown = rig.pool().capacity().unwrap().used.bytes().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes");
    remove(rig, uid);
    remove(rig, original);
}

pub(super) fn volumes_grow(rig: &mut dyn Rig, _: &mut dyn Rig) {
    let uid = new_volume(rig);
    let size = ByteSize::mib(12);
    assert_eq!(rig.pool().resize(uid, size).unwrap(), Outcome::Changed);
    assert_eq!(rig.pool().resize(uid, size).unwrap(), Outcome::AlreadyThere);
    assert!(matches!(rig.pool().resize(uid, SIZE), Err(Error::BadSize { .. })));
    rig.write(uid, 11 << 20, b"beyond the old end");
    let id = snap(rig, uid);
    assert_eq!(bytes(rig, id.uuid, 11 << 20, 6), b"beyond");
    remove(rig, uid);
}

/// I20: a volume that the pool could never hold is refused, and nothing is made.
pub(super) fn sizes_are_checked(rig: &mut dyn Rig, _: &mut dyn Rig) {
    let uid = VolumeUid::generate();
    let create = |size| rig.pool().create(uid, size, Epoch(1));
    assert!(matches!(create(ByteSize(0)), Err(Error::BadSize { .. })));
    assert!(matches!(create(ByteSize(u64::MAX)), Err(Error::BadSize { .. })));
    assert!(matches!(create(ByteSize::gib(15 << 10)), Err(Error::Full { .. })));
    assert!(matches!(rig.pool().volume(uid), Err(Error::NoVolume(_))));
    let odd = ByteSize(5_000_000);
    create(odd).unwrap();
    assert_eq!(rig.pool().volume(uid).unwrap().state.size, ByteSize::mib(8));
    assert!(rig.pool().capacity().unwrap().promised >= ByteSize::mib(8));
    remove(rig, uid);
}

/// I18: what something builds on is not removed under it.
pub(super) fn held_snapshots_stay(rig: &mut dyn Rig, _: &mut dyn Rig) {
    let uid = new_volume(rig);
    let id = snap(rig, uid);
    rig.pool().deactivate(uid).unwrap();
    let hold = rig.pool().hold(id.uuid).unwrap();
    assert!(matches!(rig.pool().remove_snapshot(id.uuid), Err(Error::InUse(_))));
    assert!(matches!(rig.pool().remove_volume(uid), Err(Error::InUse(_))));
    drop(hold);
    let reader = rig.pool().open_snapshot(id.uuid).unwrap();
    assert!(matches!(rig.pool().remove_snapshot(id.uuid), Err(Error::InUse(_))));
    drop(reader);
    assert_eq!(rig.pool().remove_snapshot(id.uuid).unwrap(), Outcome::Changed);
    assert!(matches!(rig.pool().hold(id.uuid), Err(Error::NoSnapshot(_))));
    remove(rig, uid);
}

/// I16: a snapshot without a freeze is of a volume that nobody can write to.
pub(super) fn what_is_in_use_is_not_at_rest(rig: &mut dyn Rig, _: &mut dyn Rig) {
    let uid = new_volume(rig);
    let at_rest = |rig: &dyn Rig| {
        let state = rig.pool().volume(uid).unwrap().state;
        let id = state.next_snapshot(SnapshotUuid::generate()).unwrap();
        rig.pool().snapshot(&id, NOW, &mut AtRest)
    };
    assert!(matches!(at_rest(rig), Err(Error::InUse(_))));
    assert_eq!(rig.pool().volume(uid).unwrap().state.snapshots, []);
    rig.pool().deactivate(uid).unwrap();
    assert_eq!(at_rest(rig).unwrap(), Outcome::Changed);
    remove(rig, uid);
}

pub(super) fn everything_survives_reopening(rig: &mut dyn Rig, _: &mut dyn Rig) {
    let uid = new_volume(rig);
    rig.write(uid, 4 * KIB, &noise(7, 300_000));
    let id = snap(rig, uid);
    rig.pool().set_role(uid, "web").unwrap();
    let (state, before) = (rig.pool().volume(uid).unwrap().state, hash(rig, id.uuid, SIZE));
    let identity = rig.pool().identity();
    rig.reopen();
    assert_eq!(rig.pool().identity(), identity);
    assert_eq!(rig.pool().volume(uid).unwrap().state, state);
    assert_eq!(hash(rig, id.uuid, SIZE), before);
    rig.pool().activate(uid, Epoch(1)).unwrap();
    rig.write(uid, 0, b"goes on");
    assert_eq!(snap(rig, uid).seq, id.seq.next());
    remove(rig, uid);
}

/// L4.
pub(super) fn removal_leaves_nothing(rig: &mut dyn Rig, _: &mut dyn Rig) {
    let volumes = rig.pool().volumes().len();
    let uid = new_volume(rig);
    rig.write(uid, 0, &noise(3, 1 << 20));
    let id = snap(rig, uid);
    let scratch = rig.pool().scratch(id.uuid).unwrap();
    assert!(scratch.device().starts_with("/dev"));
    drop(scratch);
    remove(rig, uid);
    assert!(matches!(rig.pool().open_snapshot(id.uuid), Err(Error::NoSnapshot(_))));
    rig.reopen();
    assert_eq!(rig.pool().volumes().len(), volumes);
}

/// Pieces with holes between them are at least so many, whatever else a driver counts.
pub(super) fn pieces_are_counted(rig: &mut dyn Rig, _: &mut dyn Rig) {
    let uid = new_volume(rig);
    let count = |id: SnapshotId| rig.pool().fragmentation(id.uuid).unwrap();
    let empty = count(snap(rig, uid));
    assert!(empty.extents <= 1 && empty.comfortable >= 1_000, "{empty:?}");
    for piece in 0..16u64 {
        rig.write(uid, piece * 256 * KIB, &noise(piece, 4 << 10));
    }
    let torn = count(snap(rig, uid));
    assert!(torn.extents >= 16, "{torn:?}");
    let nothing = rig.pool().fragmentation(SnapshotUuid::generate());
    assert!(matches!(nothing, Err(Error::NoSnapshot(_))));
    remove(rig, uid);
}
