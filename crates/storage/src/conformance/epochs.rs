//! Who may write and what is refused for ever (I10, I11, I21).

use holdfast_types::{Epoch, Seq, SnapshotId, SnapshotUuid};

use super::{KIB, NOW, Rig, SIZE, begin, bytes, is_stale, new_volume, offer, remove, ship, snap};
use crate::stream::send;
use crate::{AlreadyQuiet, Error, Outcome, SnapshotKind, Tail};

pub(super) fn snapshots_follow_their_lineage(rig: &mut dyn Rig, _: &mut dyn Rig) {
    let uid = new_volume(rig);
    let first = snap(rig, uid);
    let good = rig.pool().volume(uid).unwrap().state;
    let good = good.next_snapshot(SnapshotUuid::generate()).unwrap();
    let wrong: [SnapshotId; 3] = [
        SnapshotId { parent: None, ..good },
        SnapshotId { seq: first.seq, ..good },
        SnapshotId { epoch: Epoch(2), ..good },
    ];
    for id in wrong {
        let taken = rig.pool().snapshot(&id, NOW, &mut AlreadyQuiet);
        assert!(matches!(taken, Err(Error::WrongState { .. })), "{id:?}");
    }
    let old = SnapshotId { epoch: Epoch(0), ..good };
    assert!(is_stale(&rig.pool().snapshot(&old, NOW, &mut AlreadyQuiet)));
    assert_eq!(rig.pool().volume(uid).unwrap().state.snapshots.len(), 1);
    remove(rig, uid);
}

/// I10: a replica is promoted only under an epoch above all that it has seen.
pub(super) fn epochs_only_rise(source: &mut dyn Rig, target: &mut dyn Rig) {
    let uid = new_volume(source);
    let id = snap(source, uid);
    ship(source, target, &offer(source, &id, None)).unwrap();
    let pool = target.pool();
    assert!(matches!(pool.activate(uid, Epoch(1)), Err(Error::WrongState { .. })));
    assert!(is_stale(&pool.promote(uid, id.uuid, Epoch(1))));
    assert_eq!(pool.promote(uid, id.uuid, Epoch(2)).unwrap(), Outcome::Changed);
    assert_eq!(pool.promote(uid, id.uuid, Epoch(2)).unwrap(), Outcome::AlreadyThere);
    assert!(matches!(pool.promote(uid, id.uuid, Epoch(3)), Err(Error::WrongState { .. })));
    assert!(is_stale(&pool.activate(uid, Epoch(1))));
    assert!(matches!(pool.activate(uid, Epoch(3)), Err(Error::WrongState { .. })));
    pool.activate(uid, Epoch(2)).unwrap();
    target.write(uid, 0, b"epoch two");
    let two = snap(target, uid);
    assert_eq!((two.epoch, two.seq, two.parent), (Epoch(2), Seq(1), Some(id.uuid)));

    assert!(is_stale(&target.pool().continue_live(uid, Epoch(1))));
    assert_eq!(target.pool().continue_live(uid, Epoch(3)).unwrap(), Outcome::Changed);
    assert_eq!(target.pool().continue_live(uid, Epoch(3)).unwrap(), Outcome::AlreadyThere);
    let three = snap(target, uid);
    assert_eq!((three.epoch, three.parent), (Epoch(3), Some(two.uuid)));
    target.reopen();
    let promoted = target.pool().volume(uid).unwrap().state.record.promoted.unwrap();
    assert_eq!((promoted.epoch, promoted.branch), (Epoch(3), Some(two.uuid)));
    remove(target, uid);
    remove(source, uid);
}

pub(super) fn a_seal_is_for_ever(source: &mut dyn Rig, target: &mut dyn Rig) {
    let uid = new_volume(source);
    let one = snap(source, uid);
    ship(source, target, &offer(source, &one, None)).unwrap();
    source.write(uid, 0, b"late");
    let two = snap(source, uid);
    let late = offer(source, &two, Some(one.uuid));
    assert_eq!(target.pool().seal(uid, Epoch(1)).unwrap(), Outcome::Changed);
    assert_eq!(target.pool().seal(uid, Epoch(0)).unwrap(), Outcome::AlreadyThere);
    target.reopen();
    assert!(is_stale(&begin(target, &late).map(drop)));
    assert!(is_stale(&target.pool().promote(uid, one.uuid, Epoch(1))));
    let newest = target.pool().volume(uid).unwrap().state.newest().unwrap().id;
    assert_eq!(newest, one);
    assert!(target.pool().promote(uid, one.uuid, Epoch(2)).is_ok());
    // The primary itself, once sealed, takes no more snapshots and is not started again.
    source.pool().seal(uid, Epoch(1)).unwrap();
    let next = source.pool().volume(uid).unwrap().state;
    let next = next.next_snapshot(SnapshotUuid::generate()).unwrap();
    assert!(is_stale(&source.pool().snapshot(&next, NOW, &mut AlreadyQuiet)));
    source.pool().deactivate(uid).unwrap();
    assert!(is_stale(&source.pool().activate(uid, Epoch(1))));
    remove(target, uid);
    remove(source, uid);
}

