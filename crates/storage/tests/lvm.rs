//! The `lvm` driver on a real volume group: in the guest, since it takes disks of its own.
//!
//! Disks are named by `HOLDFAST_TEST_DISKS`, comma-separated, two of them; all on them is lost.
#![allow(clippy::unwrap_used)]

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use holdfast_storage::conformance::{self, Rig};
use holdfast_storage::lvm::{LvmOptions, LvmPool};
use holdfast_storage::{AlreadyQuiet, Error, Pool};
use holdfast_types::{ByteSize, ClusterId, Epoch, SnapshotUuid, TimestampMs, VolumeUid};

/// A group on one disk; gone when dropped.
struct LvmRig {
    pool: Option<LvmPool>,
    options: LvmOptions,
}

fn lvm(arguments: &[&str]) {
    let out = Command::new("lvm").args(arguments).output().unwrap();
    assert!(out.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
}

fn disks() -> Vec<PathBuf> {
    let named = std::env::var("HOLDFAST_TEST_DISKS").expect("HOLDFAST_TEST_DISKS");
    named.split(',').map(PathBuf::from).collect()
}

impl LvmRig {
    fn new(disk: &Path) -> Self {
        let vg = format!("t-{}", disk.file_name().unwrap().to_str().unwrap());
        lvm(&["vgcreate", "-qq", "-y", &vg, disk.to_str().unwrap()]);
        LvmPool::prepare(&vg, "pool").unwrap();
        LvmPool::prepare(&vg, "pool").expect("it may be repeated");
        let options = LvmOptions {
            mountpoint: PathBuf::from("/run").join(&vg),
            vg,
            thin_pool: "pool".into(),
            cluster: ClusterId::generate(),
            threshold_percent: 90,
            patience: Duration::from_secs(5),
        };
        Self { pool: Some(LvmPool::open(&options).unwrap()), options }
    }

    fn file(&self, volume: VolumeUid) -> File {
        let device = self.pool().volume(volume).unwrap().device.unwrap();
        OpenOptions::new().read(true).write(true).open(device).unwrap()
    }
}

impl Rig for LvmRig {
    fn pool(&self) -> &dyn Pool {
        self.pool.as_ref().unwrap()
    }

    fn write(&self, volume: VolumeUid, offset: u64, data: &[u8]) {
        let file = self.file(volume);
        file.write_all_at(data, offset).unwrap();
        file.sync_all().unwrap();
    }

    /// A thin pool takes whole chunks back; what is left of the range is zeroed.
    fn discard(&self, volume: VolumeUid, offset: u64, len: u64) {
        const CHUNK: u64 = 64 << 10;
        let device = self.pool().volume(volume).unwrap().device.unwrap();
        let end = offset + len;
        let first = offset.next_multiple_of(CHUNK).min(end);
        let last = (end - end % CHUNK).max(first);
        self.write(volume, offset, &vec![0; (first - offset) as usize]);
        self.write(volume, last, &vec![0; (end - last) as usize]);
        if first < last {
            let (at, len) = (first.to_string(), (last - first).to_string());
            let discarded =
                Command::new("blkdiscard").args(["-o", &at, "-l", &len]).arg(device).status();
            assert!(discarded.unwrap().success());
        }
    }

    fn reopen(&mut self) {
        self.pool = None;
        self.pool = Some(LvmPool::open(&self.options).unwrap());
    }
}

impl Drop for LvmRig {
    /// Whatever a failed test left: what cannot go is seen by the test that comes next.
    fn drop(&mut self) {
        self.pool = None;
        let run =
            |program: &str, arguments: &[&str]| Command::new(program).args(arguments).output();
        let listed = run("dmsetup", &["ls"]).map(|out| out.stdout).unwrap_or_default();
        for line in String::from_utf8_lossy(&listed).lines() {
            if let Some(name) =
                line.split_whitespace().next().filter(|n| n.starts_with("holdfast-"))
            {
                let _ = run("dmsetup", &["remove", name]);
            }
        }
        let _ = run("umount", &[self.options.mountpoint.to_str().unwrap_or_default()]);
        let _ = run("lvm", &["vgremove", "-qq", "-ff", "-y", &self.options.vg]);
    }
}

#[test]
fn lvm_conforms() {
    let disks = disks();
    conformance::run(&mut LvmRig::new(&disks[0]), &mut LvmRig::new(&disks[1]));
}

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
    assert!(matches!(open("no-such-group", "pool"), Error::Tool { .. }));
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
    let tpool = format!("{}-pool-tpool", rig.options.vg.replace('-', "--"));
    let message = |text: &str| {
        let told = Command::new("dmsetup").args(["message", &tpool, "0", text]).status();
        assert!(told.unwrap().success(), "{text}");
    };
    message("create_thin 9000000");
    message("reserve_metadata_snap");
    rig.reopen();
    let again = Command::new("dmsetup").args(["message", &tpool, "0", "delete 9000000"]).status();
    assert!(!again.unwrap().success(), "it was there still");
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
    let options = rig.options.clone();
    let error_after = |change: &dyn Fn()| {
        change();
        LvmPool::open(&options).map(drop).unwrap_err()
    };
    let kept = root.join("kept");
    let error = error_after(&|| std::fs::rename(&bond, &kept).unwrap());
    assert!(matches!(&error, Error::Corrupt { path, .. } if *path == bond), "{error}");
    let error = error_after(&|| {
        std::fs::rename(&kept, &bond).unwrap();
        let tpool = format!("{}-pool-tpool", options.vg.replace('-', "--"));
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
    let tpool = format!("{}-pool-tpool", rig.options.vg.replace('-', "--"));
    let message = |text: &str| {
        let told = Command::new("dmsetup").args(["message", &tpool, "0", text]).status();
        assert!(told.unwrap().success(), "{text}");
    };
    message("reserve_metadata_snap");
    assert!(matches!(rig.pool().diff(None, id.uuid), Err(Error::InUse(_))));
    message("release_metadata_snap");
    assert!(rig.pool().diff(None, id.uuid).is_ok());
}
