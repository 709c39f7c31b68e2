//! A snapshot as it arrives: into a file of its own, of which nothing is believed before all of it
//! is there and its hash is right, and of which nothing is left if that does not come about.

use std::io::Write;

use holdfast_proto::internal::SnapshotStart;
use holdfast_types::Code;

use crate::snapshot::{MAX_SNAPSHOT_BYTES, Part, SnapshotData, SnapshotFile};
use crate::types::SnapshotMeta;

/// A refusal, for the sender.
pub(super) type Refusal = (Code, String);

pub(super) struct Incoming {
    part: Part,
    missing: u64,
    expected: Vec<u8>,
    hash: blake3::Hasher,
}

impl Incoming {
    /// Blocks, as all of it does.
    pub(super) fn new(
        files: &SnapshotFile,
        start: &SnapshotStart,
        meta: &SnapshotMeta,
    ) -> Result<Self, Refusal> {
        let size_bytes = start.size_bytes;
        if size_bytes > MAX_SNAPSHOT_BYTES {
            let what = format!(
                "a snapshot of {size_bytes} bytes is larger than any may be ({MAX_SNAPSHOT_BYTES})"
            );
            return Err((Code::TooLarge, what));
        }
        let part = files.begin(meta).map_err(|e| not_written(&e))?;
        let (expected, hash) = (start.hash.to_vec(), blake3::Hasher::new());
        Ok(Self { part, missing: size_bytes, expected, hash })
    }

    pub(super) fn push(&mut self, data: &[u8]) -> Result<(), Refusal> {
        let len = data.len() as u64;
        if data.is_empty() || len > self.missing {
            return Err(corrupt("more or less data than announced"));
        }
        self.missing -= len;
        self.hash.update(data);
        self.part.write_all(data).map_err(|e| not_written(&e))
    }

    pub(super) fn finish(self) -> Result<SnapshotData, Refusal> {
        if self.missing > 0 {
            return Err(corrupt("less data than announced"));
        }
        if self.hash.finalize().as_bytes() != self.expected.as_slice() {
            return Err(corrupt("the hash does not match"));
        }
        self.part.finish().map_err(|e| not_written(&e))
    }
}

fn corrupt(what: &str) -> Refusal {
    (Code::StreamCorrupt, what.into())
}

/// A disk without room for a snapshot is no reason to leave what is there.
fn not_written(error: &std::io::Error) -> Refusal {
    (Code::DiskIo, format!("the snapshot cannot be written here: {error}"))
}

#[cfg(test)]
mod tests {
    use holdfast_types::ClusterId;
    use tempfile::TempDir;

    use super::*;
    use crate::store::Health;

    struct Place {
        dir: TempDir,
        files: SnapshotFile,
    }

    impl Place {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("snapshot");
            let opened = SnapshotFile::open(path, ClusterId::generate(), Health::new());
            Self { files: opened.unwrap().0, dir }
        }

        fn incoming(&self, data: &[u8]) -> Incoming {
            let hash = blake3::hash(data).as_bytes().to_vec().into();
            let start = SnapshotStart { request: None, size_bytes: data.len() as u64, hash };
            Incoming::new(&self.files, &start, &SnapshotMeta::default()).ok().unwrap()
        }

        fn left(&self) -> usize {
            std::fs::read_dir(self.dir.path()).unwrap().count()
        }
    }

    #[test]
    fn only_all_of_the_right_data_passes_and_nothing_is_left_of_the_rest() {
        let place = Place::new();
        let mut good = place.incoming(b"abcdef");
        good.push(b"abc").unwrap();
        good.push(b"def").unwrap();
        assert_eq!(place.left(), 1);
        let good = good.finish().unwrap();
        assert_eq!(good.read(0, 100).unwrap(), b"abcdef");

        let mut short = place.incoming(b"abcdef");
        short.push(b"abc").unwrap();
        assert_eq!(short.finish().unwrap_err().0, Code::StreamCorrupt);

        let mut long = place.incoming(b"abc");
        assert_eq!(long.push(b"abcd").unwrap_err().0, Code::StreamCorrupt);

        let mut wrong = place.incoming(b"abc");
        wrong.push(b"abd").unwrap();
        assert_eq!(wrong.finish().unwrap_err().0, Code::StreamCorrupt);

        let mut interrupted = place.incoming(b"abc");
        interrupted.push(b"ab").unwrap();
        drop((interrupted, long));
        assert_eq!(place.left(), 1, "the good one's");
        drop(good);
        assert_eq!(place.left(), 0);
    }

    /// I27: an announcement takes no memory and no file.
    #[test]
    fn absurd_sizes_are_refused() {
        let place = Place::new();
        let start = SnapshotStart { request: None, size_bytes: u64::MAX, hash: Vec::new().into() };
        let refused = Incoming::new(&place.files, &start, &SnapshotMeta::default());
        assert_eq!(refused.err().unwrap().0, Code::TooLarge);
        assert_eq!(place.left(), 0);
    }
}
