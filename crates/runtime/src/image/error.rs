//! Why an image is refused.

use std::io;
use std::path::PathBuf;

use holdfast_types::Code;

/// Why an image could not be unpacked. What was unpacked so far is left in the target, which the
/// caller throws away.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// It is no tar archive, plain or compressed.
    #[error("not a tar archive (plain, gzip, zstd or xz)")]
    NotAnArchive,
    /// It is damaged or cut short.
    #[error("the archive is damaged or cut short")]
    Damaged(#[source] io::Error),
    /// An entry's name leaves the root, or is empty or overlong.
    #[error("entry {entry:?} {why}")]
    BadName {
        /// The entry, shortened.
        entry: String,
        /// What is wrong with its name.
        why: &'static str,
    },
    /// An entry would be written through a symbolic link or over something of another kind.
    #[error("entry {entry:?} would be written through a symbolic link or in place of another file")]
    Redirected {
        /// The entry, shortened.
        entry: String,
    },
    /// A device node other than those that every root filesystem ships (and that are skipped).
    #[error("entry {entry:?} is a device node")]
    Device {
        /// The entry, shortened.
        entry: String,
    },
    /// An entry of a kind that no root filesystem holds.
    #[error("entry {entry:?} is of an unknown kind")]
    UnknownKind {
        /// The entry, shortened.
        entry: String,
    },
    /// The image is larger than its budget.
    #[error("the image holds more than {limit} {what}")]
    TooLarge {
        /// The budget.
        limit: u64,
        /// Of what.
        what: &'static str,
    },
    /// The volume has no room left for it.
    #[error("the volume is too small for the image")]
    VolumeFull,
    /// The source or target cannot be used.
    #[error("{what}: {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl ImageError {
    /// The stable code of this refusal.
    pub fn code(&self) -> Code {
        match self {
            Self::NotAnArchive
            | Self::Damaged(_)
            | Self::BadName { .. }
            | Self::Redirected { .. }
            | Self::Device { .. }
            | Self::UnknownKind { .. } => Code::BadImage,
            Self::TooLarge { .. } | Self::VolumeFull => Code::TooLarge,
            Self::Io { .. } => Code::DiskIo,
        }
    }
}
