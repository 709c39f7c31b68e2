//! Mending: devices that were missing, and a thin pool's metadata.
//!
//! Metadata is mended offline. A pool that the kernel still writes to is not: what is repaired is a
//! copy, and what was written meanwhile would be in the other one.

use super::found::{Found, Logical, Mapped, Physical};
use super::{Refusal, Request, Step};

/// What LVM calls a device that it does not find.
const UNKNOWN: &str = "[unknown]";
/// What LVM calls the volumes that extents are moved through (pvmove(8)).
const MOVED: &str = "pvmove";

pub(super) fn plan(request: &Request, found: &Found) -> Result<Vec<Step>, Refusal> {
    let (group, name) = (&request.group, &request.thin_pool);
    if found.group(group)?.is_none() {
        return Err(Refusal::NoGroup { group: group.clone() });
    }
    found.check_duplicates(group)?;
    let mut steps = Vec::new();
    let lacking: Vec<&Physical> =
        found.physicals_of(group.as_str()).filter(|physical| physical.missing).collect();
    let (gone, back): (Vec<&Physical>, Vec<&Physical>) =
        lacking.into_iter().partition(|physical| physical.name == UNKNOWN);
    let spares = spares_on(request, &gone, found)?;
    for physical in back {
        let (group, device) = (group.clone(), physical.name.clone());
        steps.push(Step::RestoreDevice { group, device });
    }
    for name in spares {
        steps.push(Step::RemoveSpare { group: group.clone(), name });
    }
    if !gone.is_empty() {
        steps.push(Step::ForgetMissing { group: group.clone(), count: gone.len() });
    }
    let pool = found.thin_pool(group, name)?;
    if pool.active && pool.damage().is_none() {
        return Ok(steps);
    }
    found.check_still(group)?;
    let inside = |l: &&Logical| l.group == group.as_str() && l.pool == name.as_str() && l.active;
    let volumes: Vec<String> =
        found.logicals.iter().filter(inside).map(|l| l.name.clone()).collect();
    let (open, idle): (Vec<&Mapped>, Vec<&Mapped>) =
        found.mapped.iter().partition(|mapped| mapped.open);
    let names = |of: Vec<&Mapped>| of.into_iter().map(|mapped| mapped.name.clone()).collect();
    if !open.is_empty() {
        let (group, name) = (group.clone(), name.clone());
        return Err(Refusal::PoolBusy { group, name, open: names(open) });
    }
    if pool.active || !volumes.is_empty() {
        let (group, name) = (group.clone(), name.clone());
        steps.push(Step::Deactivate { group, name, volumes, mapped: names(idle) });
    }
    steps.push(Step::Mend { group: group.clone(), name: name.clone() });
    Ok(steps)
}

