//! How large a pool's parts are.

/// The least catalog: enough for some four thousand volumes with ten snapshots each, at a block for
/// every file.
const LEAST_CATALOG: u64 = 256 << 20;
/// The hashes of copies take 8 MiB for each TiB of their volumes' sizes, of which there may be
/// several times the group's.
const CATALOG_SHARE: u64 = 8192;
/// The least that a pool's metadata has: LVM's own default is too small for many snapshots.
const LEAST_METADATA: u64 = 128 << 20;
/// dm-thin takes no more (`THIN_METADATA_MAX_SECTORS`: 15.81 GiB).
pub(super) const MOST_METADATA: u64 = 15 << 30;
/// Metadata that maps all of the data once takes 64 bytes a chunk of 64 KiB, by LVM's rule.
const METADATA_SHARE: u64 = 1024;
/// The least data that is worth a pool.
pub(super) const LEAST_DATA: u64 = 256 << 20;
/// Of a group, this part stays free, up to a limit: metadata and its spare grow into it, and what
/// must grow on a bad night.
const RESERVE_SHARE: u64 = 20;
const MOST_RESERVE: u64 = 16 << 30;

/// A thin pool's size in bytes, whole extents each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PoolSize {
    /// What volumes' content takes.
    pub(super) data: u64,
    /// What says where it is; its spare takes as much again.
    pub(super) metadata: u64,
}

/// The catalog of a pool in a group of `size` bytes.
pub(super) fn catalog(size: u64, extent: u64) -> u64 {
    (size / CATALOG_SHARE).max(LEAST_CATALOG).next_multiple_of(extent)
}

/// The metadata that so much data needs.
pub(super) fn metadata_for(data: u64, extent: u64) -> u64 {
    let most = MOST_METADATA - MOST_METADATA % extent;
    (data / METADATA_SHARE).max(LEAST_METADATA).next_multiple_of(extent).min(most)
}

/// What stays free of a group of `size` bytes.
pub(super) fn reserve(size: u64) -> u64 {
    (size / RESERVE_SHARE).min(MOST_RESERVE)
}

/// The largest pool that `free` bytes hold, of a group of `size`; an error says how many are needed
/// for the least.
pub(super) fn fit(size: u64, free: u64, extent: u64) -> Result<PoolSize, u64> {
    let metadata = metadata_for(free, extent);
    let others = reserve(size) + 2 * metadata;
    match free.checked_sub(others) {
        Some(data) if data >= LEAST_DATA => Ok(PoolSize { data: data - data % extent, metadata }),
        _ => Err(others + LEAST_DATA),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXTENT: u64 = 4 << 20;

    /// I20: a large pool with a small one's metadata would stop at a fraction of its data.
    #[test]
    fn metadata_grows_with_the_data() {
        assert_eq!(metadata_for(1 << 30, EXTENT), 128 << 20);
        assert_eq!(metadata_for(4 << 40, EXTENT), 4 << 30);
        assert_eq!(metadata_for(1 << 50, EXTENT), 15 << 30);
        assert_eq!(metadata_for(1 << 50, 7 << 30), 14 << 30);
    }

    /// I15: a large pool's hashes filled the catalog, in which a seal must be written.
    #[test]
    fn the_catalog_grows_with_the_group() {
        assert_eq!(catalog(3 << 30, EXTENT), 256 << 20);
        assert_eq!(catalog(64 << 40, EXTENT), 8 << 30);
    }

    #[test]
    fn a_pool_leaves_room_for_its_metadata_to_grow() {
        for size in [1 << 30, 3 << 30, 100 << 30, 50 << 40_u64] {
            let pool = fit(size, size, EXTENT).unwrap();
            assert!(pool.data + 2 * pool.metadata + reserve(size) <= size, "{size}");
            assert!(pool.data.is_multiple_of(EXTENT) && pool.data > size / 2, "{size}");
        }
        let needed = fit(512 << 20, 512 << 20, EXTENT).unwrap_err();
        assert!(fit(512 << 20, needed, EXTENT).is_ok());
    }
}
