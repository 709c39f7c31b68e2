//! Items as files that share their blocks.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate, ioctl_ficlone};

use super::diff;
use super::image::Mounted;
use super::space::Space;
use crate::direct::DirectFile;
use crate::directory::blocks::{Blocks, Device, Part, ReadAt, WriteAt};
use crate::loopdev::{Backing, LoopDevice};
use crate::pool::{Capacity, Extent, Fragmentation, Quiesce};
use crate::{Error, Result, durable};

/// Comparing two files costs 3 ms when they lie in few extents, 25 ms at 2,000, 260 ms at 19,000
/// (DESIGN section 7).
const COMFORTABLE_EXTENTS: u64 = 3_000;

/// The files of a directory on XFS.
#[derive(Debug)]
pub struct Reflinks {
    pub(super) space: Space,
    pub(super) mounted: Option<Mounted>,
    /// Keeps every other process out.
    pub(super) _lock: File,
}

impl Blocks for Reflinks {
    /// A filesystem that was shut down opens no file.
    fn answers(&self) -> Result<()> {
        let any = self.space.root.join("pool.json");
        File::open(&any).map(drop).map_err(Error::io("opening", &any))
    }

    type Device = LoopDevice;
    type Attached = Vec<(u32, Backing)>;

    fn create(&self, item: &Path, size: u64) -> Result<()> {
        fill(item, |_| Ok(()), size)
    }

    fn clone_item(&self, from: &Path, item: &Path, size: u64) -> Result<()> {
        let source = open(from)?;
        fill(item, |file| reflink(&source, file, item), size)
    }

    fn snapshot(&self, parts: &[Part<'_, LoopDevice>], quiesce: &mut dyn Quiesce) -> Result<()> {
        let pair = |part: &Part<'_, LoopDevice>| Ok((open(part.live)?, create(part.item)?));
        let files = parts.iter().map(pair).collect::<Result<Vec<_>>>()?;
        let reflinks = || {
            let mut each = parts.iter().zip(&files);
            each.try_for_each(|(part, (source, file))| reflink(source, file, part.item))
        };
        let cloned = quiesce.freeze(&[]).and_then(|()| reflinks());
        let sync = || {
            let mut each = parts.iter().zip(&files);
            each.try_for_each(|(part, (_, file))| {
                file.sync_all().map_err(Error::io("syncing", part.item))
            })
        };
        // A window that closed early was no window: the clones are not used.
        let result = cloned.and(quiesce.thaw()).and_then(|()| sync());
        if result.is_err() {
            parts.iter().try_for_each(|part| durable::remove_file(part.item))?;
        }
        result
    }

    fn grow(&self, item: &Path, device: Option<&LoopDevice>, size: u64) -> Result<()> {
        let file = open_writable(item)?;
        file.set_len(size).map_err(Error::io("sizing", item))?;
        file.sync_all().map_err(Error::io("syncing", item))?;
        device.map_or(Ok(()), LoopDevice::grown)
    }

    fn sync(&self, item: &Path) -> Result<()> {
        open(item)?.sync_all().map_err(Error::io("syncing", item))
    }

    fn remove(&self, item: &Path) -> Result<()> {
        durable::remove_file(item)
    }

    fn diff(&self, base: Option<&Path>, item: &Path, size: u64) -> Result<Vec<Extent>> {
        let base = base.map(open).transpose()?;
        diff::diff(base.as_ref(), &open(item)?, size)
    }

    fn fragmentation(&self, item: &Path) -> Result<Fragmentation> {
        Ok(Fragmentation {
            extents: diff::extents(&open(item)?)?,
            comfortable: COMFORTABLE_EXTENTS,
        })
    }

    fn reader(&self, item: &Path) -> Result<Box<dyn ReadAt>> {
        let file = DirectFile::open(item, false).map_err(Error::io("opening", item))?;
        Ok(Box::new(Reading { file, item: item.to_owned() }))
    }

    fn writer(&self, item: &Path) -> Result<Box<dyn WriteAt>> {
        let file = DirectFile::open(item, true).map_err(Error::io("opening", item))?;
        Ok(Box::new(Filling { file, item: item.to_owned() }))
    }

    fn attach(&self, item: &Path) -> Result<LoopDevice> {
        LoopDevice::attach(item)
    }

    fn attached(&self) -> Result<Self::Attached> {
        LoopDevice::attached()
    }

    fn adopt(&self, item: &Path, attached: &Self::Attached) -> Result<Option<LoopDevice>> {
        let backing = Backing::of(&open(item)?, item)?;
        match attached.iter().find(|(_, b)| *b == backing) {
            Some((number, _)) => LoopDevice::adopt(*number),
            None => Ok(None),
        }
    }

    fn capacity(&self) -> Result<Capacity> {
        self.space.measure()
    }

    fn reserved(&self, item: &Path) -> Result<u64> {
        match std::fs::metadata(item) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(0),
            meta => Ok(meta.map_err(Error::io("reading", item))?.len()),
        }
    }

