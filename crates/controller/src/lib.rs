//! The leader's loops: they read the replicated state and what nodes report, ask the planner, and
//! propose. They run only while this process leads, and talk to the rest through [`Ports`].
//!
//! ```text
//! gain leadership ─▶ ready (own log applied) ─▶ Leadership::begin ─▶ lead() ─▶ lost: all dropped
//!                                                 │ LeaseTable: grants, losses
//!                                                 │ Sightings: pools, holdings
//!                     lost ────────▶ MarkNodeLost │
//!                     takeover ────▶ seal, TakeOver / HoldTakeover
//!                     upkeep ──────▶ SetReplicas, RecordFloor, SetRoles, membership
//! ```

mod lead;
mod leadership;
mod lease;
mod levels;
mod lost;
mod ports;
mod schedule;
mod sightings;
mod standings;
mod takeover;
#[cfg(test)]
mod testing;
mod upkeep;
mod verdict;

pub use lead::lead;
pub use leadership::Leadership;
pub use lease::{GrantRefusal, LeaseTable};
pub use levels::{Levels, Version};
pub use ports::{PortError, Ports};
pub use sightings::{Sighting, Sightings};
pub use standings::Standings;
