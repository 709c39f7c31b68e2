//! Deltas between two pools (I16, I17, I19).

use std::time::Duration;

use holdfast_types::{ByteSize, Epoch, SnapshotUuid, VolumeUid};

use super::{KIB, Rig, SIZE, begin, hash, is_stale, new_volume, noise, offer, remove, ship, snap};
use crate::stream::send;
use crate::{Begin, Error, Offer, wait};

/// Room comes back a moment after it was given up.
const SOON: Duration = Duration::from_secs(20);

pub(super) fn replicas_equal_their_source(source: &mut dyn Rig, target: &mut dyn Rig) {
    let uid = new_volume(source);
    source.write(uid, 0, &noise(1, 3 << 20));
    source.write(uid, 5 << 20, &[0; 256 << 10]);
    let mut base = None;
    for round in 0..4u64 {
        let id = snap(source, uid);
        let offer = offer(source, &id, base);
        let info = ship(source, target, &offer).unwrap();
        assert_eq!((info.id, info.size), (id, SIZE));
        assert_eq!(hash(target, id.uuid, SIZE), hash(source, id.uuid, SIZE), "round {round}");
        let again = target.pool().begin_receive(&offer).unwrap();
        assert!(matches!(again, Begin::AlreadyThere(there) if there == info));
        base = Some(id.uuid);
        source.write(uid, (round + 1) * 700 * KIB, &noise(round, 5_000));
        source.discard(uid, round * 256 * KIB, 64 * KIB);
        if round == 2 {
            source.pool().resize(uid, ByteSize::mib(8)).unwrap();
        }
    }
    // Little was changed since, so little travels.
    let id = snap(source, uid);
    let encoder = send(source.pool(), &offer(source, &id, base), 0).unwrap();
    let sent: usize = encoder.map(|frame| frame.unwrap().len()).sum();
    assert!(sent < 200_000, "{sent} bytes");
    remove(target, uid);
    remove(source, uid);
}

/// Whatever a scrub leaves beside a replica, the pool opens again, and goes on with both.
pub(super) fn what_was_scrubbed_opens_again(source: &mut dyn Rig, target: &mut dyn Rig) {
    let uid = new_volume(source);
    source.write(uid, 0, &noise(1, 5 << 20));
    let one = snap(source, uid);
    ship(source, target, &offer(source, &one, None)).unwrap();
    let scrub = |target: &dyn Rig| while !target.pool().scrub(uid, 1).unwrap().whole {};
    scrub(target);
    target.reopen();
    assert_eq!(hash(target, one.uuid, SIZE), hash(source, one.uuid, SIZE));
    let look = target.pool().scrub(uid, 100).unwrap();
    assert_eq!((look.compared, look.rot), (SIZE.bytes(), None));
    source.write(uid, 0, b"two");
    let two = snap(source, uid);
    ship(source, target, &offer(source, &two, Some(one.uuid))).unwrap();
    scrub(target);
    assert!(target.pool().volume(uid).unwrap().state.scrub.rotten.is_empty());
    target.reopen();
    remove(target, uid);
    remove(source, uid);
}

pub(super) fn a_delta_needs_its_base(source: &mut dyn Rig, target: &mut dyn Rig) {
    let uid = new_volume(source);
    let one = snap(source, uid);
    source.write(uid, 0, b"two");
    let two = snap(source, uid);
    let delta = offer(source, &two, Some(one.uuid));
    assert!(matches!(begin(target, &delta).map(drop), Err(Error::WrongBase { .. })));
    assert!(target.pool().volume(uid).is_err(), "a refused offer makes no volume");
    ship(source, target, &offer(source, &one, None)).unwrap();
    ship(source, target, &delta).unwrap();
    remove(target, uid);
    remove(source, uid);
}

/// I17: what is half there is no snapshot, before and after a crash; and it is not sent twice.
pub(super) fn an_interrupted_receive_goes_on(source: &mut dyn Rig, target: &mut dyn Rig) {
    let uid = new_volume(source);
    source.write(uid, 0, &noise(5, 6 << 20));
    let id = snap(source, uid);
    let offer = offer(source, &id, None);
    let mut receiver = begin(target, &offer).unwrap();
    assert!(matches!(begin(target, &offer).map(drop), Err(Error::InUse(_))));
    assert!(matches!(target.pool().remove_volume(uid), Err(Error::InUse(_))));
    for frame in send(source.pool(), &offer, 0).unwrap().take(3) {
        receiver.feed(&frame.unwrap()).unwrap();
    }
    drop(receiver);
    target.reopen();
    let info = target.pool().volume(uid).unwrap();
    assert_eq!(info.state.snapshots, []);
    let partial = info.partial.unwrap();
    assert_eq!((partial.snapshot, partial.base), (id.uuid, None));
    assert!(target.pool().open_snapshot(id.uuid).is_err());
    assert!(target.pool().promote(uid, id.uuid, Epoch(2)).is_err());

    let mut receiver = begin(target, &offer).unwrap();
    let from = receiver.resume_at();
    assert!(from >= 1 << 20 && from == partial.synced, "{from}");
    let mut sent = 0;
    for frame in send(source.pool(), &offer, from).unwrap() {
        let frame = frame.unwrap();
        sent += frame.len();
        receiver.feed(&frame).unwrap();
    }
    assert!(sent < 6 << 20, "{sent} bytes");
    receiver.finish().unwrap();
    assert_eq!(hash(target, id.uuid, SIZE), hash(source, id.uuid, SIZE));
    assert_eq!(target.pool().volume(uid).unwrap().partial, None);
    remove(target, uid);
    remove(source, uid);
}

