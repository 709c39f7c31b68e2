//! What LVM says of the volume group that this machine's pool is in: whether it is the one that the
//! pool was made in, and what it is made of.

use holdfast_proto::v1;
use holdfast_storage::Error;
use holdfast_storage::lvm::LvmRecord;
use holdfast_storage::lvm::admin::{self, Found, Name, Request};

/// Refuses a group or thin pool that only has the name of the one that was made. One that is not
/// there is for whoever opens it to say.
pub(crate) fn check(record: &LvmRecord) -> Result<(), Error> {
    let (group, thin_pool) = names(record)?;
    let Some(found) = admin::identify(&group, &thin_pool)? else { return Ok(()) };
    match found.group_uuid == record.vg_uuid && found.pool_uuid == record.pool_uuid {
        true => Ok(()),
        false => Err(Error::Unusable {
            path: format!("{group}/{thin_pool}").into(),
            reason: format!(
                "it is another one ({}) than the pool {} was made of ({})",
                found.pool_uuid, record.name, record.pool_uuid
            ),
        }),
    }
}

/// Fills in the group's size and devices.
pub(crate) fn describe(record: &LvmRecord, pool: &mut v1::Pool) -> Result<(), Error> {
    let (group, thin_pool) = names(record)?;
    let found = admin::look(&Request::in_group(group, Some(thin_pool)))?;
    fill(&record.vg, &found, pool);
    Ok(())
}

fn fill(group: &str, found: &Found, pool: &mut v1::Pool) {
    let Some(vg) = found.groups.iter().find(|found| found.name == group) else { return };
    let bytes = |extents: u64| extents.saturating_mul(vg.extent);
    let physicals = found.physicals.iter().filter(|physical| physical.group == group);
    pool.devices = physicals
        .map(|physical| v1::PoolDevice {
            path: physical.name.clone(),
            size_bytes: bytes(physical.extents),
            free_bytes: bytes(physical.extents.saturating_sub(physical.used)),
            missing: physical.missing,
        })
        .collect();
    pool.vg_size_bytes = pool.devices.iter().map(|device| device.size_bytes).sum();
    pool.vg_free_bytes = bytes(vg.free);
}

pub(crate) fn names(record: &LvmRecord) -> Result<(Name, Name), Error> {
    Ok((record.vg.parse()?, record.thin_pool.parse()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_storage::lvm::admin::{Group, Physical};

    #[test]
    fn a_group_is_shown_with_its_own_devices() {
        let physical = |name: &str, group: &str, missing| Physical {
            name: name.into(),
            group: group.into(),
            extents: 10,
            used: 4,
            missing,
            ..Default::default()
        };
        let found = Found {
            groups: vec![Group {
                name: "fast".into(),
                extent: 4 << 20,
                free: 6,
                ..Default::default()
            }],
            physicals: vec![
                physical("/dev/sdb", "fast", false),
                physical("[unknown]", "fast", true),
                physical("/dev/sdd", "slow", false),
            ],
            ..Default::default()
        };
        let mut pool = v1::Pool::default();
        fill("fast", &found, &mut pool);
        assert_eq!((pool.vg_size_bytes, pool.vg_free_bytes), (80 << 20, 24 << 20));
        let shown: Vec<_> = pool.devices.iter().map(|d| (d.path.as_str(), d.missing)).collect();
        assert_eq!(shown, [("/dev/sdb", false), ("[unknown]", true)]);
        assert_eq!(pool.devices[0].free_bytes, 24 << 20);
    }
}
