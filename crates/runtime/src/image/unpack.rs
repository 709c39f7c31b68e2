//! Unpacking an archive, entry by entry.

use std::io::{self, Read};
use std::path::Path;
use std::rc::Rc;

use tar::{Archive, Entry, EntryType};

use super::name::{Name, shown};
use super::source::{Meter, Ration, decompress};
use super::target::{FileError, Meta, Target};
use super::{Budget, ImageError, ImageStats};

/// What an entry's headers may take, long names and PAX records included.
const HEADER_BYTES: u64 = 1 << 20;

/// Largest extended attribute (XATTR_SIZE_MAX), and how many one entry may have.
const MAX_XATTR_BYTES: usize = 64 << 10;
const MAX_XATTRS: usize = 64;

/// Unpacks a root filesystem archive (tar; plain, gzip, zstd or xz, told by its first bytes) into
/// an empty directory, which becomes `/`.
///
/// Kept are modes, owners (by number), modification times, symbolic and hard links, fifos, file
/// capabilities and `user.` attributes. The device nodes that every root filesystem ships are
/// skipped, others are refused. On failure the target holds part of the image.
pub fn unpack(source: impl Read, target: &Path, budget: Budget) -> Result<ImageStats, ImageError> {
    let source = decompress(source).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => ImageError::NotAnArchive,
        _ => ImageError::Damaged(e),
    })?;
    let (ration, meter) = Ration::new(source);
    let mut archive = Archive::new(ration);
    let tree = Target::open(target, budget.max_entries)?;
    let stats = ImageStats::default();
    let mut unpacking = Unpacking { tree, stats, budget, meter: Rc::clone(&meter) };
    unpacking.all(&mut archive)?;
    // The rest is padding; reading it lets the decompressor check its sums.
    meter.allow(TRAILER_BYTES);
    let mut rest = archive.into_inner();
    if let Err(error) = io::copy(&mut rest, &mut io::sink())
        && let Some(broken) = meter.broken()
    {
        drop(error);
        return Err(ImageError::Damaged(broken));
    }
    let Unpacking { tree, mut stats, .. } = unpacking;
    tree.finish()?;
    stats.has_init = crate::lxc::init::has_default_init(target);
    Ok(stats)
}

/// Padding behind the end of an archive that is still read.
const TRAILER_BYTES: u64 = 16 << 20;

struct Unpacking {
    tree: Target,
    stats: ImageStats,
    budget: Budget,
    meter: Rc<Meter>,
}

impl Unpacking {
    fn all<R: Read>(&mut self, archive: &mut Archive<R>) -> Result<(), ImageError> {
        self.meter.allow(HEADER_BYTES);
        let entries = archive.entries().map_err(ImageError::Damaged)?;
        let mut seen_one = false;
        for entry in entries {
            let entry = entry.map_err(|e| self.header_error(e, seen_one))?;
            seen_one = true;
            self.entry(entry)?;
            self.meter.allow(HEADER_BYTES);
        }
        if !seen_one {
            return Err(ImageError::NotAnArchive);
        }
        if self.meter.met_end() {
            let why = "the archive's end mark is missing";
            return Err(ImageError::Damaged(io::Error::new(io::ErrorKind::UnexpectedEof, why)));
        }
        Ok(())
    }

    /// What does not even begin like an archive is none; but a broken compression is damage.
    fn header_error(&self, error: io::Error, seen_one: bool) -> ImageError {
        match self.meter.broken() {
            Some(broken) => ImageError::Damaged(broken),
            None if seen_one => ImageError::Damaged(error),
            None => ImageError::NotAnArchive,
        }
    }

