//! What was found: LVM's groups and what is in them, and the devices that a request names.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{Name, Refusal, Request};

/// All that a plan goes by.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Found {
    /// The devices that the request names, as they were named.
    pub devices: Vec<Device>,
    /// Every volume group.
    pub groups: Vec<Group>,
    /// Every physical volume.
    pub physicals: Vec<Physical>,
    /// Every logical volume, the hidden ones too.
    pub logicals: Vec<Logical>,
    /// Which extents of a physical volume belong to which logical one; free ones are not listed.
    pub pieces: Vec<Piece>,
    /// For a repair: the devices of Holdfast's volumes in the pool.
    pub mapped: Vec<Mapped>,
    /// For growing and checking: the catalog's filesystem, while it is mounted where we see it.
    pub catalog: Option<Catalog>,
    /// The versions of the programs.
    pub tools: Tools,
}

/// A volume's device, or one for reading it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mapped {
    /// As device-mapper has it.
    pub name: String,
    /// Whether it is mounted, or otherwise open.
    pub open: bool,
}

/// The catalog's filesystem, in use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Catalog {
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// How full it is, of bytes or of files.
    pub used_percent: u8,
}

/// A block device, by what lsblk(8), wipefs(8) and an exclusive opening say of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Device {
    /// As the request names it.
    pub path: PathBuf,
    /// `MAJOR:MINOR`, by which LVM knows it whatever it is called.
    pub number: String,
    /// In bytes.
    pub size: u64,
    /// What it is: `disk`, `part`, `loop`, `crypt`, …
    pub kind: String,
    /// Whether it takes no writes.
    pub read_only: bool,
    /// The signatures on it and on its partitions: `ext4`, `gpt`, `LVM2_member`, …
    pub signatures: Vec<String>,
    /// What uses it now: a mount, swapping, a device made of it, or another program.
    pub users: Vec<String>,
}

/// A volume group.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Group {
    /// Its name; more than one group may have the same.
    pub name: String,
    /// Its uuid.
    pub uuid: String,
    /// Bytes of an extent.
    pub extent: u64,
    /// Extents that belong to no logical volume.
    pub free: u64,
    /// Whether its own account may be changed at all.
    pub writable: bool,
    /// Whether devices may come and go (vgchange(8), `--resizeable`).
    pub resizeable: bool,
    /// Whether it was taken out of this machine's use (vgexport(8)).
    pub exported: bool,
    /// Whether other machines use it too (lvmlockd(8), a cluster).
    pub shared: bool,
    /// Tags.
    pub tags: Vec<String>,
}

/// A physical volume.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Physical {
    /// The name of its device; LVM's `[unknown]` when that is missing.
    pub name: String,
    /// `MAJOR:MINOR`.
    pub number: String,
    /// Its uuid.
    pub uuid: String,
    /// Its group's name; empty in none.
    pub group: String,
    /// Extents in all.
    pub extents: u64,
    /// Extents in use.
    pub used: u64,
    /// Whether new extents may be taken of it.
    pub allocatable: bool,
    /// Whether its group goes without it.
    pub missing: bool,
    /// Whether another device has the same uuid and was chosen instead.
    pub duplicate: bool,
    /// Whether a group uses it, whichever: one whose account is on other devices may not be known.
    pub in_use: bool,
}

/// A logical volume.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Logical {
    /// Its name, without the brackets of a hidden one.
    pub name: String,
    /// Its uuid.
    pub uuid: String,
    /// Its group's name.
    pub group: String,
    /// `thin-pool`, `thin`, `linear`, `striped`, `mirror`, …
    pub kind: String,
    /// In bytes.
    pub size: u64,
    /// The thin pool that a thin volume is in.
    pub pool: String,
    /// Bytes of a thin pool's metadata.
    pub metadata: u64,
    /// Bytes of a thin pool's chunk.
    pub chunk: u64,
    /// Whether a thin pool zeroes what it hands out.
    pub zeroes: bool,
    /// Whether it is active.
    pub active: bool,
    /// What is wrong with it (`partial`, `failed`, `out_of_data`, `metadata_read_only`), or nothing.
    pub health: String,
    /// Whether a thin pool's metadata must be checked before it is written again.
    pub needs_check: bool,
    /// The thin pool's spare room for repairs.
    pub spare: bool,
    /// The physical volume that it moves off (pvmove(8)).
    pub moves_off: String,
    /// Tags.
    pub tags: Vec<String>,
}

