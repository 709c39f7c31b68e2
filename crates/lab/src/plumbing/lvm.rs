//! The volume groups of a lab, one a node, and what is left of them in the kernel when a node loses
//! its power: on a real machine nothing would be, here mapped devices stay until they are removed.
//!
//! A group is named after its lab and node, so that `down` finds it without any record.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{loops, tool};
use crate::LabError;
use crate::layout::Layout;
use crate::wait::wait_until;

/// Debian's package of LVM's programs.
pub(crate) const PACKAGES: [(&str, &str); 3] =
    [("lvm", "lvm2"), ("dmsetup", "dmsetup"), ("thin_check", "thin-provisioning-tools")];

/// So many times a device is found busy before its filesystem is thawed, which mounts it.
const ROUNDS_TO_THAW: u32 = 20;

/// Starts no daemon of LVM's own (dmeventd(8)), which all nodes of the lab would share.
const QUIET: &str = "activation{monitoring=0}";

/// Writes a node's own configuration of LVM (lvm.conf(5)): it sees its own disk and no other, as a
/// machine would.
pub(crate) fn configure(dir: &Path, device: &Path) -> Result<(), LabError> {
    fs::create_dir_all(dir).map_err(LabError::io("cannot make", dir))?;
    let file = dir.join("lvm.conf");
    let text = format!(
        "devices {{ global_filter = [ \"a|^{}$|\", \"r|.*|\" ] use_devicesfile = 0 hints = \"none\" }}\n\
         {QUIET}\n",
        device.display()
    );
    fs::write(&file, text).map_err(LabError::io("cannot write", &file))
}

/// Takes down what a node without power has left: its volumes' devices, then its group's.
pub(crate) fn release(layout: &Layout, node: &str, limit: Duration) -> Result<(), LabError> {
    let group = layout.pool(node);
    let mut rounds = 0_u32;
    wait_until(&format!("the release of the volume group {group}"), limit, || {
        rounds += 1;
        for (device, node) in Devices::list()?.of(&group) {
            // One that was suspended when its node lost power would never let go.
            let _ = tool::run(&["dmsetup", "resume", &device]);
            // Busy: the kernel is not done with the node's mounts; the next round sees.
            let _ = tool::run(&["dmsetup", "remove", &device]);
            // Nor would one whose filesystem was frozen.
            if rounds.is_multiple_of(ROUNDS_TO_THAW) {
                loops::thaw(&node);
            }
        }
        let left = Devices::list()?;
        if left.of(&group).is_empty() && left.any(&group) {
            let _ = tool::run(&["lvm", "vgchange", "-qq", "-an", "--config", QUIET, &group]);
        }
        Ok(!Devices::list()?.any(&group))
    })
}

/// Removes the groups of a lab, and what made their disks theirs.
pub(crate) fn destroy(layout: &Layout, limit: Duration) -> Result<(), LabError> {
    for (group, devices) in groups(layout)? {
        let node = group.strip_prefix(&layout.pool_prefix()).unwrap_or_default();
        release(layout, node, limit)?;
        tool::run(&["lvm", "vgremove", "-qq", "-ff", "-y", "--config", QUIET, &group])?;
        for device in devices {
            tool::run(&["lvm", "pvremove", "-qq", "-ff", "-y", &device])?;
        }
    }
    Ok(())
}

/// The lab's groups with the devices of each; none where there is no LVM.
fn groups(layout: &Layout) -> Result<Vec<(String, Vec<String>)>, LabError> {
    let devices = |group: &str| {
        let select = format!("vg_name={group}");
        let text = tool::run(&["lvm", "pvs", "--noheadings", "-o", "pv_name", "-S", &select])?;
        Ok::<Vec<String>, LabError>(text.split_whitespace().map(str::to_owned).collect())
    };
    if !tool::is_installed("lvm") || !Path::new("/dev/mapper/control").exists() {
        return Ok(Vec::new());
    }
    let text = tool::run(&["lvm", "vgs", "--noheadings", "-o", "vg_name"])?;
    let ours = text.split_whitespace().filter(|name| layout.is_pool(name));
    ours.map(|group| Ok((group.to_owned(), devices(group)?))).collect()
}

/// The mapped devices of this machine, by name, with their major and minor numbers.
struct Devices(Vec<(String, (u32, u32))>);

impl Devices {
    /// As `dmsetup ls` prints them: a name, a tab, and `(MAJOR:MINOR)`.
    fn list() -> Result<Self, LabError> {
        Ok(Self::parse(&tool::run(&["dmsetup", "ls"])?))
    }

    fn parse(text: &str) -> Self {
        let device = |line: &str| {
            let (name, number) = line.split_once('\t')?;
            let number = number.trim().strip_prefix('(')?.strip_suffix(')')?;
            let (major, minor) = number.split_once([':', ','])?;
            Some((name.to_owned(), (major.trim().parse().ok()?, minor.trim().parse().ok()?)))
        };
        Self(text.lines().filter_map(device).collect())
    }

    /// Those that the daemon maps by itself in the group's thin pool, with the nodes of each: they bear
    /// the pool's number.
    fn of(&self, group: &str) -> Vec<(String, String)> {
        let prefix = mapped(group);
        let pools = self.0.iter().filter(|(name, _)| {
            name.strip_prefix(&prefix).is_some_and(|rest| rest.ends_with("-tpool"))
        });
        let prefixes: Vec<_> =
            pools.map(|(_, (major, minor))| format!("holdfast-{major}-{minor}-")).collect();
        let ours = |name: &str| prefixes.iter().any(|prefix| name.starts_with(prefix));
        let devices = self.0.iter().filter(|(name, _)| ours(name));
        devices.map(|(name, (_, minor))| (name.clone(), format!("/dev/dm-{minor}"))).collect()
    }

    /// Whether the group has any device, its volumes' left out.
    fn any(&self, group: &str) -> bool {
        let prefix = mapped(group);
        self.0.iter().any(|(name, _)| name.starts_with(&prefix))
    }
}

/// What the names of a group's mapped devices begin with: LVM doubles the hyphens of a name.
fn mapped(group: &str) -> String {
    format!("{}-", group.replace('-', "--"))
}

/// The device, resolved: LVM's filter knows it by this name.
pub(crate) fn resolve(device: &Path) -> Result<PathBuf, LabError> {
    device.canonicalize().map_err(LabError::io("cannot find the device", device))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nodes_devices_are_told_from_anothers() {
        let text = "hf--lab--n1-holdfast_pool-tpool\t(253:4)\n\
                    hf--lab--n1-holdfast_catalog\t(253:1)\n\
                    hf--lab--n10-holdfast_pool-tpool\t(253:9)\n\
                    holdfast-253-4-item-8388608\t(253:12)\n\
                    holdfast-253-40-item-8388608\t(253:13)\n\
                    holdfast-253-9-item-8388608\t(253:14)\n";
        let devices = Devices::parse(text);
        let expected = ("holdfast-253-4-item-8388608".to_owned(), "/dev/dm-12".to_owned());
        assert_eq!(devices.of("hf-lab-n1"), [expected]);
        assert!(devices.any("hf-lab-n1") && !devices.any("hf-lab-n2"));
        assert!(!Devices::parse("No devices found\n").any("hf-lab-n1"));
    }
}
