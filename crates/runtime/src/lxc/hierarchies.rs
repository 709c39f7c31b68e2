//! Which cgroup hierarchies there are here, and which of them carries a controller.
//!
//! Real systems are pure v2; others mount v1 hierarchies for the controllers beside a v2 one
//! without (the "hybrid" layout of systemd). Nothing is assumed: `/proc/self/mountinfo` says what
//! is mounted (proc_pid_mountinfo(5)), `cgroup.controllers` what v2 offers (cgroups(7)).

use std::fs;
use std::path::{Path, PathBuf};

use crate::RuntimeError;

/// The cgroup hierarchies of this mount namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchies {
    /// Mount point of the v2 hierarchy. Freezing, killing and events are always here.
    unified: PathBuf,
    /// Controllers that the v2 hierarchy carries.
    unified_controllers: Vec<String>,
    /// Whether a cgroup namespace bounds what its members may do in the v2 hierarchy (`nsdelegate`,
    /// with which systemd mounts it).
    delegates: bool,
    /// The v1 hierarchies: controllers and mount point.
    legacy: Vec<(Vec<String>, PathBuf)>,
}

/// Where a controller's files are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier<'a> {
    /// In the v2 hierarchy, mounted here.
    V2(&'a Path),
    /// In a v1 hierarchy, mounted here.
    V1(&'a Path),
}

impl Hierarchies {
    /// Finds out what is mounted.
    pub fn discover() -> Result<Self, RuntimeError> {
        let path = "/proc/self/mountinfo";
        let mounts = fs::read_to_string(path).map_err(super::io_error("read", path))?;
        let mut found = Self::parse(&mounts)
            .ok_or(RuntimeError::Cgroups("no cgroup2 hierarchy is mounted below /sys/fs/cgroup"))?;
        let file = found.unified.join("cgroup.controllers");
        let text = fs::read_to_string(&file).map_err(super::io_error("read", &file))?;
        found.unified_controllers = text.split_whitespace().map(str::to_owned).collect();
        Ok(found)
    }

    /// Reads a mountinfo. Of several mounts of one kind the last one counts: it is on top.
    fn parse(mountinfo: &str) -> Option<Self> {
        let (mut unified, mut delegates) = (None, false);
        let mut legacy: Vec<(Vec<String>, PathBuf)> = Vec::new();
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let mut left = left.split(' ').skip(3);
            let (Some(root), Some(point)) = (left.next(), left.next()) else { continue };
            let mut right = right.split(' ');
            let (kind, options) = (right.next(), right.nth(1).unwrap_or_default());
            if root != "/" || !point.starts_with("/sys/fs/cgroup") {
                continue;
            }
            match kind {
                Some("cgroup2") => {
                    unified = Some(PathBuf::from(point));
                    delegates = options.split(',').any(|option| option == "nsdelegate");
                }
                Some("cgroup") => {
                    let controllers = options.split(',').map(str::to_owned).collect();
                    legacy.retain(|(_, other)| other != Path::new(point));
                    legacy.push((controllers, PathBuf::from(point)));
                }
                _ => (),
            }
        }
        Some(Self { unified: unified?, unified_controllers: Vec::new(), delegates, legacy })
    }

    /// The v2 hierarchy's mount point.
    pub fn unified(&self) -> &Path {
        &self.unified
    }

    /// Whether a cgroup namespace is a boundary, across which no process may be moved from inside.
    pub(super) fn delegates(&self) -> bool {
        self.delegates
    }

    /// What `/proc/PID/cgroup` says of a process in the root of every hierarchy (cgroups(7)).
    pub(super) fn at_root(&self) -> String {
        const FLAGS: [&str; 5] = ["rw", "ro", "xattr", "clone_children", "noprefix"];
        let named = |options: &[String]| {
            let names = options.iter().filter(|option| !FLAGS.contains(&option.as_str()));
            names.cloned().collect::<Vec<_>>().join(",")
        };
        let legacy = (1..).zip(&self.legacy);
        let lines = legacy.map(|(id, (options, _))| format!("{id}:{}:/\n", named(options)));
        lines.chain(["0::/\n".to_owned()]).collect()
    }

    /// Mount points of every hierarchy.
    pub(super) fn all(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(self.unified.as_path()).chain(self.legacy.iter().map(|(_, p)| p.as_path()))
    }

    /// Where a controller's files are, if it is to be had.
    pub fn carrier(&self, controller: &str) -> Option<Carrier<'_>> {
        let has = |list: &[String]| list.iter().any(|c| c == controller);
        if has(&self.unified_controllers) {
            return Some(Carrier::V2(&self.unified));
        }
        self.legacy.iter().find(|(list, _)| has(list)).map(|(_, point)| Carrier::V1(point))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
24 23 0:21 / /sys/fs/cgroup rw - tmpfs tmpfs rw
25 24 0:22 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
26 24 0:23 / /sys/fs/cgroup/memory rw,relatime shared:4 - cgroup cgroup rw,memory
27 24 0:24 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
28 24 0:24 /elsewhere /mnt rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn controllers_are_found_in_a_hybrid_layout() {
        let found = Hierarchies::parse(HYBRID).unwrap();
        assert_eq!(found.unified(), Path::new("/sys/fs/cgroup/unified"));
        let memory = Carrier::V1(Path::new("/sys/fs/cgroup/memory"));
        assert_eq!(found.carrier("memory"), Some(memory));
        assert_eq!(found.carrier("pids"), None);
        assert_eq!(found.all().count(), 3);
        assert!(!found.delegates());
        assert_eq!(found.at_root(), "1:cpu:/\n2:memory:/\n0::/\n");
    }

    #[test]
    fn controllers_are_found_in_a_pure_v2_layout() {
        let text = "24 23 0:21 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let mut found = Hierarchies::parse(text).unwrap();
        found.unified_controllers = vec!["cpu".into(), "memory".into()];
        let unified = Path::new("/sys/fs/cgroup");
        assert_eq!(found.carrier("memory"), Some(Carrier::V2(unified)));
        assert_eq!(found.all().collect::<Vec<_>>(), [unified]);
        assert!(found.delegates());
        assert_eq!(found.at_root(), "0::/\n");
    }

    #[test]
    fn a_machine_without_v2_is_refused() {
        assert_eq!(
            Hierarchies::parse("25 24 0:22 / /sys/fs/cgroup/cpu rw - cgroup c rw,cpu"),
            None
        );
        assert!(Hierarchies::discover().is_ok());
    }
}