pub(super) fn another_offer_drops_the_partial(source: &mut dyn Rig, target: &mut dyn Rig) {
    let uid = new_volume(source);
    source.write(uid, 0, &noise(6, 4 << 20));
    let one = snap(source, uid);
    let first = offer(source, &one, None);
    let mut receiver = begin(target, &first).unwrap();
    for frame in send(source.pool(), &first, 0).unwrap().take(2) {
        receiver.feed(&frame.unwrap()).unwrap();
    }
    drop(receiver);
    source.discard(uid, 0, 4 << 20);
    let two = snap(source, uid);
    let second = offer(source, &two, None);
    let receiver = begin(target, &second).unwrap();
    assert_eq!(receiver.resume_at(), 0);
    drop(receiver);
    ship(source, target, &second).unwrap();
    assert_eq!(hash(target, two.uuid, SIZE), hash(source, two.uuid, SIZE));
    remove(target, uid);
    remove(source, uid);
}

pub(super) fn a_damaged_stream_leaves_nothing(source: &mut dyn Rig, target: &mut dyn Rig) {
    let uid = new_volume(source);
    source.write(uid, 0, &noise(8, 6 << 20));
    let id = snap(source, uid);
    let offer = offer(source, &id, None);
    let mut stream = Vec::new();
    for frame in send(source.pool(), &offer, 0).unwrap() {
        stream.extend_from_slice(&frame.unwrap());
    }
    let at = stream.len() / 2;
    stream[at] ^= 0x40;
    let used = target.pool().capacity().unwrap().used.bytes();
    let mut receiver = begin(target, &offer).unwrap();
    assert!(matches!(receiver.feed(&stream), Err(Error::Stream(_))));
    drop(receiver);
    let info = target.pool().volume(uid).unwrap();
    assert_eq!((info.state.snapshots.len(), info.partial), (0, None));
    // I20: its room was kept until the pool was opened again.
    let gone = || target.pool().capacity().unwrap().used.bytes() < used + (1 << 20);
    assert!(wait::until(SOON, gone), "its content stays");

    // Cut short: not an error until someone says that it is finished.
    stream[at] ^= 0x40;
    let mut receiver = begin(target, &offer).unwrap();
    receiver.feed(&stream[..stream.len() - 1]).unwrap();
    assert!(matches!(receiver.finish(), Err(Error::Stream(_))));
    assert_eq!(target.pool().volume(uid).unwrap().state.snapshots, []);
    target.pool().drop_partial(uid).unwrap();

    // A stream of something else than what was offered.
    let mut other = offer.clone();
    other.snapshot.uuid = SnapshotUuid::generate();
    let mut receiver = begin(target, &other).unwrap();
    assert!(matches!(receiver.feed(&stream), Err(Error::Stream(_))));
    drop(receiver);
    ship(source, target, &offer).unwrap();
    remove(target, uid);
    remove(source, uid);
}

/// I20: what the target's pool could never hold is refused before anything is sent, as is what is
/// smaller than its base; and nothing that was there is lost.
pub(super) fn a_target_too_small_refuses(source: &mut dyn Rig, target: &mut dyn Rig) {
    let uid = new_volume(source);
    source.write(uid, 0, &noise(9, 100_000));
    let one = snap(source, uid);
    let good = offer(source, &one, None);
    let huge = Offer { size: ByteSize::gib(15 << 10), ..good.clone() };
    assert!(matches!(begin(target, &huge).map(drop), Err(Error::Full { .. })));
    assert!(target.pool().volume(uid).is_err(), "a refused offer makes no volume");
    ship(source, target, &good).unwrap();
    let two = snap(source, uid);
    let smaller = Offer { size: ByteSize::mib(4), ..offer(source, &two, Some(one.uuid)) };
    assert!(matches!(begin(target, &smaller).map(drop), Err(Error::BadSize { .. })));
    let odd = Offer { size: ByteSize(SIZE.bytes() + 1), ..smaller };
    assert!(matches!(begin(target, &odd).map(drop), Err(Error::BadSize { .. })));
    assert_eq!(hash(target, one.uuid, SIZE), hash(source, one.uuid, SIZE));
    assert_eq!(target.pool().volume(uid).unwrap().partial, None);
    remove(target, uid);
    remove(source, uid);
}

