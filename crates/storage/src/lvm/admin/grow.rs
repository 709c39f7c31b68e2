//! A larger pool: its data, and the metadata that must be able to map it.

use holdfast_types::ByteSize;

use super::found::Found;
use super::size::{self, MOST_METADATA};
use super::{Plan, Refusal, Request, Step};

/// Grows to the sizes that were asked for; metadata follows data in any case. Without a size the
/// data takes all that is free but the reserve.
pub(super) fn plan(
    request: &Request,
    data: Option<ByteSize>,
    metadata: Option<ByteSize>,
    found: &Found,
) -> Result<Plan, Refusal> {
    let (group, name) = (&request.group, &request.thin_pool);
    let there = found.usable_group(group)?;
    let pool = found.thin_pool(group, name)?;
    // A pool whose metadata is full takes no writes until there is more of it, and is not damaged.
    let stuck = pool.health == "metadata_read_only" && !pool.needs_check;
    if let Some(state) = pool.damage().filter(|_| !stuck) {
        return Err(Refusal::Damaged { group: group.clone(), name: name.clone(), state });
    }
    found.check_still(group)?;
    let up = |size: ByteSize| size.bytes().next_multiple_of(there.extent);
    let (data, metadata) = (data.map(up), metadata.map(up));
    for (what, asked, now) in [("data", data, pool.size), ("metadata", metadata, pool.metadata)] {
        if asked.is_some_and(|asked| asked < now) {
            return Err(Refusal::Shrinks { what, now: ByteSize(now) });
        }
    }
    if metadata.is_some_and(|metadata| metadata > MOST_METADATA) {
        return Err(Refusal::TooMuchMetadata { most: ByteSize(MOST_METADATA) });
    }
    let spare = found.logicals.iter().find(|l| l.group == group.as_str() && l.spare);
    let spare = spare.map_or(0, |spare| spare.size);
    let cost = |metadata: u64| (metadata - pool.metadata) + metadata.saturating_sub(spare);
    let free = found.free(there);
    // Only metadata: the data stays as it is.
    let to_the_free_space = data.is_none() && metadata.is_none();
    let room = match to_the_free_space {
        true => free.saturating_sub(size::reserve(found.size(there))),
        false => free,
    };
    let most = data.unwrap_or(pool.size + if to_the_free_space { room } else { 0 });
    let more = if stuck { pool.metadata + pool.metadata / 4 } else { pool.metadata };
    let most_metadata = MOST_METADATA / there.extent * there.extent;
    let more = more.next_multiple_of(there.extent).min(most_metadata.max(pool.metadata));
    let needed = metadata.unwrap_or_else(|| size::metadata_for(most, there.extent).max(more));
    let metadata = needed.max(pool.metadata);
    let metadata = match to_the_free_space && !stuck && cost(metadata) > room {
        true => pool.metadata,
        false => metadata,
    };
    let cost = if metadata > pool.metadata { cost(metadata) } else { 0 };
    let data = match to_the_free_space {
        true => pool.size + room.saturating_sub(cost) / there.extent * there.extent,
        false => most,
    };
    let needed = cost + (data - pool.size);
    if needed > free {
        let (free, needed) = (ByteSize(free), ByteSize(needed));
        return Err(Refusal::NoRoom { group: group.clone(), free, needed });
    }
    let mut steps = Vec::new();
    let (group, name) = (group.clone(), name.clone());
    if metadata > pool.metadata {
        let (group, name) = (group.clone(), name.clone());
        let (now, size) = (ByteSize(pool.metadata), ByteSize(metadata));
        steps.push(Step::GrowMetadata { group, name, now, size });
    }
    if data > pool.size {
        let (now, size) = (ByteSize(pool.size), ByteSize(data));
        steps.push(Step::GrowData { group, name, now, size });
    }
    Ok(Plan { steps })
}

#[cfg(test)]
mod tests {
    use super::super::model::{asked, carry_out, pool_on};
    use super::super::{Change, plan};
    use super::*;

    fn growth(data: Option<ByteSize>, metadata: Option<ByteSize>) -> Request {
        asked(Change::Grow { data, metadata })
    }

