//! The sending side: from a list of extents to frames.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use holdfast_types::SnapshotUuid;

use super::wire::{
    CHECK, CHUNK, CHUNK_HEAD, Chain, FRAME, HOLE, Header, MAGIC, TRAILER, chunk_head,
};
use crate::pool::{Extent, ExtentKind, Offer, Pool, SnapshotReader};
use crate::{Error, Hold, Result};

/// Level 1: at disk speed on one core, and most of the gain.
const ZSTD_LEVEL: i32 = 1;

/// Makes the frames of one stream, each at most [`FRAME`] bytes.
///
/// An iterator, so that the caller decides when the next frame is read from disk (rate limits,
/// back pressure). It holds the snapshot and its base meanwhile.
pub struct Encoder {
    extents: VecDeque<Extent>,
    reader: Box<dyn SnapshotReader>,
    _holds: Vec<Hold>,
    chain: Chain,
    zstd: zstd::bulk::Compressor<'static>,
    plain: Vec<u8>,
    packed: Vec<u8>,
    start: Option<Vec<u8>>,
    chunks: u64,
    bytes: u64,
    left: u64,
    done: bool,
}

/// Diffs, opens and encodes: everything to send `offer` from byte offset `from` on.
pub fn send(pool: &dyn Pool, offer: &Offer, from: u64) -> Result<Encoder> {
    let uuid = offer.snapshot.uuid;
    let mut holds = vec![pool.hold(uuid)?];
    if let Some(base) = offer.base {
        holds.push(pool.hold(base)?);
    }
    let extents = pool.diff(offer.base, uuid)?;
    let reader = pool.open_snapshot(uuid)?;
    Encoder::new(offer, from, extents, reader, holds)
}

impl Encoder {
    /// An encoder of `extents`, read through `reader`; what lies below `from` is left out.
    pub fn new(
        offer: &Offer,
        from: u64,
        extents: Vec<Extent>,
        reader: Box<dyn SnapshotReader>,
        holds: Vec<Hold>,
    ) -> Result<Self> {
        let mut chain = Chain::new();
        let start =
            header_record(&Header { offer: offer.clone(), from, chunk: CHUNK as u32 }, &mut chain)?;
        let extents: VecDeque<_> = extents.into_iter().filter_map(|e| above(e, from)).collect();
        Ok(Self {
            left: extents.iter().map(|e| e.len).sum(),
            extents,
            reader,
            _holds: holds,
            chain,
            zstd: zstd::bulk::Compressor::new(ZSTD_LEVEL)
                .map_err(Error::io("starting zstd for", offer.snapshot.uuid.to_string()))?,
            plain: vec![0; CHUNK],
            packed: Vec::with_capacity(CHUNK),
            start: Some(start),
            chunks: 0,
            bytes: 0,
            done: false,
        })
    }

    /// Plain bytes still to be sent, holes included.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Plain bytes sent so far, holes included.
    pub fn sent(&self) -> u64 {
        self.bytes
    }

    fn frame(&mut self) -> Result<Bytes> {
        let mut frame = BytesMut::with_capacity(FRAME);
        if let Some(start) = self.start.take() {
            frame.extend_from_slice(&start);
        }
        const LARGEST_RECORD: usize = CHUNK_HEAD + CHUNK + CHECK;
        while frame.len() + LARGEST_RECORD + TRAILER <= FRAME {
            let Some(extent) = self.extents.pop_front() else {
                self.trailer(&mut frame);
                break;
            };
            let (now, later) = split(extent);
            if let Some(later) = later {
                self.extents.push_front(later);
            }
            self.chunk(now, &mut frame)?;
        }
        Ok(frame.freeze())
    }

    fn chunk(&mut self, extent: Extent, frame: &mut BytesMut) -> Result<()> {
        let len = extent.len as u32;
        self.chunks += 1;
        self.bytes += extent.len;
        self.left -= extent.len;
        if extent.kind == ExtentKind::Data {
            let plain = &mut self.plain[..extent.len as usize];
            self.reader.read_at(extent.offset, plain)?;
            if !is_zero(plain) {
                self.packed.clear();
                // Failing to compress is no failure: the content travels raw.
                let packed = self.zstd.compress_to_buffer(plain, &mut self.packed);
                let worth = packed.is_ok_and(|n| n < plain.len() - plain.len() / 16);
                let (tag, stored) = if worth { (b'Z', &self.packed[..]) } else { (b'D', &*plain) };
                let head = chunk_head(tag, extent.offset, len, stored.len() as u32);
                let check = self.chain.add(&head, plain);
                frame.extend_from_slice(&head);
                frame.extend_from_slice(stored);
                frame.extend_from_slice(&check[..CHECK]);
                return Ok(());
            }
        }
        let head = chunk_head(b'0', extent.offset, len, 0);
        let check = self.chain.add(&head, &[]);
        frame.extend_from_slice(&head);
        frame.extend_from_slice(&check[..CHECK]);
        Ok(())
    }

    fn trailer(&mut self, frame: &mut BytesMut) {
        let mut head = [b'T'; 17];
        head[1..9].copy_from_slice(&self.chunks.to_le_bytes());
        head[9..17].copy_from_slice(&self.bytes.to_le_bytes());
        let check = self.chain.add(&head, &[]);
        frame.extend_from_slice(&head);
        frame.extend_from_slice(&check);
        self.done = true;
    }
}

impl Iterator for Encoder {
    type Item = Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let frame = self.frame();
        self.done |= frame.is_err();
        Some(frame)
    }
}

fn header_record(header: &Header, chain: &mut Chain) -> Result<Vec<u8>> {
    let text = serde_json::to_vec(header).map_err(|_| super::StreamError::Header)?;
    let mut record = vec![b'H'];
    record.extend_from_slice(&(text.len() as u32).to_le_bytes());
    record.extend_from_slice(&text);
    let check = chain.add(&record, &[]);
    let mut start = MAGIC.to_vec();
    start.extend_from_slice(&record);
    start.extend_from_slice(&check[..CHECK]);
    Ok(start)
}

/// The part of an extent that is not below `from`.
fn above(extent: Extent, from: u64) -> Option<Extent> {
    let offset = extent.offset.max(from);
    let end = extent.offset.saturating_add(extent.len);
    (offset < end).then(|| Extent { offset, len: end - offset, ..extent })
}

/// As much of an extent as one record takes, and the rest.
fn split(extent: Extent) -> (Extent, Option<Extent>) {
    let most = match extent.kind {
        ExtentKind::Data => CHUNK as u64,
        ExtentKind::Hole => HOLE,
    };
    let now = extent.len.min(most);
    let later = Extent { offset: extent.offset + now, len: extent.len - now, ..extent };
    (Extent { len: now, ..extent }, (later.len > 0).then_some(later))
}

fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<16>();
    words.iter().all(|w| u128::from_ne_bytes(*w) == 0) && rest.iter().all(|b| *b == 0)
}

/// The snapshot that a stream carries, for logs.
impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let held: Vec<SnapshotUuid> = self._holds.iter().map(Hold::snapshot).collect();
        f.debug_struct("Encoder").field("held", &held).field("left", &self.left).finish()
    }
}
