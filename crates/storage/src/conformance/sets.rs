//! Volumes of several members: one set, one moment (I17).

use holdfast_types::{ByteSize, Epoch, OperationId, SnapshotId, SnapshotUuid, VolumeUid};

use super::{NOW, Rig, SIZE, add, begin, bytes, new_volume, noise, offer, remove, ship, snap};
use crate::members::start;
use crate::stream::send;
use crate::{AlreadyQuiet, Error, ExtentKind, Member, Outcome, Quiesce, Result, Shape, Tail};

fn shape() -> Shape {
    let member = |name: &str, mib| Member::new(name.parse().unwrap(), ByteSize::mib(mib));
    Shape { root: SIZE, data: vec![member("data", 12), member("logs", 4)] }
}

/// A new active set of a root and two data members, with something on them.
fn new_set(rig: &dyn Rig) -> VolumeUid {
    let uid = VolumeUid::generate();
    assert_eq!(rig.pool().create_set(uid, &shape(), Epoch(1)).unwrap(), Outcome::Changed);
    assert_eq!(rig.pool().filled(uid).unwrap(), Outcome::Changed);
    rig.pool().activate(uid, Epoch(1)).unwrap();
    uid
}

/// Writes the same text to all three.
fn mark(rig: &dyn Rig, uid: VolumeUid, text: &[u8]) {
    (0..3).for_each(|m| rig.write(uid, start(m), text));
}

/// What all three begin with.
fn marks(rig: &dyn Rig, uuid: SnapshotUuid, len: usize) -> Vec<Vec<u8>> {
    (0..3).map(|m| bytes(rig, uuid, start(m), len)).collect()
}

fn set_hash(rig: &dyn Rig, id: &SnapshotId) -> blake3::Hash {
    let state = rig.pool().volume(id.volume).unwrap().state;
    let sizes: Vec<u64> = state.find(id.uuid).unwrap().shape().sizes().collect();
    let mut reader = rig.pool().open_snapshot(id.uuid).unwrap();
    let mut hasher = blake3::Hasher::new();
    for (member, size) in sizes.into_iter().enumerate() {
        add(&mut *reader, &mut hasher, start(member), ByteSize(size));
    }
    hasher.finalize()
}

pub(super) fn a_set_is_of_one_moment(rig: &mut dyn Rig, _: &mut dyn Rig) {
    /// Writes to all members while it is frozen for, as if it had been between two items.
    struct Between<'a>(&'a dyn Rig, VolumeUid);
    impl Quiesce for Between<'_> {
        fn freeze(&mut self, _: &[&str]) -> Result<()> {
            mark(self.0, self.1, b"frozen");
            Ok(())
        }
        fn thaw(&mut self) -> Result<()> {
            Ok(())
        }
    }
    let uid = new_set(rig);
    let info = rig.pool().volume(uid).unwrap();
    assert_eq!(info.data_devices.len(), 2);
    assert!(rig.pool().capacity().unwrap().promised >= ByteSize(shape().bytes()));
    mark(rig, uid, b"before");
    let one = snap(rig, uid);
    mark(rig, uid, b"second");
    let two = info_of_next(rig, uid);
    rig.pool().snapshot(&two, NOW, &mut AlreadyQuiet).unwrap();
    assert_eq!(marks(rig, one.uuid, 6), vec![b"before".to_vec(); 3]);
    assert_eq!(marks(rig, two.uuid, 6), vec![b"second".to_vec(); 3]);
    let changes = rig.pool().diff(Some(one.uuid), two.uuid).unwrap();
    let shape = rig.pool().volume(uid).unwrap().state.shape();
    assert!(changes.iter().all(|e| e.kind == ExtentKind::Data && shape.contains(e.offset, e.len)));
    assert!(changes.is_sorted_by_key(|e| e.offset), "{changes:?}");
    assert_eq!(changes.iter().map(|e| crate::members::locate(e.offset).0).max(), Some(2));
    assert!(rig.pool().fragmentation(two.uuid).unwrap().extents >= 3);

    let mut past_end = [0; 2];
    let mut reader = rig.pool().open_snapshot(two.uuid).unwrap();
    for address in [SIZE.bytes() - 1, start(1) + (12 << 20), start(3)] {
        assert!(reader.read_at(address, &mut past_end).is_err(), "{address}");
    }
    drop(reader);
    // The instant is after the freeze, for every member.
    let three = info_of_next(rig, uid);
    rig.pool().snapshot(&three, NOW, &mut Between(rig, uid)).unwrap();
    assert_eq!(marks(rig, three.uuid, 6), vec![b"frozen".to_vec(); 3]);
    let state = rig.pool().volume(uid).unwrap().state;
    rig.reopen();
    assert_eq!(rig.pool().volume(uid).unwrap().state, state);
    assert_eq!(marks(rig, one.uuid, 6), vec![b"before".to_vec(); 3]);
    remove(rig, uid);
}

