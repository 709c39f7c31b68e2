//! An item's block device.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use super::dm::Mapped;
use super::note::Note;
use super::thin::ThinPool;
use crate::directory::blocks::{Device, ReadAt, WriteAt};
use crate::{Error, Result, sys};

/// Written where a discard cannot reach: less than a chunk.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// An attached item.
#[derive(Debug)]
pub struct ThinDevice {
    pool: Arc<ThinPool>,
    pub(super) mapped: Mapped,
    path: PathBuf,
}

impl ThinDevice {
    pub(super) fn new(pool: Arc<ThinPool>, mapped: Mapped) -> Self {
        let path = mapped.path();
        Self { pool, mapped, path }
    }
}

impl Device for ThinDevice {
    fn path(&self) -> &Path {
        &self.path
    }

    fn detach(self) -> Result<(), (Option<Self>, Error)> {
        match self.pool.remove_device(&self.mapped.name) {
            Ok(()) => Ok(()),
            Err(error) => Err((Some(self), error)),
        }
    }
}

/// An item that is read or filled, under a device of its own.
pub(super) struct View {
    pool: Arc<ThinPool>,
    name: String,
    path: PathBuf,
    /// `None` only while it is dropped: the device must be closed before it can go.
    file: Option<File>,
}

impl View {
    pub(super) fn open(pool: &Arc<ThinPool>, note: Note, readonly: bool) -> Result<Self> {
        let mapped = pool.view(note.id, note.size, readonly)?;
        let path = mapped.path();
        let mut view = Self { pool: pool.clone(), name: mapped.name, path, file: None };
        let file = OpenOptions::new().read(true).write(!readonly).open(&view.path);
        view.file = Some(file.map_err(Error::io("opening", &view.path))?);
        Ok(view)
    }

    /// How many chunks it maps.
    pub(super) fn mapped_chunks(&self) -> Result<u64> {
        Ok(self.pool.mapped_bytes(&self.name)? / self.pool.limits.chunk)
    }

    fn file(&self) -> Result<&File> {
        let closed = || {
            Error::io("using", &self.path)(std::io::Error::from(std::io::ErrorKind::NotConnected))
        };
        self.file.as_ref().ok_or_else(closed)
    }

    fn write_zeros(&self, mut offset: u64, end: u64) -> Result<()> {
        while offset < end {
            let len = (end - offset).min(ZEROS.len() as u64);
            let zeros = &ZEROS[..len as usize];
            self.file()?.write_all_at(zeros, offset).map_err(Error::io("writing", &self.path))?;
            offset += len;
        }
        Ok(())
    }
}

impl View {
    fn write_zeros_where_needed(&self, mut offset: u64, end: u64) -> Result<()> {
        let mut buf = vec![0; ZEROS.len()];
        while offset < end {
            let len = (end - offset).min(ZEROS.len() as u64);
            let read = &mut buf[..len as usize];
            self.file()?.read_exact_at(read, offset).map_err(Error::io("reading", &self.path))?;
            if read.iter().any(|byte| *byte != 0) {
                self.write_zeros(offset, offset + len)?;
            }
            offset += len;
        }
        Ok(())
    }
}

impl ReadAt for View {
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.file()?.read_exact_at(buf, offset).map_err(Error::io("reading", &self.path))
    }
}

impl WriteAt for View {
    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        self.file()?.write_all_at(data, offset).map_err(Error::io("writing", &self.path))
    }

    /// A thin pool takes back whole chunks and ignores a discard of less. It may also leave a chunk
    /// out that is busy, and succeed: so what was discarded is read again.
    fn zero(&mut self, offset: u64, len: u64) -> Result<()> {
        let (end, chunk) = (offset + len, self.pool.limits.chunk);
        let first = offset.next_multiple_of(chunk).min(end);
        let last = (end - end % chunk).max(first);
        self.write_zeros(offset, first)?;
        if first < last {
            // What is in the page cache must not be written over the hole later.
            self.sync()?;
            match sys::discard(self.file()?, first, last - first) {
                Ok(()) => self.write_zeros_where_needed(first, last)?,
                Err(Errno::OPNOTSUPP) => self.write_zeros(first, last)?,
                Err(error) => return Err(Error::io("discarding", &self.path)(error)),
            }
        }
        self.write_zeros(last, end)
    }

    fn sync(&mut self) -> Result<()> {
        self.file()?.sync_all().map_err(Error::io("syncing", &self.path))
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.file = None;
        if let Err(error) = self.pool.remove_device(&self.name) {
            tracing::warn!(%error, "a view stays until the pool is opened again");
        }
    }
}
