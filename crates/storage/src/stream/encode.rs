//! The sending side: from a list of extents to frames.

use bytes::{Bytes, BytesMut};
use holdfast_types::SnapshotUuid;

use super::ahead::Ahead;
use super::batch::Batch;
use super::pack::Packer;
use super::wire::{
    CHECK, CHUNK, CHUNK_HEAD, Chain, FRAME, HOLE, Header, MAGIC, TRAILER, chunk_head,
};
use crate::pool::{Extent, ExtentKind, Offer, Pool, SnapshotReader};
use crate::{Hold, Result};

/// Makes the frames of one stream, each at most [`FRAME`] bytes.
///
/// An iterator, so that the caller decides when the next frame is made (rate limits, back
/// pressure). The disk is read a bounded piece ahead, by a thread. It holds the snapshot and its
/// base meanwhile.
pub struct Encoder {
    ahead: Ahead,
    /// What is being encoded.
    batch: Option<Batch>,
    _holds: Vec<Hold>,
    chain: Chain,
    packer: Packer,
    start: Option<Vec<u8>>,
    chunks: u64,
    bytes: u64,
    /// Those of `bytes` that are zeros.
    holes: u64,
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
        let extents: Vec<_> = extents.into_iter().filter_map(|e| above(e, from)).collect();
        Ok(Self {
            left: extents.iter().map(|e| e.len).sum(),
            ahead: Ahead::start(extents.into(), reader)?,
            batch: None,
            _holds: holds,
            chain,
            packer: Packer::new()?,
            start: Some(start),
            chunks: 0,
            bytes: 0,
            holes: 0,
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
        const LARGEST_RECORD: usize = CHUNK_HEAD + CHUNK + CHECK;
        let mut frame = BytesMut::with_capacity(FRAME);
        if let Some(start) = self.start.take() {
            frame.extend_from_slice(&start);
        }
        // A frame of nothing but holes would keep a receiver busy for long.
        let upto = self.holes + HOLE;
        while frame.len() + LARGEST_RECORD + TRAILER <= FRAME && self.holes < upto {
            let Some(mut batch) =
                self.batch.take().map(Ok).or_else(|| self.ahead.next()).transpose()?
            else {
                self.trailer(&mut frame);
                break;
            };
            let Some((extent, at)) = batch.pieces.pop_front() else {
                self.ahead.done(batch);
                continue;
            };
            match extent.kind {
                ExtentKind::Hole => self.hole(extent, &mut frame),
                ExtentKind::Data => {
                    let len = extent.len.min(CHUNK as u64);
                    self.data(extent.offset, batch.content(at, len as usize), &mut frame);
                    if len < extent.len {
                        let (offset, left) = (extent.offset + len, extent.len - len);
                        let later = Extent { offset, len: left, ..extent };
                        batch.pieces.push_front((later, at + len as usize));
                    }
                }
            }
            self.batch = Some(batch);
        }
        Ok(frame.freeze())
    }

    fn data(&mut self, offset: u64, plain: &[u8], frame: &mut BytesMut) {
        let len = plain.len();
        if is_zero(plain) {
            let kind = ExtentKind::Hole;
            return self.hole(Extent { offset, len: len as u64, kind }, frame);
        }
        let (tag, stored) = match self.packer.pack(plain) {
            Some(packed) => (b'Z', packed),
            None => (b'D', plain),
        };
        let head = chunk_head(tag, offset, len as u32, stored.len() as u32);
        frame.extend_from_slice(&head);
        frame.extend_from_slice(stored);
        let check = self.chain.add(&head, plain);
        frame.extend_from_slice(&check[..CHECK]);
        self.count(len as u64);
    }

    fn hole(&mut self, Extent { offset, len, .. }: Extent, frame: &mut BytesMut) {
        let head = chunk_head(b'0', offset, len as u32, 0);
        frame.extend_from_slice(&head);
        let check = self.chain.add(&head, &[]);
        frame.extend_from_slice(&check[..CHECK]);
        self.holes += len;
        self.count(len);
    }

    fn count(&mut self, len: u64) {
        self.chunks += 1;
        self.bytes += len;
        self.left -= len;
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
        self.packer.wanted();
        let frame = self.frame();
        self.packer.taken();
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
