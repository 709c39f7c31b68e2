//! Where the unified cgroup hierarchy is, and what its paths mean.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// The mount point of cgroup v2: `/sys/fs/cgroup` on a pure system, `/sys/fs/cgroup/unified` on
/// one that mounts v1 beside it. `None` if it is not mounted.
pub fn find_unified() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    unified_in(&mounts)
}

/// What `/proc/PID/cgroup` says, after `0::`, of the members of the cgroup that has this directory.
/// `None` if the path is relative, holds `..`, or is not below a cgroup2 mount; the mount point
/// itself is no answer either.
pub(crate) fn membership_of(directory: &Path) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    membership_in(&mounts, directory)
}

/// The cgroup of the calling process, as `/proc/self/cgroup` has it after `0::`.
pub(crate) fn own_membership() -> Option<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    text.lines().find_map(|line| line.strip_prefix("0::")).map(PathBuf::from)
}

/// The (root, mount point) pairs of the cgroup2 mounts, in the order of mounting: proc(5).
fn mounts_in(mountinfo: &str) -> impl Iterator<Item = (&Path, &Path)> {
    mountinfo.lines().filter_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let found = (Path::new(fields.next()?), Path::new(fields.next()?));
        filesystem.starts_with("cgroup2 ").then_some(found)
    })
}

/// The usual places win over others (a container tool may have mounted it aside), then the latest.
fn unified_in(mountinfo: &str) -> Option<PathBuf> {
    let points = mounts_in(mountinfo).filter(|(root, _)| *root == Path::new("/"));
    let usual = |point: &Path| point.starts_with("/sys/fs/cgroup");
    points.map(|(_, point)| point).max_by_key(|point| usual(point)).map(Path::to_owned)
}

fn membership_in(mountinfo: &str, directory: &Path) -> Option<PathBuf> {
    let plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
    if !directory.is_absolute() || !directory.components().all(plain) {
        return None;
    }
    let over = mounts_in(mountinfo).filter(|(_, point)| directory.starts_with(point));
    let (root, point) = over.max_by_key(|(_, point)| point.components().count())?;
    let below = directory.strip_prefix(point).ok()?;
    (below != Path::new("")).then(|| root.join(below))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
        40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n\
        42 31 0:38 / /mnt/aside rw,relatime shared:9 - cgroup2 cgroup2 rw\n\
        43 31 0:38 /part /mnt/part rw,relatime shared:9 - cgroup2 cgroup2 rw\n";

    #[test]
    fn both_layouts_are_found() {
        assert_eq!(unified_in(HYBRID), Some("/sys/fs/cgroup/unified".into()));
        let pure = "30 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(unified_in(pure), Some("/sys/fs/cgroup".into()));
        assert_eq!(unified_in("1 0 8:1 / / rw - ext4 /dev/sda rw\n"), None);
    }

    #[test]
    fn memberships_are_relative_to_their_mount() {
        let is = |directory: &str| membership_in(HYBRID, Path::new(directory));
        assert_eq!(is("/sys/fs/cgroup/unified/hf/web"), Some("/hf/web".into()));
        assert_eq!(is("/mnt/aside/hf"), Some("/hf".into()));
        assert_eq!(is("/mnt/part/hf"), Some("/part/hf".into()));
        for bad in [
            "/sys/fs/cgroup/unified",
            "/sys/fs/cgroup/systemd/hf",
            "/tmp/hf",
            "hf",
            "/sys/fs/cgroup/unified/../systemd/hf",
        ] {
            assert_eq!(is(bad), None, "{bad}");
        }
    }
}
