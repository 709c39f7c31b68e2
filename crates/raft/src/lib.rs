//! Consensus: openraft with its log and vote in sled, over tonic. The only home of both.
//!
//! The daemon sees [`RaftNode`], a cheap handle; no openraft type crosses this crate's edge.
//!
//! ```text
//! propose ─► openraft ─► store::log (sled) ─► flusher: flush + fdatasync ─► acknowledged
//!               │  ▲
//!               ▼  └──────────── net: append, vote, pre-vote, snapshot, transfer
//!            machine: holdfast_core::apply ─► published state (index, Arc<State>)
//!            snapshot: a clone of the state ─► one file, in blocks ─► parts to a peer
//! ```
//!
//! What is promised here: I1 to I6. One leader a term comes from openraft's standard leader ids;
//! I5 from `store`, which acknowledges only what an `fdatasync` has covered; I6 from `read`,
//! whose rounds begin after the callers that they serve asked.

mod care;
mod codec;
mod comeback;
mod config;
mod dir;
mod error;
mod fail;
mod fresh;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod generation;
#[cfg(test)]
mod golden;
mod leadership;
mod level;
mod machine;
mod membership;
mod metrics;
mod net;
mod node;
mod propose;
mod published;
mod read;
mod recover;
mod restore;
mod retention;
mod seed;
mod snapshot;
mod store;
mod sys;
mod types;
mod watchdog;

pub use care::{CareLimits, Unfit};
pub use config::{Connector, Identity, RaftConfig, Timing, connector};
pub use error::RaftError;
pub use leadership::{Leadership, Peer, Reign};
pub use metrics::{Lag, Metrics};
pub use net::RaftService;
pub use node::RaftNode;
pub use published::{Applied, StateHash};
pub use recover::{Recovered, Recovery, Survey, recover, survey};
pub use restore::{Restoring, restore};
pub use seed::seed;
pub use sys::boottime;

/// The largest entry, encoded (DESIGN section 8). Larger ones are refused when proposed.
pub const MAX_ENTRY_BYTES: usize = 64 << 10;
