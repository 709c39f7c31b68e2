//! A small model of LVM: what each step makes of what was found. Plans are tried on it with an
//! interruption after each of their steps.

use std::path::{Path, PathBuf};

use super::found::{Device, Found, Group, Logical, Physical, Piece, Tools};
use super::{ANCHOR, CATALOG, Name, OURS, Plan, Refusal, Request, Step, plan};

const EXTENT: u64 = 4 << 20;

/// A blank disk of 10 GiB.
pub(super) fn disk(path: &str) -> Device {
    Device {
        path: path.into(),
        number: format!("8:{}", path.bytes().map(u32::from).sum::<u32>()),
        size: 10 << 30,
        kind: "disk".into(),
        ..Device::default()
    }
}

/// A machine with these blank disks.
pub(super) fn found(paths: &[&str]) -> Found {
    Found {
        devices: paths.iter().map(|path| disk(path)).collect(),
        tools: Tools { lvm: Some([2, 3, 16]), thin: Some([0, 9, 0]) },
        ..Found::default()
    }
}

/// The plan for `request`, and what is found after it; tried also with an interruption after each
/// of its steps, from where the same request must lead to the same end.
pub(super) fn carry_out(request: &Request, before: &Found) -> Result<(Plan, Found), Refusal> {
    let whole = plan(request, before)?;
    let end = after(before, &whole.steps);
    assert_eq!(plan(request, &end).map(|plan| plan.steps), Ok(Vec::new()), "once more: {whole:?}");
    for done in 0..whole.steps.len() {
        let middle = after(before, &whole.steps[..done]);
        let rest = plan(request, &middle).unwrap_or_else(|e| panic!("after {done} steps: {e}"));
        assert_eq!(after(&middle, &rest.steps), end, "after {done} steps");
    }
    Ok((whole, end))
}

/// What is found after these steps.
pub(super) fn after(before: &Found, steps: &[Step]) -> Found {
    let mut found = before.clone();
    steps.iter().for_each(|step| found.apply(step));
    found
}

impl Found {
    fn apply(&mut self, step: &Step) {
        match step {
            Step::Wipe { device, .. } => {
                let number = self.device_mut(device).number.clone();
                self.device_mut(device).signatures.clear();
                self.physicals.retain(|physical| physical.number != number);
            }
            Step::MakeGroup { group, devices } => {
                self.groups.push(Group {
                    name: group.to_string(),
                    uuid: format!("uuid of {group}"),
                    extent: EXTENT,
                    writable: true,
                    tags: vec![OURS.into()],
                    ..Group::default()
                });
                self.add(group, devices);
            }
            Step::AddDevices { group, devices } => self.add(group, devices),
            Step::RemoveUnfinished { group, name } => self.remove(group, name.as_str()),
            Step::MakeCatalog { group, size } => {
                self.make(group, CATALOG, "linear", size.bytes(), 0);
                self.logical_mut(group, CATALOG).tags.push(super::MAKING.into());
            }
            Step::FormatCatalog { group } => self.logical_mut(group, CATALOG).tags.clear(),
            Step::MakePool { group, name, data, metadata } => {
                self.make(group, name.as_str(), "thin-pool", data.bytes(), metadata.bytes());
            }
            Step::MakeAnchor { group, name } => {
                self.make(group, ANCHOR, "thin", 0, 0);
                self.logical_mut(group, ANCHOR).pool = name.to_string();
            }
        }
    }

    pub(super) fn device_mut(&mut self, path: &Path) -> &mut Device {
        self.devices.iter_mut().find(|device| device.path == path).unwrap()
    }

    pub(super) fn group_mut(&mut self, name: &Name) -> &mut Group {
        self.groups.iter_mut().find(|group| group.name == name.as_str()).unwrap()
    }

    pub(super) fn logical_mut(&mut self, group: &Name, name: &str) -> &mut Logical {
        let mut logicals = self.logicals.iter_mut().filter(|l| l.group == group.as_str());
        logicals.find(|logical| logical.name == name).unwrap()
    }

    fn add(&mut self, group: &Name, devices: &[PathBuf]) {
        for path in devices {
            let device = self.device_mut(path);
            assert!(device.users.is_empty(), "{} is in use", path.display());
            device.signatures = vec!["LVM2_member".into()];
            let extents = (device.size - (1 << 20)) / EXTENT;
            let physical = Physical {
                name: path.display().to_string(),
                number: device.number.clone(),
                uuid: format!("uuid of {}", path.display()),
                group: group.to_string(),
                extents,
                allocatable: true,
                in_use: true,
                ..Physical::default()
            };
            self.physicals.retain(|other| other.number != physical.number);
            self.physicals.push(physical);
            self.group_mut(group).free += extents;
        }
    }

    /// Takes extents of the first physical volumes that have some.
    pub(super) fn make(&mut self, group: &Name, name: &str, kind: &str, size: u64, metadata: u64) {
        let mut wanted = (size + 2 * metadata) / EXTENT;
        let free = &mut self.group_mut(group).free;
        assert!(*free >= wanted, "{free} extents are free, {wanted} are wanted for {name}");
        *free -= wanted;
        for physical in self.physicals.iter_mut().filter(|p| p.group == group.as_str()) {
            let extents = wanted.min(physical.extents - physical.used);
            physical.used += extents;
            wanted -= extents;
            if extents > 0 {
                self.pieces.push(Piece {
                    physical: physical.uuid.clone(),
                    logical: name.into(),
                    extents,
                });
            }
        }
        self.logicals.push(Logical {
            name: name.into(),
            group: group.to_string(),
            kind: kind.into(),
            size,
            metadata,
            chunk: 64 << 10,
            zeroes: true,
            active: true,
            ..Logical::default()
        });
    }

    fn remove(&mut self, group: &Name, name: &str) {
        self.logicals.retain(|logical| logical.group != group.as_str() || logical.name != name);
        let gone = |piece: &mut Piece| piece.logical == name;
        for piece in self.pieces.extract_if(.., gone).collect::<Vec<_>>() {
            let mut physicals = self.physicals.iter_mut();
            physicals.find(|p| p.uuid == piece.physical).unwrap().used -= piece.extents;
            self.group_mut(group).free += piece.extents;
        }
    }
}
