//! How much an image may hold, and how much it held.

/// The most that one image may hold. Exceeding it is [`super::ImageError::TooLarge`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Files, directories, links; also directories that are there only because a name goes through them.
    pub max_entries: u64,
    /// Apparent sizes of all files together: a hole counts in full, so a sparse bomb fits no
    /// better than its length.
    pub max_bytes: u64,
}

impl Default for Budget {
    /// Two million entries and 64 GiB.
    fn default() -> Self {
        Self { max_entries: 2_000_000, max_bytes: 64 << 30 }
    }
}

/// What an image turned out to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ImageStats {
    /// Files, directories and links made.
    pub entries: u64,
    /// Apparent sizes of all files together.
    pub bytes: u64,
    /// `/sbin/init` exists and can be executed. Without it a container needs a command.
    pub has_init: bool,
}
