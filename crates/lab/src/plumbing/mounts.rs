//! The mount table of a lab node.
//!
//! A node has its own sysfs (LXC looks for the node's bridge in it) with the host's cgroups bound
//! back, and its own procfs. It starts from a copy of the host's mounts: other people's loop
//! mounts and namespaces are dropped from the copy, or the node would keep them busy.

use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::LabError;

const CGROUPS: &str = "/sys/fs/cgroup";
const NONE: Option<&str> = None;

/// One line of mountinfo (proc_pid_mountinfo(5)), as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Where it is mounted.
    pub(crate) point: PathBuf,
    /// The filesystem's type.
    pub(crate) kind: String,
    /// What is mounted.
    pub(crate) source: String,
}

/// The calling thread's mounts, oldest first.
pub(crate) fn table() -> Result<Vec<Mount>, LabError> {
    let path = Path::new("/proc/thread-self/mountinfo");
    let text = fs::read_to_string(path).map_err(LabError::io("cannot read", path))?;
    Ok(text.lines().filter_map(parse).collect())
}

fn parse(line: &str) -> Option<Mount> {
    let (mount, fs) = line.split_once(" - ")?;
    let point = mount.split(' ').nth(4)?.replace("\\040", " ");
    let mut fs = fs.split(' ');
    let (kind, source) = (fs.next()?.to_owned(), fs.next()?.to_owned());
    Some(Mount { point: point.into(), kind, source })
}

/// Turns the calling process's fresh copy of the host's mounts into a node's. It must be in the
/// node's network namespace already: a sysfs shows the one that it was mounted in.
pub(crate) fn become_node(lab_dir: &Path, aside: &Path) -> Result<(), LabError> {
    let flags = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(NONE, "/", NONE, flags, NONE).map_err(LabError::sys("cannot unshare mounts"))?;
    drop_foreign(lab_dir)?;
    own_sysfs(aside)?;
    // As on a machine booted by systemd: the guardian's namespace is a slave of this one.
    let flags = MsFlags::MS_REC | MsFlags::MS_SHARED;
    mount(NONE, "/", NONE, flags, NONE).map_err(LabError::sys("cannot share mounts"))
}

/// Detaches what the host mounted for others: loop devices and namespaces.
fn drop_foreign(lab_dir: &Path) -> Result<(), LabError> {
    for found in table()?.iter().rev() {
        let foreign = found.kind == "nsfs" || found.source.starts_with("/dev/loop");
        if foreign && !lab_dir.starts_with(&found.point) {
            let _ = umount2(&found.point, MntFlags::MNT_DETACH);
        }
    }
    Ok(())
}

fn own_sysfs(aside: &Path) -> Result<(), LabError> {
    let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(CGROUPS), aside, NONE, bind, NONE)
        .map_err(LabError::sys("cannot put the cgroups aside"))?;
    umount2("/sys", MntFlags::MNT_DETACH).map_err(LabError::sys("cannot unmount /sys"))?;
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), NONE)
        .map_err(LabError::sys("cannot mount sysfs"))?;
    mount(Some(aside), CGROUPS, NONE, bind, NONE)
        .map_err(LabError::sys("cannot bind the cgroups back"))?;
    umount2(aside, MntFlags::MNT_DETACH).map_err(LabError::sys("cannot clean up the cgroups"))?;
    // Where AppArmor is, LXC looks for it there; the kernel may have neither.
    let security = "/sys/kernel/security";
    let _ = mount(Some("securityfs"), security, Some("securityfs"), MsFlags::empty(), NONE);
    Ok(())
}

/// Mounts a procfs of the calling process's pid namespace.
pub(crate) fn own_proc() -> Result<(), LabError> {
    umount2("/proc", MntFlags::MNT_DETACH).map_err(LabError::sys("cannot unmount /proc"))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, NONE)
        .map_err(LabError::sys("cannot mount /proc"))
}

/// Unmounts everything at or below the directory from the host's own namespace.
pub(crate) fn clear_below(dir: &Path) -> Result<(), LabError> {
    for found in table()?.iter().rev().filter(|m| m.point.starts_with(dir)) {
        let _ = umount2(&found.point, MntFlags::MNT_DETACH);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_read() {
        let line = "36 35 7:1 / /mnt/a\\040b rw,noatime master:1 - ext4 /dev/loop1 rw,errors=x";
        let mount = parse(line).unwrap();
        assert_eq!(mount.point, Path::new("/mnt/a b"));
        assert_eq!((mount.kind.as_str(), mount.source.as_str()), ("ext4", "/dev/loop1"));
        assert_eq!(parse("nonsense"), None);
    }
}
