//! Which devices may be taken into a group.

use std::path::PathBuf;

use super::found::{Device, Found, Physical};
use super::{Name, Refusal, Step};

/// Less is not worth an entry in a plan.
const LEAST_DEVICE: u64 = 128 << 20;

/// What the signature of a physical volume is called (blkid(8)).
const PHYSICAL: &str = "LVM2_member";

/// Devices that were named, each of which may be had.
pub(super) struct Taken<'a> {
    /// Those that are not in the group yet.
    pub(super) new: Vec<&'a Device>,
    /// What empties those that are not empty, as they may be.
    pub(super) wipes: Vec<Step>,
}

/// Takes the devices at `paths` for `group`, unless one of them carries or does something that it
/// was not named for.
pub(super) fn take<'a>(
    found: &'a Found,
    group: &Name,
    paths: &[PathBuf],
    wipe: &[PathBuf],
) -> Result<Taken<'a>, Refusal> {
    let mut named: Vec<&Device> = Vec::new();
    for path in paths {
        let device = found.device(path)?;
        if named.iter().any(|other| other.number == device.number) {
            return Err(Refusal::Twice { device: path.clone() });
        }
        named.push(device);
    }
    let mut wiped = Vec::new();
    for path in wipe {
        let number = &found.device(path)?.number;
        if !named.iter().any(|device| device.number == *number) {
            return Err(Refusal::WipesAnother { device: path.clone() });
        }
        wiped.push(number);
    }
    let mut taken = Taken { new: Vec::new(), wipes: Vec::new() };
    for device in named {
        let physical = found.physical_on(device);
        if physical.is_some_and(|physical| physical.group == group.as_str()) {
            continue;
        }
        check(device)?;
        if !is_blank(device, physical) {
            if !wiped.contains(&&device.number) {
                return Err(not_empty(device, physical));
            }
            taken.wipes.push(Step::Wipe {
                device: device.path.clone(),
                signatures: signatures(device, physical),
            });
        }
        taken.new.push(device);
    }
    Ok(taken)
}

fn check(device: &Device) -> Result<(), Refusal> {
    if !device.users.is_empty() {
        let users = device.users.join(", ");
        return Err(Refusal::Busy { device: device.path.clone(), users });
    }
    let reason = match device {
        Device { kind, .. } if kind == "rom" => "it is read-only by nature".into(),
        Device { read_only: true, .. } => "it is read-only".into(),
        Device { size, .. } if *size < LEAST_DEVICE => format!(
            "it has {}, and {} is the least",
            holdfast_types::ByteSize(*size),
            holdfast_types::ByteSize(LEAST_DEVICE)
        ),
        _ => return Ok(()),
    };
    Err(Refusal::DeviceUnfit { device: device.path.clone(), reason })
}

/// A physical volume in no group holds nothing: one that was made for us, or by an interrupted try.
fn is_blank(device: &Device, physical: Option<&Physical>) -> bool {
    let free = |physical: &Physical| physical.group.is_empty() && !physical.in_use;
    device.signatures.iter().all(|s| s == PHYSICAL && physical.is_some_and(free))
}

fn not_empty(device: &Device, physical: Option<&Physical>) -> Refusal {
    Refusal::NotEmpty { device: device.path.clone(), signatures: signatures(device, physical) }
}

fn signatures(device: &Device, physical: Option<&Physical>) -> String {
    let name = |signature: &String| match physical {
        Some(physical) if signature == PHYSICAL && !physical.group.is_empty() => {
            format!("{signature} of the group {}", physical.group)
        }
        _ => signature.clone(),
    };
    device.signatures.iter().map(name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::model::{disk, found};
    use super::*;

    fn try_to_take(found: &Found, wipe: &[&str]) -> Result<(usize, usize), Refusal> {
        let wipe: Vec<PathBuf> = wipe.iter().map(PathBuf::from).collect();
        let taken = take(found, &"pool".parse().unwrap(), &["/dev/sdb".into()], &wipe)?;
        Ok((taken.new.len(), taken.wipes.len()))
    }

    /// A device with content is refused unless `--wipe` names that very device.
    #[test]
    fn content_is_destroyed_only_where_it_is_named() {
        for signature in ["ext4", "gpt", "swap", "linux_raid_member", "crypto_LUKS", "LVM2_member"]
        {
            let mut found = found(&["/dev/sdb", "/dev/sdc"]);
            found.devices[0].signatures = vec![signature.into()];
            let refused = try_to_take(&found, &[]).unwrap_err();
            assert!(matches!(&refused, Refusal::NotEmpty { .. }), "{refused}");
            assert!(refused.to_string().contains(signature));
            let refused = try_to_take(&found, &["/dev/sdc"]).unwrap_err();
            assert!(matches!(&refused, Refusal::WipesAnother { .. }), "{refused}");
            assert_eq!(try_to_take(&found, &["/dev/sdb"]), Ok((1, 1)));
        }
    }

    /// What is mounted or otherwise used is refused, `--wipe` or not.
    #[test]
    fn what_is_in_use_is_never_taken() {
        let mut found = found(&["/dev/sdb"]);
        found.devices[0].users = vec!["mounted at /srv".into()];
        let refused = try_to_take(&found, &["/dev/sdb"]).unwrap_err();
        assert!(matches!(&refused, Refusal::Busy { .. }), "{refused}");
    }

    #[test]
    fn what_cannot_hold_a_pool_is_refused() {
        for change in [
            |device: &mut Device| device.size = 1 << 20,
            |device: &mut Device| device.read_only = true,
            |device: &mut Device| device.kind = "rom".into(),
        ] {
            let mut found = found(&["/dev/sdb"]);
            change(&mut found.devices[0]);
            let refused = try_to_take(&found, &[]).unwrap_err();
            assert!(matches!(&refused, Refusal::DeviceUnfit { .. }), "{refused}");
        }
        let gone = Found { devices: Vec::new(), ..found(&[]) };
        assert!(matches!(try_to_take(&gone, &[]), Err(Refusal::NoDevice { .. })));
    }

    /// Another group's signature is content; that of no group is what an interruption leaves.
    #[test]
    fn a_physical_volume_is_blank_only_in_no_group() {
        let mut found = found(&["/dev/sdb"]);
        found.devices[0].signatures = vec![PHYSICAL.into()];
        found.physicals.push(Physical { number: disk("/dev/sdb").number, ..Physical::default() });
        assert_eq!(try_to_take(&found, &[]), Ok((1, 0)));
        found.physicals[0].in_use = true;
        assert!(matches!(try_to_take(&found, &[]), Err(Refusal::NotEmpty { .. })));
        found.physicals[0].group = "other".into();
        let refused = try_to_take(&found, &[]).unwrap_err();
        assert!(refused.to_string().contains("of the group other"), "{refused}");
        found.physicals[0].group = "pool".into();
        assert_eq!(try_to_take(&found, &[]), Ok((0, 0)), "it is there already");
    }

    #[test]
    fn one_device_under_two_names_is_one_device() {
        let mut found = found(&["/dev/sdb"]);
        found.devices.push(Device { path: "/dev/disk/by-id/b".into(), ..disk("/dev/sdb") });
        let paths = ["/dev/sdb".into(), "/dev/disk/by-id/b".into()];
        let refused = take(&found, &"pool".parse().unwrap(), &paths, &[]).err().unwrap();
        assert!(matches!(&refused, Refusal::Twice { .. }), "{refused}");
    }
}
