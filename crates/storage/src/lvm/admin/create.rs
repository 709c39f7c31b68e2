//! Making a pool.

use std::path::PathBuf;

use holdfast_types::ByteSize;

use super::found::{Found, Group, Logical};
use super::request::{Place, Request};
use super::size;
use super::{ANCHOR, CATALOG, MAKING, Name, OURS, Refusal, Step, devices};

/// A new group's extents: LVM's default.
const EXTENT: u64 = 4 << 20;
/// What LVM keeps for itself at the beginning of a device.
const LABEL: u64 = 1 << 20;
/// Less metadata than this fills up before there is anything to see.
const LEAST_METADATA: u64 = 64 << 20;
/// Volumes are whole multiples of this, and a chunk must divide them.
const MOST_CHUNK: u64 = 4 << 20;

/// A group as it is or will be, while its parts are planned.
struct Room {
    size: u64,
    free: u64,
    extent: u64,
}

pub(super) fn plan(
    request: &Request,
    place: &Place,
    wipe: &[PathBuf],
    found: &Found,
) -> Result<Vec<Step>, Refusal> {
    let mut steps = Vec::new();
    let mut room = match place {
        Place::Devices(paths) => group_of(request, paths, wipe, found, &mut steps)?,
        Place::Group | Place::ThinPool => Room::of(found, found.usable_group(&request.group)?),
    };
    let (group, name) = (&request.group, &request.thin_pool);
    let mut pool = found.logical(group, name.as_str());
    if let Some(left) = pool.filter(|pool| pool.has_tag(MAKING)) {
        check_unused(found, left)?;
        room.free += left.size + 2 * left.metadata;
        steps.push(Step::RemoveUnfinished { group: group.clone(), name: name.clone() });
        pool = None;
    }
    if let Some(pool) = pool {
        check(group, name, pool)?;
    } else if *place == Place::ThinPool {
        return Err(Refusal::NoPool { group: group.clone(), name: name.clone() });
    }
    let catalog = found.logical(group, CATALOG);
    if catalog.is_none() {
        let size = size::catalog(room.size, room.extent);
        room.take(group, size)?;
        steps.push(Step::MakeCatalog { group: group.clone(), size: ByteSize(size) });
    }
    if catalog.is_none_or(|catalog| catalog.has_tag(MAKING)) {
        steps.push(Step::FormatCatalog { group: group.clone() });
    }
    if pool.is_none() {
        let size = size::fit(room.size, room.free, room.extent);
        let size = size.map_err(|needed| room.lacks(group, needed))?;
        steps.push(Step::MakePool {
            group: group.clone(),
            name: name.clone(),
            data: ByteSize(size.data),
            metadata: ByteSize(size.metadata),
        });
    }
    match found.logical(group, ANCHOR) {
        None => steps.push(Step::MakeAnchor { group: group.clone(), name: name.clone() }),
        Some(anchor) if pool.is_some() && anchor.pool == name.as_str() => {}
        Some(_) => {
            let reason = format!("it holds a pool of ours already, with {ANCHOR}");
            return Err(Refusal::GroupUnfit { group: group.to_string(), reason });
        }
    }
    Ok(steps)
}