pub(super) fn a_seal_stops_a_running_receive(source: &mut dyn Rig, target: &mut dyn Rig) {
    let uid = new_volume(source);
    source.write(uid, 0, &[9; 4096]);
    let id = snap(source, uid);
    let offer = offer(source, &id, None);
    let mut receiver = begin(target, &offer).unwrap();
    for frame in send(source.pool(), &offer, 0).unwrap() {
        receiver.feed(&frame.unwrap()).unwrap();
    }
    target.pool().seal(uid, Epoch(1)).unwrap();
    assert!(is_stale(&receiver.finish()));
    let left = target.pool().volume(uid).unwrap();
    assert_eq!((left.state.snapshots, left.partial), (Vec::new(), None), "it can never go on");
    remove(target, uid);
    remove(source, uid);
}

/// I11: of two that think they are the primary, the later epoch's is heard, whoever came first; and
/// never both at once.
pub(super) fn two_senders_have_one_replica(source: &mut dyn Rig, target: &mut dyn Rig) {
    let uid = new_volume(source);
    source.write(uid, 0, &[1; 300_000]);
    let old = offer(source, &snap(source, uid), None);
    source.write(uid, 0, &[2; 300_000]);
    let older = offer(source, &snap(source, uid), None);
    source.pool().continue_live(uid, Epoch(2)).unwrap();
    source.write(uid, 0, &[3; 300_000]);
    let new = offer(source, &snap(source, uid), None);

    let mut first = begin(target, &old).unwrap();
    for frame in send(source.pool(), &old, 0).unwrap() {
        first.feed(&frame.unwrap()).unwrap();
    }
    assert!(matches!(begin(target, &new).map(drop), Err(Error::InUse(_))), "two at once");
    drop(first);
    ship(source, target, &new).unwrap();
    for late in [old, older] {
        assert!(is_stale(&begin(target, &late).map(drop)));
    }
    let volume = target.pool().volume(uid).unwrap();
    assert_eq!((volume.state.snapshots.len(), volume.partial), (1, None));
    assert_eq!(bytes(target, new.snapshot.uuid, 0, 1), [3]);
    remove(target, uid);
    remove(source, uid);
}

pub(super) fn a_release_is_for_ever(rig: &mut dyn Rig, _: &mut dyn Rig) {
    let uid = new_volume(rig);
    assert!(matches!(rig.pool().release(uid, Epoch(1)), Err(Error::InUse(_))));
    rig.pool().deactivate(uid).unwrap();
    assert_eq!(rig.pool().release(uid, Epoch(1)).unwrap(), Outcome::Changed);
    rig.reopen();
    assert!(is_stale(&rig.pool().activate(uid, Epoch(1))));
    // The last delta of a move still needs its snapshot.
    let last = snap(rig, uid);
    rig.pool().demote(uid, Some(last.uuid), None).unwrap();
    assert!(is_stale(&rig.pool().promote(uid, last.uuid, Epoch(1))));
    assert!(rig.pool().promote(uid, last.uuid, Epoch(2)).is_ok());
    remove(rig, uid);
}

/// I21: a primary that was taken over keeps its unshipped tail, and follows the new one by delta.
pub(super) fn diverged_data_is_kept(old: &mut dyn Rig, new: &mut dyn Rig) {
    let uid = new_volume(old);
    old.write(uid, 0, b"shared");
    let common = snap(old, uid);
    ship(old, new, &offer(old, &common, None)).unwrap();
    old.write(uid, 0, b"unshipped, in a snapshot");
    let lost = snap(old, uid);
    old.write(uid, 0, b"unshipped tail");
    new.pool().seal(uid, Epoch(1)).unwrap();
    new.pool().promote(uid, common.uuid, Epoch(2)).unwrap();
    new.pool().activate(uid, Epoch(2)).unwrap();
    new.write(uid, 64 * KIB, b"epoch two");
    let next = snap(new, uid);

    old.reopen();
    let pool = old.pool();
    let label = "n1 wrote this before it was lost".to_owned();
    let tail = Tail { uuid: SnapshotUuid::generate(), taken: NOW, label: label.clone() };
    pool.deactivate(uid).unwrap();
    let to = Some(common.uuid);
    let kept_nowhere = pool.demote(uid, to, None);
    assert!(matches!(kept_nowhere, Err(Error::WrongState { .. })));
    assert!(pool.volume(uid).unwrap().state.live.is_some());
    assert_eq!(pool.demote(uid, to, Some(&tail)).unwrap(), Outcome::Changed);
    assert_eq!(pool.demote(uid, to, Some(&tail)).unwrap(), Outcome::AlreadyThere);
    old.reopen();
    let state = old.pool().volume(uid).unwrap().state;
    assert_eq!(state.live, None);
    assert_eq!(state.newest().unwrap().id, common);
    for uuid in [lost.uuid, tail.uuid] {
        let kind = &state.find(uuid).unwrap().kind;
        assert_eq!(*kind, SnapshotKind::Diverged { label: label.clone() });
        assert!(old.pool().promote(uid, uuid, Epoch(9)).is_err());
    }
    assert_eq!(bytes(old, tail.uuid, 0, 14), b"unshipped tail");
    ship(new, old, &offer(new, &next, to)).unwrap();
    assert_eq!(bytes(old, next.uuid, 0, 6), b"shared");
    assert_eq!(bytes(old, next.uuid, 64 * KIB, 9), b"epoch two");
    assert_eq!(old.pool().volume(uid).unwrap().state.size, SIZE);
    remove(new, uid);
    remove(old, uid);
}
