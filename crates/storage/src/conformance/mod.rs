//! One suite for every driver: what the rest of Holdfast relies on, whatever the pool.
//!
//! A driver's tests make two [`Rig`]s (they may be of different drivers: a volume replicates
//! between any two) and call [`run`]. A case panics with what went wrong.
#![allow(clippy::unwrap_used)] // It is test code, compiled for tests of other crates too.

mod epochs;
pub mod killed;
mod lives;
mod random;
mod reserves;
mod restores;
mod sets;
mod transfers;

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use holdfast_types::{ByteSize, Epoch, SnapshotId, SnapshotUuid, TimestampMs, VolumeUid};

use crate::members::locate;
use crate::stream::send;
use crate::{
    AlreadyQuiet, Begin, Error, Offer, Outcome, Pool, Receiver, Result, SnapshotInfo,
    SnapshotReader,
};

pub use random::at_random;

/// A pool under test, and what a test must be able to do to it from outside.
pub trait Rig {
    /// The pool as it is open now.
    fn pool(&self) -> &dyn Pool;
    /// Writes to an active volume's devices, by address (see [`members`](crate::members)). Durable.
    fn write(&self, volume: VolumeUid, offset: u64, data: &[u8]) {
        let (device, offset) = device(self, volume, offset);
        let file = OpenOptions::new().read(true).write(true).open(device).unwrap();
        file.write_all_at(data, offset).unwrap();
        file.sync_all().unwrap();
    }
    /// Discards a range of an active volume's device.
    fn discard(&self, volume: VolumeUid, offset: u64, len: u64);
    /// Opens the pool again, as after the death of its process.
    fn reopen(&mut self);
}

/// A case gets a source and a target, and makes volumes of its own.
type Case = fn(&mut dyn Rig, &mut dyn Rig);

/// Every case, by name.
pub const CASES: &[(&str, Case)] = &[
    ("a volume lives", lives::a_volume_lives),
    ("verbs may be repeated", lives::verbs_may_be_repeated),
    ("clones are independent", lives::clones_are_independent),
    ("volumes grow", lives::volumes_grow),
    ("sizes are checked", lives::sizes_are_checked),
    ("held snapshots stay", lives::held_snapshots_stay),
    ("what is in use is not at rest", lives::what_is_in_use_is_not_at_rest),
    ("pieces are counted", lives::pieces_are_counted),
    ("everything survives reopening", lives::everything_survives_reopening),
    ("a reserve is kept and spent", reserves::a_reserve_is_kept_and_spent),
    ("removal leaves nothing", lives::removal_leaves_nothing),
    ("snapshots follow their lineage", epochs::snapshots_follow_their_lineage),
    ("epochs only rise", epochs::epochs_only_rise),
    ("a seal is for ever", epochs::a_seal_is_for_ever),
    ("a seal stops a running receive", epochs::a_seal_stops_a_running_receive),
    ("a release is for ever", epochs::a_release_is_for_ever),
    ("diverged data is kept", epochs::diverged_data_is_kept),
    ("replicas equal their source", transfers::replicas_equal_their_source),
    ("what was scrubbed opens again", transfers::what_was_scrubbed_opens_again),
    ("a delta needs its base", transfers::a_delta_needs_its_base),
    ("an interrupted receive goes on", transfers::an_interrupted_receive_goes_on),
    ("another offer drops the partial", transfers::another_offer_drops_the_partial),
    ("a damaged stream leaves nothing", transfers::a_damaged_stream_leaves_nothing),
    ("a target too small refuses", transfers::a_target_too_small_refuses),
    ("a base that is gone means all of it", transfers::a_base_that_is_gone_means_all_of_it),
    ("two senders have one replica", epochs::two_senders_have_one_replica),
    ("a primary does not receive", transfers::a_primary_does_not_receive),
    ("a live part begins anew", restores::a_live_part_begins_anew),
    ("nothing unkept is restored over", restores::nothing_unkept_is_restored_over),
    ("a restored volume replicates", restores::a_restored_volume_replicates),
    ("history arrives after what is newer", transfers::history_arrives_after_what_is_newer),
    ("images are bases too", transfers::images_are_bases_too),
    ("a set is of one moment", sets::a_set_is_of_one_moment),
    ("a blank member is filled once", sets::a_blank_member_is_filled_once),
    ("a set replicates as one", sets::a_set_replicates_as_one),
    ("members grow by themselves", sets::members_grow_by_themselves),
    ("a set diverges as one", sets::a_set_diverges_as_one),
    ("a set begins anew as one", sets::a_set_begins_anew_as_one),
    ("a clone of a set has its members", sets::a_clone_of_a_set_has_its_members),
];

