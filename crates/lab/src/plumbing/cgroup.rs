//! Cgroups of a lab, in every hierarchy there is: pure v2, v1 beside v2, or both.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::wait::wait_until;
use crate::{LabError, sys};

/// The mounted cgroup hierarchies.
#[derive(Debug, Clone)]
pub(crate) struct Hierarchies {
    /// The v2 hierarchy: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` beside v1.
    pub(crate) unified: PathBuf,
    /// The v1 hierarchies, if any.
    v1: Vec<PathBuf>,
}

impl Hierarchies {
    /// Reads which hierarchies are mounted, and where.
    pub(crate) fn discover() -> Result<Self, LabError> {
        let path = Path::new("/proc/self/mountinfo");
        let text = fs::read_to_string(path).map_err(LabError::io("cannot read", path))?;
        Self::parse(&text).ok_or_else(|| LabError::Corrupt {
            path: path.to_owned(),
            why: "no cgroup2 hierarchy is mounted".into(),
        })
    }

    fn parse(mountinfo: &str) -> Option<Self> {
        let mut seen = Vec::new();
        let (mut unified, mut v1) = (None, Vec::new());
        for line in mountinfo.lines() {
            let Some((mount, fs)) = line.split_once(" - ") else { continue };
            let fields: Vec<_> = mount.split(' ').collect();
            let (Some(device), Some(point)) = (fields.get(2), fields.get(4)) else { continue };
            let device = device.to_string();
            if seen.contains(&device) || !fs.starts_with("cgroup") {
                continue;
            }
            seen.push(device);
            match fs.split(' ').next() {
                Some("cgroup2") => unified = unified.or_else(|| Some(PathBuf::from(point))),
                Some("cgroup") => v1.push(PathBuf::from(point)),
                _ => {}
            }
        }
        Some(Self { unified: unified?, v1 })
    }

    fn all(&self) -> impl Iterator<Item = &PathBuf> {
        std::iter::once(&self.unified).chain(&self.v1)
    }

    /// Makes the cgroup and its parents, everywhere, ready to take processes.
    pub(crate) fn make(&self, relative: &str) -> Result<(), LabError> {
        for root in self.all() {
            let mut path = root.clone();
            for part in relative.split('/') {
                let parent = path.clone();
                path.push(part);
                match fs::create_dir(&path) {
                    Ok(()) => inherit(&parent, &path),
                    Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                    Err(e) => return Err(LabError::io("cannot make cgroup", &path)(e)),
                }
            }
        }
        Ok(())
    }

    /// Moves the calling process into the cgroup, everywhere.
    pub(crate) fn join(&self, relative: &str) -> Result<(), LabError> {
        for root in self.all() {
            let procs = root.join(relative).join("cgroup.procs");
            fs::write(&procs, "0").map_err(LabError::io("cannot enter cgroup", &procs))?;
        }
        Ok(())
    }

    /// The v2 path of a cgroup.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.unified.join(relative)
    }

    /// Whether any process lives in the cgroup or below it.
    pub(crate) fn populated(&self, relative: &str) -> bool {
        fs::read_to_string(self.path(relative).join("cgroup.events"))
            .is_ok_and(|events| events.lines().any(|line| line == "populated 1"))
    }

    /// SIGKILL to every process in the cgroup and below, then waits until they are gone.
    pub(crate) fn kill(&self, relative: &str, limit: Duration) -> Result<(), LabError> {
        self.thaw_v1(relative);
        let kill = self.path(relative).join("cgroup.kill");
        match fs::write(&kill, "1") {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(LabError::io("cannot kill cgroup", &kill)(e)),
        }
        let what = format!("the end of every process in {relative}");
        let kept = volumes_seen_here();
        wait_until(&what, limit, || {
            self.thaw_filesystems(relative, &kept);
            Ok(!self.populated(relative))
        })
    }

    /// Who froze a filesystem may have died with all others, and then a task that writes to it never
    /// does: the kernel goes on, where a machine's would be gone. What is on `kept` devices is left
    /// alone.
    fn thaw_filesystems(&self, relative: &str, kept: &BTreeSet<String>) {
        for dir in tree(&self.path(relative)) {
            let tasks = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
            for pid in tasks.lines() {
                let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo"));
                for (device, at) in mounts.unwrap_or_default().lines().filter_map(volume) {
                    if !kept.contains(device) {
                        // What is not frozen says so, and who has died meanwhile has no mounts.
                        let root = fs::File::open(format!("/proc/{pid}/root{at}"));
                        let _ = root.map(|root| sys::thaw(&root));
                    }
                }
            }
        }
    }

    /// A task frozen by the v1 freezer does not die before it is thawed.
    fn thaw_v1(&self, relative: &str) {
        for root in &self.v1 {
            for dir in tree(&root.join(relative)) {
                let state = dir.join("freezer.state");
                if state.exists() {
                    let _ = fs::write(state, "THAWED");
                }
            }
        }
    }

    /// Removes the cgroup and everything below it, everywhere. Nothing may live in it.
    pub(crate) fn remove(&self, relative: &str) -> Result<(), LabError> {
        for root in self.all() {
            let top = root.join(relative);
            let what = format!("the removal of {}", top.display());
            wait_until(&what, Duration::from_secs(10), || {
                for dir in tree(&top) {
                    let _ = fs::remove_dir(dir);
                }
                Ok(!top.exists())
            })?;
        }
        Ok(())
    }
}

/// Device (`major:minor`) and mount point in a line of mountinfo (proc(5)), if what is mounted may
/// be a volume of a pool: an ext4 on a loop or mapped device.
fn volume(line: &str) -> Option<(&str, &str)> {
    let (head, tail) = line.split_once(" - ")?;
    let kinds = ["ext4 /dev/loop", "ext4 /dev/dm-", "ext4 /dev/mapper/holdfast"];
    let mut fields = head.split(' ').skip(2);
    let found = (fields.next()?, fields.nth(1)?);
    kinds.iter().any(|kind| tail.starts_with(kind)).then_some(found)
}