/// The spares of LVM that were on devices that are gone, if nothing else was.
fn spares_on(request: &Request, gone: &[&Physical], found: &Found) -> Result<Vec<String>, Refusal> {
    let mut names: Vec<&str> = gone.iter().flat_map(|physical| found.names_on(physical)).collect();
    names.sort_unstable();
    names.dedup();
    // What a move is about has its extents under a name of LVM's, and may be the pool's.
    let lost = |name: &&str| request.has_part(name) || name.starts_with(MOVED);
    let (lost, names): (Vec<&str>, Vec<&str>) = names.into_iter().partition(lost);
    if !lost.is_empty() {
        return Err(Refusal::Lost { what: lost.join(", ") });
    }
    let is_spare = |name: &&str| found.logical(&request.group, name).is_some_and(|l| l.spare);
    let (spares, others): (Vec<&str>, Vec<&str>) = names.into_iter().partition(is_spare);
    let named = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
    match others.is_empty() {
        true => Ok(named(spares)),
        false => Err(Refusal::OthersLost { group: request.group.clone(), volumes: named(others) }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::{after, asked, carry_out, pool_on};
    use super::super::{Change, Name, plan};
    use super::*;

    fn two_disks() -> Found {
        let before = pool_on(&["/dev/sdb"], &["/dev/sdb", "/dev/sdc"]);
        let devices = vec!["/dev/sdc".into()];
        let add = asked(Change::AddDevices { devices, wipe: Vec::new() });
        carry_out(&add, &before).unwrap().1
    }

    #[test]
    fn a_sound_pool_needs_nothing() {
        let (plan, _) = carry_out(&asked(Change::Repair), &two_disks()).unwrap();
        assert_eq!(plan.steps, []);
    }

    #[test]
    fn damaged_metadata_is_mended_offline() {
        let mut damaged = two_disks();
        damaged.logical_mut(&"tank".parse().unwrap(), "holdfast_pool").needs_check = true;
        let (plan, _) = carry_out(&asked(Change::Repair), &damaged).unwrap();
        assert!(matches!(&plan.steps[..], [Step::Deactivate { .. }, Step::Mend { .. }]));
    }

    /// What is written to the old metadata while a copy of it is repaired would be lost.
    #[test]
    fn what_is_in_use_is_not_repaired() {
        let mut damaged = two_disks();
        damaged.logical_mut(&"tank".parse().unwrap(), "holdfast_pool").needs_check = true;
        damaged.mapped = vec![
            Mapped { name: "item-1".into(), open: false },
            Mapped { name: "item-2".into(), open: true },
        ];
        let refused = plan(&asked(Change::Repair), &damaged).unwrap_err();
        assert!(matches!(&refused, Refusal::PoolBusy { open, .. } if *open == ["item-2"]));
        damaged.mapped[1].open = false;
        let (plan, end) = carry_out(&asked(Change::Repair), &damaged).unwrap();
        assert!(plan.takes_out_of_use() && end.mapped.is_empty(), "{plan:?}");
    }

    /// Which of two copies of a device would be mended is chance, and metadata that is on its way to
    /// another device is not taken out of use.
    #[test]
    fn nothing_is_repaired_amid_a_move_or_on_a_copied_device() {
        let group = "tank".parse().unwrap();
        let mut damaged = two_disks();
        damaged.logical_mut(&group, "holdfast_pool").needs_check = true;
        let mut moving = damaged.clone();
        moving.logical_mut(&group, "holdfast_catalog").moves_off = "/dev/sdb".into();
        let refused = plan(&asked(Change::Repair), &moving).unwrap_err();
        assert!(matches!(refused, Refusal::Moving { .. }), "{refused}");
        damaged.physicals[0].duplicate = true;
        let refused = plan(&asked(Change::Repair), &damaged).unwrap_err();
        assert!(matches!(refused, Refusal::Duplicate { .. }), "{refused}");
    }

    /// I18: a part of the pool that is not there is never given up by a repair.
    #[test]
    fn missing_devices_are_given_up_only_if_they_held_nothing() {
        let mut lacking = two_disks();
        lacking.physicals[1].missing = true;
        let (back, end) = carry_out(&asked(Change::Repair), &lacking).unwrap();
        assert!(matches!(&back.steps[..], [Step::RestoreDevice { .. }]));
        assert!(!end.physicals[1].missing);
        lacking.physicals[1].name = UNKNOWN.into();
        let (forgotten, end) = carry_out(&asked(Change::Repair), &lacking).unwrap();
        assert!(matches!(&forgotten.steps[..], [Step::ForgetMissing { count: 1, .. }]));
        assert_eq!(end.physicals_of("tank").count(), 1);
        lacking.physicals[0].missing = true;
        lacking.physicals[0].name = UNKNOWN.into();
        let refused = plan(&asked(Change::Repair), &lacking).unwrap_err();
        assert!(matches!(refused, Refusal::Lost { .. }), "{refused}");
    }

    /// The second disk gone, with these volumes on it.
    fn gone_with(mut lacking: Found, volumes: &[&str]) -> Found {
        let tank = "tank".parse().unwrap();
        for volume in volumes {
            lacking.make_on("/dev/sdc", &tank, volume, 128 << 20);
        }
        lacking.physicals[1].missing = true;
        lacking.physicals[1].name = UNKNOWN.into();
        lacking
    }

    /// The pool was said to be lost, and to be made anew, for want of LVM's spare.
    #[test]
    fn a_disk_that_held_only_the_spare_cost_the_pool() {
        let (group, name): (Name, _) = ("tank".parse().unwrap(), "lvol0_pmspare".to_owned());
        let remove = Step::RemoveSpare { group: group.clone(), name };
        let mut lacking = gone_with(after(&two_disks(), &[remove]), &["lvol0_pmspare"]);
        lacking.logical_mut(&group, "lvol0_pmspare").spare = true;
        let (mended, end) = carry_out(&asked(Change::Repair), &lacking).unwrap();
        let [Step::RemoveSpare { name, .. }, Step::ForgetMissing { count: 1, .. }] =
            &mended.steps[..]
        else {
            panic!("{mended:?}")
        };
        assert_eq!(name, "lvol0_pmspare");
        assert!(end.logical(&group, name).is_none() && end.physicals_of("tank").count() == 1);
    }

    /// Somebody's scratch volume on a missing disk was the end of the pool, too.
    #[test]
    fn others_volumes_on_a_missing_disk_cost_the_pool() {
        let refused =
            plan(&asked(Change::Repair), &gone_with(two_disks(), &["scratch"])).unwrap_err();
        assert!(matches!(&refused, Refusal::OthersLost { volumes, .. } if *volumes == ["scratch"]));
        assert!(refused.to_string().contains("none of them is the pool's"), "{refused}");
        for own in ["holdfast_pool_tmeta", "holdfast_pool_tdata_rimage_0", "pvmove0"] {
            let refused = plan(&asked(Change::Repair), &gone_with(two_disks(), &["scratch", own]))
                .unwrap_err();
            assert_eq!(refused, Refusal::Lost { what: own.into() });
        }
    }
}