/// Extents of a physical volume that belong to a logical one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Piece {
    /// The physical volume's uuid.
    pub physical: String,
    /// The logical volume's name.
    pub logical: String,
    /// How many extents.
    pub extents: u64,
}

/// Versions of programs; `None` for one that is not there or does not say.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tools {
    /// Of lvm2.
    pub lvm: Option<[u32; 3]>,
    /// Of thin-provisioning-tools.
    pub thin: Option<[u32; 3]>,
}

impl Tools {
    /// The first with reports in JSON, and components of a pool that can be activated alone.
    const LEAST_LVM: [u32; 3] = [2, 3, 2];
    /// The first whose `thin_ls` and `thin_delta` read a metadata snapshot as ours are read.
    const LEAST_THIN: [u32; 3] = [0, 7, 0];

    /// Refuses programs that are missing or too old.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        let needed = [
            ("lvm2", self.lvm, Self::LEAST_LVM),
            ("thin-provisioning-tools", self.thin, Self::LEAST_THIN),
        ];
        for (tool, found, least) in needed {
            match found {
                None => return Err(Refusal::NoTool { tool }),
                Some(found) if found < least => {
                    return Err(Refusal::TooOld { tool, found, least });
                }
                Some(_) => {}
            }
        }
        Ok(())
    }
}

impl Found {
    /// The device that the request calls `path`.
    pub(super) fn device(&self, path: &Path) -> Result<&Device, Refusal> {
        let found = self.devices.iter().find(|device| device.path == path);
        found.ok_or_else(|| Refusal::NoDevice { device: path.into() })
    }

    /// The physical volume on a device.
    pub(super) fn physical_on(&self, device: &Device) -> Option<&Physical> {
        self.physicals.iter().find(|physical| physical.number == device.number)
    }

    /// The physical volumes of a group.
    pub(super) fn physicals_of(&self, group: &str) -> impl Iterator<Item = &Physical> {
        self.physicals.iter().filter(move |physical| physical.group == group)
    }

    /// The devices that carry, or will carry, an account of a group that the request changes.
    pub(super) fn accounts(&self, request: &Request) -> BTreeSet<PathBuf> {
        let groups = [Some(&request.group), request.other_group()].into_iter().flatten();
        let members = groups.flat_map(|group| self.physicals_of(group.as_str()));
        let there = members.filter(|member| !member.missing).map(|m| PathBuf::from(&m.name));
        there.chain(request.devices().into_iter().cloned()).collect()
    }

    /// Bytes of a group that may be taken: on devices that are there and not being emptied.
    pub(super) fn free(&self, group: &Group) -> u64 {
        let takes = |physical: &&Physical| physical.allocatable && !physical.missing;
        let members = self.physicals_of(&group.name).filter(takes);
        members.map(|p| p.extents.saturating_sub(p.used)).sum::<u64>() * group.extent
    }

    /// Bytes of a group's devices.
    pub(super) fn size(&self, group: &Group) -> u64 {
        self.physicals_of(&group.name).map(|p| p.extents).sum::<u64>() * group.extent
    }

    /// The device that a group's content moves off, if it does.
    pub(super) fn moving<'a>(&'a self, group: &'a Name) -> Option<&'a str> {
        let mut logicals = self.logicals.iter().filter(|l| l.group == group.as_str());
        logicals.find(|l| !l.moves_off.is_empty()).map(|l| l.moves_off.as_str())
    }

    /// Refuses to change anything else while a device is emptied.
    pub(super) fn check_still(&self, group: &Name) -> Result<(), Refusal> {
        match self.moving(group) {
            None => Ok(()),
            Some(device) => Err(Refusal::Moving { device: device.to_owned() }),
        }
    }

