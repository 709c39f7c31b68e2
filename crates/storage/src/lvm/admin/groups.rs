//! Groups: one split off the pool's, one merged into it.

use std::path::PathBuf;

use holdfast_types::ByteSize;

use super::found::{Found, Group, Logical};
use super::members::member;
use super::{CATALOG, Name, Refusal, Request, Step};

/// What the tags begin with that a group has before another is merged into it, one for each
/// physical volume of that one: where these are tells afterwards whether it is gone because it was
/// merged. No name has a colon.
fn mark(from: &Name) -> String {
    format!("holdfast.merged.{from}:")
}

/// The tags of merges of a group of that name.
fn marks<'a>(group: &'a Group, from: &Name) -> impl Iterator<Item = &'a str> {
    let mark = mark(from);
    group.tags.iter().map(String::as_str).filter(move |tag| tag.starts_with(&mark))
}

/// Whether all that was in a group of that name is in this one.
fn is_merged(group: &Group, from: &Name, found: &Found) -> bool {
    let mark = mark(from);
    let mut uuids = marks(group, from).filter_map(|tag| tag.strip_prefix(&mark)).peekable();
    let is_here = |uuid: &str| found.physicals_of(&group.name).any(|there| there.uuid == uuid);
    uuids.peek().is_some() && uuids.all(is_here)
}

/// Makes a group of devices that hold nothing at all, or volumes of others wholly.
pub(super) fn split(
    request: &Request,
    devices: &[PathBuf],
    into: &Name,
    found: &Found,
) -> Result<Vec<Step>, Refusal> {
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
            true => Ok(Vec::new()),
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
    let mut steps = Vec::new();
    // Before the split: once the group is there, the same request has nothing left to do.
    let tags: Vec<String> = marks(there, into).map(str::to_owned).collect();
    if !tags.is_empty() {
        steps.push(Step::UnmarkMerge { group: group.clone(), from: into.clone(), tags });
    }
    let (group, into) = (group.clone(), into.clone());
    steps.push(Step::Split { group, devices: devices.to_vec(), into });
    Ok(steps)
}

/// Takes another group in.
pub(super) fn merge(request: &Request, from: &Name, found: &Found) -> Result<Vec<Step>, Refusal> {
    let group = &request.group;
    let there = found.usable_group(group)?;
    if from == group {
        return unfit(from, "it is the pool's own group");
    }
    if found.group(from)?.is_none() && is_merged(there, from, found) {
        return Ok(Vec::new());
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
    let mark = mark(from);
    let mut tags: Vec<String> =
        found.physicals_of(from.as_str()).map(|p| format!("{mark}{}", p.uuid)).collect();
    let stale = marks(there, from).filter(|had| tags.iter().all(|tag| tag != had));
    let stale: Vec<String> = stale.map(str::to_owned).collect();
    tags.retain(|tag| !there.tags.contains(tag));
    let mut steps = Vec::new();
    if !(tags.is_empty() && stale.is_empty()) {
        let (group, from) = (group.clone(), from.clone());
        steps.push(Step::MarkMerge { group, from, tags, stale });
    }
    steps.push(Step::Merge { group: group.clone(), from: from.clone() });
    Ok(steps)
}

fn unfit(group: &Name, reason: &str) -> Result<Vec<Step>, Refusal> {
    Err(Refusal::GroupUnfit { group: group.to_string(), reason: reason.into() })
}

#[cfg(test)]
mod tests {
    use super::super::model::{after, asked, carry_out, pool_on};
    use super::super::{Change, OURS, plan};
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

    /// LVM flushes no device: what has an account of either group is flushed after each step.
    #[test]
    fn the_devices_of_both_groups_are_flushed() {
        let (split_plan, split) = carry_out(&splitting("/dev/sdc"), &two_disks()).unwrap();
        let (merged, _) = carry_out(&merging(), &split).unwrap();
        let both: std::collections::BTreeSet<_> =
            ["/dev/sdb", "/dev/sdc"].map(std::path::PathBuf::from).into();
        assert_eq!([split_plan.devices, merged.devices], [both.clone(), both]);
    }

    /// A device that is gone cannot be.
    #[test]
    fn a_missing_device_is_not_flushed() {
        let mut found = two_disks();
        found.physicals[1].missing = true;
        let devices = plan(&asked(Change::Repair), &found).unwrap().devices;
        assert_eq!(devices, ["/dev/sdb".into()].into());
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

    /// What has only been split off is another machine's after its disk was carried there.
    fn carried_away(found: &Found, group: &str) -> Found {
        let mut rest = found.clone();
        rest.groups.retain(|other| other.name != group);
        rest.physicals.retain(|physical| physical.group != group);
        rest
    }

    /// The tag was set before the merge, and by itself said that it was done.
    #[test]
    fn a_merge_that_was_only_begun_was_reported_as_done() {
        let (_, split) = carry_out(&splitting("/dev/sdc"), &two_disks()).unwrap();
        let begun = plan(&merging(), &split).unwrap();
        assert!(matches!(&begun.steps[..], [Step::MarkMerge { .. }, Step::Merge { .. }]));
        let marked = carried_away(&after(&split, &begun.steps[..1]), "other");
        let refused = plan(&merging(), &marked).unwrap_err();
        assert!(matches!(refused, Refusal::NoGroup { .. }), "{refused}");
    }

    /// The tag stayed, and spoke for every later group of that name.
    #[test]
    fn a_group_that_was_merged_before_and_split_off_again_was_taken_for_merged() {
        let (_, split) = carry_out(&splitting("/dev/sdc"), &two_disks()).unwrap();
        let (_, merged) = carry_out(&merging(), &split).unwrap();
        let (again, apart) = carry_out(&splitting("/dev/sdc"), &merged).unwrap();
        assert!(matches!(&again.steps[..], [Step::UnmarkMerge { .. }, Step::Split { .. }]));
        assert_eq!(apart.groups[0].tags, [OURS]);
        let refused = plan(&merging(), &carried_away(&apart, "other")).unwrap_err();
        assert!(matches!(refused, Refusal::NoGroup { .. }), "{refused}");
        // Split off by LVM's own command, the tags are there still.
        let mut by_hand = apart;
        by_hand.group_mut(&name("tank")).tags = merged.groups[0].tags.clone();
        let refused = plan(&merging(), &carried_away(&by_hand, "other")).unwrap_err();
        assert!(matches!(refused, Refusal::NoGroup { .. }), "{refused}");
        // Another device under that name: what the tags say of the first one goes.
        by_hand.physicals.iter_mut().for_each(|p| p.uuid.push('2'));
        let (marked, end) = carry_out(&merging(), &by_hand).unwrap();
        let Step::MarkMerge { tags, stale, .. } = &marked.steps[0] else { panic!("{marked:?}") };
        assert_eq!(tags[..], ["holdfast.merged.other:uuid of /dev/sdc2"]);
        assert_eq!(stale[..], ["holdfast.merged.other:uuid of /dev/sdc"]);
        assert_eq!(end.groups[0].tags.len(), 2);
    }
}