/// The devices of what is mounted here, of which a lab's processes see copies: the machine's own, and
/// not the lab's to thaw.
fn volumes_seen_here() -> BTreeSet<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts.lines().filter_map(volume).map(|(device, _)| device.to_owned()).collect()
}

/// A fresh v1 cpuset takes no process until it has cpus and memory, and LXC's own below it get
/// theirs only from a parent that hands them on (`cgroup.clone_children`); a fresh v2 cgroup's children
/// have only the controllers that their parent passes on. Where a file is not there, the
/// hierarchy has no such thing.
fn inherit(parent: &Path, child: &Path) {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let unset = fs::read_to_string(child.join(file)).is_ok_and(|text| text.trim().is_empty());
        if unset && parent.join("tasks").exists() {
            let _ = fs::read(parent.join(file)).and_then(|text| fs::write(child.join(file), text));
        }
    }
    if child.join("cpuset.cpus").exists() && parent.join("tasks").exists() {
        let _ = fs::write(child.join("cgroup.clone_children"), "1");
    }
    if let Ok(controllers) = fs::read_to_string(parent.join("cgroup.controllers")) {
        let wanted = |name: &&str| ["cpu", "cpuset", "io", "memory", "pids"].contains(name);
        for name in controllers.split_whitespace().filter(wanted) {
            // Refused where a process sits in the parent itself: then limits are not to be had.
            let _ = fs::write(parent.join("cgroup.subtree_control"), format!("+{name}"));
        }
    }
}

/// The directory and all below it, deepest first.
fn tree(top: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    let children = fs::read_dir(top).into_iter().flatten().flatten();
    for child in children.filter(|c| c.file_type().is_ok_and(|t| t.is_dir())) {
        out.extend(tree(&child.path()));
    }
    out.push(top.to_owned());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw
35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
50 99 0:38 / /elsewhere rw - cgroup2 cgroup2 rw";

    #[test]
    fn both_kinds_of_system_are_understood() {
        let hybrid = Hierarchies::parse(HYBRID).unwrap();
        assert_eq!(hybrid.unified, Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(hybrid.v1, [Path::new("/sys/fs/cgroup/memory")]);
        let pure = "41 31 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw";
        let pure = Hierarchies::parse(pure).unwrap();
        assert_eq!((pure.unified.as_path(), pure.v1.len()), (Path::new("/sys/fs/cgroup"), 0));
        assert!(Hierarchies::parse("").is_none());
    }

    fn run(program: &str, arguments: &[&str]) -> bool {
        std::process::Command::new(program).args(arguments).status().is_ok_and(|s| s.success())
    }

    /// A cgroup, gone with what is in it, and a frozen filesystem that it has no part in.
    struct Frozen {
        hierarchies: Hierarchies,
        cgroup: String,
        beside: PathBuf,
    }

    impl Frozen {
        /// Whether it was frozen until now.
        fn thaw_beside(&self) -> bool {
            run("fsfreeze", &["--unfreeze", self.beside.to_str().unwrap_or_default()])
        }
    }

    impl Drop for Frozen {
        fn drop(&mut self) {
            let _ = self.hierarchies.kill(&self.cgroup, Duration::from_secs(10));
            let _ = self.hierarchies.remove(&self.cgroup);
            self.thaw_beside();
            let _ = run("umount", &[self.beside.to_str().unwrap_or_default()]);
        }
    }

    const FREEZE: &str = "mount -o loop \"$1\" \"$2\" && fsfreeze --freeze \"$2\"";

    /// A lab whose power was cut in the midst of a freeze never went away; and one that went away
    /// thawed what somebody else had frozen, because its processes saw a copy of the mount. Needs root.
    #[test]
    fn a_task_that_writes_to_a_frozen_filesystem_ends_and_no_other_is_thawed() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        for (image, at) in [("image", "at"), ("beside-image", "beside")] {
            fs::create_dir(path(at)).unwrap();
            fs::File::create(path(image)).unwrap().set_len(16 << 20).unwrap();
            assert!(run("mkfs.ext4", &["-q", &path(image)]));
        }
        let cgroup = format!("holdfast-t-frozen-{}", std::process::id());
        let hierarchies = Hierarchies::discover().unwrap();
        let frozen = Frozen { hierarchies, cgroup, beside: path("beside").into() };
        let Frozen { hierarchies, cgroup, .. } = &frozen;
        hierarchies.make(cgroup).unwrap();
        assert!(run("sh", &["-c", FREEZE, "sh", &path("beside-image"), &path("beside")]));
        // As on a node, what is mounted is seen in its namespace alone.
        let script = format!("echo $$ > \"$3\"; {FREEZE}; exec tee \"$2/file\"");
        let mut writer = std::process::Command::new("unshare");
        writer.args(["--mount", "sh", "-c", &script, "sh", &path("image"), &path("at")]);
        writer.arg(hierarchies.path(cgroup).join("cgroup.procs"));
        let mut writer = writer.spawn().unwrap();
        let stuck = || {
            let stat = fs::read_to_string(format!("/proc/{}/stat", writer.id())).unwrap();
            Ok(hierarchies.populated(cgroup) && stat.contains("(tee) D "))
        };
        wait_until("a writer that waits", Duration::from_secs(10), stuck).unwrap();
        hierarchies.kill(cgroup, Duration::from_secs(10)).unwrap();
        writer.wait().unwrap();
        assert!(frozen.thaw_beside());
    }
}
