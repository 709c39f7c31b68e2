//! What several of this crate's tests stand on.

use std::path::PathBuf;
use std::time::Duration;

use holdfast_storage::fake::FakePool;
use holdfast_storage::xfs::{LoopBacked, XfsOptions, XfsPool};
use holdfast_storage::{AlreadyQuiet, Member, Pool, PoolIdentity, Shape, fsys};
use holdfast_types::{
    AssignedView, ByteSize, Chain, ClusterId, ContainerSpec, ContainerUid, DesiredState, Epoch,
    MacAddr, Seq, SnapshotId, SnapshotUuid, TimestampMs, VolumeUid,
};
use uuid::Uuid;

use crate::places::Places;
use crate::{grow, mounts};

pub(crate) const UID: ContainerUid = ContainerUid(Uuid::from_u128(7));

/// The view of a container whose first epoch is this node's.
pub(crate) fn assigned() -> AssignedView {
    let address = "10.77.0.2".parse().unwrap();
    AssignedView {
        uid: UID,
        name: "web".parse().unwrap(),
        spec: ContainerSpec::default(),
        chain: Chain::begin(Epoch(1)),
        desired: DesiredState::Running,
        resizing: false,
        resize_asked: holdfast_types::Revision::default(),
        made: false,
        image: SnapshotId {
            volume: UID.into(),
            epoch: Epoch(1),
            seq: Seq(1),
            uuid: SnapshotUuid(Uuid::from_u128(3)),
            parent: None,
        },
        address,
        mac: MacAddr::from_ipv4(address),
        replicas: Vec::new(),
        kept: Vec::new(),
        restore: None,
    }
}

/// A primary copy with snapshots 1 to 4 in a pool that is nowhere.
pub(crate) fn snapshotted() -> FakePool {
    let identity =
        PoolIdentity { cluster: ClusterId(Uuid::from_u128(1)), pool: Uuid::from_u128(2) };
    let pool = FakePool::new(identity, ByteSize::gib(1));
    pool.create(UID.into(), ByteSize::mib(64), Epoch(1)).unwrap();
    for n in 1..=4 {
        let uuid = SnapshotUuid(Uuid::from_u128(n.into()));
        let id = pool.volume(UID.into()).unwrap().state.next_snapshot(uuid).unwrap();
        pool.snapshot(&id, TimestampMs(n), &mut AlreadyQuiet).unwrap();
    }
    pool
}

/// A mounted primary copy of 64 MiB on a real pool; everything goes when it is dropped.
pub(crate) struct Bench {
    pool: Option<XfsPool>,
    pub(crate) places: Places,
    _dir: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::of(ByteSize::mib(64).into())
    }

    /// The same with two data members.
    pub(crate) fn of_set() -> Self {
        let member = |name: &str| Member::new(name.parse().unwrap(), ByteSize::mib(32));
        Self::of(Shape { root: ByteSize::mib(64), data: vec![member("data"), member("logs")] })
    }

    fn of(shape: Shape) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = XfsOptions {
            dir: dir.path().join("pool"),
            cluster: ClusterId(Uuid::from_u128(1)),
            threshold_percent: 90,
            loop_backed: Some(LoopBacked {
                size: ByteSize::mib(512),
                mountpoint: dir.path().join("xfs"),
            }),
            patience: Duration::from_secs(10),
        };
        std::fs::create_dir(&options.dir).unwrap();
        let pool = XfsPool::open(&options).unwrap();
        let places = Places::of(dir.path(), UID);
        let bench = Self { pool: Some(pool), places, _dir: dir };
        bench.pool().create_set(bench.volume(), &shape, Epoch(1)).unwrap();
        fsys::mkfs(&bench.pool().activate(bench.volume(), Epoch(1)).unwrap()).unwrap();
        grow::fill(bench.pool(), &bench.pool().volume(bench.volume()).unwrap()).unwrap();
        bench.mount();
        bench
    }

    pub(crate) fn pool(&self) -> &dyn Pool {
        self.pool.as_ref().unwrap()
    }

    pub(crate) fn volume(&self) -> VolumeUid {
        UID.into()
    }

    /// The program that freezes.
    pub(crate) fn helper() -> PathBuf {
        let helper = std::env::current_exe().unwrap().parent().unwrap().join("../holdfast-freeze");
        let missing = "build holdfast-storage's binaries first";
        assert!(helper.exists(), "{missing}: {}", helper.display());
        helper
    }

    /// Returns the root's device.
    pub(crate) fn mount(&self) -> PathBuf {
        let device = self.pool().activate(self.volume(), Epoch(1)).unwrap();
        let devices = mounts::devices(&self.pool().volume(self.volume()).unwrap());
        for (device, place) in devices.iter().zip(self.places.all()) {
            fsys::mount(device, place).unwrap();
        }
        device
    }

    pub(crate) fn unmount(&self) {
        for place in self.places.all() {
            fsys::unmount(place, Duration::from_secs(10)).unwrap();
        }
        self.pool().deactivate(self.volume()).unwrap();
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let Some(pool) = self.pool.take() else { return };
        for place in self.places.all() {
            let _ = fsys::unmount(place, Duration::from_secs(10));
        }
        let _ = pool.deactivate(UID.into());
        let _ = pool.close();
    }
}