    fn reserve(&self, item: &Path, from: u64, upto: u64) -> Result<()> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(item);
        let file = file.map_err(Error::io("making", item))?;
        let took = fallocate(&file, FallocateFlags::empty(), from, upto - from);
        took.map_err(Error::io("reserving", item))?;
        file.sync_all().map_err(Error::io("syncing", item))?;
        durable::sync_dir(item.parent().unwrap_or(item))
    }

    /// A file without a name in a volume's directory has no content either.
    fn settle(&self) -> Result<()> {
        Ok(())
    }
}

impl Device for LoopDevice {
    fn path(&self) -> &Path {
        LoopDevice::path(self)
    }

    fn detach(self) -> Result<(), (Option<Self>, Error)> {
        LoopDevice::detach(self)
    }
}

struct Reading {
    file: DirectFile,
    item: PathBuf,
}

impl ReadAt for Reading {
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(buf, offset).map_err(Error::io("reading", &self.item))
    }

    fn expect(&mut self, offset: u64, len: u64) {
        self.file.expect(offset, len);
    }

    fn forget_cached(&mut self) {
        forget_cached(self.file.cached());
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        forget_cached(self.file.cached());
    }
}

struct Filling {
    file: DirectFile,
    item: PathBuf,
}

impl WriteAt for Filling {
    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        self.file.write_all_at(data, offset).map_err(Error::io("writing", &self.item))
    }

    fn zero(&mut self, offset: u64, len: u64) -> Result<()> {
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(self.file.cached(), mode, offset, len).map_err(Error::io("punching", &self.item))
    }

    fn sync(&mut self) -> Result<()> {
        self.file.cached().sync_all().map_err(Error::io("syncing", &self.item))?;
        forget_cached(self.file.cached());
        Ok(())
    }
}

/// Live parts bypass the page cache, so what a transfer left in it serves nobody. Only a hint.
fn forget_cached(file: &File) {
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
}

/// A new file of `size`, with what `begin` puts there.
fn fill(item: &Path, begin: impl FnOnce(&File) -> Result<()>, size: u64) -> Result<()> {
    let file = create(item)?;
    begin(&file)?;
    file.set_len(size).map_err(Error::io("sizing", item))
}

fn reflink(source: &File, file: &File, item: &Path) -> Result<()> {
    ioctl_ficlone(file, source).map_err(Error::io("cloning into", item))
}

fn open(item: &Path) -> Result<File> {
    File::open(item).map_err(Error::io("opening", item))
}

fn open_writable(item: &Path) -> Result<File> {
    let file = OpenOptions::new().read(true).write(true).open(item);
    file.map_err(Error::io("opening", item))
}

/// A new empty file in place of whatever an interrupted attempt left.
pub(super) fn create(path: &Path) -> Result<File> {
    durable::remove_file(path)?;
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(path);
    file.map_err(Error::io("making", path))
}
