//! Mending: devices that were missing, and a thin pool's metadata.
//!
//! Metadata is mended offline. A pool that the kernel still writes to is not: what is repaired is a
//! copy, and what was written meanwhile would be in the other one.

use super::found::{Found, Logical, Mapped, Physical};
use super::{Plan, Refusal, Request, Step};

/// What LVM calls a device that it does not find.
const UNKNOWN: &str = "[unknown]";

pub(super) fn plan(request: &Request, found: &Found) -> Result<Plan, Refusal> {
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
    let lost: Vec<&str> = gone.iter().flat_map(|physical| found.names_on(physical)).collect();
    if !lost.is_empty() {
        return Err(Refusal::Lost { what: lost.join(", ") });
    }
    for physical in back {
        let (group, device) = (group.clone(), physical.name.clone());
        steps.push(Step::RestoreDevice { group, device });
    }
    if !gone.is_empty() {
        steps.push(Step::ForgetMissing { group: group.clone(), count: gone.len() });
    }
    let pool = found.thin_pool(group, name)?;
    if pool.active && pool.damage().is_none() {
        return Ok(Plan { steps });
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
    Ok(Plan { steps })
}

#[cfg(test)]
mod tests {
    use super::super::model::{asked, carry_out, pool_on};
    use super::super::{Change, plan};
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
}
