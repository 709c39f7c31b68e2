//! Volumes, their snapshots and the deltas between them (DESIGN section 7).
//!
//! [`Pool`] is the one block-level view of a node's storage; a driver implements it, and a volume
//! replicates between nodes with different drivers. The rules that no driver may bend (which
//! epoch may write, on which base a delta applies) live in [`catalog`], pure and shared by all.
//! [`stream`] is how a delta travels; [`fsys`] is what is done to the filesystem on a volume.
//!
//! Everything here blocks: async callers use `spawn_blocking`.

mod aligned;
pub mod catalog;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod direct;
mod directory;
mod durable;
mod error;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod fsys;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod holds;
mod loopdev;
pub mod lvm;
pub mod members;
mod pool;
pub mod stream;
mod sys;
mod wait;
pub mod xfs;

pub use catalog::{Live, Promotion, SnapshotInfo, SnapshotKind, VolumeRecord, VolumeState};
pub use directory::HandOver;
pub use error::{Error, Result};
pub use holds::Hold;
pub use members::{Member, Shape};
pub use pool::{
    AlreadyQuiet, AtRest, Begin, Capacity, Extent, ExtentKind, Fragmentation, Offer, Outcome,
    Partial, Pool, PoolIdentity, Quiesce, Receiver, Rot, Scratch, Scrubbed, SnapshotReader, Tail,
    VOLUME_GRAIN, VolumeInfo, round_size,
};
