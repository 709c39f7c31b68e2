//! How nodes talk: gRPC methods whose bodies are openraft's messages in named MessagePack.
//!
//! A request names its cluster and the node that it is for; any other node refuses it, for an
//! address may have changed hands. Peers that do not answer are `Unreachable`, each call is
//! bounded, and a channel that fails is thrown away and made anew.

mod channel;
mod client;
mod door;
#[cfg(test)]
mod hostile;
mod incoming;
mod lifeline;
mod server;

pub(crate) use client::{Asker, Network};
#[cfg(any(test, fuzzing))]
pub(crate) use door::{Call, well_formed};
pub(crate) use server::Heard;
pub use server::RaftService;

/// Snapshot bytes in one message.
const PART_BYTES: usize = 256 << 10;
