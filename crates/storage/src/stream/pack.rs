//! Whether compressing is worth it, chunk by chunk.
//!
//! Compression spares the link, and costs a processor that containers want too. So it is paid for
//! by time in which the link would not have taken more anyway: a quarter of what a caller takes
//! between two frames is saved up, to a limit, and spent. So a link of 1 Gbit/s or less gets all
//! chunks packed, a faster one some, and one that is faster than the disks next to none. A short
//! delta is packed in any case.

use std::time::{Duration, Instant};

use super::wire::CHUNK;
use crate::{Error, Result};

/// Level 1 is most of the gain.
const ZSTD_LEVEL: i32 = 1;

/// What a stream may spend on compression before it has saved anything: some 20 MiB.
const FIRST: Duration = Duration::from_millis(50);
/// The most that is saved up.
const MOST: Duration = Duration::from_millis(250);
/// Of so much waiting one part is saved: a receiver that is busy writing makes us wait as well.
const SHARE: u32 = 4;

/// A look at so many bytes tells whether the rest is likely to shrink.
const SAMPLE: usize = 4 << 10;

/// Decides and compresses.
pub(super) struct Packer {
    zstd: zstd::bulk::Compressor<'static>,
    packed: Vec<u8>,
    spare: Duration,
    /// What a whole chunk costs, as it went lately.
    cost: Duration,
    /// When the caller got the last frame.
    gone: Option<Instant>,
}

impl Packer {
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            zstd: zstd::bulk::Compressor::new(ZSTD_LEVEL)
                .map_err(Error::io("starting zstd for", "a stream"))?,
            packed: Vec::with_capacity(zstd::zstd_safe::compress_bound(CHUNK)),
            spare: FIRST,
            cost: Duration::from_micros(500),
            gone: None,
        })
    }

    /// The caller wants a frame.
    pub(super) fn wanted(&mut self) {
        if let Some(gone) = self.gone.take() {
            self.spare = (self.spare + gone.elapsed() / SHARE).min(MOST);
        }
    }

    /// The caller has it.
    pub(super) fn taken(&mut self) {
        self.gone = Some(Instant::now());
    }

    /// The chunk, compressed, if that is affordable and worth it.
    pub(super) fn pack(&mut self, plain: &[u8]) -> Option<&[u8]> {
        if self.spare < self.cost {
            return None;
        }
        let began = Instant::now();
        let middle = plain.len().saturating_sub(SAMPLE) / 2;
        let sample = &plain[middle..(middle + SAMPLE).min(plain.len())];
        let worth = (sample.len() == plain.len() || self.shrinks(sample)) && self.shrinks(plain);
        let took = began.elapsed();
        if plain.len() == CHUNK && worth {
            self.cost = (self.cost * 3 + took) / 4;
        }
        self.spare = self.spare.saturating_sub(took);
        worth.then_some(&self.packed)
    }

    /// Failing to compress is no failure: the content travels raw.
    fn shrinks(&mut self, plain: &[u8]) -> bool {
        self.packed.clear();
        let packed = self.zstd.compress_to_buffer(plain, &mut self.packed);
        packed.is_ok_and(|n| n < plain.len() - plain.len() / 16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> Vec<u8> {
        b"holdfast ".iter().copied().cycle().take(CHUNK).collect()
    }

    fn noise() -> Vec<u8> {
        let mut noise = vec![0; CHUNK];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        noise
    }

    #[test]
    fn what_shrinks_is_packed_while_there_is_time_for_it() {
        let mut packer = Packer::new().unwrap();
        assert!(packer.pack(&noise()).is_none());
        assert!(packer.pack(&text()).unwrap().len() < CHUNK / 10);
        packer.spare = Duration::ZERO;
        assert!(packer.pack(&text()).is_none());
        // The link was busy for a while.
        packer.gone = Some(Instant::now() - Duration::from_secs(5));
        packer.wanted();
        assert_eq!(packer.spare, MOST);
        assert!(packer.pack(&text()).is_some());
        assert!(packer.spare < MOST);
    }

    /// A caller that takes each frame at once leaves nothing to spend.
    #[test]
    fn a_fast_link_uses_the_first_savings_up() {
        let mut packer = Packer::new().unwrap();
        let text = text();
        let packed = (0..100_000).take_while(|_| packer.pack(&text).is_some()).count();
        assert!((1..100_000).contains(&packed));
        assert!(packer.spare < packer.cost);
    }
}
