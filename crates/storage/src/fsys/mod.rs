//! What is done to the filesystem (ext4) on a volume: made, grown, renamed, mounted, frozen.

mod freeze;
mod helper;
mod mounts;
mod superblock;

use std::fs::File;
use std::io::{ErrorKind, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

pub use freeze::{FreezeHelper, FreezeWindow};
pub use helper::helper_main;
pub(crate) use helper::thaw_device;
pub use mounts::{is_mounted, mount, mounted, unmount};

use rustix::fs::StatVfsMountFlags;

use crate::{Error, Outcome, Result, sys, wait};

/// Block size of the filesystems made here, in bytes.
const BLOCK: u64 = 4096;
/// The tools' work grows with the volume, but they are stuck well before this.
const TOOL_TIME: Duration = Duration::from_secs(300);

/// Makes an ext4 that clones can give a new UUID (`metadata_csum_seed`), and whose tables are
/// complete, so that it does not go on writing by itself (`mkfs.ext4(8)`).
pub fn mkfs(device: &Path) -> Result<()> {
    make(device, &[])
}

/// The same, for files of a block each: there are as many of them as there is room.
pub(crate) fn mkfs_for_notes(device: &Path) -> Result<()> {
    make(device, &["-i", "4096"])
}

fn make(device: &Path, more: &[&str]) -> Result<()> {
    let mut tool = Command::new("mkfs.ext4");
    tool.args(["-q", "-F", "-b", "4096", "-m", "1"]).args(more);
    tool.args(["-O", "metadata_csum,metadata_csum_seed,64bit"]);
    tool.args(["-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard"]);
    wait::run(tool.arg(device), TOOL_TIME).map(drop)
}

/// The same for a device that reads as zeros, or held a filesystem that nobody used: nothing of
/// its tables is written that is zeros already, so it takes next to no space.
pub fn mkfs_blank(device: &Path) -> Result<()> {
    let mut tool = Command::new("mkfs.ext4");
    tool.args(["-q", "-F", "-b", "4096", "-m", "1"]);
    tool.args(["-O", "metadata_csum,metadata_csum_seed,64bit"]);
    // An interrupted attempt is discarded first, which makes zeros of it.
    tool.args(["-E", "assume_storage_prezeroed=1,lazy_itable_init=0,lazy_journal_init=0,discard"]);
    wait::run(tool.arg(device), TOOL_TIME).map(drop)
}

/// Gives the unmounted filesystem on `device` a new UUID, so that a clone is not its original.
pub fn new_uuid(device: &Path) -> Result<()> {
    let mut tool = Command::new("tune2fs");
    wait::run(tool.args(["-U", "random"]).arg(device), TOOL_TIME).map(drop)
}

/// Grows the unmounted filesystem on `device` to its device's size, after a check.
pub fn grow(device: &Path) -> Result<()> {
    /// `e2fsck(8)`: errors were corrected (a journal was replayed, for one).
    const CORRECTED: i32 = 1;
    let mut check = Command::new("e2fsck");
    wait::run_accepting(check.args(["-f", "-p"]).arg(device), TOOL_TIME, &[0, CORRECTED])?;
    wait::run(Command::new("resize2fs").arg(device), TOOL_TIME).map(drop)
}

/// Grows the filesystem mounted at `mountpoint` to its device's size (`EXT4_IOC_RESIZE_FS`, for
/// which the kernel asks for CAP_SYS_RESOURCE).
pub fn grow_mounted(device: &Path, mountpoint: &Path) -> Result<Outcome> {
    let size = File::open(device).and_then(|mut d| d.seek(SeekFrom::End(0)));
    let blocks = size.map_err(Error::io("measuring", device))? / BLOCK;
    let root = File::open(mountpoint).map_err(Error::io("opening", mountpoint))?;
    let before = total(&root, mountpoint)?;
    sys::resize_ext4(&root, blocks).map_err(|e| match e.kind() {
        ErrorKind::PermissionDenied => Error::NotPermitted("growing a mounted filesystem"),
        _ => Error::io("growing the filesystem at", mountpoint)(e),
    })?;
    match total(&root, mountpoint)? == before {
        true => Ok(Outcome::AlreadyThere),
        false => Ok(Outcome::Changed),
    }
}

/// Whether the ext4 on `device` is as large as its device.
pub fn fills_device(device: &Path) -> Result<bool> {
    let mut file = File::open(device).map_err(Error::io("opening", device))?;
    let size = file.seek(SeekFrom::End(0)).map_err(Error::io("measuring", device))?;
    Ok(superblock::read(&file, device)?.is_some_and(|fs| fs.size >= size))
}

/// Writes out what is dirty at `mountpoint` (`syncfs(2)`).
pub fn sync(mountpoint: &Path) -> Result<()> {
    let root = File::open(mountpoint).map_err(Error::io("opening", mountpoint))?;
    rustix::fs::syncfs(&root).map_err(Error::io("syncing", mountpoint))
}

/// Whether the filesystem at `mountpoint` takes no writes: the kernel makes it so when it cannot
/// write its journal. Mounting it anew, once it can, replays what was written.
pub fn is_read_only(mountpoint: &Path) -> Result<bool> {
    let stat = rustix::fs::statvfs(mountpoint).map_err(Error::io("asking", mountpoint))?;
    Ok(stat.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// Gives back to the pool what the filesystem at `mountpoint` does not use (`FITRIM`), a piece at a
/// time, so that neither its users nor an unmount have to wait for long. Returns the bytes discarded.
pub fn trim(mountpoint: &Path) -> Result<u64> {
    const PIECE: u64 = 4 << 30;
    const PAUSE: Duration = Duration::from_millis(50);
    let open = || File::open(mountpoint).map_err(Error::io("opening", mountpoint));
    let device =
        |root: &File| root.metadata().map(|m| m.dev()).map_err(Error::io("reading", mountpoint));
    let root = open()?;
    let (mounted, size) = (device(&root)?, total(&root, mountpoint)? * BLOCK);
    drop(root);
    let mut trimmed = 0;
    for start in (0..size).step_by(PIECE as usize) {
        let root = open()?;
        // It was unmounted meanwhile: this is another filesystem.
        if device(&root)? != mounted {
            break;
        }
        // What the filesystem keeps for itself is not in its size: the last piece goes to the end.
        let len = if start + PIECE >= size { u64::MAX - start } else { PIECE };
        trimmed += sys::trim(&root, start, len).map_err(Error::io("trimming", mountpoint))?;
        drop(root);
        std::thread::sleep(PAUSE);
    }
    Ok(trimmed)
}

/// How many sectors `device` has written and discarded since it was attached. Equal counts mean
/// equal content. (Not the number of requests: a cache flush counts as one of those.)
pub fn write_counter(device: &Path) -> Result<u64> {
    let meta = std::fs::metadata(device).map_err(Error::io("reading", device))?;
    if !meta.file_type().is_block_device() {
        let source = std::io::ErrorKind::InvalidInput.into();
        return Err(Error::Io { what: "counting writes of", path: device.into(), source });
    }
    let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    let path = format!("/sys/dev/block/{major}:{minor}/stat");
    let text = std::fs::read_to_string(&path).map_err(Error::io("reading", &path))?;
    parse_counter(&text).ok_or_else(|| Error::Corrupt { path: path.into(), reason: text })
}

/// `Documentation/block/stat`: the 7th number is sectors written, the 14th sectors discarded.
fn parse_counter(stat: &str) -> Option<u64> {
    let number = |n: usize| stat.split_whitespace().nth(n)?.parse::<u64>().ok();
    Some(number(6)? + number(13)?)
}

fn total(root: &File, path: &Path) -> Result<u64> {
    let stat = rustix::fs::fstatvfs(root).map_err(Error::io("measuring", path))?;
    Ok(stat.f_blocks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_adds_writes_and_discards() {
        let stat = "  10  0 80 1  7 2 56 3  0 4 5  3 0 24 1  0 0\n";
        assert_eq!(parse_counter(stat), Some(80));
        assert_eq!(parse_counter("1 2 3"), None);
    }
}
