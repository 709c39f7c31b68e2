//! A small model of LVM: what each step makes of what was found. Plans are tried on it with an
//! interruption after each of their steps.

use std::path::{Path, PathBuf};

use super::found::{Device, Found, Group, Logical, Physical, Piece, Tools};
use super::{ANCHOR, CATALOG, Change, Name, OURS, Plan, Refusal, Request, Step, plan};

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

/// A pool called `tank` on the devices `members`, on a machine with these devices.
pub(super) fn pool_on(members: &[&str], devices: &[&str]) -> Found {
    let members = members.iter().map(PathBuf::from).collect();
    let request = Request::on_devices("tank".parse().unwrap(), members, Vec::new());
    let before = found(devices);
    after(&before, &plan(&request, &before).unwrap().steps)
}

/// A change of that pool.
pub(super) fn asked(change: Change) -> Request {
    let thin_pool = super::THIN_POOL.parse().unwrap();
    Request { group: "tank".parse().unwrap(), thin_pool, change }
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
                    resizeable: true,
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
            Step::StopAllocation { device, .. } => self.physical_mut(device).allocatable = false,
            Step::AllowAllocation { device, .. } => self.physical_mut(device).allocatable = true,
            Step::Move { group, device, .. } => self.move_off(group, device),
            Step::RemoveDevice { group, device } => {
                let extents = self.physical_mut(device).extents;
                assert_eq!(self.physical_mut(device).used, 0);
                let number = self.device_mut(device).number.clone();
                self.physicals.retain(|physical| physical.number != number);
                self.device_mut(device).signatures.clear();
                self.group_mut(group).free -= extents;
            }
            Step::GrowMetadata { group, name, size, .. } => {
                let (pool, size) = (name.as_str(), size.bytes());
                let now = self.logical_mut(group, pool).metadata;
                let spare = self.logical_mut(group, "lvol0_pmspare").size;
                self.take(group, pool, size - now);
                self.take(group, "lvol0_pmspare", size.saturating_sub(spare));
                self.logical_mut(group, pool).metadata = size;
                self.logical_mut(group, pool).health.clear();
                self.logical_mut(group, "lvol0_pmspare").size = size.max(spare);
            }
            Step::GrowCatalog { group, size, .. } => {
                let now = self.logical_mut(group, CATALOG).size;
                self.take(group, CATALOG, size.bytes() - now);
                let catalog = self.logical_mut(group, CATALOG);
                catalog.size = size.bytes();
                catalog.tags.retain(|tag| tag != super::GROWING);
            }
            Step::GrowData { group, name, size, .. } => {
                let now = self.logical_mut(group, name.as_str()).size;
                self.take(group, name.as_str(), size.bytes() - now);
                self.logical_mut(group, name.as_str()).size = size.bytes();
            }
            Step::Split { group, devices, into } => {
                let of = self.group_mut(group).clone();
                let name = into.to_string();
                self.groups.push(Group { name, free: 0, tags: Vec::new(), ..of });
                for device in devices {
                    let physical = self.physical_mut(device);
                    physical.group = into.to_string();
                    let (uuid, free) = (physical.uuid.clone(), physical.extents - physical.used);
                    self.group_mut(group).free -= free;
                    self.group_mut(into).free += free;
                    for piece in self.pieces.iter().filter(|piece| piece.physical == uuid) {
                        let mut logicals = self.logicals.iter_mut();
                        logicals.find(|l| l.name == piece.logical).unwrap().group =
                            into.to_string();
                    }
                }
            }
            Step::MarkMerge { group, tags, stale, .. } => {
                let had = &mut self.group_mut(group).tags;
                had.retain(|tag| !stale.contains(tag));
                had.extend_from_slice(tags);
            }
            Step::UnmarkMerge { group, tags, .. } => {
                self.group_mut(group).tags.retain(|tag| !tags.contains(tag));
            }
            Step::Merge { group, from } => {
                let free = self.group_mut(from).free;
                self.group_mut(group).free += free;
                self.groups.retain(|other| other.name != from.as_str());
                let physicals = self.physicals.iter_mut().map(|physical| &mut physical.group);
                let logicals = self.logicals.iter_mut().map(|logical| &mut logical.group);
                for of in physicals.chain(logicals).filter(|of| *of == from.as_str()) {
                    *of = group.to_string();
                }
            }
            Step::RestoreDevice { device, .. } => {
                let mut physicals = self.physicals.iter_mut();
                physicals.find(|p| p.name == *device).unwrap().missing = false;
            }
            Step::RemoveSpare { group, name } => self.remove(group, name),
            Step::ForgetMissing { .. } => self.physicals.retain(|p| p.name != "[unknown]"),
            Step::Deactivate { group, name, volumes, mapped } => {
                self.mapped.retain(|there| !mapped.contains(&there.name));
                for volume in volumes.iter().map(String::as_str).chain([name.as_str()]) {
                    self.logical_mut(group, volume).active = false;
                }
                // LVM says nothing of one that is not active.
                self.logical_mut(group, name.as_str()).needs_check = false;
            }
            Step::Mend { group, name } => {
                let pool = self.logical_mut(group, name.as_str());
                (pool.active, pool.needs_check, pool.health) = (true, false, String::new());
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

    fn physical_mut(&mut self, device: &Path) -> &mut Physical {
        let number = self.device_mut(device).number.clone();
        self.physicals.iter_mut().find(|physical| physical.number == number).unwrap()
    }

    fn move_off(&mut self, group: &Name, device: &Path) {
        let uuid = self.physical_mut(device).uuid.clone();
        let moved = self.pieces.extract_if(.., |piece| piece.physical == uuid).collect::<Vec<_>>();
        self.group_mut(group).free += self.physical_mut(device).used;
        self.physical_mut(device).used = 0;
        for piece in moved {
            self.take(group, &piece.logical, piece.extents * EXTENT);
        }
        self.logicals.iter_mut().for_each(|logical| logical.moves_off.clear());
    }

    /// A volume that is all on one device.
    pub(super) fn make_on(&mut self, device: &str, group: &Name, name: &str, size: u64) {
        let others: Vec<Physical> =
            self.physicals.extract_if(.., |physical| physical.name != device).collect();
        self.make(group, name, "linear", size, 0);
        self.physicals.extend(others);
        self.physicals.sort_by(|a, b| a.name.cmp(&b.name));
    }

    pub(super) fn make(&mut self, group: &Name, name: &str, kind: &str, size: u64, metadata: u64) {
        self.take(group, name, size + metadata);
        if metadata > 0 {
            self.make(group, "lvol0_pmspare", "linear", metadata, 0);
            self.logical_mut(group, "lvol0_pmspare").spare = true;
        }
        self.logicals.push(Logical {
            name: name.into(),
            uuid: format!("uuid of {name}"),
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

    /// Takes extents of the first physical volumes that have some.
    fn take(&mut self, group: &Name, name: &str, size: u64) {
        let mut wanted = size.div_ceil(EXTENT);
        let free = &mut self.group_mut(group).free;
        assert!(*free >= wanted, "{free} extents are free, {wanted} are wanted for {name}");
        *free -= wanted;
        let takes = |p: &&mut Physical| p.group == group.as_str() && p.allocatable;
        for physical in self.physicals.iter_mut().filter(takes) {
            let extents = wanted.min(physical.extents - physical.used);
            physical.used += extents;
            wanted -= extents;
            let same =
                |piece: &&mut Piece| piece.physical == physical.uuid && piece.logical == name;
            if let Some(piece) = self.pieces.iter_mut().find(same) {
                piece.extents += extents;
            } else if extents > 0 {
                self.pieces.push(Piece {
                    physical: physical.uuid.clone(),
                    logical: name.into(),
                    extents,
                });
            }
        }
        assert_eq!(wanted, 0, "{name} has no room on devices that may be taken of");
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
