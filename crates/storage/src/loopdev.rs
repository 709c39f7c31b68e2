//! Loop devices (loop(4)) with direct I/O that go away with their last user.
//!
//! Autoclear makes SIGKILL of everything that uses a device free it; so does a mount namespace's
//! end. A device is told by its backing file's (device, inode), which means the same in every
//! mount namespace, where a path does not.

use std::fs::{self, File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, OFlags, makedev, mknodat};
use rustix::io::Errno;

use crate::{Error, Result, sys, wait};

/// Logical block size of volumes' devices: that of the filesystems on them.
const BLOCK: u32 = 4096;
/// How many loop devices another process may take from under us before we give up.
const RACES: usize = 64;
const ENXIO: i32 = Errno::NXIO.raw_os_error();
const ENODEV: i32 = Errno::NODEV.raw_os_error();
/// How long the kernel may take to detach a device that nobody uses.
const DETACH: Duration = Duration::from_secs(5);

/// A backing file, wherever it is mounted: its filesystem's device and its inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Backing(u64, u64);

impl Backing {
    /// Of an open file.
    pub(crate) fn of(file: &File, path: &Path) -> Result<Self> {
        let meta = file.metadata().map_err(Error::io("reading", path))?;
        Ok(Self(meta.dev(), meta.ino()))
    }

    /// Whether the file lies on the filesystem of that device.
    pub(crate) fn is_on(&self, device: u64) -> bool {
        self.0 == device
    }
}

/// An attached loop device. It stays attached as long as this or a mount of it lives.
#[derive(Debug)]
pub struct LoopDevice {
    number: u32,
    backing: Backing,
    path: PathBuf,
    file: OwnedFd,
}

impl LoopDevice {
    /// Attaches `path`, which must allow direct I/O.
    pub(crate) fn attach(path: &Path) -> Result<Self> {
        let file = open(path, OFlags::DIRECT).map_err(|e| unusable(path, "direct I/O", e))?;
        let backing = Backing::of(&file, path)?;
        let control = open(Path::new("/dev/loop-control"), OFlags::empty())
            .map_err(|e| unusable(path, "a loop device (/dev/loop-control)", e))?;
        for _ in 0..RACES {
            let number = sys::loop_get_free(&control)
                .map_err(|e| unusable(path, "a free loop device", e.into()))?;
            let node = node(number)?;
            let device = open(&node, OFlags::empty()).map_err(Error::io("opening", &node))?;
            let flags = sys::LOOP_AUTOCLEAR | sys::LOOP_DIRECT_IO;
            match sys::loop_configure(&device, &file, BLOCK, flags) {
                Err(Errno::BUSY) => continue,
                Err(e) => return Err(unusable(path, "a loop device", e.into())),
                Ok(()) => {}
            }
            let info = sys::loop_status(&device).map_err(Error::io("asking", &node))?;
            if info.flags & sys::LOOP_DIRECT_IO == 0 {
                // The kernel falls back to buffered I/O without a word; autoclear detaches it.
                return Err(unusable(path, "direct I/O", Errno::OPNOTSUPP.into()));
            }
            return Ok(Self { number, backing, path: node, file: device.into() });
        }
        Err(Error::Timeout("a free loop device".into()))
    }

    /// Every loop device that is attached now, with its number and backing file. Not being able
    /// to tell is an error: a file that is attached twice is a file that is destroyed.
    pub(crate) fn attached() -> Result<Vec<(u32, Backing)>> {
        let sys = Path::new("/sys/block");
        let mut found = Vec::new();
        for entry in fs::read_dir(sys).map_err(Error::io("listing", sys))? {
            let entry = entry.map_err(Error::io("listing", sys))?;
            let name = entry.file_name();
            let number = name.to_str().and_then(|n| n.strip_prefix("loop")?.parse().ok());
            let Some(number) = number.filter(|_| entry.path().join("loop").exists()) else {
                continue;
            };
            found.extend(Self::adopt(number)?.map(|device| (number, device.backing)));
        }
        Ok(found)
    }

    /// Opens a device that is attached already; `None` if it is attached to nothing by now.
    pub(crate) fn adopt(number: u32) -> Result<Option<Self>> {
        let path = node(number)?;
        let asked = open(&path, OFlags::empty()).and_then(|file| {
            let info = sys::loop_status(&file)?;
            Ok((file, Backing(info.device, info.inode)))
        });
        match asked {
            Ok((file, backing)) => Ok(Some(Self { number, backing, path, file: file.into() })),
            // Detached, or on its way there.
            Err(e) if matches!(e.raw_os_error(), Some(ENXIO | ENODEV)) => Ok(None),
            Err(e) => Err(Error::io("asking", &path)(e)),
        }
    }

    /// Its node in `/dev`.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its device number, as `stat` says it of files on a filesystem mounted from it.
    pub(crate) fn device_number(number: u32) -> u64 {
        makedev(7, number)
    }

    /// Takes up the backing file's new size.
    pub(crate) fn grown(&self) -> Result<()> {
        sys::loop_set_capacity(&self.file).map_err(Error::io("growing", &self.path))
    }

    /// Detaches it and waits until it is gone. If it is in use, it comes back with the error.
    pub(crate) fn detach(self) -> Result<(), (Option<Self>, Error)> {
        let in_use = || Error::InUse(format!("the device {}", self.path.display()));
        // A block device that is mounted cannot be opened exclusively.
        match rustix::fs::open(
            &self.path,
            OFlags::RDWR | OFlags::EXCL | OFlags::CLOEXEC,
            Mode::empty(),
        ) {
            Err(Errno::BUSY) => {
                let error = in_use();
                return Err((Some(self), error));
            }
            Err(e) => return Err((None, Error::io("opening", &self.path)(e))),
            Ok(exclusive) => drop(exclusive),
        }
        let error = in_use();
        let Self { number, backing, file, path } = self;
        // Explicitly, too: a device adopted from an older life may lack the flag.
        let cleared = sys::loop_clear(&file);
        drop(file);
        let still = || Self::adopt(number).ok().flatten().filter(|d| d.backing == backing);
        if wait::until(DETACH, || still().is_none()) {
            return Ok(());
        }
        tracing::debug!(device = %path.display(), ?cleared, "a loop device is still attached");
        Err((still(), error))
    }
}

fn open(path: &Path, flags: OFlags) -> std::io::Result<File> {
    let flags = i32::try_from((flags | OFlags::CLOEXEC).bits()).unwrap_or_default();
    OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)
}

/// The device node of loop device `number`, made where nothing does it by itself.
fn node(number: u32) -> Result<PathBuf> {
    let path = PathBuf::from(format!("/dev/loop{number}"));
    if !path.exists() {
        let mode = Mode::RUSR | Mode::WUSR;
        match mknodat(CWD, &path, FileType::BlockDevice, mode, makedev(7, number)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(Error::io("making", &path)(e)),
        }
    }
    Ok(path)
}

fn unusable(path: &Path, lacks: &str, error: std::io::Error) -> Error {
    match rustix::process::geteuid().is_root() {
        true => Error::Unusable { path: path.into(), reason: format!("no {lacks}: {error}") },
        false => Error::NotRoot,
    }
}