/// The group on these devices: made, or found as an earlier try left it.
fn group_of(
    request: &Request,
    paths: &[PathBuf],
    wipe: &[PathBuf],
    found: &Found,
    steps: &mut Vec<Step>,
) -> Result<Room, Refusal> {
    if paths.is_empty() {
        return Err(Refusal::NoDevices);
    }
    let group = &request.group;
    if let Some(there) = found.group(group)? {
        let named = |number: &str| {
            found.devices.iter().any(|d| paths.contains(&d.path) && d.number == *number)
        };
        let ours = there.tags.iter().any(|tag| tag == OURS);
        if !ours || !found.physicals_of(group.as_str()).all(|p| named(&p.number)) {
            return Err(Refusal::GroupTaken { group: group.clone() });
        }
    }
    let taken = devices::take(found, group, paths, wipe)?;
    steps.extend(taken.wipes);
    let new: Vec<PathBuf> = taken.new.iter().map(|device| device.path.clone()).collect();
    let added = |extent: u64| {
        let size = |size: u64| size.saturating_sub(LABEL) / extent * extent;
        taken.new.iter().map(|device| size(device.size)).sum::<u64>()
    };
    if found.group(group)?.is_none() {
        steps.push(Step::MakeGroup { group: group.clone(), devices: new });
        return Ok(Room { size: added(EXTENT), free: added(EXTENT), extent: EXTENT });
    }
    let there = found.usable_group(group)?;
    let mut room = Room::of(found, there);
    room.size += added(there.extent);
    room.free += added(there.extent);
    if !new.is_empty() {
        steps.push(Step::AddDevices { group: group.clone(), devices: new });
    }
    Ok(room)
}

/// Refuses to take away what holds something, whatever its tags say.
fn check_unused(found: &Found, left: &Logical) -> Result<(), Refusal> {
    let used = |other: &Logical| other.group == left.group && other.pool == left.name;
    match found.logicals.iter().any(used) {
        false => Ok(()),
        true => Err(Refusal::GroupUnfit {
            group: left.group.clone(),
            reason: format!("{} is tagged {MAKING} and holds volumes", left.name),
        }),
    }
}

/// Refuses what only looks like a thin pool that we can live in: nothing falls back to a thick one.
fn check(group: &Name, name: &Name, pool: &Logical) -> Result<(), Refusal> {
    if let Some(state) = pool.damage() {
        return Err(Refusal::Damaged { group: group.clone(), name: name.clone(), state });
    }
    let reason = match pool {
        Logical { kind, .. } if kind != "thin-pool" => {
            format!("it is a {kind} volume, and volumes are only ever kept in a thin pool")
        }
        Logical { zeroes: false, .. } => {
            format!("it does not zero new chunks: lvchange -Zy {group}/{name}")
        }
        Logical { chunk, .. } if !chunk.is_power_of_two() || *chunk > MOST_CHUNK => {
            format!("its chunks of {} divide no volume", ByteSize(*chunk))
        }
        Logical { metadata, .. } if *metadata < LEAST_METADATA => format!(
            "its metadata of {} is too small: lvextend --poolmetadatasize 128m {group}/{name}",
            ByteSize(*metadata)
        ),
        _ => return Ok(()),
    };
    Err(Refusal::PoolUnfit { group: group.clone(), name: name.clone(), reason })
}

impl Room {
    fn of(found: &Found, group: &Group) -> Self {
        Self { size: found.size(group), free: found.free(group), extent: group.extent }
    }

    fn take(&mut self, group: &Name, size: u64) -> Result<(), Refusal> {
        self.free = self.free.checked_sub(size).ok_or_else(|| self.lacks(group, size))?;
        Ok(())
    }

