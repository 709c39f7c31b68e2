//! What an ext4 says of itself (Documentation/filesystems/ext4/super.rst).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::{Error, Result};

/// Where the superblock begins on the device, in bytes.
const OFFSET: u64 = 1024;
const MAGIC: u16 = 0xEF53;

/// The part of a superblock that matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Superblock {
    /// Size of the filesystem, in bytes.
    pub(super) size: u64,
}

/// The superblock of the ext4 on a device; `None` if there is none.
pub(super) fn read(device: &File, path: &Path) -> Result<Option<Superblock>> {
    let mut raw = [0; 1024];
    device.read_exact_at(&mut raw, OFFSET).map_err(Error::io("reading", path))?;
    Ok(parse(&raw))
}

fn parse(raw: &[u8; 1024]) -> Option<Superblock> {
    let word = |at: usize| u32::from_le_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
    if u16::from_le_bytes([raw[0x38], raw[0x39]]) != MAGIC {
        return None;
    }
    let blocks = u64::from(word(0x4)) | u64::from(word(0x150)) << 32;
    let block = 1024u64.checked_shl(word(0x18))?;
    Some(Superblock { size: blocks.checked_mul(block)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_superblock_says_how_large_its_filesystem_is() {
        let mut raw = [0; 1024];
        assert_eq!(parse(&raw), None);
        raw[0x38..0x3a].copy_from_slice(&MAGIC.to_le_bytes());
        raw[0x4..0x8].copy_from_slice(&16_384u32.to_le_bytes());
        raw[0x18] = 2;
        raw[0x150] = 1;
        assert_eq!(parse(&raw), Some(Superblock { size: ((1 << 32) + 16_384) * 4096 }));
        raw[0x18] = 255;
        assert_eq!(parse(&raw), None, "no block is so large");
    }
}
