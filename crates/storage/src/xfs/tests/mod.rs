//! The driver on a real XFS in a temporary file. Needs root and loop devices.

mod killed;
mod random;
mod scrub;

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::time::Duration;

use holdfast_types::{ByteSize, ClusterId, Epoch, VolumeUid};
use rustix::fs::{FallocateFlags, fallocate};
use tempfile::TempDir;

use super::{LoopBacked, XfsOptions, XfsPool};
use crate::conformance::{self, Rig};
use crate::{Error, HandOver, Pool, PoolIdentity};

/// A loop-backed pool in a temporary directory; gone with everything when dropped.
struct XfsRig {
    pool: Option<XfsPool>,
    options: XfsOptions,
    _dir: TempDir,
}

impl XfsRig {
    fn new() -> Self {
        Self::of(ByteSize::gib(1))
    }

    fn of(size: ByteSize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = XfsOptions {
            dir: dir.path().into(),
            cluster: ClusterId::generate(),
            threshold_percent: 90,
            loop_backed: Some(LoopBacked { size, mountpoint: dir.path().join("mnt") }),
            patience: Duration::from_secs(5),
        };
        Self { pool: Some(XfsPool::open(&options).unwrap()), options, _dir: dir }
    }

    /// The device that an address is on, and the offset there.
    fn file(&self, volume: VolumeUid, address: u64) -> (fs::File, u64) {
        let (device, offset) = conformance::device(self, volume, address);
        (OpenOptions::new().read(true).write(true).open(device).unwrap(), offset)
    }

    fn root(&self) -> &Path {
        self.pool.as_ref().unwrap().root()
    }

    /// Closes, lets `damage` do its work on the mounted files, and says how opening fails.
    fn error_after(&mut self, damage: impl FnOnce(&Path)) -> Error {
        damage(self.root());
        self.pool = None;
        XfsPool::open(&self.options).map(drop).unwrap_err()
    }
}

impl Rig for XfsRig {
    fn pool(&self) -> &dyn Pool {
        self.pool.as_ref().unwrap()
    }

    fn discard(&self, volume: VolumeUid, offset: u64, len: u64) {
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let (file, offset) = self.file(volume, offset);
        fallocate(&file, mode, offset, len).unwrap();
        file.sync_all().unwrap();
    }

    fn reopen(&mut self) {
        self.pool = None;
        self.pool = Some(XfsPool::open(&self.options).unwrap());
    }
}

impl Drop for XfsRig {
    fn drop(&mut self) {
        let mounted = self.options.loop_backed.as_ref().unwrap().mountpoint.clone();
        self.pool = None;
        // By name as well: a test may fail at any point.
        let flags = rustix::mount::UnmountFlags::DETACH;
        let _ = rustix::mount::unmount(&mounted, flags);
    }
}

#[test]
fn xfs_conforms() {
    conformance::run(&mut XfsRig::new(), &mut XfsRig::new());
}

/// L4: a closed pool leaves no mount and no loop device.
#[test]
fn closing_leaves_nothing_attached() {
    let mut rig = XfsRig::new();
    let image = rig.options.dir.join("pool.img");
    let backing = crate::loopdev::Backing::of(&fs::File::open(&image).unwrap(), &image).unwrap();
    let uid = VolumeUid::generate();
    rig.pool().create(uid, ByteSize::mib(8), Epoch(1)).unwrap();
    rig.pool().activate(uid, Epoch(1)).unwrap();
    rig.pool().deactivate(uid).unwrap();
    rig.pool.take().unwrap().close().unwrap();
    assert!(crate::loopdev::LoopDevice::attached().unwrap().iter().all(|(_, b)| *b != backing));
    rig.pool = Some(XfsPool::open(&rig.options).unwrap());
    assert_eq!(rig.pool().volumes().len(), 1);
}

#[test]
fn a_pool_is_open_only_once() {
    let rig = XfsRig::new();
    let options = XfsOptions { patience: Duration::from_millis(50), ..rig.options.clone() };
    assert!(matches!(XfsPool::open(&options), Err(Error::InUse(_))));
}

