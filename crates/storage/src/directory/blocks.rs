//! What a driver has to do; everything else is shared.

use std::path::Path;

use holdfast_types::ByteSize;

use crate::pool::{Capacity, Extent, Fragmentation, Quiesce};
use crate::{Error, Result, durable};

/// Percent beyond the threshold at which a receive that was admitted stops.
const MARGIN_PERCENT: u8 = 5;

/// The name of the item that is kept in reserve, in the pool's root.
pub(crate) const RESERVE: &str = "reserve";

/// How a driver keeps content.
///
/// An *item* is a range of blocks with a name: a path in a volume's directory. The name is a file,
/// which is renamed, linked and found like any other; what is behind it is the driver's. A new
/// item is durable after [`sync`](Self::sync), but for its name's entry in the directory,
/// which the commit that follows makes durable.
pub trait Blocks: Send + Sync + 'static {
    /// An item's block device.
    type Device: Device;

    /// What is attached on this machine now, for taking up what an earlier life left.
    type Attached;

    /// Makes an item of `size` bytes that reads as zeros, in place of what an interrupted attempt
    /// left under that name.
    fn create(&self, item: &Path, size: u64) -> Result<()>;

    /// The same, but it begins as `from` (of at most `size` bytes), which nothing writes to.
    /// No content is copied.
    fn clone_item(&self, from: &Path, item: &Path, size: u64) -> Result<()>;

    /// Makes items of what live ones are at one moment between `quiesce`'s freeze and thaw, the same
    /// for all. A window that closed early was no window: then it fails, and leaves no item. Durable
    /// at once.
    fn snapshot(&self, parts: &[Part<'_, Self::Device>], quiesce: &mut dyn Quiesce) -> Result<()>;

    /// Grows an item, and its device with it. Durable at once.
    fn grow(&self, item: &Path, device: Option<&Self::Device>, size: u64) -> Result<()>;

    /// Makes an inactive item with all its content durable.
    fn sync(&self, item: &Path) -> Result<()>;

    /// Removes a name, and the content with its last name. The name may be gone already.
    fn remove(&self, item: &Path) -> Result<()>;

    /// Where `item`, of `size` bytes, may differ from `base` (`None` is all zeros), ordered and
    /// without overlap.
    fn diff(&self, base: Option<&Path>, item: &Path, size: u64) -> Result<Vec<Extent>>;

    /// What comparing such an item costs.
    fn fragmentation(&self, item: &Path) -> Result<Fragmentation>;

    /// Opens an item that nothing writes to.
    fn reader(&self, item: &Path) -> Result<Box<dyn ReadAt>>;

    /// Opens an inactive item for filling it.
    fn writer(&self, item: &Path) -> Result<Box<dyn WriteAt>>;

    /// Makes the item a block device.
    fn attach(&self, item: &Path) -> Result<Self::Device>;

    /// What is attached now.
    fn attached(&self) -> Result<Self::Attached>;

    /// The item's device, if it is attached.
    fn adopt(&self, item: &Path, attached: &Self::Attached) -> Result<Option<Self::Device>>;

    /// How full the pool is, measured now; `promised` is left at zero.
    fn capacity(&self) -> Result<Capacity>;

    /// Refuses a pool that takes no writes.
    fn writable(&self) -> Result<()> {
        Ok(())
    }

    /// Refuses while snapshots cannot be compared.
    fn comparable(&self) -> Result<()> {
        Ok(())
    }

    /// Refuses while the disks below do not answer at all: that something cannot be read then says
    /// nothing of it.
    fn answers(&self) -> Result<()>;

    /// Refuses one more snapshot, or receive, where the pool has had too many. What begins a live part
    /// is not asked.
    fn admit_snapshot(&self) -> Result<()> {
        Ok(())
    }

    /// Refuses where nothing that is removed would be given back: it had better be kept.
    fn may_free(&self) -> Result<()> {
        Ok(())
    }

    /// Whether there is plenty of room for what can be done without.
    fn has_room_for_notes(&self) -> Result<bool> {
        Ok(true)
    }

    /// Percent of the pool's life that is over, where it has an end.
    fn worn_percent(&self) -> u8 {
        0
    }

    /// How large the reserve is, which may not be there.
    fn reserved(&self, item: &Path) -> Result<u64>;

    /// Grows the reserve from `from` (nothing, for one that is not there) to `upto` bytes, all of
    /// which take room. Durable at once.
    fn reserve(&self, item: &Path, from: u64, upto: u64) -> Result<()>;

    /// Every item that a crash left nameless may go: all volumes are loaded, and nothing runs yet.
    fn settle(&self) -> Result<()>;

    /// Gives the item a second name, in place of what an interrupted attempt left there.
    fn link(&self, item: &Path, name: &Path) -> Result<()> {
        durable::remove_file(name)?;
        std::fs::hard_link(item, name).map_err(Error::io("linking", name))
    }

    /// Refuses to go on filling a pool that is well past its threshold, or would be with so many
    /// bytes more (I20).
    fn refuse_beyond_margin(&self, more: ByteSize) -> Result<()> {
        let capacity = self.capacity()?;
        let threshold_percent = capacity.threshold_percent.saturating_add(MARGIN_PERCENT);
        Capacity { threshold_percent, ..capacity }.admit(more)
    }
}

/// A member of a live part, of which a snapshot is taken.
#[derive(Debug)]
pub struct Part<'a, D> {
    /// The live item.
    pub live: &'a Path,
    /// Its device, if it is active.
    pub device: Option<&'a D>,
    /// The item that the snapshot is to be.
    pub item: &'a Path,
}

/// An attached item. Dropping it leaves it attached.
pub trait Device: Send + Sized {
    /// Its node.
    fn path(&self) -> &Path;

    /// Takes it away. If it is in use, it comes back with the error.
    fn detach(self) -> Result<(), (Option<Self>, Error)>;
}

/// Random reads of an item.
pub trait ReadAt: Send {
    /// Fills `buf` from `offset`; reading past the end is an error.
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<()>;

    /// A range that will be read soon.
    fn expect(&mut self, _offset: u64, _len: u64) {}

    /// The next reads of it come from the disk, where the system caches them.
    fn forget_cached(&mut self) {}
}

/// Filling an item.
pub trait WriteAt: Send {
    /// Writes content.
    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<()>;
    /// Makes a range read as zeros, and gives its space back.
    fn zero(&mut self, offset: u64, len: u64) -> Result<()>;
    /// Makes all of it durable.
    fn sync(&mut self) -> Result<()>;
}
