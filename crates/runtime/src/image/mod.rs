//! Images: a root filesystem archive or directory, unpacked into an empty, mounted volume.
//!
//! An archive comes from a stranger. Nothing in it may touch a byte outside the target, run the
//! node out of space or memory, or leave a device node behind: see [`ImageError`] for each refusal.

mod directory;
mod error;
mod name;
mod source;
mod stats;
mod target;
mod unpack;

pub use directory::copy_dir;
pub use error::ImageError;
pub use stats::{Budget, ImageStats};
pub use unpack::unpack;

/// The subdirectory of a volume that holds the container's root. (The volume's own root is the
/// filesystem's, with its `lost+found`.)
pub const ROOTFS_DIR: &str = "rootfs";
