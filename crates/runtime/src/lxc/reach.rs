//! Letting an unprivileged container's root reach the directories of its volumes.
//!
//! LXC mounts them as that user, after it has left ours, and looks their paths up. So each directory
//! above gets the user's group and lets it through, and no more: what else is in there stays as
//! hidden as it is, and nobody on the host is in that group.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use crate::RuntimeError;
use crate::error::io_error;

/// Whom a directory lets through: the bits for others and for its group.
const OTHERS: u32 = 0o001;
const GROUP: u32 = 0o010;
const GROUP_ALL: u32 = 0o070;

/// Lets the group through every directory above `source`.
pub(super) fn let_through(source: &Path, group: u32) -> Result<(), RuntimeError> {
    for dir in source.ancestors().skip(1) {
        let meta = fs::metadata(dir).map_err(io_error("read", dir))?;
        let through = meta.gid() == group && meta.mode() & GROUP != 0;
        if meta.mode() & OTHERS != 0 || through {
            continue;
        }
        if meta.mode() & GROUP_ALL != 0 && meta.gid() != group {
            let why = "a directory above it is another group's, and shut to the container";
            return Err(RuntimeError::Invalid { what: "a volume's place", why });
        }
        chown(dir, None, Some(group)).map_err(io_error("give away", dir))?;
        let mode = Permissions::from_mode((meta.mode() | GROUP) & 0o7777);
        fs::set_permissions(dir, mode).map_err(io_error("open", dir))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It is let through, and sees nothing; others are kept out as before.
    #[test]
    fn a_group_gets_through_and_no_further() {
        let dir = tempfile::tempdir().unwrap();
        let (state, mounts) = (dir.path().join("state"), dir.path().join("state/mounts"));
        fs::create_dir_all(mounts.join("web+1")).unwrap();
        for shut in [&state, &mounts] {
            fs::set_permissions(shut, Permissions::from_mode(0o700)).unwrap();
        }
        let_through(&mounts.join("web+1"), 100_000).unwrap();
        let_through(&mounts.join("web+1"), 100_000).unwrap();
        for shut in [&state, &mounts] {
            let meta = fs::metadata(shut).unwrap();
            assert_eq!((meta.mode() & 0o777, meta.gid()), (0o710, 100_000));
        }
        fs::set_permissions(&mounts, Permissions::from_mode(0o750)).unwrap();
        chown(&mounts, None, Some(7)).unwrap();
        assert!(let_through(&mounts.join("web+1"), 100_000).is_err());
    }
}
