//! Opening a pool: keep others out, mount it, and refuse what cannot carry one.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use holdfast_types::{ByteSize, ClusterId};
use rustix::fs::{FlockOperation, OFlags, flock, ioctl_ficlone, statfs};

use super::XfsPool;
use super::image::{self, Mounted};
use super::reflinks::{Reflinks, create};
use super::space::Space;
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

impl XfsPool {
    /// Opens the pool, making it if the directory is empty. Finishes or undoes what a crash left.
    pub fn open(options: &XfsOptions) -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Err(Error::NotRoot);
        }
        let lock = lock(&options.dir, options.patience)?;
        let mounted = match &options.loop_backed {
            Some(backed) => Some(image::mount(&options.dir, backed, options.patience)?),
            None => None,
        };
        let root = mounted.as_ref().map_or(&options.dir, Mounted::root).clone();
        let space = Space {
            root: root.clone(),
            carrier: mounted.as_ref().map(|m| m.image().to_owned()),
            threshold_percent: options.threshold_percent,
        };
        let reflinks = Arc::new(Reflinks { space, mounted, _lock: lock });
        let opened = check_filesystem(&root)
            .and_then(|()| Self::load(&root, options.cluster, reflinks.clone()));
        if opened.is_err()
            // A refused pool is left as it was found.
            && let Some(mounted) = reflinks.mounted.as_ref().filter(|m| !m.was_there())
            && let Err(error) = mounted.unmount()
        {
            tracing::warn!(%error, "a refused pool stays mounted");
        }
        opened
    }

    /// Closes a pool whose volumes are all inactive: unmounts what opening has mounted.
    pub fn close(self) -> Result<()> {
        let reflinks = self.into_blocks();
        reflinks.mounted.as_ref().map_or(Ok(()), Mounted::unmount)
    }
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
