//! A larger pool: its data, and the metadata that must be able to map it.

use holdfast_types::ByteSize;

use super::found::{Found, Group};
use super::size::{self, MOST_METADATA};
use super::{CATALOG, GROWING, MAKING, Name, Refusal, Request, Step};

/// Grows to the sizes that were asked for; metadata follows data in any case, and the catalog the
/// group where there is room. Without a size the data takes all that is free but the reserve.
pub(super) fn plan(
    request: &Request,
    data: Option<ByteSize>,
    metadata: Option<ByteSize>,
    found: &Found,
) -> Result<Vec<Step>, Refusal> {
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
    let left = match to_the_free_space {
        true => room.saturating_sub(cost),
        false => free.saturating_sub(cost + (most - pool.size)),
    };
    let (catalog, taken) = catalog(group, there, left, found).unzip();
    let data = match to_the_free_space {
        true => pool.size + (left - taken.unwrap_or(0)) / there.extent * there.extent,
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
    // Last: a filesystem that cannot be grown must not keep a full pool from it.
    steps.extend(catalog);
    Ok(steps)
}

/// The catalog's growth into `left` free bytes, and what it takes of them. It grows while it is
/// mounted, or another time.
fn catalog(group: &Name, there: &Group, left: u64, found: &Found) -> Option<(Step, u64)> {
    let mountpoint = found.catalog.as_ref()?.mountpoint.clone();
    let catalog = found.logical(group, CATALOG)?;
    if catalog.kind != "linear" || catalog.has_tag(MAKING) {
        return None;
    }
    let wanted = size::catalog(found.size(there), there.extent);
    let lacks = wanted.saturating_sub(catalog.size);
    let more = if lacks <= left { lacks } else { 0 };
    if more == 0 && !catalog.has_tag(GROWING) {
        return None;
    }
    let (group, now, size) = (group.clone(), ByteSize(catalog.size), ByteSize(catalog.size + more));
    Some((Step::GrowCatalog { group, now, size, mountpoint }, more))
}

#[cfg(test)]
mod tests {
    use super::super::model::{asked, carry_out, pool_on};
    use super::super::{Catalog, Change, Plan, plan};
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

    /// A pool of many TiB, its catalog as it was made in a small group, and mounted.
    fn grown_group() -> Found {
        let mut before = with_another_disk();
        for physical in &mut before.physicals {
            physical.extents += 4 << 18;
        }
        before.groups[0].free += 8 << 18;
        before.catalog = Some(Catalog { mountpoint: "/pool".into(), used_percent: 9 });
        before
    }

    /// It was as large as the group was once, and a larger group's hashes filled it.
    #[test]
    fn the_catalog_did_not_grow_with_the_group() {
        let tank = "tank".parse().unwrap();
        let (grown, end) = carry_out(&growth(None, None), &grown_group()).unwrap();
        let [Step::GrowMetadata { .. }, Step::GrowData { .. }, Step::GrowCatalog { size, .. }] =
            &grown.steps[..]
        else {
            panic!("{grown:?}")
        };
        let wanted = size::catalog(end.size(&end.groups[0]), end.groups[0].extent);
        assert!(wanted > 1 << 30 && size.bytes() == wanted, "{size}");
        assert_eq!(end.logical(&tank, CATALOG).unwrap().size, wanted);
        // Not mounted, or without room beside what was asked for, it stays as it is.
        let mut closed = grown_group();
        closed.catalog = None;
        let none = |plan: &Plan| !plan.steps.iter().any(|s| matches!(s, Step::GrowCatalog { .. }));
        assert!(none(&plan(&growth(None, None), &closed).unwrap()));
        let crowded = grown_group();
        let free = crowded.free(&crowded.groups[0]);
        let (pool, more) = (crowded.logical(&tank, "holdfast_pool").unwrap(), 512 << 20);
        let all = ByteSize(pool.size + free - more);
        let asked = growth(Some(all), Some(ByteSize(pool.metadata + (128 << 20))));
        assert!(none(&carry_out(&asked, &crowded).unwrap().0));
    }

    /// Killed after its volume grew, the filesystem has yet to follow, whatever room there is.
    #[test]
    fn the_catalogs_filesystem_follows_its_volume_after_an_interruption() {
        let tank: Name = "tank".parse().unwrap();
        let (_, mut killed) = carry_out(&growth(None, None), &grown_group()).unwrap();
        killed.logical_mut(&tank, CATALOG).tags.push(GROWING.into());
        let (rest, _) = carry_out(&growth(None, None), &killed).unwrap();
        let [Step::GrowCatalog { now, size, .. }] = &rest.steps[..] else { panic!("{rest:?}") };
        assert_eq!(now, size);
        killed.physicals.iter_mut().for_each(|physical| physical.used = physical.extents);
        let full = plan(&growth(None, None), &killed).unwrap();
        assert_eq!(full.steps, rest.steps);
    }
}