fn info_of_next(rig: &dyn Rig, uid: VolumeUid) -> SnapshotId {
    let state = rig.pool().volume(uid).unwrap().state;
    state.next_snapshot(SnapshotUuid::generate()).unwrap()
}

/// Until somebody says that there is something on it, a set is never copied.
pub(super) fn a_blank_member_is_filled_once(rig: &mut dyn Rig, _: &mut dyn Rig) {
    let uid = VolumeUid::generate();
    rig.pool().create_set(uid, &shape(), Epoch(1)).unwrap();
    let again = rig.pool().create_set(uid, &shape(), Epoch(1));
    assert_eq!(again.unwrap(), Outcome::AlreadyThere);
    let other = rig.pool().create_set(uid, &SIZE.into(), Epoch(1));
    assert!(matches!(other, Err(Error::VolumeExists(_))));
    let next = info_of_next(rig, uid);
    let early = rig.pool().snapshot(&next, NOW, &mut AlreadyQuiet);
    assert!(matches!(early, Err(Error::WrongState { .. })));
    rig.reopen();
    let blank = |rig: &dyn Rig| rig.pool().volume(uid).unwrap().state.data.iter().any(|m| m.blank);
    assert!(blank(rig));
    assert_eq!(rig.pool().filled(uid).unwrap(), Outcome::Changed);
    assert_eq!(rig.pool().filled(uid).unwrap(), Outcome::AlreadyThere);
    assert_eq!(rig.pool().create_set(uid, &shape(), Epoch(1)).unwrap(), Outcome::AlreadyThere);
    rig.reopen();
    assert!(!blank(rig));
    rig.pool().snapshot(&next, NOW, &mut AlreadyQuiet).unwrap();
    let mut many = shape();
    many.data = (0..8).map(|_| shape().data[1].clone()).collect();
    let refused = rig.pool().create_set(VolumeUid::generate(), &many, Epoch(1));
    assert!(matches!(refused, Err(Error::BadSize { .. })));
    remove(rig, uid);
}

/// I16, I17, I19: no member of a set arrives without the others, wherever the transfer is cut.
pub(super) fn a_set_replicates_as_one(source: &mut dyn Rig, target: &mut dyn Rig) {
    let uid = new_set(source);
    mark(source, uid, &noise(1, 2 << 20));
    let one = snap(source, uid);
    let first = offer(source, &one, None);
    // It breaks off in the second member, and goes on there.
    let mut receiver = begin(target, &first).unwrap();
    for frame in send(source.pool(), &first, 0).unwrap().take(4) {
        receiver.feed(&frame.unwrap()).unwrap();
    }
    drop(receiver);
    target.reopen();
    let info = target.pool().volume(uid).unwrap();
    let synced = info.partial.unwrap().synced;
    assert!(info.state.snapshots.is_empty() && synced > start(1), "{synced}");
    assert!(target.pool().promote(uid, one.uuid, Epoch(2)).is_err());
    let arrived = ship(source, target, &first).unwrap();
    assert_eq!(arrived.shape(), shape());
    assert_eq!(set_hash(target, &one), set_hash(source, &one));

    source.write(uid, start(2) + 7, b"only the last");
    source.discard(uid, start(1), 64 << 10);
    let two = snap(source, uid);
    let delta = offer(source, &two, Some(one.uuid));
    let sent: usize = send(source.pool(), &delta, 0).unwrap().map(|f| f.unwrap().len()).sum();
    assert!(sent < 200_000, "{sent} bytes");
    ship(source, target, &delta).unwrap();
    assert_eq!(set_hash(target, &two), set_hash(source, &two));
    let mut fewer = offer(source, &two, Some(one.uuid));
    (fewer.snapshot.uuid, fewer.snapshot.seq) = (SnapshotUuid::generate(), two.seq.next());
    fewer.data.pop();
    assert!(matches!(begin(target, &fewer).map(drop), Err(Error::BadSize { .. })));

    target.pool().promote(uid, two.uuid, Epoch(2)).unwrap();
    target.pool().activate(uid, Epoch(2)).unwrap();
    assert_eq!(target.pool().volume(uid).unwrap().data_devices.len(), 2);
    target.write(uid, start(1), b"goes on");
    let three = snap(target, uid);
    assert_eq!(bytes(target, three.uuid, start(2) + 7, 13), b"only the last");
    remove(target, uid);
    remove(source, uid);
}

