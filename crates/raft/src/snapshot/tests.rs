//! Building, damage, interruptions, and states of other makes.

use std::collections::BTreeMap;

use holdfast_core::{Command, Entry, InitCluster, NewNode, NodeRole, RemoveImage, apply};
use holdfast_types::{Code, RequestId, TimestampMs};
use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::codec::encode;
use crate::types::{LogId, Membership};

fn meta(index: u64) -> SnapshotMeta {
    let id = openraft::testing::log_id::<crate::types::TypeConfig>(1, 1, index);
    let last_log_id: Option<LogId> = Some(id);
    SnapshotMeta { last_log_id, last_membership: Membership::default() }
}

/// A state with some rows in it.
fn state(rows: u64) -> State {
    let mut state = State::default();
    let cluster = ClusterId(Uuid::from_u128(5));
    let founder = NewNode {
        name: "n1".parse().unwrap(),
        address: "n1:7443".into(),
        underlay: "10.88.0.1".parse().unwrap(),
        role: NodeRole::Voter,
        asked: None,
    };
    let overlay = "10.77.0.0/16".parse().unwrap();
    let init = InitCluster { cluster, lease: Default::default(), overlay, founder };
    let mut commands = vec![Command::InitCluster(init)];
    let gone = || Command::RemoveImage(RemoveImage { name: "none".parse().unwrap() });
    commands.extend((0..rows).map(|_| gone()));
    for (at, command) in commands.into_iter().enumerate() {
        let index = at as u64 + 1;
        let request = RequestId(Uuid::from_u128(index.into()));
        drop(apply(&mut state, index, Entry { request, at: TimestampMs(index), command }));
    }
    state
}

struct Place {
    dir: TempDir,
    cluster: ClusterId,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), cluster: ClusterId::generate() }
    }

    fn open(&self) -> Result<(SnapshotFile, Option<Found>), RaftError> {
        SnapshotFile::open(self.dir.path().join("snapshot"), self.cluster, Health::new())
    }

    fn left(&self) -> Vec<String> {
        let all = fs::read_dir(self.dir.path()).unwrap();
        all.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }
}

#[test]
fn what_was_built_is_there_after_a_restart_and_alone() {
    let place = Place::new();
    let (file, none) = place.open().unwrap();
    assert!(none.is_none() && file.current().unwrap().is_none());
    let built = file.build(meta(9), &state(40)).unwrap();
    let bytes = encode(&state(40)).unwrap();
    assert_eq!(built.snapshot.check().unwrap(), blake3::hash(&bytes));
    assert_eq!(built.snapshot.read(0, usize::MAX >> 1).unwrap(), bytes);
    let (_, found) = place.open().unwrap();
    assert_eq!(found, Some((meta(9), state(40))));
    assert_eq!(place.left(), ["snapshot"]);
    // What is being read stays readable when a newer one takes its place.
    file.build(meta(10), &state(41)).unwrap();
    assert_eq!(built.snapshot.state().unwrap(), state(40));
}

#[test]
fn a_slow_build_does_not_undo_a_newer_install() {
    let place = Place::new();
    let (file, _) = place.open().unwrap();
    file.build(meta(9), &state(9)).unwrap();
    assert_eq!(file.build(meta(5), &state(5)).unwrap().meta, meta(9));
    assert_eq!(place.open().unwrap().1, Some((meta(9), state(9))));
    assert_eq!(place.left(), ["snapshot"]);
}

/// One that was asked for while another was being made was made later, for nobody.
#[test]
fn a_snapshot_is_asked_for_until_there_is_one_that_reaches_as_far() {
    let place = Place::new();
    let (file, _) = place.open().unwrap();
    file.ask(9);
    assert!(file.is_asked());
    file.build(meta(8), &state(8)).unwrap();
    assert!(file.is_asked());
    file.build(meta(9), &state(9)).unwrap();
    assert!(!file.is_asked());
    let (again, _) = place.open().unwrap();
    again.ask(9);
    assert!(!again.is_asked(), "it is there after a restart");
}

/// The disk's words come through the encoder, or no full disk would be known as one.
#[test]
fn a_disk_that_refuses_is_heard_through_the_encoder() {
    let place = Place::new();
    let (file, _) = place.open().unwrap();
    let mut part = file.begin(&meta(9)).unwrap();
    part.out = Encoder::new(
        Steady::new(File::options().write(true).open("/dev/full").unwrap()),
        &Header { cluster: place.cluster, meta: meta(9) },
    )
    .unwrap();
    let rows = vec![7u8; 1 << 20];
    rmp_serde::encode::write_named(&mut part, &rows).unwrap_err();
    let said = RaftError::disk(file.path(), &part.failed.take().unwrap());
    assert!(said.is_full(), "{said}");
}

