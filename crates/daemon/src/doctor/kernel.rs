//! The kernel: new enough, and with what is asked of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::{Finding, dotted, version_in};
use crate::config::PoolDriver;

/// `cgroup.kill` came with it; everything else that is used is older.
const LEAST: [u32; 3] = [5, 14, 0];

/// What every container has of its own.
const NAMESPACES: [&str; 7] = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];

/// The network between the nodes, and containers' filesystem.
const MODULES: [&str; 4] = ["bridge", "veth", "vxlan", "ext4"];
const XFS_MODULES: [&str; 2] = ["xfs", "loop"];
const LVM_MODULES: [&str; 2] = ["dm_mod", "dm_thin_pool"];

#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    release: String,
    namespaces: BTreeSet<String>,
    /// How many user namespaces there may be; nothing if the kernel does not say.
    user_namespaces: Option<u64>,
    /// What `/proc/filesystems` and `/sys/module` have: modules that are there now.
    present: BTreeSet<String>,
    /// What is built in or can be loaded, as depmod has listed it; nothing if it has not.
    modules: Option<BTreeSet<String>>,
}

impl Facts {
    pub(super) fn gather() -> Self {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let user_namespaces = fs::read_to_string("/proc/sys/user/max_user_namespaces");
        let filesystems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
        let mounted = filesystems.lines().filter_map(|line| line.split_whitespace().last());
        let present = mounted.map(str::to_owned).chain(names_in("/sys/module")).collect();
        let modules = Path::new("/lib/modules").join(&release);
        let listed = |file| fs::read_to_string(modules.join(file)).ok();
        let listed = listed("modules.dep").zip(listed("modules.builtin"));
        Self {
            namespaces: names_in("/proc/self/ns").collect(),
            user_namespaces: user_namespaces.ok().and_then(|text| text.trim().parse().ok()),
            present,
            modules: listed.map(|(loadable, built_in)| {
                loadable.lines().chain(built_in.lines()).filter_map(module_of).collect()
            }),
            release,
        }
    }
}

pub(super) fn check(facts: &Facts, driver: Option<PoolDriver>) -> Vec<Finding> {
    let mut found = vec![version(&facts.release)];
    if driver == Some(PoolDriver::None) {
        return found;
    }
    found.push(namespaces(facts));
    let of_pool = match driver {
        Some(PoolDriver::Xfs) => &XFS_MODULES[..],
        Some(PoolDriver::Lvm) => &LVM_MODULES[..],
        Some(PoolDriver::None) | None => &[],
    };
    found.push(modules(facts, MODULES.iter().chain(of_pool)));
    found
}

fn version(release: &str) -> Finding {
    const NAME: &str = "kernel";
    let newer = format!("run Linux {} or newer: Debian 12 has 6.1", dotted(LEAST));
    match version_in(release) {
        Some(version) if version >= LEAST => Finding::ok(NAME, format!("Linux {release}")),
        Some(_) => Finding::problem(NAME, format!("Linux {release} is too old"), newer),
        None => Finding::warning(NAME, format!("{release:?} is no version that is known"), newer),
    }
}

fn namespaces(facts: &Facts) -> Finding {
    const NAME: &str = "namespaces";
    let missing = NAMESPACES.iter().filter(|name| !facts.namespaces.contains(**name));
    let missing: Vec<_> = missing.copied().collect();
    if !missing.is_empty() {
        let what = format!("the kernel has no namespaces of {}", missing.join(", "));
        return Finding::problem(NAME, what, "run a kernel that was built with them");
    }
    if facts.user_namespaces == Some(0) {
        let what = "no user namespace may be made, and every container has one";
        let cure = "set sysctl user.max_user_namespaces, in /etc/sysctl.d too, to some thousands";
        return Finding::problem(NAME, what, cure);
    }
    Finding::ok(NAME, "all that containers are made of are there")
}

fn modules<'a>(facts: &Facts, wanted: impl Iterator<Item = &'a &'static str>) -> Finding {
    const NAME: &str = "kernel-modules";
    let missing: Vec<_> = wanted.copied().filter(|name| !facts.present.contains(*name)).collect();
    let Some(modules) = &facts.modules else {
        if missing.is_empty() {
            return Finding::ok(NAME, "all are there");
        }
        let release = &facts.release;
        let what = format!("nothing says whether there is {}", missing.join(", "));
        let cure = format!(
            "nothing if they are built in; if /lib/modules/{release} went with an update, reboot"
        );
        return Finding::warning(NAME, what, cure);
    };
    let missing: Vec<_> = missing.into_iter().filter(|name| !modules.contains(*name)).collect();
    if missing.is_empty() {
        return Finding::ok(NAME, "all are there, or can be loaded");
    }
    let what = format!("the kernel has no {}", missing.join(", "));
    Finding::problem(NAME, what, "run one that has: Debian's linux-image-amd64, not -cloud-amd64")
}

/// `kernel/drivers/md/dm-thin-pool.ko.xz: …` is `dm_thin_pool`.
fn module_of(line: &str) -> Option<String> {
    let path = line.split(':').next()?;
    let (name, _) = path.rsplit('/').next()?.split_once(".ko")?;
    Some(name.replace('-', "_"))
}

fn names_in(dir: &str) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Grade;

    fn good() -> Facts {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Facts {
            release: "6.1.0-18-amd64".into(),
            namespaces: set(&NAMESPACES),
            user_namespaces: Some(4096),
            present: set(&["ext4", "loop"]),
            modules: Some(set(&["bridge", "veth", "vxlan", "xfs", "dm_mod", "dm_thin_pool"])),
        }
    }

    fn grades(facts: &Facts, driver: PoolDriver) -> Vec<Grade> {
        check(facts, Some(driver)).iter().map(|finding| finding.grade).collect()
    }

    #[test]
    fn a_kernel_has_to_be_new_enough_and_whole() {
        for driver in [PoolDriver::Xfs, PoolDriver::Lvm] {
            assert_eq!(grades(&good(), driver), [Grade::Ok; 3]);
        }
        let old = Facts { release: "5.10.0-28-amd64".into(), ..good() };
        assert_eq!(grades(&old, PoolDriver::None), [Grade::Problem]);
        let shut = Facts { user_namespaces: Some(0), ..good() };
        assert_eq!(grades(&shut, PoolDriver::Xfs)[1], Grade::Problem);
        let mut without = good();
        without.namespaces.remove("user");
        assert!(check(&without, Some(PoolDriver::Lvm))[1].what.contains("user"));
    }

    #[test]
    fn what_the_driver_needs_is_asked_of_the_kernel() {
        let mut bare = good();
        bare.modules.as_mut().unwrap().remove("dm_thin_pool");
        assert_eq!(grades(&bare, PoolDriver::Xfs)[2], Grade::Ok);
        let found = check(&bare, Some(PoolDriver::Lvm)).remove(2);
        assert_eq!(
            (found.grade, found.what.as_str()),
            (Grade::Problem, "the kernel has no dm_thin_pool")
        );
        let unknown = Facts { modules: None, ..good() };
        assert_eq!(grades(&unknown, PoolDriver::Lvm)[2], Grade::Warning);
    }

    #[test]
    fn modules_are_named_as_the_kernel_names_them() {
        let line = "kernel/drivers/md/dm-thin-pool.ko.xz: kernel/drivers/md/dm-mod.ko.xz";
        assert_eq!(module_of(line), Some("dm_thin_pool".into()));
        assert_eq!(module_of("kernel/net/bridge/bridge.ko"), Some("bridge".into()));
        assert_eq!(module_of("# comment"), None);
    }
}