    fn entry<R: Read>(&mut self, mut entry: Entry<'_, R>) -> Result<(), ImageError> {
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader) {
            return self.skip(&mut entry);
        }
        let raw = entry.path_bytes().into_owned();
        let name = Name::parse(&raw)?;
        let meta = meta(&mut entry, &raw)?;
        self.count(entry.size())?;
        let link = || ImageError::BadName { entry: shown(&raw), why: "links to nothing" };
        let to = entry.link_name_bytes().map(|to| to.into_owned());
        match kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                return self.file(&mut entry, &name, &meta);
            }
            EntryType::Directory => self.tree.directory(&name, &meta)?,
            EntryType::Symlink => self.tree.symlink(&name, &to.ok_or_else(link)?, &meta)?,
            EntryType::Link => {
                self.tree.hard_link(&name, &Name::parse(&to.ok_or_else(link)?)?)?;
            }
            EntryType::Fifo => self.tree.fifo(&name, &meta)?,
            EntryType::Char | EntryType::Block if name.is_ordinary_device() => {
                self.stats.entries -= 1;
            }
            EntryType::Char | EntryType::Block => {
                return Err(ImageError::Device { entry: shown(&raw) });
            }
            _ => return Err(ImageError::UnknownKind { entry: shown(&raw) }),
        }
        self.skip(&mut entry)
    }

    fn file<R: Read>(
        &mut self,
        entry: &mut Entry<'_, R>,
        name: &Name,
        meta: &Meta,
    ) -> Result<(), ImageError> {
        let size = entry.size();
        self.meter.allow(size.saturating_add(HEADER_BYTES));
        let written = self.tree.file(name, meta, entry).map_err(|e| match e {
            FileError::Target(error) => error,
            FileError::Content(error) => self.header_error(error, true),
        })?;
        if written != size {
            let why = "a file's content is cut short";
            return Err(ImageError::Damaged(io::Error::new(io::ErrorKind::UnexpectedEof, why)));
        }
        self.stats.bytes += size;
        Ok(())
    }

    /// Passes over content that an entry of its kind should not have.
    fn skip<R: Read>(&self, entry: &mut Entry<'_, R>) -> Result<(), ImageError> {
        io::copy(entry, &mut io::sink()).map_err(|e| self.header_error(e, true))?;
        Ok(())
    }

    fn count(&mut self, size: u64) -> Result<(), ImageError> {
        self.tree.count()?;
        self.stats.entries += 1;
        let total = self.stats.bytes.checked_add(size);
        if total.is_none_or(|total| total > self.budget.max_bytes) {
            return Err(ImageError::TooLarge { limit: self.budget.max_bytes, what: "bytes" });
        }
        Ok(())
    }
}

fn meta<R: Read>(entry: &mut Entry<'_, R>, raw: &[u8]) -> Result<Meta, ImageError> {
    let header = entry.header();
    let number = |value: io::Result<u64>| {
        let value = value.map_err(ImageError::Damaged)?;
        let why = "has an owner that is no 32-bit number";
        let bad = |_| ImageError::BadName { entry: shown(raw), why };
        // All ones means "leave as it is" to the kernel.
        u32::try_from(value).ok().filter(|n| *n != u32::MAX).ok_or(()).map_err(bad)
    };
    let mut meta = Meta {
        uid: number(header.uid())?,
        gid: number(header.gid())?,
        mode: header.mode().map_err(ImageError::Damaged)?,
        mtime_s: header.mtime().map_or(0, |s| i64::try_from(s).unwrap_or(0)).min(MAX_MTIME_S),
        xattrs: Vec::new(),
    };
    let Some(records) = entry.pax_extensions().map_err(ImageError::Damaged)? else {
        return Ok(meta);
    };
    for record in records {
        let record = record.map_err(ImageError::Damaged)?;
        if record.key_bytes().starts_with(b"GNU.sparse.") {
            return Err(ImageError::UnknownKind { entry: shown(raw) });
        }
        let Some(key) = record.key_bytes().strip_prefix(b"SCHILY.xattr.") else { continue };
        let kept = key == b"security.capability" || key.starts_with(b"user.");
        if kept && !key.contains(&0) && record.value_bytes().len() <= MAX_XATTR_BYTES {
            if meta.xattrs.len() == MAX_XATTRS {
                let why = "has too many attributes";
                return Err(ImageError::BadName { entry: shown(raw), why });
            }
            meta.xattrs.push((key.to_vec(), record.value_bytes().to_vec()));
        }
    }
    Ok(meta)
}

/// What ext4 can store with 128-byte inodes and more: the year 2446.
const MAX_MTIME_S: i64 = 15_032_385_535;
