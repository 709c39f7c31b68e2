//! A disk that goes away under a running pool, and comes back.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use holdfast_storage::conformance::Rig;
use holdfast_storage::{AlreadyQuiet, Pool};
use holdfast_types::{ByteSize, Code, Epoch, SnapshotUuid, TimestampMs, VolumeUid};

use crate::rig::{LvmRig, disks};

/// Nearly all of a disk under another name, which can be made to fail.
struct Failing {
    table: String,
}

const NAME: &str = "failing";

impl Failing {
    fn new(disk: &Path) -> Self {
        // LVM must see what is written to it under this name alone: not what another test left at the
        // disk's own beginning, nor what begins there.
        const AFTER: u64 = 2048;
        let wiped = Command::new("wipefs").args(["--all", "--quiet"]).arg(disk).status().unwrap();
        assert!(wiped.success());
        let sectors = Command::new("blockdev").arg("--getsz").arg(disk).output().unwrap().stdout;
        let sectors: u64 = String::from_utf8(sectors).unwrap().trim().parse().unwrap();
        let table = format!("0 {} linear {} {AFTER}", sectors - AFTER, disk.display());
        dmsetup(&["create", NAME, "--table", &table]);
        Self { table }
    }

    fn path(&self) -> PathBuf {
        Path::new("/dev/mapper").join(NAME)
    }

    fn vanish(&self) {
        dmsetup(&["wipe_table", "--force", "--noflush", "--nolockfs", NAME]);
    }

    fn come_back(&self) {
        dmsetup(&["reload", NAME, "--table", &self.table]);
        dmsetup(&["resume", NAME]);
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        let _ = Command::new("dmsetup").args(["remove", "--retry", NAME]).output();
    }
}

fn dmsetup(arguments: &[&str]) {
    let out = Command::new("dmsetup").args(arguments).output().unwrap();
    assert!(out.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// I16: every verb fails with a code and within its time, the pool says why, and what was durable is
/// there when the disk is.
#[test]
fn a_disk_that_vanishes_loses_nothing_that_was_durable() {
    let disk = Failing::new(&disks()[0]);
    let mut rig = LvmRig::on(&disk.path());
    let uid = VolumeUid::generate();
    rig.pool().create(uid, ByteSize::mib(8), Epoch(1)).unwrap();
    rig.pool().activate(uid, Epoch(1)).unwrap();
    rig.write(uid, 1 << 20, b"durable");
    let take = |pool: &dyn Pool| {
        let id = pool.volume(uid).unwrap().state.next_snapshot(SnapshotUuid::generate()).unwrap();
        pool.snapshot(&id, TimestampMs(1), &mut AlreadyQuiet).map(|_| id.uuid)
    };
    let kept = take(rig.pool()).unwrap();

    disk.vanish();
    let file = rig.file(uid);
    let written = file.write_all_at(b"lost", 2 << 20).and_then(|()| file.sync_all());
    assert!(written.is_err(), "it was acknowledged");
    drop(file);
    let codes = [
        take(rig.pool()).map(drop).unwrap_err().code(),
        rig.pool().create(VolumeUid::generate(), ByteSize::mib(8), Epoch(1)).unwrap_err().code(),
        rig.pool().writable().unwrap_err().code(),
    ];
    println!("{codes:?}");
    // The kernel makes it read-only first, and knows a moment later that it needs a check.
    let told = [Code::PoolIo, Code::PoolUnusable, Code::PoolDamaged];
    assert!(codes.iter().all(|code| told.contains(code)), "{codes:?}");

    disk.come_back();
    rig.restart();
    assert!(rig.pool().writable().is_ok());
    let mut content = [0; 7];
    rig.pool().open_snapshot(kept).unwrap().read_at(1 << 20, &mut content).unwrap();
    assert_eq!(&content, b"durable");
    rig.pool().activate(uid, Epoch(1)).unwrap();
    rig.write(uid, 2 << 20, b"again");
    take(rig.pool()).unwrap();
}
