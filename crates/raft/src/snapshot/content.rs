//! A snapshot that is there, in a file: what openraft passes around.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_core::State;

use super::format::{Fault, HASH_BYTES, Header, read_header};
use super::scan::Source;
use super::{Temp, decode};
use crate::error::RaftError;
use crate::store::Health;

/// A snapshot in a file. It stays readable when the file is replaced by a newer one; unless it was
/// kept, the file goes with it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct SnapshotData {
    shared: Arc<Shared>,
}

struct Shared {
    file: File,
    /// For people.
    path: PathBuf,
    /// Where in the file the state is.
    content: Range<u64>,
    temp: Mutex<Option<Temp>>,
    health: Health,
}

impl SnapshotData {
    pub(super) fn new(
        file: File,
        path: PathBuf,
        content: Range<u64>,
        temp: Option<Temp>,
        health: Health,
    ) -> Self {
        let temp = Mutex::new(temp);
        Self { shared: Arc::new(Shared { file, path, content, temp, health }) }
    }

    /// One whose header is believed for now; the rest is checked when it is read.
    pub(super) fn open(
        file: File,
        path: PathBuf,
        health: Health,
    ) -> Result<(Header, Self), RaftError> {
        let found = At { file: &file, at: 0 }.header_and_content();
        match found {
            Ok((header, content)) => Ok((header, Self::new(file, path, content, None, health))),
            Err(fault) => Err(health.fail(told(&path, fault))),
        }
    }

    /// How many bytes the state has.
    pub(crate) fn len(&self) -> u64 {
        self.shared.content.end - self.shared.content.start
    }

    /// Bytes of the state, from `at` on; no more than `most`. Blocks.
    pub(crate) fn read(&self, at: u64, most: usize) -> Result<Vec<u8>, RaftError> {
        let Shared { file, path, content, health, .. } = &*self.shared;
        let some = usize::try_from(self.len().saturating_sub(at)).map_or(most, |n| n.min(most));
        let mut bytes = vec![0; some];
        file.read_exact_at(&mut bytes, content.start + at)
            .map_err(|e| health.fail(RaftError::disk(path, &e)))?;
        Ok(bytes)
    }

    /// The hash of the state alone, once all of the file was found to be what was written. Blocks.
    pub(crate) fn check(&self) -> Result<blake3::Hash, RaftError> {
        let Shared { file, path, content, health, .. } = &*self.shared;
        let check = || -> Result<blake3::Hash, Fault> {
            let mut input = At { file, at: 0 };
            let (_, hash, _) = read_header(&mut input)?;
            let mut alone = blake3::Hasher::new();
            let body = Teed { input: (&mut input).take(self.len()), hash: &mut alone };
            let (_, whole) = Source::new(body, hash).finish()?;
            let mut expected = [0; HASH_BYTES as usize];
            file.read_exact_at(&mut expected, content.end)?;
            match whole == expected {
                true => Ok(alone.finalize()),
                false => Err(Fault::Damaged("its checksum does not match".into())),
            }
        };
        check().map_err(|fault| health.fail(told(path, fault)))
    }

    /// The state, checked and decoded. Blocks.
    pub(crate) fn decode(&self) -> Result<State, Fault> {
        let Shared { file, content, .. } = &*self.shared;
        decode(At { file, at: 0 }, content.end + HASH_BYTES).map(|(_, state)| state)
    }

    /// The state of a file of ours: what is wrong with that stops the node.
    pub(crate) fn state(&self) -> Result<State, RaftError> {
        let Shared { path, health, .. } = &*self.shared;
        self.decode().map_err(|fault| health.fail(told(path, fault)))
    }

    pub(super) fn copy_to(&self, out: &mut impl Write) -> io::Result<()> {
        let at = self.shared.content.start;
        io::copy(&mut At { file: &self.shared.file, at }.take(self.len()), out).map(drop)
    }

    pub(super) fn take_temp(&self) -> Option<Temp> {
        self.shared.temp.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl fmt::Debug for SnapshotData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "snapshot of {} bytes", self.len())
    }
}

fn told(path: &std::path::Path, fault: Fault) -> RaftError {
    match fault {
        Fault::Disk(e) => RaftError::disk(path, &e),
        damaged => RaftError::corrupt(path, damaged.to_string()),
    }
}

/// Reads a file that others read as well.
struct At<'a> {
    file: &'a File,
    at: u64,
}

impl At<'_> {
    fn header_and_content(mut self) -> Result<(Header, Range<u64>), Fault> {
        let size = self.file.metadata()?.len();
        let (header, _, content) = read_header(&mut self)?;
        let end = size.checked_sub(HASH_BYTES).filter(|end| *end >= content);
        let end = end.ok_or_else(|| Fault::Damaged("it is too short".into()))?;
        Ok((header, content..end))
    }
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

struct Teed<'a, R> {
    input: R,
    hash: &'a mut blake3::Hasher,
}

impl<R: Read> Read for Teed<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.hash.update(&buffer[..read]);
        Ok(read)
    }
}

/// Written at a steady pace: what the kernel holds back for a sync at the end would hold up the
/// log's own syncs on the same disk. And only as far as there is room: a snapshot can be made later, but
/// a write that the log has no room for ends the node.
pub(super) struct Steady {
    file: File,
    unsynced: usize,
    reserve_bytes: u64,
}

/// Synced at a time. One that is smaller is written in any case: it is what lets the log shrink.
const SYNC_BYTES: usize = 8 << 20;
/// Left to the log on its filesystem. Far less than what makes a node unfit to lead (`CareLimits`): what is
/// written here is what lets the log go, and without it the log takes this too in the end.
const RESERVE_BYTES: u64 = 16 << 20;

impl Steady {
    pub(super) fn new(file: File) -> Self {
        Self { file, unsynced: 0, reserve_bytes: RESERVE_BYTES }
    }

    /// Fails as the disk itself would, only earlier.
    fn leave_some(&self) -> io::Result<()> {
        let stat = rustix::fs::fstatvfs(&self.file)?;
        let free_bytes = stat.f_bavail.saturating_mul(stat.f_frsize);
        // Some filesystems do not know: nothing is held back there.
        match stat.f_blocks > 0 && free_bytes < self.reserve_bytes {
            true => Err(rustix::io::Errno::NOSPC.into()),
            false => Ok(()),
        }
    }

    pub(super) fn finish(self) -> io::Result<File> {
        self.file.sync_all()?;
        Ok(self.file)
    }
}

impl Write for Steady {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.unsynced += written;
        if self.unsynced >= SYNC_BYTES {
            self.file.sync_data()?;
            self.unsynced = 0;
            self.leave_some()?;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::care::CareLimits;

    /// A large one took the last block, and the log's next write ended the node.
    #[test]
    fn a_large_snapshot_leaves_the_log_some_room() {
        let block = vec![7; SYNC_BYTES / 2];
        let full = |reserve_bytes| {
            let mut out = Steady { reserve_bytes, ..Steady::new(tempfile::tempfile().unwrap()) };
            out.write_all(&block).expect("a small one goes through");
            out.write_all(&block).err().map(|e| RaftError::disk("".as_ref(), &e).is_full())
        };
        let stat = rustix::fs::fstatvfs(tempfile::tempfile().unwrap()).unwrap();
        assert_eq!(full(u64::MAX), (stat.f_blocks > 0).then_some(true));
        assert_eq!(full(0), None);
        // Where a node has just become nearly full, the log must still be able to shrink.
        assert!(RESERVE_BYTES < CareLimits::default().floor_bytes / 2);
    }
}
