//! The driver for a directory on XFS with reflink, or on an XFS that it keeps in a file.
//!
//! The layout and the order of changes are those of [`directory`](crate::directory). An item is a
//! sparse file, a clone a reflink of it (`FICLONE`), a device a loop device with direct I/O.

mod diff;
mod image;
mod open;
mod reflinks;
mod space;

use crate::directory::DirectoryPool;
pub use open::{LoopBacked, XfsOptions};
pub use reflinks::Reflinks;

/// An open pool. Dropping it leaves mounts and devices as they are, for the next life to adopt.
pub type XfsPool = DirectoryPool<Reflinks>;

#[cfg(test)]
mod tests;