pub(super) fn members_grow_by_themselves(source: &mut dyn Rig, target: &mut dyn Rig) {
    let uid = new_set(source);
    let one = snap(source, uid);
    ship(source, target, &offer(source, &one, None)).unwrap();
    let grow = |member, mib| source.pool().resize_member(uid, member, ByteSize::mib(mib));
    assert_eq!(grow(1, 16).unwrap(), Outcome::Changed);
    assert_eq!(grow(1, 16).unwrap(), Outcome::AlreadyThere);
    assert!(matches!(grow(1, 12), Err(Error::BadSize { .. })));
    assert!(matches!(grow(3, 12), Err(Error::WrongState { .. })));
    source.write(uid, start(1) + (15 << 20), b"beyond");
    let two = snap(source, uid);
    ship(source, target, &offer(source, &two, Some(one.uuid))).unwrap();
    assert_eq!(set_hash(target, &two), set_hash(source, &two));
    target.reopen();
    let state = target.pool().volume(uid).unwrap().state;
    let sizes: Vec<u64> = state.shape().sizes().map(|size| size >> 20).collect();
    assert_eq!((sizes, state.size), (vec![8, 16, 4], SIZE));
    remove(target, uid);
    remove(source, uid);
}

/// I21: what only a data member holds is as unkept as what the root holds, and a tail has it all.
pub(super) fn a_set_diverges_as_one(rig: &mut dyn Rig, _: &mut dyn Rig) {
    let uid = new_set(rig);
    mark(rig, uid, b"agreed");
    let agreed = snap(rig, uid);
    rig.write(uid, start(2), b"a tail");
    rig.pool().deactivate(uid).unwrap();
    let dropped = rig.pool().demote(uid, Some(agreed.uuid), None);
    assert!(matches!(dropped, Err(Error::WrongState { .. })));
    let tail = Tail { uuid: SnapshotUuid::generate(), taken: NOW, label: "tail".into() };
    rig.pool().demote(uid, Some(agreed.uuid), Some(&tail)).unwrap();
    rig.reopen();
    assert_eq!(marks(rig, tail.uuid, 6), [b"agreed", b"agreed", b"a tail"].map(|t| t.to_vec()));
    assert_eq!(marks(rig, agreed.uuid, 6), vec![b"agreed".to_vec(); 3]);
    rig.pool().scratch(tail.uuid).unwrap();
    rig.pool().remove_snapshot(tail.uuid).unwrap();
    rig.pool().promote(uid, agreed.uuid, Epoch(2)).unwrap();
    assert_eq!(rig.pool().demote(uid, Some(agreed.uuid), None).unwrap(), Outcome::Changed);
    remove(rig, uid);
}

pub(super) fn a_set_begins_anew_as_one(rig: &mut dyn Rig, _: &mut dyn Rig) {
    let uid = new_set(rig);
    mark(rig, uid, b"A");
    let a = snap(rig, uid);
    rig.pool().resize_member(uid, 2, ByteSize::mib(8)).unwrap();
    mark(rig, uid, b"B");
    rig.pool().deactivate(uid).unwrap();
    let restore = || rig.pool().restore(uid, a.uuid, Epoch(1), OperationId::generate());
    assert!(matches!(restore(), Err(Error::WrongState { .. })));
    let b = snap(rig, uid);
    restore().unwrap();
    let c = snap(rig, uid);
    assert_eq!(marks(rig, c.uuid, 1), vec![b"A".to_vec(); 3]);
    assert_eq!(marks(rig, b.uuid, 1), vec![b"B".to_vec(); 3]);
    assert_eq!(rig.pool().volume(uid).unwrap().state.data[1].size, ByteSize::mib(8));
    remove(rig, uid);
}

/// A clone of an image gets blank members, a clone of a set the set's, and blank ones beyond.
pub(super) fn a_clone_of_a_set_has_its_members(rig: &mut dyn Rig, _: &mut dyn Rig) {
    let image = new_volume(rig);
    let golden = snap(rig, image);
    let uid = VolumeUid::generate();
    rig.pool().clone_set(golden.uuid, uid, &shape(), Epoch(1)).unwrap();
    let blank = |uid| -> Vec<bool> {
        rig.pool().volume(uid).unwrap().state.data.iter().map(|m| m.blank).collect()
    };
    assert_eq!(blank(uid), [true, true]);
    rig.pool().filled(uid).unwrap();
    rig.pool().activate(uid, Epoch(1)).unwrap();
    mark(rig, uid, b"origin");
    let origin = snap(rig, uid);

    let (clone, mut wanted) = (VolumeUid::generate(), shape());
    wanted.data.pop();
    let fewer = rig.pool().clone_set(origin.uuid, clone, &wanted, Epoch(1));
    assert!(matches!(fewer, Err(Error::BadSize { .. })));
    wanted = shape();
    wanted.data.push(Member::new("more".parse().unwrap(), ByteSize::mib(4)));
    rig.pool().clone_set(origin.uuid, clone, &wanted, Epoch(1)).unwrap();
    assert_eq!(blank(clone), [false, false, true]);
    rig.pool().filled(clone).unwrap();
    mark(rig, uid, b"apart!");
    let own = snap(rig, clone);
    assert_eq!(marks(rig, own.uuid, 6), vec![b"origin".to_vec(); 3]);
    [clone, uid, image].iter().for_each(|uid| remove(rig, *uid));
}