/// The file is never attached twice: a mount that is not ours must go first.
#[test]
fn a_stale_mount_is_waited_for() {
    let mut rig = XfsRig::new();
    rig.pool = None;
    let elsewhere = rig.options.dir.join("elsewhere");
    let mut options = rig.options.clone();
    options.loop_backed.as_mut().unwrap().mountpoint = elsewhere.clone();
    options.patience = Duration::from_millis(200);
    assert!(matches!(XfsPool::open(&options), Err(Error::InUse(_))));

    let old = rig.options.loop_backed.as_ref().unwrap().mountpoint.clone();
    let unmount = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        rustix::mount::unmount(&old, rustix::mount::UnmountFlags::empty()).unwrap();
    });
    options.patience = Duration::from_secs(10);
    let pool = XfsPool::open(&options);
    unmount.join().unwrap();
    pool.unwrap().close().unwrap();
}

#[test]
fn another_clusters_pool_is_refused_and_left_alone() {
    let mut rig = XfsRig::new();
    rig.pool().create(VolumeUid::generate(), ByteSize::mib(8), Epoch(1)).unwrap();
    let ours = rig.options.cluster;
    rig.options.cluster = ClusterId::generate();
    let error = rig.error_after(|_| {});
    assert!(matches!(&error, Error::WrongCluster { found, .. } if *found == ours), "{error}");
    rig.options.cluster = ours;
    rig.reopen();
}

/// A pool that was handed over is the heir's alone, with what it holds: no two clusters can have it.
#[test]
fn a_pool_that_was_handed_over_is_the_heirs_alone() {
    let mut rig = XfsRig::new();
    let uid = VolumeUid::generate();
    rig.pool().create(uid, ByteSize::mib(8), Epoch(1)).unwrap();
    let (old, before) = (rig.options.cluster, rig.pool().identity());
    let heir = ClusterId::generate();
    rig.pool.as_mut().unwrap().hand_over(heir).unwrap();
    assert_eq!(rig.pool().identity(), PoolIdentity { cluster: heir, ..before });
    let error = rig.error_after(|_| {});
    assert!(matches!(&error, Error::WrongCluster { wanted, .. } if *wanted == old), "{error}");
    rig.options.cluster = heir;
    rig.reopen();
    rig.pool().volume(uid).unwrap();
}

/// An `init` that failed after its pool was opened left a pool that no cluster could ever have.
#[test]
fn a_pool_of_a_cluster_that_came_to_nothing_was_nobodys() {
    let mut rig = XfsRig::new();
    fs::create_dir(rig.root().join("volumes/.half-made")).unwrap();
    rig.options.cluster = ClusterId::generate();
    rig.reopen();
    assert_eq!(rig.pool().identity().cluster, rig.options.cluster);
    let identity = rig.pool().identity();
    rig.reopen();
    assert_eq!(rig.pool().identity(), identity);
}

