//! A backup file: what a node streams, a client keeps, and either can check without the other.
//!
//! ```text
//! "HFBACKUP1\n" | header length u32 LE | v1.BackupHeader | state (named MessagePack) | blake3 of all before
//! ```
//! It is written and checked as it comes, so neither side ever has all of it in memory. Nothing in
//! it is believed before the hash at its end is right (I27).

use std::io::{self, Write};
use std::ops::Range;

use holdfast_types::Code;
use prost::Message;

use crate::v1::BackupHeader;

/// The format that is written.
pub const FORMAT: u32 = 1;

const MAGIC: &[u8] = b"HFBACKUP1\n";
const LEN_BYTES: usize = 4;
const HASH_BYTES: usize = blake3::OUT_LEN;

/// More is no header.
const MAX_HEADER_BYTES: usize = 64 << 10;

/// Why bytes are no backup.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackupError {
    /// It does not begin like one.
    #[error("it is no backup of Holdfast")]
    NoBackup,
    /// A newer version wrote it.
    #[error(
        "it has format {found}, and this version reads {FORMAT}: use a newer version of holdfast"
    )]
    Newer {
        /// Its format.
        found: u32,
    },
    /// It ends too early: the transfer or the disk gave up.
    #[error("it is cut short")]
    Short,
    /// What is in it is not what was written.
    #[error("it is damaged: its hash does not match")]
    Damaged,
}

impl BackupError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::NoBackup => Code::InvalidArgument,
            Self::Newer { .. } => Code::VersionTooOld,
            Self::Short | Self::Damaged => Code::Corrupt,
        }
    }
}

/// Writes a backup: the header at once, then the state through [`Write`], then the hash.
pub struct BackupWriter<W> {
    out: W,
    hasher: blake3::Hasher,
}

impl<W: Write> BackupWriter<W> {
    /// Begins with the header.
    pub fn begin(out: W, header: &BackupHeader) -> io::Result<Self> {
        let mut writer = Self { out, hasher: blake3::Hasher::new() };
        let header = header.encode_to_vec();
        let len = u32::try_from(header.len()).map_err(io::Error::other)?;
        writer.write_all(MAGIC)?;
        writer.write_all(&len.to_le_bytes())?;
        writer.write_all(&header)?;
        Ok(writer)
    }

    /// Ends with the hash.
    pub fn finish(mut self) -> io::Result<W> {
        let hash = self.hasher.finalize();
        self.out.write_all(hash.as_bytes())?;
        self.out.flush()?;
        Ok(self.out)
    }
}

impl<W: Write> Write for BackupWriter<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let written = self.out.write(data)?;
        self.hasher.update(data.get(..written).unwrap_or(data));
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Checks a backup as its bytes come.
#[derive(Default)]
pub struct BackupCheck {
    hasher: blake3::Hasher,
    /// The beginning, until the header is read.
    head: Vec<u8>,
    header: Option<BackupHeader>,
    state_at: u64,
    /// The last bytes seen, which may be the hash.
    tail: Vec<u8>,
    seen: u64,
}

/// A backup that is whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Backup {
    /// Its header.
    pub header: BackupHeader,
    /// Where in the file the state is, in bytes.
    pub state: Range<u64>,
    /// The hash at its end, hexadecimal.
    pub hash: String,
}

impl BackupCheck {
    /// Takes in the next bytes.
    pub fn push(&mut self, data: &[u8]) -> Result<(), BackupError> {
        self.seen += data.len() as u64;
        self.tail.extend_from_slice(data);
        let sure = self.tail.len().saturating_sub(HASH_BYTES);
        self.hasher.update(self.tail.get(..sure).unwrap_or_default());
        if self.header.is_none() {
            self.head.extend_from_slice(self.tail.get(..sure).unwrap_or_default());
            self.read_header()?;
        }
        self.tail.drain(..sure);
        Ok(())
    }

