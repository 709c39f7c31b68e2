//! An XFS in a file: made, attached with direct I/O, mounted; never attached twice.
//!
//! After a node's power cut the kernel takes its mounts and loop devices down by itself, some
//! time later. Attaching the file again before that would put two XFS on the same blocks, so
//! opening waits for it. A filesystem that was frozen at that moment would keep it for ever: it
//! is thawed.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use holdfast_types::ByteSize;
use rustix::mount::{MountFlags, UnmountFlags, mount as sys_mount, unmount};

use super::open::LoopBacked;
use crate::loopdev::{Backing, LoopDevice};
use crate::{Error, Result, durable, fsys, wait};

/// mkfs.xfs refuses less.
const LEAST: ByteSize = ByteSize::mib(300);
const MKFS_TIME: Duration = Duration::from_secs(120);
const UNMOUNT_TIME: Duration = Duration::from_secs(10);

/// The mounted file.
#[derive(Debug)]
pub(super) struct Mounted {
    image: PathBuf,
    mountpoint: PathBuf,
    was_there: bool,
}

impl Mounted {
    pub(super) fn root(&self) -> &PathBuf {
        &self.mountpoint
    }

    pub(super) fn image(&self) -> &Path {
        &self.image
    }

    /// Whether an earlier life of this process had mounted it.
    pub(super) fn was_there(&self) -> bool {
        self.was_there
    }

    pub(super) fn unmount(&self) -> Result<()> {
        let mut last = Ok(());
        wait::until(UNMOUNT_TIME, || {
            last = unmount(&self.mountpoint, UnmountFlags::NOFOLLOW);
            last.is_ok()
        });
        last.map_err(Error::io("unmounting", &self.mountpoint))?;
        let file = File::open(&self.image).map_err(Error::io("opening", &self.image))?;
        let backing = Backing::of(&file, &self.image)?;
        match wait::until(UNMOUNT_TIME, || is_free(backing)) {
            true => Ok(()),
            false => Err(Error::Timeout(format!("the loop device of {}", self.image.display()))),
        }
    }
}

/// Mounts the pool's file, making it first if there is none.
pub(super) fn mount(dir: &Path, backed: &LoopBacked, patience: Duration) -> Result<Mounted> {
    let image = dir.join("pool.img");
    if !image.exists() {
        make(&image, backed.size)?;
    }
    let mountpoint = backed.mountpoint.clone();
    fs::create_dir_all(&mountpoint).map_err(Error::io("making", &mountpoint))?;
    let file = File::open(&image).map_err(Error::io("opening", &image))?;
    let backing = Backing::of(&file, &image)?;
    if mounted_there(&mountpoint, backing)? {
        return Ok(Mounted { image, mountpoint, was_there: true });
    }
    wait_until_free(&image, backing, patience)?;
    let device = LoopDevice::attach(&image)?;
    sys_mount(device.path(), &mountpoint, "xfs", MountFlags::NOATIME, None)
        .map_err(Error::io("mounting the pool at", &mountpoint))?;
    Ok(Mounted { image, mountpoint, was_there: false })
}

/// Under another name until it is complete.
fn make(image: &Path, size: ByteSize) -> Result<()> {
    if size < LEAST {
        return Err(Error::BadSize { size, reason: "a pool is 300MiB at least" });
    }
    let temp = image.with_extension("tmp");
    let file = File::create(&temp).map_err(Error::io("making", &temp))?;
    file.set_len(size.bytes()).map_err(Error::io("sizing", &temp))?;
    // Sectors as large as the loop device's blocks, or it would not mount.
    let mut mkfs = Command::new("mkfs.xfs");
    mkfs.args(["-q", "-f", "-m", "reflink=1", "-s", "size=4096"]).arg(&temp);
    wait::run(&mut mkfs, MKFS_TIME)?;
    file.sync_all().map_err(Error::io("syncing", &temp))?;
    fs::rename(&temp, image).map_err(Error::io("making", image))?;
    durable::sync_dir(image.parent().unwrap_or(Path::new("/")))
}

/// Whether what is mounted at `mountpoint` is that file (a daemon restarts, mounts stay).
fn mounted_there(mountpoint: &Path, backing: Backing) -> Result<bool> {
    let device = fs::metadata(mountpoint).map_err(Error::io("reading", mountpoint))?.dev();
    Ok(holder(backing)?.is_some_and(|number| LoopDevice::device_number(number) == device))
}

/// The loop device that has the file, if any.
fn holder(backing: Backing) -> Result<Option<u32>> {
    let attached = LoopDevice::attached()?;
    Ok(attached.into_iter().find(|(_, b)| *b == backing).map(|(number, _)| number))
}

/// Whether certainly no loop device has the file.
fn is_free(backing: Backing) -> bool {
    matches!(holder(backing), Ok(None))
}

fn wait_until_free(image: &Path, backing: Backing, patience: Duration) -> Result<()> {
    // Thawing opens what is being taken down, so it comes second.
    let grace = patience.min(Duration::from_secs(2)) / 4;
    if wait::until(grace, || is_free(backing)) {
        return Ok(());
    }
    if let Some(number) = holder(backing)? {
        let pool = LoopDevice::device_number(number);
        for (inner, _) in LoopDevice::attached()?.iter().filter(|(_, b)| b.is_on(pool)) {
            fsys::thaw_device(*inner);
        }
    }
    match wait::until(patience - grace, || is_free(backing)) {
        true => Ok(()),
        false => Err(Error::InUse(format!("{}, attached by another mount,", image.display()))),
    }
}
