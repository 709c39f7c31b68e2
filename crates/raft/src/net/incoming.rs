//! A snapshot as it arrives: nothing is believed before all of it is there and its hash is right.

use holdfast_proto::internal::{SnapshotPart, SnapshotStart, snapshot_part::Part};
use holdfast_types::Code;

use crate::snapshot::MAX_SNAPSHOT_BYTES;

/// Memory is taken as data comes, not as the sender announces.
const FIRST_RESERVE: usize = 1 << 20;

/// A refusal, for the sender.
pub(super) type Refusal = (Code, &'static str);

pub(super) struct Incoming {
    size: usize,
    hash: Vec<u8>,
    data: Vec<u8>,
}

impl Incoming {
    pub(super) fn new(start: &SnapshotStart) -> Result<Self, Refusal> {
        let size = usize::try_from(start.size_bytes).unwrap_or(usize::MAX);
        if size > MAX_SNAPSHOT_BYTES {
            return Err((Code::TooLarge, "the snapshot is larger than any may be"));
        }
        let data = Vec::with_capacity(size.min(FIRST_RESERVE));
        Ok(Self { size, hash: start.hash.to_vec(), data })
    }

    pub(super) fn push(&mut self, part: SnapshotPart) -> Result<(), Refusal> {
        let Some(Part::Data(data)) = part.part else {
            return Err((Code::InvalidArgument, "a part without data"));
        };
        if data.is_empty() || self.data.len() + data.len() > self.size {
            return Err((Code::StreamCorrupt, "more or less data than announced"));
        }
        self.data.extend_from_slice(&data);
        Ok(())
    }

    pub(super) fn finish(self) -> Result<Vec<u8>, Refusal> {
        if self.data.len() != self.size {
            return Err((Code::StreamCorrupt, "less data than announced"));
        }
        if blake3::hash(&self.data).as_bytes() != self.hash.as_slice() {
            return Err((Code::StreamCorrupt, "the hash does not match"));
        }
        Ok(self.data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incoming(data: &[u8]) -> Incoming {
        let hash = blake3::hash(data).as_bytes().to_vec();
        let start =
            SnapshotStart { request: None, size_bytes: data.len() as u64, hash: hash.into() };
        Incoming::new(&start).ok().unwrap()
    }

    fn part(data: &[u8]) -> SnapshotPart {
        SnapshotPart { part: Some(Part::Data(data.to_vec().into())) }
    }

    #[test]
    fn only_all_of_the_right_data_passes() {
        let mut good = incoming(b"abcdef");
        good.push(part(b"abc")).unwrap();
        good.push(part(b"def")).unwrap();
        assert_eq!(good.finish().unwrap(), b"abcdef");

        let mut short = incoming(b"abcdef");
        short.push(part(b"abc")).unwrap();
        assert!(short.finish().is_err());

        let mut long = incoming(b"abc");
        assert!(long.push(part(b"abcd")).is_err());

        let mut wrong = incoming(b"abc");
        wrong.push(part(b"abd")).unwrap();
        assert_eq!(wrong.finish().unwrap_err().0, Code::StreamCorrupt);
    }

    /// I27: an announcement takes no memory.
    #[test]
    fn absurd_sizes_are_refused() {
        let start = SnapshotStart { request: None, size_bytes: u64::MAX, hash: Vec::new().into() };
        assert_eq!(Incoming::new(&start).err().unwrap().0, Code::TooLarge);
    }
}
