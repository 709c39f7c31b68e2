//! What the pool is to be made of.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Finding, said, version_in};
use crate::config::{Config, PoolDriver};

/// Older ones have no thin pools that grow and report as ours do; what was tried is newer.
const LVM_LEAST: [u32; 3] = [2, 3, 0];
const LVM_TRIED: [u32; 3] = [2, 3, 16];

/// Of linux/magic.h.
const XFS_MAGIC: i64 = 0x5846_5342;
const TMPFS_MAGIC: i64 = 0x0102_1994;

#[derive(Debug, Clone)]
pub(super) enum Facts {
    Lvm {
        /// What `lvm version` says.
        version: Option<String>,
        /// Whether device-mapper's control device is there.
        control: bool,
    },
    Xfs {
        path: PathBuf,
        /// Which filesystem the directory, or the nearest one above, is on.
        magic: Option<i64>,
        /// Whether it is an XFS that shares blocks; nothing if that is not known.
        reflink: Option<bool>,
        /// Whether it is to be kept in a file.
        in_file: bool,
    },
    None,
}

impl Facts {
    pub(super) fn gather(config: &Config) -> Self {
        match config.pool.driver {
            PoolDriver::None => Self::None,
            PoolDriver::Lvm => Self::Lvm {
                version: said("lvm", &["version"]),
                control: Path::new("/dev/mapper/control").exists(),
            },
            PoolDriver::Xfs => {
                let path = config.pool.path();
                let there = path.ancestors().find(|dir| dir.is_dir());
                let magic = there.and_then(|dir| rustix::fs::statfs(dir).ok());
                let magic = magic.map(|stat| stat.f_type);
                let of_xfs = there.filter(|_| magic == Some(XFS_MAGIC)).and_then(mountpoint_of);
                let told = of_xfs.and_then(|point| said("xfs_info", &[point.to_str()?]));
                Self::Xfs {
                    path: path.to_owned(),
                    magic,
                    reflink: told.map(|told| told.contains("reflink=1")),
                    in_file: config.pool.size.is_some(),
                }
            }
        }
    }
}

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    match facts {
        Facts::None => vec![],
        Facts::Lvm { version, control } => {
            vec![lvm(version.as_deref()), device_mapper(*control)]
        }
        Facts::Xfs { path, magic, reflink, in_file } => {
            vec![directory(path, *magic, *reflink, *in_file)]
        }
    }
}

fn lvm(said: Option<&str>) -> Finding {
    const NAME: &str = "lvm";
    let tried = format!("install LVM {} or newer: Debian 12 has it", of_lvm(LVM_TRIED));
    match said.and_then(version_in) {
        None => Finding::problem(NAME, "lvm does not say its version", "apt-get install lvm2"),
        Some(version) if version < LVM_LEAST => {
            Finding::problem(NAME, format!("LVM {} is too old", of_lvm(version)), tried)
        }
        Some(version) if version < LVM_TRIED => {
            let what = format!("LVM {} is older than what was tried", of_lvm(version));
            Finding::warning(NAME, what, tried)
        }
        Some(version) => Finding::ok(NAME, format!("LVM {}", of_lvm(version))),
    }
}

/// LVM writes the second part in two digits.
fn of_lvm(version: [u32; 3]) -> String {
    let [major, minor, patch] = version;
    format!("{major}.{minor:02}.{patch:02}")
}

fn device_mapper(control: bool) -> Finding {
    const NAME: &str = "device-mapper";
    if control {
        return Finding::ok(NAME, "its control device is there");
    }
    let cure = "modprobe dm-mod, and a line dm-mod in /etc/modules-load.d/holdfast.conf";
    Finding::problem(NAME, "there is no /dev/mapper/control", cure)
}

fn directory(path: &Path, magic: Option<i64>, reflink: Option<bool>, in_file: bool) -> Finding {
    const NAME: &str = "pool-directory";
    let place = path.display();
    match (magic, reflink) {
        (None, _) => {
            let cure = "make a directory on a local disk, and name it in [pool] path";
            Finding::problem(NAME, format!("nothing is known of {place}"), cure)
        }
        (Some(TMPFS_MAGIC), _) => {
            let what = format!("{place} is in memory: a reboot takes every copy here");
            Finding::problem(NAME, what, "name a directory on a disk in [pool] path")
        }
        (Some(XFS_MAGIC), Some(false)) if !in_file => {
            let what = format!("the XFS of {place} shares no blocks");
            let cure = "make it anew with mkfs.xfs -m reflink=1, or give [pool] a size";
            Finding::problem(NAME, what, cure)
        }
        (Some(XFS_MAGIC), _) if !in_file => Finding::ok(NAME, format!("{place} is on XFS")),
        _ => Finding::ok(NAME, format!("the pool is to be an XFS in a file in {place}")),
    }
}

/// The highest directory above that is on the same device.
fn mountpoint_of(dir: &Path) -> Option<&Path> {
    let device = dir.metadata().ok()?.dev();
    let same = |dir: &&Path| dir.metadata().is_ok_and(|meta| meta.dev() == device);
    dir.ancestors().take_while(same).last()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Grade;

    fn of_lvm(version: Option<&str>, control: bool) -> Vec<Grade> {
        let facts = Facts::Lvm { version: version.map(str::to_owned), control };
        check(&facts).iter().map(|finding| finding.grade).collect()
    }

    #[test]
    fn lvm_has_to_be_new_enough_and_device_mapper_there() {
        let said = "  LVM version:     2.03.16(2) (2022-05-18)\n  Driver version:  4.47.0\n";
        assert_eq!(of_lvm(Some(said), true), [Grade::Ok; 2]);
        let facts = Facts::Lvm { version: Some(said.into()), control: true };
        assert_eq!(check(&facts)[0].what, "LVM 2.03.16");
        assert_eq!(of_lvm(Some("LVM version: 2.03.11(2)"), true)[0], Grade::Warning);
        assert_eq!(of_lvm(Some("LVM version: 2.02.98(2)"), true)[0], Grade::Problem);
        assert_eq!(of_lvm(None, false), [Grade::Problem; 2]);
    }

    #[test]
    fn a_directory_shares_blocks_or_holds_a_file_and_is_on_a_disk() {
        const EXT4: Option<i64> = Some(0xEF53);
        let of = |magic, reflink, in_file| {
            let facts = Facts::Xfs { path: "/pool".into(), magic, reflink, in_file };
            check(&facts).remove(0).grade
        };
        assert_eq!(of(Some(XFS_MAGIC), Some(true), false), Grade::Ok);
        assert_eq!(of(Some(XFS_MAGIC), None, false), Grade::Ok);
        assert_eq!(of(Some(XFS_MAGIC), Some(false), false), Grade::Problem);
        assert_eq!(of(Some(XFS_MAGIC), Some(false), true), Grade::Ok);
        assert_eq!(of(EXT4, None, false), Grade::Ok);
        assert_eq!(of(Some(TMPFS_MAGIC), None, true), Grade::Problem);
        assert_eq!(of(None, None, true), Grade::Problem);
    }

    #[test]
    fn a_mountpoint_is_found_from_below() {
        assert_eq!(mountpoint_of(Path::new("/proc/sys/vm")), Some(Path::new("/proc")));
    }
}
