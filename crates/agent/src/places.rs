//! Where the members of a container's volume are mounted: side by side on the host, and inside the
//! container by LXC. So each can be unmounted by itself, whatever a crash has left of the others.
//!
//! ```text
//! <data_dir>/mounts/<uid>      the root
//!                  /<uid>+1    the first data member
//! ```

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use holdfast_storage::members::MAX_DATA;
use holdfast_types::ContainerUid;

/// The mount points of one container's volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Places(Vec<PathBuf>);

impl Places {
    pub(crate) fn of(mounts: &Path, uid: ContainerUid) -> Self {
        Self::at(&mounts.join(uid.to_string()))
    }

    fn at(root: &Path) -> Self {
        let member = |m: usize| {
            let mut name = OsString::from(root);
            name.push(format!("+{m}"));
            PathBuf::from(name)
        };
        Self(std::iter::once(root.to_owned()).chain((1..=MAX_DATA).map(member)).collect())
    }

    /// The root's.
    pub(crate) fn root(&self) -> &Path {
        &self.0[0]
    }

    /// Those of a volume with so many data members, the root's first.
    pub(crate) fn of_set(&self, data: usize) -> &[PathBuf] {
        &self.0[..=data.min(MAX_DATA)]
    }

    /// Those of any volume.
    pub(crate) fn all(&self) -> &[PathBuf] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_mounted_side_by_side() {
        let places = Places::at(Path::new("/m/web"));
        assert_eq!(places.of_set(1), [Path::new("/m/web"), Path::new("/m/web+1")]);
        assert_eq!(places.all().len(), 8);
    }
}
