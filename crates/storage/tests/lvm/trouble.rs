//! What an operator, another tool or a crash can have done to a pool.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use holdfast_storage::conformance::Rig;
use holdfast_storage::lvm::{LvmOptions, LvmPool};
use holdfast_storage::{AlreadyQuiet, Error, Pool};
use holdfast_types::{ByteSize, Code, Epoch, SnapshotUuid, TimestampMs, VolumeUid};

use crate::rig::{LvmRig, Stubs, create, disks, lvm, options};

/// I20: a thin pool that is not one is never made do with.
#[test]
fn what_is_no_thin_pool_is_refused() {
    let rig = LvmRig::new(&disks()[0]);
    let open = |vg: &str, thin_pool: &str| {
        let options = LvmOptions {
            vg: vg.into(),
            thin_pool: thin_pool.into(),
            patience: Duration::ZERO,
            ..rig.options.clone()
        };
        LvmPool::open(&options).map(drop).unwrap_err()
    };
    let vg = rig.options.vg.as_str();
    assert_eq!(open("no-such-group", "pool").code(), Code::NotFound);
    for (vg, pool) in [(vg, "holdfast_catalog"), (vg, "none"), ("$(reboot)", "pool")] {
        let error = open(vg, pool);
        assert!(matches!(&error, Error::Unusable { .. }), "{error}");
    }
    assert!(matches!(open(vg, "pool"), Error::InUse(_)), "it is open already");
}

/// L4: what a crash leaves without a name is gone after the next opening.
#[test]
fn what_nothing_names_is_deleted() {
    let mut rig = LvmRig::new(&disks()[0]);
    let uid = VolumeUid::generate();
    rig.pool().create(uid, ByteSize::mib(8), Epoch(1)).unwrap();
    let used = rig.pool().capacity().unwrap().metadata.unwrap();
    assert!(rig.message("create_thin 9000000"));
    assert!(rig.message("reserve_metadata_snap"));
    rig.reopen();
    assert!(!rig.message("delete 9000000"), "it was there still");
    assert!(rig.pool().capacity().unwrap().metadata.unwrap().0 <= used.0);
    rig.pool().activate(uid, Epoch(1)).unwrap();
    rig.pool().deactivate(uid).unwrap();
    rig.pool().remove_volume(uid).unwrap();
}

/// A pool that lost a device that is named, or a catalog that lost its names, is not guessed about.
#[test]
fn a_catalog_and_its_pool_must_agree() {
    let mut rig = LvmRig::new(&disks()[0]);
    let uid = VolumeUid::generate();
    rig.pool().create(uid, ByteSize::mib(8), Epoch(1)).unwrap();
    let root = rig.options.mountpoint.clone();
    let bond = root.join("lvm.json");
    rig.pool = None;
    let (options, tpool) = (rig.options.clone(), rig.tpool());
    let error_after = |change: &dyn Fn()| {
        change();
        LvmPool::open(&options).map(drop).unwrap_err()
    };
    let kept = root.join("kept");
    let error = error_after(&|| std::fs::rename(&bond, &kept).unwrap());
    assert!(matches!(&error, Error::Corrupt { path, .. } if *path == bond), "{error}");
    let error = error_after(&|| {
        std::fs::rename(&kept, &bond).unwrap();
        let lost =
            Command::new("dmsetup").args(["message", &tpool, "0", "delete 8388608"]).status();
        assert!(lost.unwrap().success());
    });
    assert!(matches!(&error, Error::Corrupt { path, .. } if path.ends_with("live-1")), "{error}");
}

/// A scratch name that a crash left half-written kept the pool from opening.
#[test]
fn half_written_names_are_no_damage() {
    let mut rig = LvmRig::new(&disks()[0]);
    let uid = VolumeUid::generate();
    rig.pool().create(uid, ByteSize::mib(8), Epoch(1)).unwrap();
    let root = rig.options.mountpoint.clone();
    let left =
        [root.join("scratch/x.tmp"), root.join("volumes").join(uid.to_string()).join("snap-y.tmp")];
    left.iter().for_each(|path| std::fs::write(path, "").unwrap());
    rig.reopen();
    assert!(left.iter().all(|path| !path.exists()));
}

