//! Groups: one split off the pool's, one merged into it.

use std::path::PathBuf;

use holdfast_types::ByteSize;

use super::found::{Found, Logical};
use super::members::member;
use super::{CATALOG, Name, Plan, Refusal, Request, Step};

/// What a group is tagged with before another is merged into it: it says afterwards that the one
/// that is gone was merged.
pub(super) fn merged(from: &Name) -> String {
    format!("holdfast.merged.{from}")
}

/// Makes a group of devices that hold nothing at all, or volumes of others wholly.
pub(super) fn split(
    request: &Request,
    devices: &[PathBuf],
    into: &Name,
    found: &Found,
) -> Result<Plan, Refusal> {
    if devices.is_empty() {
        return Err(Refusal::NoDevices);
    }
    let group = &request.group;
    let there = found.usable_group(group)?;
    if found.group(into)?.is_some() {
        let mut numbers = Vec::new();
        for path in devices {
            numbers.push(found.device(path)?.number.as_str());
        }
        let mut members = found.physicals_of(into.as_str());
        return match members.all(|p| numbers.contains(&p.number.as_str()))
            && found.physicals_of(into.as_str()).count() == devices.len()
        {
            true => Ok(Plan::default()),
            false => Err(Refusal::GroupUnfit {
                group: into.to_string(),
                reason: "it is there already: choose another name".into(),
            }),
        };
    }
    found.check_still(group)?;
    let mut leaving = Vec::new();
    for path in devices {
        leaving.push((path, member(request, path, found)?));
    }
    if leaving.len() >= found.physicals_of(group.as_str()).count() {
        return Err(Refusal::LastDevice { group: group.clone() });
    }
    for (path, physical) in &leaving {
        for name in found.names_on(physical) {
            let elsewhere = found.pieces.iter().any(|piece| {
                piece.logical == name && !leaving.iter().any(|(_, p)| p.uuid == piece.physical)
            });
            // The spare is the pool's, and goes with nobody else.
            let stays = found.logical(group, name).is_some_and(|l| l.active || l.spare);
            if elsewhere || stays || request.has_part(name) {
                return Err(Refusal::Holds {
                    device: (*path).clone(),
                    size: ByteSize(physical.used * there.extent),
                    what: name.to_owned(),
                });
            }
        }
    }
    let (group, into) = (group.clone(), into.clone());
    Ok(Plan { steps: vec![Step::Split { group, devices: devices.to_vec(), into }] })
}

/// Takes another group in.
pub(super) fn merge(request: &Request, from: &Name, found: &Found) -> Result<Plan, Refusal> {
    let group = &request.group;
    let there = found.usable_group(group)?;
    if from == group {
        return unfit(from, "it is the pool's own group");
    }
    let tag = merged(from);
    if found.group(from)?.is_none() && there.tags.contains(&tag) {
        return Ok(Plan::default());
    }
    let other = found.usable_group(from)?;
    found.check_still(group)?;
    found.check_still(from)?;
    if other.extent != there.extent {
        let (own, wanted) = (ByteSize(other.extent), ByteSize(there.extent));
        return unfit(from, &format!("its extents have {own}, those of {group} {wanted}"));
    }
    let of = |group: &Name| {
        let group = group.to_string();
        found.logicals.iter().filter(move |logical| logical.group == group)
    };
    if of(from).any(|logical| logical.name == CATALOG) {
        return unfit(from, "it holds a pool of Holdfast, and a group holds one");
    }
    if let Some(active) = of(from).find(|logical| logical.active) {
        let name = &active.name;
        return unfit(from, &format!("its volume {name} is in use: vgchange -an {from}"));
    }
    let named = |logical: &&Logical| !logical.spare && of(group).any(|l| l.name == logical.name);
    if let Some(same) = of(from).find(named) {
        let name = &same.name;
        return unfit(from, &format!("both have a volume {name}: lvrename {from} {name} NEW"));
    }
    let mut steps = Vec::new();
    if !there.tags.contains(&tag) {
        steps.push(Step::MarkMerge { group: group.clone(), from: from.clone() });
    }
    steps.push(Step::Merge { group: group.clone(), from: from.clone() });
    Ok(Plan { steps })
}

