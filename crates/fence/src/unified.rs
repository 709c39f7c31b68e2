//! Where the unified cgroup hierarchy is.

use std::fs;
use std::path::PathBuf;

/// The mount point of cgroup v2: `/sys/fs/cgroup` on a pure system, `/sys/fs/cgroup/unified` on
/// one that mounts v1 beside it. `None` if it is not mounted.
pub fn find_unified() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    unified_in(&mounts)
}

/// The last mount wins: it is the one on top.
fn unified_in(mountinfo: &str) -> Option<PathBuf> {
    mountinfo
        .lines()
        .filter_map(|line| {
            let (mount, filesystem) = line.split_once(" - ")?;
            let mut fields = mount.split(' ').skip(3);
            let (root, point) = (fields.next()?, fields.next()?);
            let is_whole = filesystem.starts_with("cgroup2 ") && root == "/";
            is_whole.then(|| PathBuf::from(point))
        })
        .next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_layouts_are_found() {
        let hybrid = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
            40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(unified_in(hybrid), Some("/sys/fs/cgroup/unified".into()));
        let pure = "30 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(unified_in(pure), Some("/sys/fs/cgroup".into()));
        assert_eq!(unified_in("1 0 8:1 / / rw - ext4 /dev/sda rw\n"), None);
    }
}
