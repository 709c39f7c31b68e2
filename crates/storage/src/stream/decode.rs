//! The receiving side's parser: from bytes, cut anywhere, to verified records.

use std::mem;

use holdfast_types::ByteSize;

use super::StreamError;
use super::wire::{
    CHECK, CHUNK, CHUNK_HEAD, Chain, HOLE, Header, MAGIC, MAX_HEADER, Record, TRAILER,
};
use crate::members::Shape;

/// Parses and verifies one stream. Buffers at most one record; never panics, whatever comes.
pub struct Decoder {
    /// A record that has come in part.
    buffer: Vec<u8>,
    /// Bytes of the stream that were consumed.
    position: u64,
    chain: Chain,
    plain: Vec<u8>,
    stage: Stage,
    /// Offsets below this one have been passed.
    passed: u64,
    shape: Shape,
    chunks: u64,
    bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Magic,
    Header,
    Chunks,
    Ended,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            buffer: Vec::new(),
            position: 0,
            chain: Chain::new(),
            plain: vec![0; CHUNK],
            stage: Stage::Magic,
            passed: 0,
            shape: ByteSize(0).into(),
            chunks: 0,
            bytes: 0,
        }
    }
}

impl Decoder {
    /// Takes `bytes` and hands each record that is now complete to `take`. The decoder must not
    /// be used after an error.
    pub fn feed<E: From<StreamError>>(
        &mut self,
        bytes: &[u8],
        mut take: impl FnMut(Record<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.buffer.is_empty() {
                match self.step(rest, &mut take)? {
                    // Less than a record.
                    0 => {
                        self.buffer.extend_from_slice(rest);
                        return Ok(());
                    }
                    read => rest = &rest[read..],
                }
                continue;
            }
            let had = self.buffer.len();
            // Pieces of bounded size keep the buffer bounded whatever the caller's frames are.
            let piece = &rest[..rest.len().min(CHUNK)];
            self.buffer.extend_from_slice(piece);
            let buffer = mem::take(&mut self.buffer);
            let read = self.step(&buffer, &mut take)?;
            self.buffer = buffer;
            rest = match read.checked_sub(had) {
                Some(read) => {
                    self.buffer.clear();
                    &rest[read..]
                }
                None => &rest[piece.len()..],
            };
        }
        Ok(())
    }

    /// Whether the trailer has come.
    pub fn ended(&self) -> bool {
        self.stage == Stage::Ended
    }

    /// Bytes of an incomplete record.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.buffer.len()
    }

    /// Consumes the record that `input` begins with, if it is complete; returns how long it was, 0
    /// for one that is not.
    fn step<E: From<StreamError>>(
        &mut self,
        input: &[u8],
        take: &mut impl FnMut(Record<'_>) -> Result<(), E>,
    ) -> Result<usize, E> {
        let before = self.position;
        let record = match self.stage {
            Stage::Ended if input.is_empty() => None,
            Stage::Ended => Err(StreamError::AfterEnd)?,
            Stage::Magic => {
                self.magic(input)?;
                None
            }
            Stage::Header => self.header(input)?.map(Record::Header),
            Stage::Chunks => match input.first() {
                None => None,
                Some(b'T') => self.trailer(input)?.then_some(Record::End),
                Some(_) => self.chunk(input)?,
            },
        };
        if let Some(record) = record {
            take(record)?;
        }
        Ok((self.position - before) as usize)
    }

    fn magic(&mut self, input: &[u8]) -> Result<(), StreamError> {
        let have = input.len().min(MAGIC.len());
        if input[..have] != MAGIC[..have] {
            return Err(StreamError::Magic);
        }
        if have == MAGIC.len() {
            self.position += MAGIC.len() as u64;
            self.stage = Stage::Header;
        }
        Ok(())
    }

    fn header(&mut self, input: &[u8]) -> Result<Option<Header>, StreamError> {
        let Some(head) = input.first_chunk::<5>() else { return Ok(None) };
        let len = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if head[0] != b'H' || len > MAX_HEADER {
            return Err(StreamError::Header);
        }
        if input.len() < 5 + len + CHECK {
            return Ok(None);
        }
        let (record, check) = input[..5 + len + CHECK].split_at(5 + len);
        let header = serde_json::from_slice::<Header>(&record[5..]);
        let ok = self.chain.clone().add(record, &[])[..CHECK] == *check;
        let header = header.ok().filter(|_| ok).ok_or(StreamError::Header)?;
        let shape = header.offer.shape();
        if header.chunk as usize > CHUNK || header.from > shape.end() {
            return Err(StreamError::Header);
        }
        self.chain.add(record, &[]);
        self.position += (record.len() + CHECK) as u64;
        (self.shape, self.passed, self.stage) = (shape, header.from, Stage::Chunks);
        Ok(Some(header))
    }

    fn chunk<'a>(&'a mut self, input: &'a [u8]) -> Result<Option<Record<'a>>, StreamError> {
        let at = self.position;
        let Some(head) = input.first_chunk::<CHUNK_HEAD>().copied() else {
            return Ok(None);
        };
        let tag = head[0];
        let offset = u64::from_le_bytes(array(&head[1..9]));
        let len = u32::from_le_bytes(array(&head[9..13])) as usize;
        let stored = u32::from_le_bytes(array(&head[13..17])) as usize;
        let plausible = match tag {
            b'D' => len <= CHUNK && stored == len,
            b'Z' => len <= CHUNK && stored < len,
            b'0' => len as u64 <= HOLE && stored == 0,
            _ => false,
        };
        let inside = self.shape.contains(offset, len as u64);
        let end = offset.checked_add(len as u64).filter(|_| inside);
        let Some(end) = end.filter(|_| plausible && len > 0 && offset >= self.passed) else {
            return Err(StreamError::Malformed(at));
        };
        let whole = CHUNK_HEAD + stored + CHECK;
        if input.len() < whole {
            return Ok(None);
        }
        let (body, check) = input[CHUNK_HEAD..whole].split_at(stored);
        let data = match tag {
            b'D' => body,
            b'Z' => {
                let plain = &mut self.plain[..len];
                match zstd::bulk::decompress_to_buffer(body, plain) {
                    Ok(n) if n == len => plain,
                    _ => return Err(StreamError::Checksum(at)),
                }
            }
            _ => &[],
        };
        if self.chain.add(&head, data)[..CHECK] != *check {
            return Err(StreamError::Checksum(at));
        }
        self.position += whole as u64;
        self.passed = end;
        self.chunks += 1;
        self.bytes += len as u64;
        Ok(Some(match tag {
            b'0' => Record::Hole { offset, len: len as u64 },
            _ => Record::Data { offset, data },
        }))
    }

    fn trailer(&mut self, input: &[u8]) -> Result<bool, StreamError> {
        let Some(record) = input.first_chunk::<TRAILER>().copied() else {
            return Ok(false);
        };
        let (head, check) = record.split_at(TRAILER - 32);
        let chunks = u64::from_le_bytes(array(&head[1..9]));
        let bytes = u64::from_le_bytes(array(&head[9..17]));
        let check_ok = self.chain.add(head, &[]) == *check;
        if (chunks, bytes) != (self.chunks, self.bytes) || !check_ok {
            return Err(StreamError::Trailer);
        }
        self.position += TRAILER as u64;
        self.stage = Stage::Ended;
        Ok(true)
    }
}

/// The first `N` bytes; callers slice exactly that many.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(bytes);
    out
}
