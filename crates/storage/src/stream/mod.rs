//! How a delta travels: header · chunks · trailer, checked as it arrives.
//!
//! ```text
//! stream  = "HFDELTA" version(u8=2) · header · chunk* · trailer
//! header  = 'H' len(u32) · JSON of [`Header`] · check
//! chunk   = 'D' | 'Z' | '0'  offset(u64) len(u32) stored(u32) · stored bytes · check
//! trailer = 'T' chunks(u64) bytes(u64) · check (32 bytes)
//! ```
//! Numbers are little-endian. `D` is raw, `Z` zstd, `0` a hole (no stored bytes). A check is
//! BLAKE3 over the previous check, the record's head and the BLAKE3 of its *plain* content, so each
//! one vouches for everything before it: a record that is missing, repeated, reordered or altered is
//! noticed at once, and whatever has been taken is a true prefix of what was sent. Checks travel cut
//! to 16 bytes, the trailer's whole. Offsets only rise. The decoder buffers one record at most and
//! never trusts a length before bounding it (I27).
//!
//! ```text
//! disk ─▶ ahead ─▶ encode ─▶ (the caller: queue, network, queue) ─▶ decode ─▶ behind ─▶ disk
//!        thread    caller's thread                          caller's thread   thread
//! ```
//! Each end has four buffers of 4 MiB and little else, whatever the volume's size: a disk that is
//! slow, on either side, makes the others wait.

mod ahead;
mod apply;
mod batch;
mod behind;
mod decode;
mod encode;
mod pack;
mod wire;

pub use apply::{Applier, Sink};
pub use decode::Decoder;
pub use encode::{Encoder, send};
pub use wire::{CHUNK, FRAME, Header, Record, StreamError};

#[cfg(test)]
mod bounds;
#[cfg(test)]
mod tests;