    fn lacks(&self, group: &Name, needed: u64) -> Refusal {
        let (free, needed) = (ByteSize(self.free), ByteSize(needed));
        Refusal::NoRoom { group: group.clone(), free, needed }
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::{after, carry_out, found};
    use super::super::plan;
    use super::*;

    fn name(name: &str) -> Name {
        name.parse().unwrap()
    }

    fn on(devices: &[&str], wipe: &[&str]) -> Request {
        let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect();
        Request::on_devices(name("tank"), paths(devices), paths(wipe))
    }

    /// From blank disks to a pool; and from every point in between.
    #[test]
    fn a_pool_is_made_of_blank_disks() {
        let request = on(&["/dev/sdb", "/dev/sdc"], &[]);
        let (plan, end) = carry_out(&request, &found(&["/dev/sdb", "/dev/sdc"])).unwrap();
        let lines: Vec<String> = plan.steps.iter().map(Step::to_string).collect();
        assert_eq!(
            lines,
            [
                "make the volume group tank of /dev/sdb, /dev/sdc",
                "make tank/holdfast_catalog, 256MiB",
                "make a filesystem in tank/holdfast_catalog",
                "make the thin pool tank/holdfast_pool, 18.5GiB with 128MiB of metadata",
                "make tank/holdfast_anchor in holdfast_pool, a thin volume that keeps it in use",
            ]
        );
        assert!(end.groups[0].free > 0, "metadata must be able to grow");
    }

    #[test]
    fn what_may_be_wiped_is_wiped_first() {
        let mut before = found(&["/dev/sdb"]);
        before.devices[0].signatures = vec!["ext4".into()];
        let refused = plan(&on(&["/dev/sdb"], &[]), &before).unwrap_err();
        assert!(matches!(refused, Refusal::NotEmpty { .. }));
        let (plan, _) = carry_out(&on(&["/dev/sdb"], &["/dev/sdb"]), &before).unwrap();
        assert_eq!(plan.steps[0].to_string(), "erase what /dev/sdb carries: ext4");
    }

    /// A group of that name that an earlier try did not make is somebody's.
    #[test]
    fn a_group_of_that_name_is_not_taken_over() {
        let request = on(&["/dev/sdb"], &[]);
        let begun = plan(&request, &found(&["/dev/sdb"])).unwrap();
        let mut there = after(&found(&["/dev/sdb"]), &begun.steps[..1]);
        assert!(plan(&request, &there).is_ok());
        there.groups[0].tags.clear();
        let taken =
            |found: &Found| matches!(plan(&request, found), Err(Refusal::GroupTaken { .. }));
        assert!(taken(&there));
        let request = on(&["/dev/sdb", "/dev/sdc"], &[]);
        let both = found(&["/dev/sdb", "/dev/sdc"]);
        let begun = plan(&request, &both).unwrap();
        let there = after(&both, &begun.steps[..1]);
        assert!(taken(&there), "it has a device that is not named");
    }

    /// A group that is there, in all the states in which it cannot be used.
    #[test]
    fn groups_that_cannot_be_used_are_refused() {
        let request = Request::in_group(name("tank"), None);
        assert!(matches!(plan(&request, &found(&[])), Err(Refusal::NoGroup { .. })));
        let made = plan(&on(&["/dev/sdb"], &[]), &found(&["/dev/sdb"])).unwrap();
        let group = after(&found(&["/dev/sdb"]), &made.steps[..1]);
        carry_out(&request, &group).unwrap();
        for change in [
            |g: &mut Group| g.exported = true,
            |g: &mut Group| g.shared = true,
            |g: &mut Group| g.writable = false,
            |g: &mut Group| g.resizeable = false,
        ] {
            let mut unfit = group.clone();
            change(&mut unfit.groups[0]);
            assert!(matches!(plan(&request, &unfit), Err(Refusal::GroupUnfit { .. })));
        }
        let mut two = group.clone();
        two.groups.push(two.groups[0].clone());
        assert!(matches!(plan(&request, &two), Err(Refusal::GroupUnfit { .. })));
        let mut lacking = group.clone();
        lacking.physicals[0].missing = true;
        assert!(matches!(plan(&request, &lacking), Err(Refusal::Missing { .. })));
        let mut copied = group.clone();
        copied.physicals.push(copied.physicals[0].clone());
        copied.physicals[1].duplicate = true;
        assert!(matches!(plan(&request, &copied), Err(Refusal::Duplicate { .. })));
        let mut full = group;
        full.physicals[0].used = full.physicals[0].extents - 10;
        assert!(matches!(plan(&request, &full), Err(Refusal::NoRoom { .. })));
    }

    /// Who asked `vgchange -pwr`, as he was told to, was told off by LVM.
    #[test]
    fn a_group_that_is_not_resizeable_was_told_a_cure_that_is_none() {
        let made = plan(&on(&["/dev/sdb"], &[]), &found(&["/dev/sdb"])).unwrap();
        let group = after(&found(&["/dev/sdb"]), &made.steps[..1]);
        let refused = |change: fn(&mut Group)| {
            let mut unfit = group.clone();
            change(&mut unfit.groups[0]);
            plan(&Request::in_group(name("tank"), None), &unfit).unwrap_err().to_string()
        };
        let fixed = refused(|group| group.resizeable = false);
        assert!(fixed.ends_with("it is not resizeable: vgchange -xy tank"), "{fixed}");
        let read_only = refused(|group| group.writable = false);
        assert!(read_only.contains("read-only") && !read_only.contains("-p"), "{read_only}");
    }

    /// I20: a thick volume is never made do with, nor a pool that would leak others' content.
    #[test]
    fn what_is_no_thin_pool_is_refused() {
        let made = plan(&on(&["/dev/sdb"], &[]), &found(&["/dev/sdb"])).unwrap();
        let mut group = after(&found(&["/dev/sdb"]), &made.steps[..1]);
        let request = Request::in_group(name("tank"), Some(name("data")));
        assert!(matches!(plan(&request, &group), Err(Refusal::NoPool { .. })));
        group.make(&name("tank"), "data", "thin-pool", 1 << 30, 128 << 20);
        let (plan_, _) = carry_out(&request, &group).unwrap();
        assert!(!plan_.steps.iter().any(|step| matches!(step, Step::MakePool { .. })));
        for change in [
            |pool: &mut Logical| pool.kind = "linear".into(),
            |pool: &mut Logical| pool.zeroes = false,
            |pool: &mut Logical| pool.chunk = 192 << 10,
            |pool: &mut Logical| pool.metadata = 4 << 20,
        ] {
            let mut unfit = group.clone();
            change(unfit.logical_mut(&name("tank"), "data"));
            assert!(matches!(plan(&request, &unfit), Err(Refusal::PoolUnfit { .. })));
        }
        group.logical_mut(&name("tank"), "data").needs_check = true;
        assert!(matches!(plan(&request, &group), Err(Refusal::Damaged { .. })));
    }

    /// What an interruption left of a volume is made anew, unless it holds something.
    #[test]
    fn what_is_unfinished_is_made_anew() {
        let made = plan(&on(&["/dev/sdb"], &[]), &found(&["/dev/sdb"])).unwrap();
        let mut left = after(&found(&["/dev/sdb"]), &made.steps[..3]);
        let tank = name("tank");
        left.make(&tank, "holdfast_pool", "linear", 1 << 30, 0);
        left.logical_mut(&tank, "holdfast_pool").tags.push(MAKING.into());
        let (plan_, _) = carry_out(&on(&["/dev/sdb"], &[]), &left).unwrap();
        assert!(matches!(&plan_.steps[0], Step::RemoveUnfinished { .. }));
        left.make(&tank, "v", "thin", 0, 0);
        left.logical_mut(&tank, "v").pool = "holdfast_pool".into();
        let refused = plan(&on(&["/dev/sdb"], &[]), &left).unwrap_err();
        assert!(matches!(refused, Refusal::GroupUnfit { .. }), "{refused}");
    }

    #[test]
    fn programs_that_are_missing_or_too_old_are_refused() {
        let mut old = found(&["/dev/sdb"]);
        old.tools.thin = Some([0, 6, 3]);
        let refused = plan(&on(&["/dev/sdb"], &[]), &old).unwrap_err();
        let text = "thin-provisioning-tools 0.6.3 is too old, 0.7.0 is the oldest that is used: \
                    upgrade the package";
        assert_eq!(refused.to_string(), text);
        old.tools.lvm = None;
        let refused = plan(&on(&["/dev/sdb"], &[]), &old).unwrap_err();
        assert!(matches!(refused, Refusal::NoTool { tool: "lvm2" }));
    }

    #[test]
    fn a_pool_needs_devices() {
        let refused = plan(&on(&[], &[]), &found(&[])).unwrap_err();
        assert_eq!(refused, Refusal::NoDevices);
    }
}