    /// The names of the logical volumes that have extents on a physical one.
    pub(super) fn names_on(&self, physical: &Physical) -> Vec<&str> {
        let pieces = self.pieces.iter().filter(|piece| piece.physical == physical.uuid);
        let mut names: Vec<&str> = pieces.map(|piece| piece.logical.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The thin pool, fit to be changed.
    pub(super) fn thin_pool(&self, group: &Name, name: &Name) -> Result<&Logical, Refusal> {
        let missing = || Refusal::NoPool { group: group.clone(), name: name.clone() };
        let pool = self.logical(group, name.as_str()).ok_or_else(missing)?;
        match pool.kind.as_str() {
            "thin-pool" => Ok(pool),
            kind => Err(Refusal::PoolUnfit {
                group: group.clone(),
                name: name.clone(),
                reason: format!("it is a {kind} volume, no thin pool"),
            }),
        }
    }

    /// The group of that name, if there is one. Two of a name are never guessed about.
    pub(super) fn group(&self, name: &Name) -> Result<Option<&Group>, Refusal> {
        let mut named = self.groups.iter().filter(|group| group.name == name.as_str());
        match (named.next(), named.next()) {
            (Some(_), Some(_)) => Err(Refusal::GroupUnfit {
                group: name.as_str().into(),
                reason: "two groups have that name: rename one, by its uuid (vgrename)".into(),
            }),
            (group, _) => Ok(group),
        }
    }

    /// The group of that name, whole and in this machine's use.
    pub(super) fn usable_group(&self, name: &Name) -> Result<&Group, Refusal> {
        self.check_duplicates(name)?;
        let group = self.group(name)?.ok_or_else(|| Refusal::NoGroup { group: name.clone() })?;
        let unfit = |reason: String| Err(Refusal::GroupUnfit { group: name.to_string(), reason });
        if group.exported {
            return unfit(format!("it is exported: vgimport {name}"));
        }
        if group.shared {
            return unfit("it is shared with other machines, and a pool belongs to one".into());
        }
        if !group.writable {
            let status = format!("its status lacks WRITE (vgcfgbackup {name} shows it)");
            return unfit(format!("it is read-only: {status}, and vgchange does not change that"));
        }
        if !group.resizeable {
            return unfit(format!("it is not resizeable: vgchange -xy {name}"));
        }
        let missing: Vec<&Physical> =
            self.physicals_of(name.as_str()).filter(|physical| physical.missing).collect();
        match missing.is_empty() {
            true => Ok(group),
            false => Err(Refusal::Missing {
                group: name.clone(),
                uuids: missing.iter().map(|physical| physical.uuid.clone()).collect(),
            }),
        }
    }

    /// The logical volume of that name.
    pub(super) fn logical(&self, group: &Name, name: &str) -> Option<&Logical> {
        let mut logicals = self.logicals.iter().filter(|l| l.group == group.as_str());
        logicals.find(|logical| logical.name == name)
    }

    /// Refuses to go on while two devices claim to be the same physical volume of a group: which of
    /// them LVM would write to is chance.
    pub(super) fn check_duplicates(&self, group: &Name) -> Result<(), Refusal> {
        let mut members = self.physicals_of(group.as_str());
        let Some(duplicate) = members.find(|physical| physical.duplicate) else { return Ok(()) };
        let same = self.physicals.iter().filter(|physical| physical.uuid == duplicate.uuid);
        let devices = same.map(|physical| physical.name.clone()).collect();
        Err(Refusal::Duplicate { uuid: duplicate.uuid.clone(), devices })
    }
}

impl Logical {
    /// What is wrong with a thin pool's metadata, if something is.
    pub(super) fn damage(&self) -> Option<String> {
        match self.health.as_str() {
            _ if self.needs_check => Some("its metadata needs a check".into()),
            health @ ("failed" | "metadata_read_only") => Some(health.into()),
            _ => None,
        }
    }

    /// Whether it has a tag.
    pub(super) fn has_tag(&self, tag: &str) -> bool {
        self.tags.iter().any(|t| t == tag)
    }
}