    /// Everything has come.
    pub fn finish(self) -> Result<Backup, BackupError> {
        let Some(header) = self.header else {
            return Err(match self.head.starts_with(MAGIC) || self.head.is_empty() {
                true => BackupError::Short,
                false => BackupError::NoBackup,
            });
        };
        let hash = self.hasher.finalize();
        // Constant time is not needed, but it is what the type offers.
        match <[u8; HASH_BYTES]>::try_from(self.tail.as_slice()) {
            Ok(tail) if hash == tail => {}
            Ok(_) => return Err(BackupError::Damaged),
            Err(_) => return Err(BackupError::Short),
        }
        let state = self.state_at..self.seen - HASH_BYTES as u64;
        Ok(Backup { header, state, hash: hash.to_hex().to_string() })
    }

    /// The header, once it has come. Not to be believed before the end.
    fn read_header(&mut self) -> Result<(), BackupError> {
        let same = self.head.iter().zip(MAGIC).all(|(a, b)| a == b);
        if !same {
            return Err(BackupError::NoBackup);
        }
        let Some((len, rest)) =
            self.head.get(MAGIC.len()..).and_then(<[u8]>::split_first_chunk::<LEN_BYTES>)
        else {
            return Ok(());
        };
        let len = u32::from_le_bytes(*len) as usize;
        if len > MAX_HEADER_BYTES {
            return Err(BackupError::NoBackup);
        }
        let Some(header) = rest.get(..len) else { return Ok(()) };
        let header = BackupHeader::decode(header).map_err(|_| BackupError::NoBackup)?;
        if header.format > FORMAT {
            return Err(BackupError::Newer { found: header.format });
        }
        self.state_at = (MAGIC.len() + LEN_BYTES + len) as u64;
        self.header = Some(header);
        self.head = Vec::new();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> BackupHeader {
        BackupHeader { format: FORMAT, index: 42, node: "n1".into(), ..Default::default() }
    }

    fn file(state: &[u8], header: &BackupHeader) -> Vec<u8> {
        let mut writer = BackupWriter::begin(Vec::new(), header).unwrap();
        writer.write_all(state).unwrap();
        writer.finish().unwrap()
    }

    fn check(file: &[u8], piece: usize) -> Result<Backup, BackupError> {
        let mut check = BackupCheck::default();
        file.chunks(piece).try_for_each(|part| check.push(part))?;
        check.finish()
    }

    #[test]
    fn what_was_written_is_found_in_whatever_pieces_it_comes() {
        let state: Vec<u8> = (0..1_000u32).map(|i| i as u8).collect();
        let file = file(&state, &header());
        for piece in [1, 7, 33, 4_096] {
            let backup = check(&file, piece).unwrap();
            assert_eq!(backup.header, header());
            let range = backup.state.start as usize..backup.state.end as usize;
            assert_eq!(file[range], state);
        }
    }

    /// I27: no damage panics, and all of it is noticed.
    #[test]
    fn damage_anywhere_is_noticed() {
        let good = file(b"the state", &header());
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert!(check(&bad, 5).is_err(), "byte {at}");
        }
        for len in 0..good.len() {
            assert!(check(&good[..len], 5).is_err(), "{len} bytes");
        }
        assert_eq!(check(&good[..good.len() - 1], 5), Err(BackupError::Damaged));
        assert_eq!(check(&good[..12], 5), Err(BackupError::Short));
        assert_eq!(check(&[7; 100], 9), Err(BackupError::NoBackup));
        let long = [MAGIC, &u32::MAX.to_le_bytes(), &[0; 64][..]].concat();
        assert_eq!(check(&long, 9), Err(BackupError::NoBackup));
    }

    #[test]
    fn a_newer_format_says_so() {
        let newer = file(b"", &BackupHeader { format: FORMAT + 1, ..header() });
        let error = check(&newer, 100).unwrap_err();
        assert_eq!((error.code(), error), (Code::VersionTooOld, BackupError::Newer { found: 2 }));
    }
}
