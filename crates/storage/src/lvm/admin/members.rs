//! Devices: into a group, emptied, and out of it.

use std::path::{Path, PathBuf};

use holdfast_types::ByteSize;

use super::found::{Found, Physical};
use super::{Refusal, Request, Step, devices};

/// Takes devices in. One that is there takes part in allocation again.
pub(super) fn add(
    request: &Request,
    paths: &[PathBuf],
    wipe: &[PathBuf],
    found: &Found,
) -> Result<Vec<Step>, Refusal> {
    if paths.is_empty() {
        return Err(Refusal::NoDevices);
    }
    let group = &request.group;
    found.usable_group(group)?;
    let taken = devices::take(found, group, paths, wipe)?;
    let mut steps = taken.wipes;
    let new: Vec<PathBuf> = taken.new.iter().map(|device| device.path.clone()).collect();
    if !new.is_empty() {
        steps.push(Step::AddDevices { group: group.clone(), devices: new });
    }
    for path in paths {
        let physical = found.physical_on(found.device(path)?);
        let there = physical.filter(|p| p.group == group.as_str() && !p.allocatable);
        if let Some(physical) = there {
            if found.moving(group) == Some(physical.name.as_str()) {
                return Err(Refusal::Moving { device: physical.name.clone() });
            }
            let step = Step::AllowAllocation { group: group.clone(), device: path.clone() };
            steps.push(step);
        }
    }
    Ok(steps)
}

/// Moves everything off a device.
pub(super) fn evacuate(
    request: &Request,
    path: &Path,
    found: &Found,
) -> Result<Vec<Step>, Refusal> {
    let group = &request.group;
    let there = found.usable_group(group)?;
    let physical = member(request, path, found)?;
    let begun = match found.moving(group) {
        Some(other) if other != physical.name => {
            return Err(Refusal::Moving { device: other.to_owned() });
        }
        moving => moving.is_some(),
    };
    let mut steps = Vec::new();
    if physical.allocatable {
        steps.push(Step::StopAllocation { group: group.clone(), device: path.into() });
    }
    let size = physical.used * there.extent;
    if size > 0 || begun {
        let own = if physical.allocatable { physical.extents - physical.used } else { 0 };
        let free = found.free(there) - own * there.extent;
        // What is being moved has its room already.
        if !begun && free < size {
            let (free, needed) = (ByteSize(free), ByteSize(size));
            return Err(Refusal::NoRoom { group: group.clone(), free, needed });
        }
        let (group, device) = (group.clone(), path.into());
        steps.push(Step::Move { group, device, size: ByteSize(size), begun });
    }
    Ok(steps)
}

/// Gives a device up. One that is no member any more needs nothing.
pub(super) fn remove(request: &Request, path: &Path, found: &Found) -> Result<Vec<Step>, Refusal> {
    let group = &request.group;
    let there = found.usable_group(group)?;
    let physical = match member(request, path, found) {
        Err(Refusal::NotAMember { .. }) => return Ok(Vec::new()),
        physical => physical?,
    };
    found.check_still(group)?;
    if physical.used > 0 {
        return Err(Refusal::Holds {
            device: path.into(),
            size: ByteSize(physical.used * there.extent),
            what: found.names_on(physical).join(", "),
        });
    }
    if found.physicals_of(group.as_str()).count() < 2 {
        return Err(Refusal::LastDevice { group: group.clone() });
    }
    Ok(vec![Step::RemoveDevice { group: group.clone(), device: path.into() }])
}

/// The physical volume on a device, if it is one of the group's.
pub(super) fn member<'a>(
    request: &Request,
    path: &Path,
    found: &'a Found,
) -> Result<&'a Physical, Refusal> {
    let physical = found.physical_on(found.device(path)?);
    let member = physical.filter(|physical| physical.group == request.group.as_str());
    member.ok_or_else(|| Refusal::NotAMember { device: path.into(), group: request.group.clone() })
}

#[cfg(test)]
mod tests {
    use super::super::model::{asked, carry_out, found, pool_on};
    use super::super::{Change, plan};
    use super::*;

    fn evacuation(device: &str) -> Request {
        asked(Change::Evacuate { device: device.into() })
    }

    fn removal(device: &str) -> Request {
        asked(Change::RemoveDevice { device: device.into() })
    }

    fn addition(device: &str, wipe: &[&str]) -> Request {
        let wipe = wipe.iter().map(PathBuf::from).collect();
        asked(Change::AddDevices { devices: vec![device.into()], wipe })
    }

