//! A live part that begins anew as an older snapshot (I10, I19, I21).

use holdfast_types::{ByteSize, Epoch, OperationId, SnapshotUuid};

use super::{KIB, Rig, SIZE, bytes, hash, is_stale, new_volume, offer, remove, ship, snap};
use crate::{Error, Outcome};

pub(super) fn a_live_part_begins_anew(rig: &mut dyn Rig, _: &mut dyn Rig) {
    let uid = new_volume(rig);
    rig.write(uid, 64 * KIB, b"A");
    let a = snap(rig, uid);
    rig.write(uid, 64 * KIB, b"B");
    let grown = ByteSize::mib(12);
    rig.pool().resize(uid, grown).unwrap();
    rig.write(uid, 11 << 20, b"beyond");
    let b = snap(rig, uid);
    rig.pool().deactivate(uid).unwrap();

    let request = OperationId::generate();
    let restore = |epoch| rig.pool().restore(uid, a.uuid, Epoch(epoch), request);
    assert!(is_stale(&restore(0)) && matches!(restore(2), Err(Error::WrongState { .. })));
    assert_eq!(restore(1).unwrap(), Outcome::Changed);
    assert_eq!(restore(1).unwrap(), Outcome::AlreadyThere);
    rig.reopen();
    rig.pool().activate(uid, Epoch(1)).unwrap();
    rig.write(uid, 0, b"after");
    let again = rig.pool().restore(uid, a.uuid, Epoch(1), request);
    assert_eq!(again.unwrap(), Outcome::AlreadyThere);
    let next = snap(rig, uid);
    assert_eq!((next.epoch, next.seq, next.parent), (b.epoch, b.seq.next(), Some(b.uuid)));
    assert_eq!(bytes(rig, next.uuid, 64 * KIB, 1), b"A");
    assert_eq!(bytes(rig, next.uuid, 0, 5), b"after");
    // It never shrinks, and what is beyond the old end is not there any more.
    assert_eq!(rig.pool().volume(uid).unwrap().state.size, grown);
    assert_eq!(bytes(rig, next.uuid, 11 << 20, 6), [0; 6]);
    assert_eq!(bytes(rig, b.uuid, 64 * KIB, 1), b"B");
    remove(rig, uid);
}

/// I21: a restore drops nothing that no snapshot holds, and touches nothing that is in use.
pub(super) fn nothing_unkept_is_restored_over(rig: &mut dyn Rig, _: &mut dyn Rig) {
    let uid = new_volume(rig);
    rig.write(uid, 0, b"A");
    let a = snap(rig, uid);
    let restore = |rig: &dyn Rig, from: SnapshotUuid| {
        rig.pool().restore(uid, from, Epoch(1), OperationId::generate())
    };
    assert!(matches!(restore(rig, a.uuid), Err(Error::InUse(_))));
    rig.write(uid, 0, b"B");
    rig.pool().deactivate(uid).unwrap();
    assert!(matches!(restore(rig, a.uuid), Err(Error::WrongState { .. })));
    rig.reopen();
    let b = snap(rig, uid);
    assert_eq!(bytes(rig, b.uuid, 0, 1), b"B");
    let none = SnapshotUuid::generate();
    assert!(matches!(restore(rig, none), Err(Error::NoSnapshot(uuid)) if uuid == none));
    let other = new_volume(rig);
    let foreign = snap(rig, other);
    assert!(matches!(restore(rig, foreign.uuid), Err(Error::NoSnapshot(_))));
    remove(rig, other);
    rig.pool().seal(uid, Epoch(1)).unwrap();
    assert!(is_stale(&restore(rig, a.uuid)));
    remove(rig, uid);
}

/// I19: the delta after a restore is against the head that the replica has, by content.
pub(super) fn a_restored_volume_replicates(source: &mut dyn Rig, target: &mut dyn Rig) {
    let uid = new_volume(source);
    source.write(uid, 0, &[1; 256 << 10]);
    let a = snap(source, uid);
    source.write(uid, 0, &[2; 128 << 10]);
    source.discard(uid, 128 * KIB, 128 * KIB);
    source.write(uid, 2 << 20, &[3; 64 << 10]);
    let b = snap(source, uid);
    ship(source, target, &offer(source, &b, None)).unwrap();
    source.pool().deactivate(uid).unwrap();
    source.pool().restore(uid, a.uuid, Epoch(1), OperationId::generate()).unwrap();
    source.pool().activate(uid, Epoch(1)).unwrap();
    source.write(uid, 512 * KIB, b"after");
    let next = snap(source, uid);
    ship(source, target, &offer(source, &next, Some(b.uuid))).unwrap();
    assert_eq!(hash(target, next.uuid, SIZE), hash(source, next.uuid, SIZE));
    assert_eq!(bytes(target, next.uuid, 255 * KIB, 1), [1]);
    assert_eq!(bytes(target, next.uuid, 2 << 20, 1), [0]);
    remove(source, uid);
    remove(target, uid);
}
