//! A set of volumes between a thin pool and an XFS, there and back.

use std::time::{Duration, Instant};

use holdfast_storage::conformance::{self, Rig};
use holdfast_storage::stream::send;
use holdfast_storage::{
    AlreadyQuiet, Begin, ExtentKind, Member, Offer, Outcome, Shape, SnapshotInfo, members,
};
use holdfast_types::{ByteSize, Epoch, SnapshotUuid, TimestampMs, VolumeUid};

use crate::rig::{LvmRig, disks};
use crate::xfs::XfsRig;

const MIB: u64 = 1 << 20;
/// For a filesystem that frees what was removed when it gets to it.
const SOON: Duration = Duration::from_secs(30);

fn noise(seed: u64, len: u64) -> Vec<u8> {
    let mut out = vec![0; len as usize];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

fn snap(rig: &dyn Rig, uid: VolumeUid) -> SnapshotInfo {
    let id = rig.pool().volume(uid).unwrap().state.next_snapshot(SnapshotUuid::generate()).unwrap();
    rig.pool().snapshot(&id, TimestampMs(1), &mut AlreadyQuiet).unwrap();
    rig.pool().volume(uid).unwrap().state.find(id.uuid).unwrap().clone()
}

fn hash(rig: &dyn Rig, info: &SnapshotInfo) -> blake3::Hash {
    let mut reader = rig.pool().open_snapshot(info.id.uuid).unwrap();
    let (mut hasher, mut buf) = (blake3::Hasher::new(), vec![0; MIB as usize]);
    for (member, size) in info.shape().sizes().enumerate() {
        for offset in (0..size).step_by(buf.len()) {
            reader.read_at(members::start(member) + offset, &mut buf).unwrap();
            hasher.update(&buf);
        }
    }
    hasher.finalize()
}

/// Ships one, and says how many bytes were on the wire. Both sides are the same afterwards.
fn ship(from: &dyn Rig, to: &dyn Rig, info: &SnapshotInfo, base: Option<&SnapshotInfo>) -> usize {
    let offer = Offer::of(info, base.map(|base| base.id.uuid));
    let Begin::Receive(mut receiver) = to.pool().begin_receive(&offer).unwrap() else {
        panic!("it is there")
    };
    let mut sent = 0;
    for frame in send(from.pool(), &offer, receiver.resume_at()).unwrap() {
        let frame = frame.unwrap();
        sent += frame.len();
        receiver.feed(&frame).unwrap();
    }
    let arrived = receiver.finish().unwrap();
    assert_eq!(arrived.shape(), info.shape());
    assert_eq!(hash(to, info), hash(from, info));
    sent
}

fn used(rig: &dyn Rig) -> u64 {
    rig.pool().capacity().unwrap().used.bytes()
}

/// The pool uses so much less than before, at once or a little later.
fn assert_freed(rig: &dyn Rig, before: u64, bytes: u64) {
    let deadline = Instant::now() + SOON;
    while used(rig) + bytes > before {
        assert!(Instant::now() < deadline, "{} of {before} used", used(rig));
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// One round of a set's life between two pools: all of it, deltas, holes that free room, and on with
/// it on the other side.
fn there(from: &dyn Rig, to: &dyn Rig, uid: VolumeUid, mut base: Option<SnapshotInfo>, seed: u64) {
    let logs = members::start(1);
    from.write(uid, 0, &noise(seed, 24 * MIB));
    from.write(uid, logs, &noise(seed + 1, 8 * MIB));
    for round in 0..3 {
        let info = snap(from, uid);
        let sent = ship(from, to, &info, base.as_ref());
        if round > 0 {
            assert!(sent < 2 << 20, "{sent} bytes for a small change");
        }
        if let Some(old) = base.replace(info) {
            for rig in [from, to] {
                rig.pool().remove_snapshot(old.id.uuid).unwrap();
            }
        }
        from.write(uid, (3 + round) * 5 * MIB + 17, &noise(seed + round, 100_000));
        from.write(uid, logs + round * MIB, &noise(seed + round, 50_000));
        from.discard(uid, round * MIB, 256 << 10);
    }
    // What is discarded travels as a hole, and is room again once no snapshot has it any more.
    let before = [from, to].map(used);
    from.discard(uid, 4 * MIB, 12 * MIB);
    from.discard(uid, logs + 4 * MIB, 4 * MIB);
    let info = snap(from, uid);
    let base = base.unwrap();
    let holes = from.pool().diff(Some(base.id.uuid), info.id.uuid).unwrap();
    let holes = holes.iter().filter(|e| e.kind == ExtentKind::Hole).map(|e| e.len).sum::<u64>();
    assert!(holes >= 16 * MIB, "{holes} bytes of holes");
    let sent = ship(from, to, &info, Some(&base));
    assert!(sent < 2 << 20, "{sent} bytes for holes");
    for (rig, before) in [from, to].into_iter().zip(before) {
        rig.pool().remove_snapshot(base.id.uuid).unwrap();
        assert_freed(rig, before, 14 * MIB);
    }
    to.pool().promote(uid, info.id.uuid, info.id.epoch.next()).unwrap();
    to.pool().activate(uid, info.id.epoch.next()).unwrap();
    from.pool().deactivate(uid).unwrap();
    from.pool().demote(uid, Some(info.id.uuid), None).unwrap();
}

#[test]
fn a_set_goes_between_drivers_and_back() {
    let disks = disks();
    let (lvm, xfs) = (LvmRig::new(&disks[0]), XfsRig::new(&disks[1]));
    let uid = VolumeUid::generate();
    let logs = Member::new("logs".parse().unwrap(), ByteSize::mib(12));
    let shape = Shape { root: ByteSize::mib(32), data: vec![logs] };
    lvm.pool().create_set(uid, &shape, Epoch(1)).unwrap();
    lvm.pool().filled(uid).unwrap();
    lvm.pool().activate(uid, Epoch(1)).unwrap();
    there(&lvm, &xfs, uid, None, 10);
    let common = xfs.pool().volume(uid).unwrap().state.newest().unwrap().clone();
    there(&xfs, &lvm, uid, Some(common), 20);
    for rig in [&lvm as &dyn Rig, &xfs] {
        rig.pool().deactivate(uid).unwrap();
        assert_eq!(rig.pool().remove_volume(uid).unwrap(), Outcome::Changed);
    }
}

#[test]
fn lives_between_drivers() {
    let disks = disks();
    conformance::at_random(&mut LvmRig::new(&disks[0]), &mut XfsRig::new(&disks[1]), 3);
}
