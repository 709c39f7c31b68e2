//! Walking over MessagePack without decoding it (<https://github.com/msgpack/msgpack/blob/master/spec.md>),
//! to cut a state into rows for several decoders. Nothing here panics or takes more memory than what
//! was really there (I27).

use std::io::{self, Read};

use super::format::Fault;

/// What is read and hashed at a time.
const BLOCK_BYTES: usize = 256 << 10;

/// A hashed stretch of a file, read in blocks.
pub(super) struct Source<R> {
    input: R,
    hash: blake3::Hasher,
    block: Vec<u8>,
    at: usize,
}

impl<R: Read> Source<R> {
    /// All of `input`, added to `hash`.
    pub(super) fn new(input: R, hash: blake3::Hasher) -> Self {
        Self { input, hash, block: Vec::with_capacity(BLOCK_BYTES), at: 0 }
    }

    /// Copies one whole value to `out`.
    pub(super) fn value(&mut self, out: &mut Vec<u8>) -> Result<(), Fault> {
        let mut open = 1u64;
        while open > 0 {
            open -= 1;
            let marker = self.byte()?;
            out.push(marker);
            let (bytes, inner) = match marker {
                0x00..=0x7f | 0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => (0, 0),
                0x80..=0x8f => (0, 2 * u64::from(marker & 0x0f)),
                0x90..=0x9f => (0, u64::from(marker & 0x0f)),
                0xa0..=0xbf => (u64::from(marker & 0x1f), 0),
                0xc1 => return Err(Fault::Unknown("is no MessagePack".into())),
                0xcc | 0xd0 => (1, 0),
                0xcd | 0xd1 => (2, 0),
                0xca | 0xce | 0xd2 => (4, 0),
                0xcb | 0xcf | 0xd3 => (8, 0),
                // With the byte that says of what type the extension is.
                0xd4..=0xd8 => (1 + (1 << (marker - 0xd4)), 0),
                0xc4 | 0xd9 => (self.number(1, out)?, 0),
                0xc5 | 0xda => (self.number(2, out)?, 0),
                0xc6 | 0xdb => (self.number(4, out)?, 0),
                0xc7..=0xc9 => (1 + self.number(1 << (marker - 0xc7), out)?, 0),
                0xdc => (0, self.number(2, out)?),
                0xdd => (0, self.number(4, out)?),
                0xde => (0, 2 * self.number(2, out)?),
                0xdf => (0, 2 * self.number(4, out)?),
            };
            self.copy(bytes, out)?;
            open = open.saturating_add(inner);
        }
        Ok(())
    }

    /// How many pairs the map has that begins here.
    pub(super) fn map(&mut self) -> Result<u64, Fault> {
        let mut head = Vec::new();
        match self.byte()? {
            marker @ 0x80..=0x8f => Ok(u64::from(marker & 0x0f)),
            0xde => self.number(2, &mut head),
            0xdf => self.number(4, &mut head),
            _ => Err(Fault::Unknown("has something else where a map should be".into())),
        }
    }

    /// Reads on to the end. Returns how much there was, and the hash of all.
    pub(super) fn finish(mut self) -> Result<(u64, blake3::Hash), Fault> {
        let mut rest = (self.block.len() - self.at) as u64;
        while self.fill()? {
            rest += self.block.len() as u64;
        }
        Ok((rest, self.hash.finalize()))
    }

    fn number(&mut self, bytes: u64, out: &mut Vec<u8>) -> Result<u64, Fault> {
        let before = out.len();
        self.copy(bytes, out)?;
        Ok(out[before..].iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn byte(&mut self) -> Result<u8, Fault> {
        if self.at == self.block.len() && !self.fill()? {
            return Err(too_short());
        }
        let byte = self.block[self.at];
        self.at += 1;
        Ok(byte)
    }

    fn copy(&mut self, mut bytes: u64, out: &mut Vec<u8>) -> Result<(), Fault> {
        while bytes > 0 {
            if self.at == self.block.len() && !self.fill()? {
                return Err(too_short());
            }
            let rest = &self.block[self.at..];
            let some = usize::try_from(bytes).map_or(rest.len(), |bytes| bytes.min(rest.len()));
            out.extend_from_slice(&rest[..some]);
            self.at += some;
            bytes -= some as u64;
        }
        Ok(())
    }

    fn fill(&mut self) -> io::Result<bool> {
        self.block.clear();
        self.at = 0;
        (&mut self.input).take(BLOCK_BYTES as u64).read_to_end(&mut self.block)?;
        self.hash.update(&self.block);
        Ok(!self.block.is_empty())
    }
}

fn too_short() -> Fault {
    Fault::Damaged("it is too short".into())
}
