//! What a thin pool says of itself: its status line
//! (Documentation/admin-guide/device-mapper/thin-provisioning).

use holdfast_types::ByteSize;

use crate::Error;

/// A metadata block, in bytes.
pub(super) const METADATA_BLOCK: u64 = 4096;

/// A thin pool's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Status {
    /// Used and all blocks of the metadata, 4 KiB each.
    pub(super) metadata: (u64, u64),
    /// Used and all chunks of data.
    pub(super) data: (u64, u64),
    /// Whether a metadata snapshot is held.
    pub(super) held: bool,
    /// `rw`, `ro` or `out_of_data_space`; `None` when the pool has failed altogether.
    pub(super) mode: Option<Mode>,
    /// The metadata must be checked before the pool is written again.
    pub(super) needs_check: bool,
}

/// What a pool still does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    ReadWrite,
    ReadOnly,
    OutOfData,
}

impl Status {
    /// Reads `TRANSACTION USED/TOTAL USED/TOTAL HELD MODE …`, or `Fail`.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.first() == Some(&"Fail") {
            let none = (0, 0);
            return Some(Self {
                metadata: none,
                data: none,
                held: false,
                mode: None,
                needs_check: true,
            });
        }
        let pair = |n: usize| {
            let (used, total) = words.get(n)?.split_once('/')?;
            Some((used.parse().ok()?, total.parse().ok()?))
        };
        let mode = match *words.get(4)? {
            "rw" => Mode::ReadWrite,
            "ro" => Mode::ReadOnly,
            "out_of_data_space" => Mode::OutOfData,
            _ => return None,
        };
        Some(Self {
            metadata: pair(1)?,
            data: pair(2)?,
            held: *words.get(3)? != "-",
            mode: Some(mode),
            needs_check: words.contains(&"needs_check"),
        })
    }

    /// Bytes of data in use, and all of them.
    pub(super) fn data_bytes(&self, chunk: u64) -> (ByteSize, ByteSize) {
        bytes(self.data, chunk)
    }

    /// The same for the metadata.
    pub(super) fn metadata_bytes(&self) -> (ByteSize, ByteSize) {
        bytes(self.metadata, METADATA_BLOCK)
    }

    /// Why the pool takes no writes, if it takes none: full of data or of metadata, or damaged, with
    /// the cure.
    pub(super) fn refusal(&self, pool: &Limits) -> Option<Error> {
        let threshold_percent = pool.threshold_percent;
        let unusable = |reason: &str| Error::Unusable {
            path: pool.name.clone().into(),
            reason: reason.to_owned(),
        };
        if self.needs_check || self.mode.is_none() {
            return Some(Error::Damaged(pool.name.clone()));
        }
        match self.mode {
            Some(Mode::OutOfData) => {
                let (used, size) = self.data_bytes(pool.chunk);
                Some(Error::Full { used, size, asked: ByteSize(0), threshold_percent })
            }
            // The kernel keeps a little for making room, and calls this read-only too.
            Some(Mode::ReadOnly) if self.metadata.1 - self.metadata.0 <= self.metadata.1 / 64 => {
                let (used, size) = self.metadata_bytes();
                Some(Error::MetadataFull { used, size, threshold_percent })
            }
            Some(Mode::ReadOnly) => Some(unusable("it is read-only")),
            Some(Mode::ReadWrite) | None => None,
        }
    }
}

/// What of a pool its status does not say.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    /// Its name, for people.
    pub(super) name: String,
    /// Bytes of a chunk of data.
    pub(super) chunk: u64,
    /// Where admission stops.
    pub(super) threshold_percent: u8,
}

fn bytes((used, total): (u64, u64), unit: u64) -> (ByteSize, ByteSize) {
    (ByteSize(used.saturating_mul(unit)), ByteSize(total.saturating_mul(unit)))
}

#[cfg(test)]
mod tests {
    use holdfast_types::Code;

    use super::*;

    /// I20: who hears that a pool is full knows which half of it to grow; damage is no fullness.
    #[test]
    fn a_refusal_names_what_is_full() {
        let pool = Limits { name: "p".into(), chunk: 64 << 10, threshold_percent: 90 };
        let refusal = |line: &str| Status::parse(line).unwrap().refusal(&pool);
        assert!(
            refusal("8 10/100 99/100 - rw discard_passdown queue_if_no_space - 1024").is_none()
        );
        let full = refusal("8 10/100 100/100 - out_of_data_space x queue_if_no_space - 1").unwrap();
        assert!(matches!(full, Error::Full { .. }), "{full}");
        let full = refusal("8 100/100 10/100 - ro x queue_if_no_space - 1").unwrap();
        assert!(matches!(full, Error::MetadataFull { .. }), "{full}");
        assert_eq!(full.code(), Code::PoolFull);
        for damaged in ["8 9/9 1/9 - ro x y needs_check 1", "Fail"] {
            assert_eq!(refusal(damaged).unwrap().code(), Code::PoolDamaged, "{damaged}");
        }
        let read_only = refusal("8 1/100 1/100 - ro x y - 1").unwrap();
        assert_eq!(read_only.code(), Code::PoolUnusable);
    }

    #[test]
    fn status_lines_are_read() {
        let line = "8 3290/32768 24/24000 - rw discard_passdown queue_if_no_space - 1024 ";
        let status = Status::parse(line).unwrap();
        assert_eq!((status.metadata, status.data), ((3290, 32768), (24, 24000)));
        assert_eq!((status.held, status.mode), (false, Some(Mode::ReadWrite)));
        assert!(!status.needs_check);
        let line = "8 3290/32768 24/24000 77 out_of_data_space no_discard_passdown \
                    error_if_no_space needs_check 1024";
        let status = Status::parse(line).unwrap();
        assert!(status.held && status.needs_check && status.mode == Some(Mode::OutOfData));
        assert_eq!(Status::parse("Fail").unwrap().mode, None);
        for bad in ["", "8", "8 1/2 3 - rw", "8 x/2 1/2 - rw", "8 1/2 1/2 - maybe"] {
            assert_eq!(Status::parse(bad), None, "{bad}");
        }
    }
}