/// A file as the versions before wrote it, from one piece of memory.
#[test]
fn the_files_of_older_versions_are_read_and_ours_are_like_them() {
    let place = Place::new();
    let header = encode(&Header { cluster: place.cluster, meta: meta(7) }).unwrap();
    let mut old = b"HFSNAP1\n".to_vec();
    old.extend((header.len() as u32).to_le_bytes());
    old.extend(header);
    old.extend(encode(&state(30)).unwrap());
    old.extend(blake3::hash(&old).as_bytes());
    fs::write(place.dir.path().join("snapshot"), &old).unwrap();
    let (file, found) = place.open().unwrap();
    assert_eq!(found, Some((meta(7), state(30))));
    file.build(meta(7), &state(30)).unwrap();
    assert!(fs::read(file.path()).unwrap() == old);
}

/// I27: no damage panics, and all of it is noticed.
#[test]
fn damage_anywhere_is_refused_and_the_file_named() {
    let place = Place::new();
    let (file, _) = place.open().unwrap();
    file.build(meta(9), &state(3)).unwrap();
    let good = fs::read(file.path()).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        fs::write(file.path(), &bad).unwrap();
        let err = place.open().err().unwrap();
        assert_eq!(err.code(), Code::Corrupt, "byte {at}: {err}");
        assert!(err.to_string().contains("snapshot"), "{err}");
    }
    for len in [0, 11, 31, 40, good.len() / 2, good.len() - 1] {
        fs::write(file.path(), &good[..len]).unwrap();
        assert_eq!(place.open().err().unwrap().code(), Code::Corrupt, "{len} bytes");
    }
    fs::write(file.path(), &good).unwrap();
    let foreign = Place { cluster: ClusterId::generate(), ..place };
    assert_eq!(foreign.open().err().unwrap().code(), Code::WrongCluster);
}

/// What rots after it was written is not sent on.
#[test]
fn a_rotten_snapshot_is_noticed_before_it_is_sent() {
    let place = Place::new();
    let (file, _) = place.open().unwrap();
    let built = file.build(meta(9), &state(30)).unwrap();
    let mut bytes = fs::read(file.path()).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(file.path(), &bytes).unwrap();
    assert_eq!(built.snapshot.check().unwrap_err().code(), Code::Corrupt);
}

/// Whatever a crash leaves beside the snapshot goes at the next start, and the snapshot does not.
#[test]
fn what_a_crash_left_of_a_snapshot_goes_at_the_next_start() {
    let place = Place::new();
    let (file, _) = place.open().unwrap();
    file.build(meta(9), &state(9)).unwrap();
    for left in ["snapshot.3.part", "snapshot.new", "other.part"] {
        fs::write(place.dir.path().join(left), b"half").unwrap();
    }
    let mut unfinished = file.begin(&meta(10)).unwrap();
    unfinished.write_all(b"half").unwrap();
    // As if it had crashed: nobody cleans up.
    std::mem::forget(unfinished);
    assert_eq!(place.open().unwrap().1.unwrap().0, meta(9));
    let mut left = place.left();
    left.sort();
    assert_eq!(left, ["other.part", "snapshot"]);
}

/// Whole and of a later version: fields that nobody here knows are passed over, rows of no known
/// make are no state, and neither is anything else.
#[test]
fn states_of_other_makes_are_told_from_damage() {
    let place = Place::new();
    let (file, _) = place.open().unwrap();
    let decoded = |bytes: &[u8]| {
        let mut part = file.begin(&meta(9)).unwrap();
        part.write_all(bytes).unwrap();
        part.finish().unwrap().decode()
    };
    assert_eq!(decoded(&encode(&state(9)).unwrap()).unwrap(), state(9));
    let later = BTreeMap::from([("revision", 3u64), ("fuel", 7)]);
    assert_eq!(decoded(&encode(&later).unwrap()).unwrap().revision.0, 3);
    let of_text = |text: &str| BTreeMap::from([("containers", text.to_owned())]);
    let nested = [vec![0x81, 0xa1, b'x'], vec![0x91; 1 << 20]].concat();
    let with_rows = |rows: u32| {
        // A map of one field, whose rows are numbers and not containers.
        let mut bytes = vec![0x81, 0xaa];
        bytes.extend(b"containers");
        bytes.push(0xdf);
        bytes.extend(rows.to_be_bytes());
        bytes.extend((0..200_000u32).flat_map(|_| [7, 7]));
        bytes
    };
    for (what, bytes) in [
        ("text for rows", encode(&of_text("x")).unwrap()),
        ("no map", vec![0x07]),
        ("no end", nested),
        ("nothing", Vec::new()),
        ("no MessagePack", vec![0xc1]),
        ("rows that are none", with_rows(200_000)),
        ("fewer rows than said", with_rows(u32::MAX)),
        ("more than a state", [encode(&state(1)).unwrap(), vec![0xc0]].concat()),
    ] {
        assert!(decoded(&bytes).is_err(), "{what}");
    }
    drop(file);
    assert_eq!(place.left(), Vec::<String>::new());
}
