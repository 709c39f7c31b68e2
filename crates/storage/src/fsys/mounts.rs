//! Mounting and unmounting, in this process's mount namespace.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use crate::{Error, Outcome, Result, wait};

/// Mounts the ext4 on `device` at `target`, which is made if it is not there. A journal that
/// needs replay is replayed, so a crashed filesystem becomes a consistent one.
pub fn mount(device: &Path, target: &Path) -> Result<Outcome> {
    if is_mounted(target)? {
        let there = fs::metadata(target).map_err(Error::io("reading", target))?.dev();
        let wanted = fs::metadata(device).map_err(Error::io("reading", device))?.rdev();
        return match there == wanted {
            true => Ok(Outcome::AlreadyThere),
            // A stale mount, such as of the live part before a promotion, is not what was asked.
            false => Err(Error::InUse(format!("the mount point {}", target.display()))),
        };
    }
    fs::create_dir_all(target).map_err(Error::io("making", target))?;
    let flags = MountFlags::NOATIME | MountFlags::NODEV;
    // A damaged filesystem is not written to.
    let options = c"errors=remount-ro";
    rustix::mount::mount(device, target, "ext4", flags, options)
        .map_err(Error::io("mounting at", target))?;
    Ok(Outcome::Changed)
}

/// Unmounts `target`, waiting up to `limit` for its last user to go. Never lazily: what is
/// unmounted is really out of use.
pub fn unmount(target: &Path, limit: Duration) -> Result<Outcome> {
    let mut last = Err(Errno::BUSY);
    wait::until(limit, || {
        last = rustix::mount::unmount(target, UnmountFlags::NOFOLLOW);
        last != Err(Errno::BUSY)
    });
    match last {
        Ok(()) => Ok(Outcome::Changed),
        Err(Errno::INVAL | Errno::NOENT) => Ok(Outcome::AlreadyThere),
        Err(Errno::BUSY) => Err(Error::InUse(format!("the mount at {}", target.display()))),
        Err(e) => Err(Error::io("unmounting", target)(e)),
    }
}

/// Whether something is mounted exactly at `target`.
pub fn is_mounted(target: &Path) -> Result<bool> {
    Ok(!mounted(&[target])?.is_empty())
}

/// Those of `targets` at which something is mounted exactly.
pub fn mounted<P: AsRef<Path>>(targets: &[P]) -> Result<Vec<&P>> {
    let there = targets.iter().filter_map(|target| Some((fs::canonicalize(target).ok()?, target)));
    let there: Vec<_> = there.collect();
    if there.is_empty() {
        return Ok(Vec::new());
    }
    let path = "/proc/self/mountinfo";
    let text = fs::read(path).map_err(Error::io("reading", path))?;
    let points: BTreeSet<_> = text.split(|b| *b == b'\n').filter_map(mountpoint).collect();
    Ok(there
        .into_iter()
        .filter(|(real, _)| points.contains(real))
        .map(|(_, given)| given)
        .collect())
}

/// The fifth field of a line of mountinfo (`proc(5)`), which escapes blanks as `\040`.
fn mountpoint(line: &[u8]) -> Option<PathBuf> {
    let field = line.split(|b| *b == b' ').nth(4)?;
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = (byte == b'\\').then(|| tail.get(..3)).flatten();
        let code = octal.and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 8).ok());
        out.push(code.unwrap_or(byte));
        rest = if code.is_some() { &tail[3..] } else { tail };
    }
    Some(PathBuf::from(std::ffi::OsString::from_vec(out)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn escaped_mount_points_are_read() {
        let line = br"36 35 98:0 / /mnt/a\040b\134c rw - ext4 /dev/x rw";
        let path = mountpoint(line).unwrap();
        assert_eq!(path.as_os_str().as_bytes(), br"/mnt/a b\c");
        assert!(is_mounted(Path::new("/proc")).unwrap());
        assert!(!is_mounted(Path::new("/proc/self")).unwrap());
    }
}