/// I19: without its base there is no delta; the whole comes instead, beside what is there.
pub(super) fn a_base_that_is_gone_means_all_of_it(source: &mut dyn Rig, target: &mut dyn Rig) {
    let uid = new_volume(source);
    source.write(uid, 0, &noise(10, 1 << 20));
    let one = snap(source, uid);
    ship(source, target, &offer(source, &one, None)).unwrap();
    source.write(uid, 2 << 20, &noise(11, 1 << 20));
    let two = snap(source, uid);
    ship(source, target, &offer(source, &two, Some(one.uuid))).unwrap();
    source.discard(uid, 0, 512 * KIB);
    let three = snap(source, uid);
    target.pool().remove_snapshot(two.uuid).unwrap();
    let delta = offer(source, &three, Some(two.uuid));
    let refused = begin(target, &delta).map(drop);
    assert!(matches!(refused, Err(Error::WrongBase { base, .. }) if base == two.uuid));
    ship(source, target, &offer(source, &three, None)).unwrap();
    for id in [one, three] {
        assert_eq!(hash(target, id.uuid, SIZE), hash(source, id.uuid, SIZE));
    }
    remove(target, uid);
    remove(source, uid);
}

pub(super) fn a_primary_does_not_receive(source: &mut dyn Rig, target: &mut dyn Rig) {
    let uid = new_volume(source);
    let one = snap(source, uid);
    ship(source, target, &offer(source, &one, None)).unwrap();
    target.pool().promote(uid, one.uuid, Epoch(2)).unwrap();
    let two = snap(source, uid);
    let late = offer(source, &two, Some(one.uuid));
    assert!(begin(target, &late).is_err());
    target.pool().demote(uid, Some(one.uuid), None).unwrap();
    // I11: it was primary under a later epoch than the sender's.
    assert!(matches!(begin(target, &late).map(drop), Err(Error::StaleEpoch { .. })));
    remove(target, uid);
    remove(source, uid);
}

pub(super) fn images_are_bases_too(source: &mut dyn Rig, target: &mut dyn Rig) {
    let image = new_volume(source);
    source.write(image, 0, &noise(11, 2 << 20));
    let golden = snap(source, image);
    ship(source, target, &offer(source, &golden, None)).unwrap();
    let uid = VolumeUid::generate();
    source.pool().clone_volume(golden.uuid, uid, ByteSize::mib(12), Epoch(1)).unwrap();
    source.pool().activate(uid, Epoch(1)).unwrap();
    source.write(uid, 1 << 20, b"mine");
    let first = snap(source, uid);
    let delta = offer(source, &first, Some(golden.uuid));
    let encoder = send(source.pool(), &delta, 0).unwrap();
    assert!(encoder.map(|f| f.unwrap().len()).sum::<usize>() < 300_000);
    ship(source, target, &delta).unwrap();
    let size = ByteSize::mib(12);
    assert_eq!(hash(target, first.uuid, size), hash(source, first.uuid, size));
    for rig in [&*target, &*source] {
        remove(rig, uid);
        remove(rig, image);
    }
}

/// I11, I15: what is kept for somebody comes to a newer copy too, on any base and from any epoch,
/// and is never taken for its newest. Nothing else comes from an epoch that was given up.
pub(super) fn history_arrives_after_what_is_newer(source: &mut dyn Rig, target: &mut dyn Rig) {
    let uid = new_volume(source);
    source.write(uid, 0, &noise(1, 300_000));
    let first = snap(source, uid);
    ship(source, target, &offer(source, &first, None)).unwrap();
    source.write(uid, 100_000, &noise(2, 100_000));
    let kept = snap(source, uid);
    source.write(uid, 150_000, &noise(3, 100_000));
    source.pool().continue_live(uid, Epoch(2)).unwrap();
    let newest = snap(source, uid);
    target.pool().seal(uid, Epoch(1)).unwrap();
    let history = |base| Offer { history: true, ..offer(source, &kept, Some(base)) };
    assert!(is_stale(&begin(target, &history(first.uuid)).map(drop)), "it would be the newest");
    ship(source, target, &offer(source, &newest, Some(first.uuid))).unwrap();
    let plain = Offer { history: false, ..history(newest.uuid) };
    assert!(is_stale(&begin(target, &plain).map(drop)));
    ship(source, target, &history(newest.uuid)).unwrap();
    assert_eq!(hash(target, kept.uuid, SIZE), hash(source, kept.uuid, SIZE));
    let state = target.pool().volume(uid).unwrap().state;
    assert_eq!((state.newest().unwrap().id, state.snapshots.len()), (newest, 3));
    remove(target, uid);
    remove(source, uid);
}
