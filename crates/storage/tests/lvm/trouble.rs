//! What an operator, another tool or a crash can have done to a pool.

use std::process::Command;
use std::time::Duration;

use holdfast_storage::conformance::Rig;
use holdfast_storage::lvm::{LvmOptions, LvmPool};
use holdfast_storage::{AlreadyQuiet, Error};
use holdfast_types::{ByteSize, Epoch, SnapshotUuid, TimestampMs, VolumeUid};

use crate::rig::{LvmRig, disks};

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