/// Runs every case, and then some lives at random.
pub fn run(source: &mut dyn Rig, target: &mut dyn Rig) {
    for (name, case) in CASES {
        println!("{name}");
        case(source, target);
    }
    at_random(source, target, LIVES);
}

/// So many show that it works at all; a driver's tests have more.
const LIVES: u64 = 2;

/// The size of the volumes that cases make.
const SIZE: ByteSize = ByteSize::mib(8);
const NOW: TimestampMs = TimestampMs(1_700_000_000_000);
const KIB: u64 = 1 << 10;

/// The device of an active volume that an address is on, and the offset there.
pub fn device(rig: &(impl Rig + ?Sized), volume: VolumeUid, address: u64) -> (PathBuf, u64) {
    let info = rig.pool().volume(volume).unwrap();
    let (member, offset) = locate(address);
    let device = match member.checked_sub(1) {
        None => info.device.unwrap(),
        Some(data) => info.data_devices[data].clone(),
    };
    (device, offset)
}

/// A new active volume under epoch 1.
fn new_volume(rig: &dyn Rig) -> VolumeUid {
    let uid = VolumeUid::generate();
    assert_eq!(rig.pool().create(uid, SIZE, Epoch(1)).unwrap(), Outcome::Changed);
    rig.pool().activate(uid, Epoch(1)).unwrap();
    uid
}

/// A snapshot of the live part as it is.
pub(crate) fn snap(rig: &dyn Rig, uid: VolumeUid) -> SnapshotId {
    let state = rig.pool().volume(uid).unwrap().state;
    let id = state.next_snapshot(SnapshotUuid::generate()).unwrap();
    assert_eq!(rig.pool().snapshot(&id, NOW, &mut AlreadyQuiet).unwrap(), Outcome::Changed);
    id
}

pub(crate) fn offer(rig: &dyn Rig, id: &SnapshotId, base: Option<SnapshotUuid>) -> Offer {
    let state = rig.pool().volume(id.volume).unwrap().state;
    Offer::of(state.find(id.uuid).unwrap(), base)
}

fn begin(rig: &dyn Rig, offer: &Offer) -> Result<Box<dyn Receiver>> {
    match rig.pool().begin_receive(offer)? {
        Begin::Receive(receiver) => Ok(receiver),
        Begin::AlreadyThere(info) => panic!("{info:?} was there already"),
    }
}

/// Ships one snapshot from one pool to another.
pub(crate) fn ship(from: &dyn Rig, to: &dyn Rig, offer: &Offer) -> Result<SnapshotInfo> {
    let mut receiver = begin(to, offer)?;
    for frame in send(from.pool(), offer, receiver.resume_at())? {
        receiver.feed(&frame?)?;
    }
    receiver.finish()
}

/// The hash of all of a snapshot's content.
fn hash(rig: &dyn Rig, uuid: SnapshotUuid, size: ByteSize) -> blake3::Hash {
    let mut reader = rig.pool().open_snapshot(uuid).unwrap();
    let mut hasher = blake3::Hasher::new();
    add(&mut *reader, &mut hasher, 0, size);
    hasher.finalize()
}

fn add(reader: &mut dyn SnapshotReader, hasher: &mut blake3::Hasher, address: u64, size: ByteSize) {
    let mut buf = vec![0; 1 << 20];
    for offset in (0..size.bytes()).step_by(buf.len()) {
        reader.read_at(address + offset, &mut buf).unwrap();
        hasher.update(&buf);
    }
}

fn bytes(rig: &dyn Rig, uuid: SnapshotUuid, offset: u64, len: usize) -> Vec<u8> {
    let mut buf = vec![0; len];
    rig.pool().open_snapshot(uuid).unwrap().read_at(offset, &mut buf).unwrap();
    buf
}

/// Deactivates and removes a volume with all it has.
fn remove(rig: &dyn Rig, uid: VolumeUid) {
    if rig.pool().volume(uid).is_ok() {
        rig.pool().deactivate(uid).unwrap();
        assert_eq!(rig.pool().remove_volume(uid).unwrap(), Outcome::Changed);
    }
}

/// Bytes that compression cannot shrink, different for each seed.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

fn is_stale<T>(result: &Result<T>) -> bool {
    matches!(result, Err(Error::StaleEpoch { .. }))
}