    fn with_another_disk() -> Found {
        let before = pool_on(&["/dev/sdb"], &["/dev/sdb", "/dev/sdc"]);
        let devices = vec!["/dev/sdc".into()];
        let add = asked(Change::AddDevices { devices, wipe: Vec::new() });
        carry_out(&add, &before).unwrap().1
    }

    #[test]
    fn a_pool_grows_into_the_free_space() {
        let (grown, end) = carry_out(&growth(None, None), &with_another_disk()).unwrap();
        let lines: Vec<String> = grown.steps.iter().map(Step::to_string).collect();
        assert_eq!(lines, ["grow the data of tank/holdfast_pool from 9.0GiB to 18.5GiB"]);
        let there = &end.groups[0];
        assert!(end.free(there) >= size::reserve(end.size(there)), "the reserve stays");
    }

    #[test]
    fn a_pool_grows_by_sizes() {
        let before = with_another_disk();
        let asked = growth(Some(ByteSize::gib(12)), Some(ByteSize::mib(200)));
        let (grown, end) = carry_out(&asked, &before).unwrap();
        assert_eq!(grown.steps.len(), 2);
        let pool = end.logical(&"tank".parse().unwrap(), "holdfast_pool").unwrap();
        assert_eq!((pool.size, pool.metadata), (12 << 30, 200 << 20));
        for (smaller, code) in [
            (growth(Some(ByteSize::gib(1)), None), "data"),
            (growth(None, Some(ByteSize::mib(4))), "metadata"),
        ] {
            let refused = plan(&smaller, &before).unwrap_err();
            assert!(
                matches!(&refused, Refusal::Shrinks { what, .. } if *what == code),
                "{refused}"
            );
        }
        let refused = plan(&growth(Some(ByteSize::gib(100)), None), &before).unwrap_err();
        assert!(matches!(refused, Refusal::NoRoom { .. }));
        let refused = plan(&growth(None, Some(ByteSize::gib(16))), &before).unwrap_err();
        assert!(matches!(refused, Refusal::TooMuchMetadata { .. }));
    }

    /// I20: data that the metadata could not map would fill the metadata first.
    #[test]
    fn metadata_follows_the_data() {
        let mut before = with_another_disk();
        for physical in &mut before.physicals {
            physical.extents += 500 << 8;
        }
        before.groups[0].free += 2 * (500 << 8);
        let (grown, end) = carry_out(&growth(None, None), &before).unwrap();
        assert!(matches!(&grown.steps[..], [Step::GrowMetadata { .. }, Step::GrowData { .. }]));
        let pool = end.logical(&"tank".parse().unwrap(), "holdfast_pool").unwrap();
        assert!(pool.metadata >= pool.size / 1024, "{pool:?}");
    }

    /// I20: what waits for metadata goes on when there is more; a size needs not be thought of.
    #[test]
    fn a_pool_without_metadata_is_given_some() {
        let mut before = with_another_disk();
        let tank = "tank".parse().unwrap();
        before.logical_mut(&tank, "holdfast_pool").health = "metadata_read_only".into();
        let (grown, end) = carry_out(&growth(None, None), &before).unwrap();
        assert!(matches!(&grown.steps[..], [Step::GrowMetadata { .. }, Step::GrowData { .. }]));
        assert_eq!(end.logical(&tank, "holdfast_pool").unwrap().metadata, 160 << 20);
        before.logical_mut(&tank, "holdfast_pool").needs_check = true;
        assert!(matches!(plan(&growth(None, None), &before), Err(Refusal::Damaged { .. })));
    }

    #[test]
    fn a_damaged_pool_or_what_is_none_does_not_grow() {
        let tank = "tank".parse().unwrap();
        let mut before = with_another_disk();
        before.logical_mut(&tank, "holdfast_pool").needs_check = true;
        assert!(matches!(plan(&growth(None, None), &before), Err(Refusal::Damaged { .. })));
        before.logical_mut(&tank, "holdfast_pool").kind = "linear".into();
        assert!(matches!(plan(&growth(None, None), &before), Err(Refusal::PoolUnfit { .. })));
        before.logicals.clear();
        assert!(matches!(plan(&growth(None, None), &before), Err(Refusal::NoPool { .. })));
    }
}
