//! One node's hands: it keeps the lease, does what `reconcile` says over storage, runtime and
//! network, and ships and receives snapshots.
//!
//! ```text
//!            leader ◀── heartbeat ── lease ──▶ guardian        (starts first, needs no storage)
//!              │ view                  │ gate
//!              ▼                       ▼
//!            views ──▶ workers: one task per container ──▶ Pool · Runtime · Network
//!                         │ replicate: one task per primary ──▶ peers' PeerService
//!            reports ◀────┘
//! ```
//!
//! The agent is told by the replicated state alone: a view of it arrives from the leader, and facts
//! go back as reports. It has no memory that a restart could lose: what runs and what is stored is
//! found again from the runtime and the pool.

mod act;
mod agent;
mod asked;
mod clock;
mod config;
mod context;
mod counts;
mod enter;
mod error;
#[cfg(test)]
mod fake_leader;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod gate;
mod grow;
mod guardian;
mod holdings;
mod images;
mod leader;
mod lease;
mod memory;
mod mounts;
mod overlay;
#[cfg(test)]
mod pair;
mod peers;
mod places;
mod pool_watch;
mod reconciler;
mod replicate;
mod report;
mod rotten;
mod scrub;
mod serve;
mod standing;
mod strangers;
#[cfg(test)]
mod testing;
mod view;
mod worker;

pub use agent::{Agent, AgentHandle, Parts};
pub use config::{AgentConfig, AgentIdentity};
pub use counts::{SideCounts, TransferCounts};
pub use enter::GuardedEnter;
pub use error::AgentError;
pub use images::ImportedImage;
pub use replicate::TransferLimits;
pub use scrub::{ScrubPace, ScrubSummary};
pub use serve::PeerApi;
pub use standing::Standing;
