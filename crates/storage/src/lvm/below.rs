//! The disks that a thin pool lies on, found by what the kernel says is below what (sysfs(5):
//! `/sys/dev/block/MAJOR:MINOR/slaves`), and asked whether they answer.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::thin::ThinPool;
use crate::{Error, Result};

/// As much as any disk reads at once.
const BLOCK: usize = 4096;
/// Of a chain of devices, each on the next, no more are followed.
const DEEPEST: usize = 16;

impl ThinPool {
    /// Reads something of every disk below, past all caches. That of a disk which is there fails only
    /// where its very first block is lost.
    pub(super) fn answers(&self) -> Result<()> {
        self.require_writable()?;
        let (major, minor) = self.number;
        let top = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
        let mut disks = BTreeSet::new();
        collect(&top, DEEPEST, &mut disks)?;
        disks.iter().try_for_each(|disk| read(disk))
    }
}

/// Adds the names of what has nothing below it.
fn collect(device: &Path, depth: usize, disks: &mut BTreeSet<String>) -> Result<()> {
    let below = match fs::read_dir(device.join("slaves")) {
        Ok(below) => below.collect::<std::io::Result<Vec<_>>>(),
        // A partition has no such directory.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e),
    };
    let below = below.map_err(Error::io("listing", device))?;
    if below.is_empty() || depth == 0 {
        let link = fs::canonicalize(device).map_err(Error::io("following", device))?;
        disks.extend(link.file_name().map(|name| name.to_string_lossy().replace('!', "/")));
        return Ok(());
    }
    below.iter().try_for_each(|entry| collect(&entry.path(), depth - 1, disks))
}

fn read(disk: &str) -> Result<()> {
    let path = Path::new("/dev").join(disk);
    let file = rustix::fs::open(&path, OFlags::RDONLY | OFlags::DIRECT, Mode::empty());
    let file = fs::File::from(file.map_err(Error::io("opening", &path))?);
    // Direct I/O wants an aligned place.
    let mut buffer = vec![0; 2 * BLOCK];
    let at = buffer.as_ptr().align_offset(BLOCK);
    let aligned = &mut buffer[at..at + BLOCK];
    file.read_exact_at(aligned, 0).map_err(Error::io("reading", &path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_devices_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let device = |name: &str| dir.path().join(name);
        for name in ["pool/slaves", "data/slaves", "meta/slaves", "disk1/slaves", "part2"] {
            fs::create_dir_all(device(name)).unwrap();
        }
        for (above, below) in [
            ("pool", "data"),
            ("pool", "meta"),
            ("data", "disk1"),
            ("data", "part2"),
            ("meta", "disk1"),
        ] {
            let link = device(above).join("slaves").join(below);
            std::os::unix::fs::symlink(device(below), link).unwrap();
        }
        let mut disks = BTreeSet::new();
        collect(&device("pool"), DEEPEST, &mut disks).unwrap();
        assert_eq!(disks.into_iter().collect::<Vec<_>>(), ["disk1", "part2"]);
    }
}
