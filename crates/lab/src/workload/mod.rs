//! What runs in the container of a rehearsal, who asks it, and how its answers are judged.
//!
//! The container serves HTTP. For every request it appends one record to its disk, numbered and
//! hash-chained, and answers with it; it never syncs, so replication alone bounds what a power cut
//! takes. A client keeps asking and keeps what it was answered: a record that it holds and that
//! the disk no longer has was lost, and must have been reported.

mod chain;
mod debian;
mod ledger;
mod probe;
mod rootfs;

pub use chain::{ChainFault, Record, parse_chain};
pub use debian::{check_mmdebstrap, debian_rootfs};
pub use ledger::{Acked, Judgement, Ledger};
pub use probe::{Probe, fetch_chain};
pub use rootfs::busybox_rootfs;