/// What another tool reads is not taken away from it.
#[test]
fn a_metadata_snapshot_of_others_stays_theirs() {
    let rig = LvmRig::new(&disks()[0]);
    let uid = VolumeUid::generate();
    rig.pool().create(uid, ByteSize::mib(8), Epoch(1)).unwrap();
    let state = rig.pool().volume(uid).unwrap().state;
    let id = state.next_snapshot(SnapshotUuid::generate()).unwrap();
    rig.pool().snapshot(&id, TimestampMs(1), &mut AlreadyQuiet).unwrap();
    assert!(rig.message("reserve_metadata_snap"));
    assert!(matches!(rig.pool().diff(None, id.uuid), Err(Error::MetadataHeld(_))));
    assert!(matches!(rig.pool().comparable(), Err(Error::MetadataHeld(_))));
    assert!(rig.pool().fragmentation(id.uuid).is_ok(), "it needs none");
    assert!(rig.message("release_metadata_snap"));
    assert!(rig.pool().comparable().is_ok());
    assert!(rig.pool().diff(None, id.uuid).is_ok());
}

/// A volume with something in it that was durable.
fn keep(rig: &LvmRig) -> (VolumeUid, SnapshotUuid) {
    let uid = VolumeUid::generate();
    rig.pool().create(uid, ByteSize::mib(8), Epoch(1)).unwrap();
    rig.pool().activate(uid, Epoch(1)).unwrap();
    rig.write(uid, 1 << 20, b"durable");
    let id = rig.pool().volume(uid).unwrap().state.next_snapshot(SnapshotUuid::generate()).unwrap();
    rig.pool().snapshot(&id, TimestampMs(1), &mut AlreadyQuiet).unwrap();
    (uid, id.uuid)
}

fn assert_kept(rig: &LvmRig, (uid, snapshot): (VolumeUid, SnapshotUuid)) {
    let mut content = [0; 7];
    rig.pool().open_snapshot(snapshot).unwrap().read_at(1 << 20, &mut content).unwrap();
    assert_eq!(&content, b"durable");
    rig.pool().activate(uid, Epoch(1)).unwrap();
    rig.write(uid, 2 << 20, b"goes on");
    rig.pool().deactivate(uid).unwrap();
}

/// What of a disk says which physical volume it is.
fn label(disk: &Path) -> Vec<u8> {
    let mut label = vec![0; 1 << 20];
    File::open(disk).unwrap().read_exact(&mut label).unwrap();
    label
}

fn set_label(disk: &Path, label: &[u8]) {
    let mut file = OpenOptions::new().write(true).open(disk).unwrap();
    file.write_all(label).unwrap();
    file.sync_all().unwrap();
    drop(file);
    assert!(Command::new("udevadm").arg("settle").status().unwrap().success());
}

fn take_down(rig: &mut LvmRig) {
    rig.pool = None;
    rig.let_go();
    lvm(&["vgchange", "-qq", "-an", &rig.options.vg]);
}

/// Two disks that claim to be one: which LVM would write to is chance, so nothing is opened.
#[test]
fn a_disk_that_is_there_twice_is_refused() {
    let disks = disks();
    let mut rig = LvmRig::new(&disks[0]);
    let kept = keep(&rig);
    take_down(&mut rig);
    set_label(&disks[1], &label(&disks[0]));
    let refused = LvmPool::open(&rig.options).map(drop).unwrap_err();
    set_label(&disks[1], &[0; 1 << 20]);
    assert_eq!(refused.code(), Code::DuplicateDevice, "{refused}");
    rig.reopen();
    assert_kept(&rig, kept);
}