fn unfit(group: &Name, reason: &str) -> Result<Plan, Refusal> {
    Err(Refusal::GroupUnfit { group: group.to_string(), reason: reason.into() })
}

#[cfg(test)]
mod tests {
    use super::super::model::{asked, carry_out, pool_on};
    use super::super::{Change, plan};
    use super::*;

    fn name(name: &str) -> Name {
        name.parse().unwrap()
    }

    fn splitting(device: &str) -> Request {
        asked(Change::Split { devices: vec![device.into()], into: name("other") })
    }

    fn merging() -> Request {
        asked(Change::Merge { from: name("other") })
    }

    fn two_disks() -> Found {
        let before = pool_on(&["/dev/sdb"], &["/dev/sdb", "/dev/sdc"]);
        let devices = vec!["/dev/sdc".into()];
        let add = asked(Change::AddDevices { devices, wipe: Vec::new() });
        carry_out(&add, &before).unwrap().1
    }

    #[test]
    fn a_group_is_split_off_and_merged_again() {
        let (_, split) = carry_out(&splitting("/dev/sdc"), &two_disks()).unwrap();
        assert_eq!(split.physicals_of("other").count(), 1);
        let (merged, end) = carry_out(&merging(), &split).unwrap();
        assert_eq!(merged.steps.len(), 2);
        assert_eq!(end.physicals_of("tank").count(), 2);
    }

    #[test]
    fn what_holds_something_of_the_pool_is_not_split_off() {
        let refused = plan(&splitting("/dev/sdb"), &two_disks()).unwrap_err();
        assert!(matches!(refused, Refusal::Holds { .. }));
        let refused = plan(&splitting("/dev/sdb"), &pool_on(&["/dev/sdb"], &["/dev/sdb"]));
        assert!(matches!(refused, Err(Refusal::LastDevice { .. })));
        let mut others = two_disks();
        others.make_on("/dev/sdc", &name("tank"), "scratch", 1 << 30);
        assert!(matches!(plan(&splitting("/dev/sdc"), &others), Err(Refusal::Holds { .. })));
        others.logical_mut(&name("tank"), "scratch").active = false;
        carry_out(&splitting("/dev/sdc"), &others).unwrap();
    }

    #[test]
    fn groups_that_do_not_go_together_are_not_merged() {
        let (_, split) = carry_out(&splitting("/dev/sdc"), &two_disks()).unwrap();
        let refused = |change: &dyn Fn(&mut Found)| {
            let mut found = split.clone();
            change(&mut found);
            plan(&merging(), &found).unwrap_err().to_string()
        };
        let text = refused(&|found| found.group_mut(&name("other")).extent = 1 << 20);
        assert!(text.contains("its extents have 1MiB"), "{text}");
        let volume = |found: &mut Found, named: &str, active| {
            found.make_on("/dev/sdc", &name("other"), named, 1 << 20);
            found.logical_mut(&name("other"), named).active = active;
        };
        let text = refused(&|found| volume(found, "scratch", true));
        assert!(text.contains("scratch is in use: vgchange -an other"), "{text}");
        let text = refused(&|found| volume(found, CATALOG, false));
        assert!(text.contains("holds a pool of Holdfast"), "{text}");
        let text = refused(&|found| volume(found, "holdfast_anchor", false));
        assert!(text.contains("both have a volume holdfast_anchor"), "{text}");
        let text = refused(&|found| found.group_mut(&name("other")).exported = true);
        assert!(text.contains("vgimport other"), "{text}");
        let own = plan(&asked(Change::Merge { from: name("tank") }), &split).unwrap_err();
        assert!(matches!(own, Refusal::GroupUnfit { .. }));
        let none = plan(&asked(Change::Merge { from: name("none") }), &split).unwrap_err();
        assert!(matches!(none, Refusal::NoGroup { .. }));
    }
}
