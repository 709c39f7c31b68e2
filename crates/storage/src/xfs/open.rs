//! Opening a pool: keep others out, find out whose it is, finish or undo what a crash left.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use holdfast_types::{ByteSize, ClusterId, VolumeUid};
use rustix::fs::{FlockOperation, OFlags, flock, ioctl_ficlone, statfs};
use uuid::Uuid;

use super::XfsPool;
use super::image::{self, Mounted};
use super::space::Space;
use super::volume::{Volume, create, remove_dir};
use crate::holds::Holds;
use crate::loopdev::LoopDevice;
use crate::pool::PoolIdentity;
use crate::{Error, Result, durable, wait};

/// `XFS_SUPER_MAGIC` (linux/magic.h).
const XFS_MAGIC: i64 = 0x5846_5342;

/// Where a pool is and whose.
#[derive(Debug, Clone)]
pub struct XfsOptions {
    /// A directory on XFS with reflink; or on any filesystem with direct I/O, if loop-backed.
    pub dir: PathBuf,
    /// The cluster of this node. A pool of another one is refused.
    pub cluster: ClusterId,
    /// Physical use in percent at which admission stops (90 by default design).
    pub threshold_percent: u8,
    /// Keep an XFS in a file in `dir`.
    pub loop_backed: Option<LoopBacked>,
    /// How long to wait for what an earlier life left to go away: its lock, its loop device.
    pub patience: Duration,
}

/// An XFS kept in the file `pool.img`.
#[derive(Debug, Clone)]
pub struct LoopBacked {
    /// Size of the file when it is made, 300 MiB at least (sparse).
    pub size: ByteSize,
    /// Where it is mounted, in this process's mount namespace.
    pub mountpoint: PathBuf,
}

pub(super) fn open(options: &XfsOptions) -> Result<XfsPool> {
    if !rustix::process::geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    let lock = lock(&options.dir, options.patience)?;
    let mounted = match &options.loop_backed {
        Some(backed) => Some(image::mount(&options.dir, backed, options.patience)?),
        None => None,
    };
    let was_mounted = mounted.as_ref().is_some_and(Mounted::was_there);
    let root = mounted.as_ref().map_or(&options.dir, Mounted::root).clone();
    match load(options, &root) {
        Ok((identity, volumes, index)) => Ok(XfsPool {
            identity,
            space: Space {
                root: root.clone(),
                carrier: mounted.as_ref().map(|m| m.image().to_owned()),
                threshold_percent: options.threshold_percent,
            },
            root,
            mounted,
            holds: Holds::default(),
            index: Arc::new(Mutex::new(index)),
            volumes: RwLock::new(volumes),
            making: Mutex::new(()),
            _lock: lock,
        }),
        Err(error) => {
            // A refused pool is left as it was found.
            if let Some(mounted) = mounted.filter(|_| !was_mounted)
                && let Err(error) = mounted.unmount()
            {
                tracing::warn!(%error, "a refused pool stays mounted");
            }
            Err(error)
        }
    }
}

type Loaded = (
    PoolIdentity,
    BTreeMap<VolumeUid, Arc<Volume>>,
    HashMap<holdfast_types::SnapshotUuid, VolumeUid>,
);

fn load(options: &XfsOptions, root: &Path) -> Result<Loaded> {
    check_filesystem(root)?;
    let identity = identity(options, root)?;
    let scratch = root.join("scratch");
    remove_dir(&scratch)?;
    make_dir(&scratch)?;
    let volumes_dir = root.join("volumes");
    make_dir(&volumes_dir)?;
    let (mut volumes, mut index) = (BTreeMap::new(), HashMap::new());
    let attached = LoopDevice::attached()?;
    for entry in fs::read_dir(&volumes_dir).map_err(Error::io("listing", &volumes_dir))? {
        let path = entry.map_err(Error::io("listing", &volumes_dir))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with('.') {
            remove_dir(&path)?;
            continue;
        }
        let reason = || Error::Corrupt { path: path.clone(), reason: "it is no volume".into() };
        let uid: VolumeUid = name.parse().map_err(|_| reason())?;
        let volume = Volume::load(&path, uid)?;
        volume.adopt(&attached)?;
        index.extend(volume.slot()?.state.snapshots.iter().map(|s| (s.id.uuid, uid)));
        volumes.insert(uid, Arc::new(volume));
    }
    Ok((identity, volumes, index))
}

/// One process per pool. The lock goes with its holder, however that ends.
fn lock(dir: &Path, patience: Duration) -> Result<File> {
    let path = dir.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|e| Error::Unusable { path: dir.into(), reason: e.to_string() })?;
    let free = || flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
    match wait::until(patience, free) {
        true => Ok(file),
        false => Err(Error::InUse(format!("the pool in {}", dir.display()))),
    }
}

/// Refuses a filesystem that cannot share blocks or bypass the page cache.
fn check_filesystem(root: &Path) -> Result<()> {
    let unusable = |reason: &str| Error::Unusable { path: root.into(), reason: reason.into() };
    let stat = statfs(root).map_err(|e| unusable(&e.to_string()))?;
    if stat.f_type as i64 != XFS_MAGIC {
        return Err(unusable(
            "it is not on XFS; use a loop-backed pool, or make one with mkfs.xfs",
        ));
    }
    let (a, b) = (root.join("probe-1.tmp"), root.join("probe-2.tmp"));
    let probe = || -> Result<()> {
        let (one, two) = (create(&a)?, create(&b)?);
        one.set_len(1 << 20).map_err(Error::io("sizing", &a))?;
        ioctl_ficlone(&two, &one)
            .map_err(|_| unusable("its XFS was made without reflink (mkfs.xfs -m reflink=1)"))?;
        rustix::fs::open(&a, OFlags::RDWR | OFlags::DIRECT, rustix::fs::Mode::empty())
            .map(drop)
            .map_err(|_| unusable("it does not allow direct I/O"))
    };
    let result = probe();
    durable::remove_file(&a)?;
    durable::remove_file(&b)?;
    result
}

fn identity(options: &XfsOptions, root: &Path) -> Result<PoolIdentity> {
    const KIND: &str = "pool";
    let path = root.join("pool.json");
    let Some(identity) = durable::load::<PoolIdentity>(&path, KIND)? else {
        if root.join("volumes").exists() {
            return Err(Error::Corrupt { path, reason: "it is missing".into() });
        }
        let identity = PoolIdentity { cluster: options.cluster, pool: Uuid::now_v7() };
        durable::store(&path, KIND, &identity)?;
        return Ok(identity);
    };
    if identity.cluster != options.cluster {
        let (found, wanted) = (identity.cluster, options.cluster);
        return Err(Error::WrongCluster { path, found, wanted });
    }
    Ok(identity)
}

fn make_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(Error::io("making", path))?;
    durable::sync_dir(path.parent().unwrap_or(path))
}
