//! The receiving side's parser: from bytes, cut anywhere, to verified records.

use holdfast_types::ByteSize;

use super::StreamError;
use super::wire::{
    CHECK, CHUNK, CHUNK_HEAD, Chain, HOLE, Header, MAGIC, MAX_HEADER, Record, TRAILER,
};
use crate::members::Shape;

/// Parses and verifies one stream. Buffers at most one record; never panics, whatever comes.
pub struct Decoder {
    buffer: Vec<u8>,
    /// Bytes of `buffer` that were consumed.
    read: usize,
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
            read: 0,
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
        // Pieces of bounded size keep the buffer bounded whatever the caller's frames are.
        for piece in bytes.chunks(CHUNK) {
            self.buffer.drain(..self.read);
            self.read = 0;
            self.buffer.extend_from_slice(piece);
            while self.step(&mut take)? {}
        }
        Ok(())
    }

    /// Whether the trailer has come.
    pub fn ended(&self) -> bool {
        self.stage == Stage::Ended
    }

    /// Consumes one record if it is complete.
    fn step<E: From<StreamError>>(
        &mut self,
        take: &mut impl FnMut(Record<'_>) -> Result<(), E>,
    ) -> Result<bool, E> {
        let record = match self.stage {
            Stage::Ended if self.rest().is_empty() => None,
            Stage::Ended => Err(StreamError::AfterEnd)?,
            Stage::Magic => return Ok(self.magic()?),
            Stage::Header => self.header()?.map(Record::Header),
            Stage::Chunks => match self.rest().first() {
                None => None,
                Some(b'T') => self.trailer()?.then_some(Record::End),
                Some(_) => self.chunk()?,
            },
        };
        record.map_or(Ok(false), |record| take(record).map(|()| true))
    }

    fn magic(&mut self) -> Result<bool, StreamError> {
        let have = self.rest().len().min(MAGIC.len());
        if self.rest()[..have] != MAGIC[..have] {
            return Err(StreamError::Magic);
        }
        if have < MAGIC.len() {
            return Ok(false);
        }
        self.consume(MAGIC.len());
        self.stage = Stage::Header;
        Ok(true)
    }

    fn header(&mut self) -> Result<Option<Header>, StreamError> {
        let Some(head) = self.rest().first_chunk::<5>() else { return Ok(None) };
        let len = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if head[0] != b'H' || len > MAX_HEADER {
            return Err(StreamError::Header);
        }
        if self.rest().len() < 5 + len + CHECK {
            return Ok(None);
        }
        let (record, check) = self.rest()[..5 + len + CHECK].split_at(5 + len);
        let header = serde_json::from_slice::<Header>(&record[5..]);
        let ok = self.chain.clone().add(record, &[])[..CHECK] == *check;
        let header = header.ok().filter(|_| ok).ok_or(StreamError::Header)?;
        let shape = header.offer.shape();
        if header.chunk as usize > CHUNK || header.from > shape.end() {
            return Err(StreamError::Header);
        }
        let record = record.to_vec();
        self.chain.add(&record, &[]);
        self.consume(record.len() + CHECK);
        (self.shape, self.passed, self.stage) = (shape, header.from, Stage::Chunks);
        Ok(Some(header))
    }

    fn chunk(&mut self) -> Result<Option<Record<'_>>, StreamError> {
        let at = self.position;
        let Some(head) = self.rest().first_chunk::<CHUNK_HEAD>().copied() else {
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
        if self.rest().len() < whole {
            return Ok(None);
        }
        let body = &self.buffer[self.read + CHUNK_HEAD..self.read + CHUNK_HEAD + stored];
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
        let check = &self.buffer[self.read + CHUNK_HEAD + stored..self.read + whole];
        if self.chain.add(&head, data)[..CHECK] != *check {
            return Err(StreamError::Checksum(at));
        }
        self.read += whole;
        self.position += whole as u64;
        self.passed = end;
        self.chunks += 1;
        self.bytes += len as u64;
        Ok(Some(match tag {
            b'0' => Record::Hole { offset, len: len as u64 },
            _ => Record::Data { offset, data },
        }))
    }

    fn trailer(&mut self) -> Result<bool, StreamError> {
        let Some(record) = self.rest().first_chunk::<TRAILER>().copied() else {
            return Ok(false);
        };
        let (head, check) = record.split_at(TRAILER - 32);
        let chunks = u64::from_le_bytes(array(&head[1..9]));
        let bytes = u64::from_le_bytes(array(&head[9..17]));
        let check_ok = self.chain.add(head, &[]) == *check;
        if (chunks, bytes) != (self.chunks, self.bytes) || !check_ok {
            return Err(StreamError::Trailer);
        }
        self.consume(TRAILER);
        self.stage = Stage::Ended;
        Ok(true)
    }

    fn rest(&self) -> &[u8] {
        &self.buffer[self.read..]
    }

    fn consume(&mut self, n: usize) {
        self.read += n;
        self.position += n as u64;
    }
}

/// The first `N` bytes; callers slice exactly that many.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(bytes);
    out
}
