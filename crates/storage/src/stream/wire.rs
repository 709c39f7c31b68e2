//! The records of the stream and the chained check over them.

use serde::{Deserialize, Serialize};

use crate::pool::Offer;

/// What a stream begins with: its name and version.
pub(super) const MAGIC: [u8; 8] = *b"HFDELTA\x02";
/// Plain bytes that one chunk holds at most.
pub const CHUNK: usize = 256 << 10;
/// Bytes that one frame of an encoder holds at most: four chunks, and a stream's both ends.
pub const FRAME: usize =
    4 * (CHUNK_HEAD + CHUNK + CHECK) + MAGIC.len() + 5 + MAX_HEADER + CHECK + TRAILER;
/// A hole is cheap to send, so it may be long: up to this many bytes in one record.
pub(super) const HOLE: u64 = 256 << 20;
/// Longest header text, in bytes.
pub(super) const MAX_HEADER: usize = 4 << 10;
/// Bytes of a check as sent with a record.
pub(super) const CHECK: usize = 16;
/// Bytes of a chunk before its content: tag, offset, length, stored length.
pub(super) const CHUNK_HEAD: usize = 1 + 8 + 4 + 4;
/// Bytes of the trailer: tag, chunks, bytes, whole check.
pub(super) const TRAILER: usize = 1 + 8 + 8 + 32;

/// What a stream says of itself first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// What was agreed on.
    pub offer: Offer,
    /// Where it begins: what is below was sent before and is durable at the receiver.
    pub from: u64,
    /// Plain bytes that a chunk holds at most.
    pub chunk: u32,
}

/// One verified record.
#[derive(Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// The stream's header.
    Header(Header),
    /// New content.
    Data {
        /// First byte in the volume.
        offset: u64,
        /// The content.
        data: &'a [u8],
    },
    /// Zeros.
    Hole {
        /// First byte in the volume.
        offset: u64,
        /// Number of bytes.
        len: u64,
    },
    /// The end; everything before it was complete.
    End,
}

/// Why a stream was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// It does not begin as a stream of a version that is understood.
    #[error("it is no delta stream of a known version")]
    Magic,
    /// The header cannot be read.
    #[error("its header is malformed")]
    Header,
    /// The header is not what was agreed on.
    #[error("its header is not what was offered")]
    OtherOffer,
    /// A record's head is impossible: unknown tag, absurd length, offsets that do not rise.
    #[error("a record at stream offset {0} is malformed")]
    Malformed(u64),
    /// A record's content is not what was sent.
    #[error("the checksum of a record at stream offset {0} does not match")]
    Checksum(u64),
    /// The trailer counts something else than what came.
    #[error("its trailer does not match what came before")]
    Trailer,
    /// It ended early.
    #[error("it ended before its trailer")]
    Truncated,
    /// Something follows the trailer.
    #[error("something follows its trailer")]
    AfterEnd,
}

/// The running check.
#[derive(Debug, Clone)]
pub(super) struct Chain([u8; 32]);

impl Chain {
    pub(super) fn new() -> Self {
        Self([0; 32])
    }

    /// As it is after a first record without content.
    #[cfg(test)]
    pub(super) fn after(head: &[u8]) -> Self {
        let mut chain = Self::new();
        chain.add(head, &[]);
        chain
    }

    /// Advances over one record and returns the new check. The content is hashed by itself: from
    /// its own beginning BLAKE3 is at its fastest.
    pub(super) fn add(&mut self, head: &[u8], plain: &[u8]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0).update(head).update(blake3::hash(plain).as_bytes());
        self.0 = *hasher.finalize().as_bytes();
        self.0
    }
}

/// The head of a chunk. The stored length is not part of what is checked by itself: decoding it
/// wrongly changes the plain content, which is.
pub(super) fn chunk_head(tag: u8, offset: u64, len: u32, stored: u32) -> [u8; CHUNK_HEAD] {
    let mut head = [0; CHUNK_HEAD];
    head[0] = tag;
    head[1..9].copy_from_slice(&offset.to_le_bytes());
    head[9..13].copy_from_slice(&len.to_le_bytes());
    head[13..17].copy_from_slice(&stored.to_le_bytes());
    head
}
