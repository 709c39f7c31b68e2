//! The programs that the daemon calls, and LXC's version.

use std::path::PathBuf;

use holdfast_runtime::lxc;

use super::{Finding, dotted, said, version_in};
use crate::config::Config;
use crate::host;

/// Containers' configurations are written for it.
const LXC_LEAST: [u32; 3] = [5, 0, 0];

#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// Those that are missing, and the Debian package of each.
    missing: Vec<(&'static str, &'static str)>,
    /// Those of ours that are missing.
    ours_missing: Vec<PathBuf>,
    /// What `lxc-start --version` says.
    lxc: Option<String>,
    /// Whether the kernel confines by AppArmor.
    apparmor: bool,
}

impl Facts {
    pub(super) fn gather(config: &Config) -> Self {
        Self {
            missing: host::missing_tools(config.pool.driver).collect(),
            ours_missing: host::own_programs(config).filter(|path| !path.is_file()).collect(),
            lxc: said("lxc-start", &["--version"]),
            apparmor: lxc::apparmor_enabled(),
        }
    }
}

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    vec![called(facts), ours(facts), lxc(facts.lxc.as_deref()), confined(facts.apparmor)]
}

fn called(facts: &Facts) -> Finding {
    const NAME: &str = "programs";
    if facts.missing.is_empty() {
        return Finding::ok(NAME, "all that are called are installed");
    }
    let tools: Vec<_> = facts.missing.iter().map(|(tool, _)| *tool).collect();
    let mut packages: Vec<_> = facts.missing.iter().map(|(_, package)| *package).collect();
    packages.sort_unstable();
    packages.dedup();
    let what = format!("not installed: {}", tools.join(", "));
    Finding::problem(NAME, what, format!("apt-get install {}", packages.join(" ")))
}

fn ours(facts: &Facts) -> Finding {
    const NAME: &str = "own-programs";
    if facts.ours_missing.is_empty() {
        return Finding::ok(NAME, "the guardian and the freeze helper are there");
    }
    let missing: Vec<_> =
        facts.ours_missing.iter().map(|path| path.display().to_string()).collect();
    let cure = "put both there, or say in [guardian] binary where the guardian is";
    Finding::problem(NAME, format!("there is no {}", missing.join(" and no ")), cure)
}

fn lxc(said: Option<&str>) -> Finding {
    const NAME: &str = "lxc";
    let cure = format!("install LXC {} or newer: Debian 12 has 5.0.2", dotted(LXC_LEAST));
    match said.and_then(version_in) {
        None => Finding::problem(NAME, "lxc-start does not say its version", cure),
        Some(version) if version < LXC_LEAST => {
            Finding::problem(NAME, format!("LXC {} is too old", dotted(version)), cure)
        }
        Some(version) => Finding::ok(NAME, format!("LXC {}", dotted(version))),
    }
}

fn confined(apparmor: bool) -> Finding {
    const NAME: &str = "apparmor";
    if apparmor {
        return Finding::ok(NAME, "containers are confined by it");
    }
    let what = "the kernel does not confine by AppArmor: containers' user namespaces do, alone";
    Finding::warning(NAME, what, "boot with apparmor=1 security=apparmor")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Grade;

    fn good() -> Facts {
        Facts { lxc: Some("5.0.2\n".into()), apparmor: true, ..Facts::default() }
    }

    #[test]
    fn what_is_missing_is_named_with_its_packages() {
        assert!(check(&good()).iter().all(|finding| finding.grade == Grade::Ok));
        let missing = vec![("mkfs.ext4", "e2fsprogs"), ("resize2fs", "e2fsprogs"), ("lvm", "lvm2")];
        let found = check(&Facts { missing, ..good() }).remove(0);
        assert_eq!(found.grade, Grade::Problem);
        assert_eq!(found.what, "not installed: mkfs.ext4, resize2fs, lvm");
        assert_eq!(found.cure.as_deref(), Some("apt-get install e2fsprogs lvm2"));
        let ours_missing = vec!["/usr/lib/holdfast/holdfast-freeze".into()];
        let found = check(&Facts { ours_missing, ..good() }).remove(1);
        assert!(found.grade == Grade::Problem && found.what.contains("holdfast-freeze"));
    }

    #[test]
    fn an_lxc_that_reads_other_configurations_is_a_problem() {
        for said in [None, Some("4.0.6".into()), Some("what?".into())] {
            assert_eq!(check(&Facts { lxc: said, ..good() })[2].grade, Grade::Problem);
        }
    }

    #[test]
    fn a_kernel_without_apparmor_is_worth_a_word() {
        assert_eq!(check(&Facts { apparmor: false, ..good() })[3].grade, Grade::Warning);
    }
}
