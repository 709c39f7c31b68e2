//! The driver for an LVM volume group with a thin pool.
//!
//! ```text
//! VG ┬ POOL               a thin pool: 64 KiB chunks, zeroing, 128 MiB of metadata
//!    │   ├ ids < 2^23     LVM's own thin volumes: an unused one of ours, holdfast_anchor, and
//!    │   │                any others, which are none of our business
//!    │   └ ids ≥ 2^23     ours: one for each item, without a logical volume
//!    └ holdfast_catalog   a small ext4 with the layout of `directory`
//! ```
//! An LVM command takes tens of milliseconds, a message to the thin pool two. So what happens every
//! few seconds calls no LVM: items are made, cloned and removed by messages (`create_thin`,
//! `create_snap`, `delete`; Documentation/admin-guide/device-mapper/thin-provisioning), under ids
//! that LVM never reaches, since it counts up from 1. An item's name in the catalog is a small file
//! with its id ([`note`]). A crash leaves an id without a note, which opening deletes, or a device
//! of ours suspended or in the way, which opening resumes or removes.
//!
//! **A thin pool wears out.** It stamps each mapping with a time of 24 bits that goes up by one
//! with every `create_snap`, and nothing in the kernel stops at the end: from the 16,777,216th on,
//! the overflow is or'ed into block numbers and data is destroyed without an error. So the time is
//! counted here, and snapshots are refused well before ([`wear`]).

pub mod admin;
mod below;
mod blocks;
mod counts;
mod delta;
mod device;
mod dm;
mod metadata;
mod note;
mod open;
mod record;
mod status;
mod thin;
mod tools;
mod wear;

use crate::directory::DirectoryPool;
pub use blocks::ThinItems;
pub use device::ThinDevice;
pub(crate) use dm::Dm;
pub use open::{LvmOptions, WhenFull};
pub use record::LvmRecord;

/// An open pool. Dropping it leaves devices and the catalog's mount as they are, for the next life
/// to adopt.
pub type LvmPool = DirectoryPool<ThinItems>;