/// A pool whose group lacks a disk is not opened in part, and is whole when the disk is back.
#[test]
fn a_disk_that_is_missing_is_named() {
    let disks = disks();
    let mut rig = LvmRig::new(&disks[0]);
    let kept = keep(&rig);
    let (vg, second) = (rig.options.vg.clone(), disks[1].to_str().unwrap());
    lvm(&["vgextend", "-qq", "-y", &vg, second]);
    lvm(&["lvextend", "-qq", "-L", "+64m", &format!("{vg}/pool"), second]);
    take_down(&mut rig);
    let there = label(&disks[1]);
    set_label(&disks[1], &[0; 1 << 20]);
    let refused = LvmPool::open(&rig.options).map(drop).unwrap_err();
    set_label(&disks[1], &there);
    assert_eq!(refused.code(), Code::DeviceMissing, "{refused}");
    rig.reopen();
    assert_kept(&rig, kept);
}

/// I16: metadata that could not be written makes the pool take nothing more, and it says so; what was
/// durable is there once it was checked.
#[test]
fn a_pool_that_needs_a_check_says_so() {
    let mut rig = LvmRig::new(&disks()[0]);
    let kept = keep(&rig);
    let metadata = rig.tpool().replace("-tpool", "_tmeta");
    let dmsetup = |arguments: &[&str]| {
        let out = Command::new("dmsetup").args(arguments).output().unwrap();
        assert!(out.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    };
    let table = dmsetup(&["table", &metadata]);
    dmsetup(&["wipe_table", "--force", "--noflush", "--nolockfs", &metadata]);
    let file = rig.file(kept.0);
    let written = std::os::unix::fs::FileExt::write_all_at(&file, b"lost", 4 << 20);
    assert!(written.and_then(|()| file.sync_all()).is_err(), "it was acknowledged");
    drop(file);
    let refused = rig.pool().writable().unwrap_err();
    assert_eq!(refused.code(), Code::PoolDamaged, "{refused}");
    let id = rig.pool().volume(kept.0).unwrap().state;
    let id = id.next_snapshot(SnapshotUuid::generate()).unwrap();
    let refused = rig.pool().snapshot(&id, TimestampMs(1), &mut AlreadyQuiet).unwrap_err();
    assert_eq!(refused.code(), Code::PoolDamaged, "{refused}");

    dmsetup(&["reload", &metadata, "--table", table.trim()]);
    dmsetup(&["resume", &metadata]);
    rig.restart();
    assert!(rig.pool().writable().is_ok());
    assert_kept(&rig, kept);
}

const OPENS: &str = "HOLDFAST_TEST_OPENS";

/// Opens that group's pool and compares something in it, or says why not.
#[test]
#[ignore = "the process that the test below starts with other programs in its PATH"]
fn opener() {
    let Ok(vg) = std::env::var(OPENS) else { return };
    let compared = LvmPool::open(&options(&vg)).and_then(|pool| {
        let volume = &pool.volumes()[0];
        pool.diff(None, volume.state.snapshots[0].id.uuid)
    });
    match compared {
        Ok(_) => println!("it is compared"),
        Err(error) => println!("{} {error}", error.code()),
    }
}

/// Programs that are missing, too old, or fail: each with its code, and with its own last words.
#[test]
fn programs_that_do_not_do_are_named() {
    let mut rig = LvmRig::new(&disks()[0]);
    let kept = keep(&rig);
    rig.pool = None;
    let opened_with = |path: String| {
        let mut opener = Command::new(std::env::current_exe().unwrap());
        opener.args(["--ignored", "--exact", "trouble::opener", "--nocapture"]);
        let out = opener.env(OPENS, &rig.options.vg).env("PATH", path).output().unwrap();
        String::from_utf8(out.stdout).unwrap()
    };
    let lvm = "exec /sbin/lvm \"$@\"";
    let cases: [(&[(&str, &str)], bool, &[&str]); 5] = [
        (&[], false, &["it is compared"]),
        (&[("lvm", lvm)], true, &["HF-MISSING-TOOL", "thin-provisioning-tools"]),
        (&[("thin_check", "echo 0.6.1")], false, &["HF-TOOL-TOO-OLD", "0.6.1"]),
        (&[("lvm", "echo LVM version: '2.02.98(2)'")], false, &["HF-TOOL-TOO-OLD", "2.2.98"]),
        (
            &[("thin_delta", "echo its last words >&2; exit 3")],
            false,
            &["HF-POOL-IO", "last words"],
        ),
    ];
    for (programs, alone, expected) in cases {
        let stubs = Stubs::new(programs);
        let said = opened_with(if alone { stubs.alone() } else { stubs.path() });
        assert!(expected.iter().all(|word| said.contains(word)), "{programs:?}: {said}");
    }
    rig.reopen();
    assert_kept(&rig, kept);
}

/// A power cut inside of its catalog's mkfs: it is made anew, because nobody said that it is whole.
#[test]
fn a_catalog_that_is_half_made_is_made_anew() {
    let disk = &disks()[0];
    let rig = LvmRig::new(disk);
    let vg = rig.options.vg.clone();
    drop(rig);
    lvm(&["vgcreate", "-qq", "-y", "--addtag", "holdfast", &vg, disk.to_str().unwrap()]);
    let tag = ["--addtag", "holdfast.making", "-n", "holdfast_catalog", "-L", "512m", &vg];
    lvm(&[&["lvcreate", "-qq", "-y", "-Wy"], &tag[..]].concat());
    let node = format!("/dev/{vg}/holdfast_catalog");
    assert!(Command::new("mkfs.ext4").args(["-q", "-F", &node]).status().unwrap().success());
    // Its first half is there, the rest is what was there before.
    let mut file = OpenOptions::new().write(true).open(fs::canonicalize(node).unwrap()).unwrap();
    file.write_all(&[0xa5; 600 << 10]).unwrap();
    file.sync_all().unwrap();
    drop(file);
    create(&vg, disk);
    let rig = LvmRig { pool: Some(LvmPool::open(&options(&vg)).unwrap()), options: options(&vg) };
    let kept = keep(&rig);
    rig.pool().deactivate(kept.0).unwrap();
    assert_kept(&rig, kept);
}

/// A catalog that ext4 had made read-only when a disk failed stayed so until somebody unmounted it by
/// hand: a daemon that was started again found it mounted, and took it as it was.
#[test]
fn a_catalog_that_became_read_only_is_mounted_anew() {
    let mut rig = LvmRig::new(&disks()[0]);
    let mut remount = Command::new("mount");
    remount.args(["-o", "remount,ro"]).arg(&rig.options.mountpoint);
    assert!(remount.status().unwrap().success());
    assert_eq!(rig.pool().writable().unwrap_err().code(), Code::PoolIo);
    rig.reopen();
    rig.pool().writable().unwrap();
    rig.pool().create(VolumeUid::generate(), ByteSize::mib(8), Epoch(1)).unwrap();
}

/// Scrubs read the same first blocks for ever, and no other copy, once the catalog was half full.
#[test]
fn a_scrub_without_room_for_hashes_went_no_further() {
    let rig = LvmRig::new(&disks()[0]);
    let uid = VolumeUid::generate();
    rig.pool().create(uid, ByteSize::mib(16), Epoch(1)).unwrap();
    let id = rig.pool().volume(uid).unwrap().state.next_snapshot(SnapshotUuid::generate()).unwrap();
    rig.pool().snapshot(&id, TimestampMs(1), &mut AlreadyQuiet).unwrap();
    rig.pool().demote(uid, Some(id.uuid), None).unwrap();
    // One block of four is noted.
    assert!(!rig.pool().scrub(uid, 1).unwrap().whole);
    let mut fill = Command::new("fallocate");
    fill.args(["-l", "140M"]).arg(rig.options.mountpoint.join("others"));
    assert!(fill.status().unwrap().success());
    let looks: Vec<_> = (0..4).map(|_| rig.pool().scrub(uid, 1).unwrap()).collect();
    let whole: Vec<_> = looks.iter().map(|look| look.whole).collect();
    assert_eq!(whole, [false, false, true, false]);
    let compared: Vec<_> = looks.iter().map(|look| look.compared).collect();
    assert_eq!(compared, [0, 0, 0, 4 << 20], "what was noted counts still");
}
