//! Files read and written past the page cache where that pays.
//!
//! A transfer's content is used once, so in the page cache it only costs: a copy, and room that
//! others had. In large pieces direct I/O is as fast as the disk. Small ones are better off in the
//! cache, which gathers them.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{Advice, OFlags};

use crate::aligned::is_aligned;

/// Shorter transfers go through the page cache.
const LEAST: usize = 64 << 10;

/// A file, open in both ways. The kernel keeps them coherent: direct I/O writes out and drops what
/// is cached of its range.
#[derive(Debug)]
pub(crate) struct DirectFile {
    cached: File,
    /// Absent where the filesystem has no direct I/O.
    direct: Option<File>,
}

impl DirectFile {
    pub(crate) fn open(path: &Path, writable: bool) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(writable);
        let cached = options.open(path)?;
        let direct = options.custom_flags(OFlags::DIRECT.bits().cast_signed()).open(path).ok();
        Ok(Self { cached, direct })
    }

    /// The file as it is cached.
    pub(crate) fn cached(&self) -> &File {
        &self.cached
    }

    pub(crate) fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.way(offset, buf).read_exact_at(buf, offset)
    }

    /// Begins to fetch a range that is read through the page cache. Only a hint.
    pub(crate) fn expect(&self, offset: u64, len: u64) {
        if len < LEAST as u64 {
            let len = std::num::NonZeroU64::new(len);
            let _ = rustix::fs::fadvise(&self.cached, offset, len, Advice::WillNeed);
        }
    }

    pub(crate) fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.way(offset, buf).write_all_at(buf, offset)
    }

    fn way(&self, offset: u64, buf: &[u8]) -> &File {
        let direct = self.direct.as_ref().filter(|_| buf.len() >= LEAST && is_aligned(offset, buf));
        direct.unwrap_or(&self.cached)
    }
}