    /// A disk is replaced by another, in three operations.
    #[test]
    fn a_device_is_replaced() {
        let before = pool_on(&["/dev/sdb"], &["/dev/sdb", "/dev/sdc"]);
        let (_, added) = carry_out(&addition("/dev/sdc", &[]), &before).unwrap();
        let refused = plan(&removal("/dev/sdb"), &added).unwrap_err();
        assert!(matches!(&refused, Refusal::Holds { .. }), "{refused}");
        assert!(refused.to_string().contains("of holdfast_catalog, holdfast_pool"), "{refused}");
        let (moved, empty) = carry_out(&evacuation("/dev/sdb"), &added).unwrap();
        let lines: Vec<String> = moved.steps.iter().map(Step::to_string).collect();
        assert_eq!(lines[0], "take nothing new of /dev/sdb");
        assert!(lines[1].starts_with("move 9.5GiB off /dev/sdb"), "{}", lines[1]);
        let (_, end) = carry_out(&removal("/dev/sdb"), &empty).unwrap();
        assert_eq!(end.physicals_of("tank").count(), 1);
        let refused = plan(&removal("/dev/sdc"), &end).unwrap_err();
        assert!(matches!(refused, Refusal::Holds { .. }));
        let (_, again) = carry_out(&addition("/dev/sdb", &[]), &end).unwrap();
        assert_eq!(again.physicals_of("tank").count(), 2, "its label is no content");
    }

    /// A move that was interrupted is gone on with, and nothing else is done before.
    #[test]
    fn an_interrupted_move_goes_on() {
        let mut half = pool_on(&["/dev/sdb", "/dev/sdc"], &["/dev/sdb", "/dev/sdc", "/dev/sdd"]);
        let group = "tank".parse().unwrap();
        half.physicals[0].allocatable = false;
        half.logical_mut(&group, "holdfast_catalog").moves_off = "/dev/sdb".into();
        let rest = plan(&evacuation("/dev/sdb"), &half).unwrap();
        assert!(matches!(&rest.steps[..], [Step::Move { begun: true, .. }]), "{rest:?}");
        let grow = asked(Change::Grow { data: None, metadata: None });
        let others = [removal("/dev/sdc"), evacuation("/dev/sdc"), addition("/dev/sdb", &[]), grow];
        for other in others {
            let refused = plan(&other, &half).unwrap_err();
            assert!(matches!(&refused, Refusal::Moving { .. }), "{refused}");
        }
    }

    #[test]
    fn what_has_no_room_elsewhere_is_not_moved() {
        let before = pool_on(&["/dev/sdb"], &["/dev/sdb", "/dev/sdc"]);
        let refused = plan(&evacuation("/dev/sdb"), &before).unwrap_err();
        assert!(matches!(refused, Refusal::NoRoom { .. }));
        let refused = plan(&evacuation("/dev/sdc"), &before).unwrap_err();
        assert!(matches!(refused, Refusal::NotAMember { .. }));
        // An evacuated device takes nothing, so it is no room either.
        let (_, two) = carry_out(&addition("/dev/sdc", &[]), &before).unwrap();
        let mut closed = two.clone();
        closed.physicals[1].allocatable = false;
        let refused = plan(&evacuation("/dev/sdb"), &closed).unwrap_err();
        assert!(matches!(refused, Refusal::NoRoom { .. }));
        let (opened, _) = carry_out(&addition("/dev/sdc", &[]), &closed).unwrap();
        assert!(matches!(&opened.steps[..], [Step::AllowAllocation { .. }]));
    }

    #[test]
    fn a_device_with_content_is_added_only_when_that_may_go() {
        let mut before = pool_on(&["/dev/sdb"], &["/dev/sdb", "/dev/sdc"]);
        before.devices[1].signatures = vec!["xfs".into()];
        let refused = plan(&addition("/dev/sdc", &[]), &before).unwrap_err();
        assert!(matches!(refused, Refusal::NotEmpty { .. }));
        carry_out(&addition("/dev/sdc", &["/dev/sdc"]), &before).unwrap();
    }

    /// A node that lost a device is not changed: what is free then is not known.
    #[test]
    fn a_group_that_lacks_a_device_is_not_changed() {
        let mut lacking = pool_on(&["/dev/sdb", "/dev/sdc"], &["/dev/sdb", "/dev/sdc"]);
        lacking.physicals[1].missing = true;
        for request in [evacuation("/dev/sdb"), removal("/dev/sdb"), addition("/dev/sdb", &[])] {
            assert!(matches!(plan(&request, &lacking), Err(Refusal::Missing { .. })));
        }
        assert!(matches!(
            plan(&evacuation("/dev/sdb"), &found(&["/dev/sdb"])),
            Err(Refusal::NoGroup { .. })
        ));
    }

    #[test]
    fn the_last_device_stays() {
        let mut bare = pool_on(&["/dev/sdb"], &["/dev/sdb"]);
        bare.physicals[0].used = 0;
        let refused = plan(&removal("/dev/sdb"), &bare).unwrap_err();
        assert!(matches!(refused, Refusal::LastDevice { .. }));
    }
}