/// Damage is named, never guessed around.
#[test]
fn damaged_files_are_named() {
    let spoil = |path: &Path| {
        let mut bytes = fs::read(path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(path, &bytes).unwrap();
    };
    let mut rig = XfsRig::new();
    let uid = VolumeUid::generate();
    rig.pool().create(uid, ByteSize::mib(8), Epoch(1)).unwrap();
    let dir = rig.root().join("volumes").join(uid.to_string());
    for name in ["../../pool.json", "volume.json"] {
        let path = dir.join(name);
        let error = rig.error_after(|_| spoil(&path));
        let named = matches!(&error, Error::Corrupt { path: p, .. }
            if p.file_name() == path.file_name());
        assert!(named, "{error}");
        spoil(&path);
        rig.reopen();
    }
    let live = dir.join("live-1");
    let error = rig.error_after(|_| fs::rename(&live, dir.join("hidden")).unwrap());
    assert!(matches!(&error, Error::Corrupt { path, .. } if *path == live), "{error}");
}

/// A crash between preparing and committing leaves files that nothing names.
#[test]
fn leftovers_of_a_crash_are_removed() {
    let mut rig = XfsRig::new();
    let uid = VolumeUid::generate();
    rig.pool().create(uid, ByteSize::mib(8), Epoch(1)).unwrap();
    let volumes = rig.root().join("volumes");
    let dir = volumes.join(uid.to_string());
    let leftovers = [
        dir.join("live-2"),
        dir.join(format!("snap-{}", VolumeUid::generate())),
        dir.join(format!("part-{}", VolumeUid::generate())),
        dir.join("part.json"),
        dir.join("volume.tmp"),
        rig.root().join("scratch/x"),
    ];
    for path in &leftovers {
        fs::write(path, "x").unwrap();
    }
    let half_made = volumes.join(format!(".new-{}", VolumeUid::generate()));
    fs::create_dir(&half_made).unwrap();
    rig.reopen();
    for path in leftovers.iter().chain([&half_made]) {
        assert!(!path.exists(), "{}", path.display());
    }
    assert!(rig.pool().activate(uid, Epoch(1)).is_ok());
    rig.pool().deactivate(uid).unwrap();
}

/// I20: past the threshold nothing new is admitted; what is there goes on.
#[test]
fn a_filling_pool_admits_nothing_new() {
    let mut rig = XfsRig::new();
    let (uid, other) = (VolumeUid::generate(), VolumeUid::generate());
    rig.pool().create(uid, ByteSize::mib(64), Epoch(1)).unwrap();
    rig.options.threshold_percent = 0;
    rig.reopen();
    let create = rig.pool().create(other, ByteSize::mib(8), Epoch(1));
    assert!(matches!(create, Err(Error::Full { .. })));
    let state = rig.pool().volume(uid).unwrap().state;
    let id = state.next_snapshot(holdfast_types::SnapshotUuid::generate()).unwrap();
    let taken = holdfast_types::TimestampMs(1);
    rig.pool().snapshot(&id, taken, &mut crate::AlreadyQuiet).unwrap();
    let snapshot = holdfast_types::SnapshotId {
        volume: other,
        uuid: holdfast_types::SnapshotUuid::generate(),
        ..id
    };
    let (size, data) = (ByteSize::mib(64), Vec::new());
    let offer = crate::Offer { snapshot, base: None, size, data, taken, history: false };
    assert!(matches!(rig.pool().begin_receive(&offer), Err(Error::Full { .. })));
    assert_eq!(rig.pool().volumes().len(), 1);
}

#[test]
fn what_cannot_carry_a_pool_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = XfsOptions {
        dir: dir.path().into(),
        cluster: ClusterId::generate(),
        threshold_percent: 90,
        loop_backed: None,
        patience: Duration::ZERO,
    };
    assert!(matches!(XfsPool::open(&options), Err(Error::Unusable { .. })));
    let mountpoint = dir.path().join("mnt");
    options.loop_backed = Some(LoopBacked { size: ByteSize::mib(10), mountpoint });
    assert!(matches!(XfsPool::open(&options), Err(Error::BadSize { .. })));
    options.dir = dir.path().join("nowhere");
    assert!(matches!(XfsPool::open(&options), Err(Error::Unusable { .. })));
}

/// L4, I17: of a set's snapshot no item stays, and half a receive of one is no receive.
#[test]
fn half_a_set_is_none() {
    let (source, mut target) = (XfsRig::new(), XfsRig::new());
    let uid = VolumeUid::generate();
    let data = crate::Member::new("data".parse().unwrap(), ByteSize::mib(4));
    let shape = crate::Shape { root: ByteSize::mib(8), data: vec![data] };
    source.pool().create_set(uid, &shape, Epoch(1)).unwrap();
    source.pool().filled(uid).unwrap();
    source.pool().activate(uid, Epoch(1)).unwrap();
    source.write(uid, 0, &[7; 2 << 20]);
    let id = conformance::snap(&source, uid);
    let offer = conformance::offer(&source, &id, None);
    let crate::Begin::Receive(mut receiver) = target.pool().begin_receive(&offer).unwrap() else {
        panic!("it is not there")
    };
    for frame in crate::stream::send(source.pool(), &offer, 0).unwrap().take(1) {
        receiver.feed(&frame.unwrap()).unwrap();
    }
    drop(receiver);
    assert!(target.pool().volume(uid).unwrap().partial.is_some());
    let names = |rig: &XfsRig, prefix: &str| {
        let dir = fs::read_dir(rig.root().join("volumes").join(uid.to_string())).unwrap();
        let all = dir.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        all.filter(|name| name.starts_with(prefix)).collect::<Vec<_>>()
    };
    assert_eq!(names(&target, "part-").len(), 2);
    let volume = target.root().join("volumes").join(uid.to_string());
    fs::remove_file(volume.join(format!("part-{}+1", id.uuid))).unwrap();
    target.reopen();
    assert_eq!(target.pool().volume(uid).unwrap().partial, None);
    assert!(names(&target, "part-").is_empty());
    source.pool().remove_snapshot(id.uuid).unwrap();
    assert!(names(&source, "snap-").is_empty() && names(&source, "live-").len() == 2);
    source.pool().deactivate(uid).unwrap();
}
