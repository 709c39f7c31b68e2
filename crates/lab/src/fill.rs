//! Filling a node's pool, and emptying it again.

use std::fs::{self, File};
use std::path::PathBuf;

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use crate::LabError;
use crate::lab::Lab;
use crate::plan::Part;

/// Beside the pool's own files; nothing in it is ever written or read.
const FILLER: &str = "filler-of-the-lab";

impl Lab {
    /// Takes so much of a running node's pool that it is `percent` full. The blocks are reserved,
    /// not written, so the host's disk hardly notices.
    pub fn fill(&self, node: &str, percent: u64) -> Result<(), LabError> {
        let pool = self.pool_dir(node)?;
        let failed = |e: rustix::io::Errno| LabError::io("cannot fill", &pool)(e.into());
        let stat = statvfs(&pool).map_err(failed)?;
        let used = stat.f_blocks.saturating_sub(stat.f_bfree);
        let more = (stat.f_blocks * percent / 100).saturating_sub(used) * stat.f_frsize;
        let path = pool.join(FILLER);
        let file = File::create(&path).map_err(LabError::io("cannot make", &path))?;
        match more {
            0 => Ok(()),
            more => fallocate(&file, FallocateFlags::empty(), 0, more).map_err(failed),
        }
    }

    /// Gives back what [`Self::fill`] took.
    pub fn unfill(&self, node: &str) -> Result<(), LabError> {
        let path = self.pool_dir(node)?.join(FILLER);
        fs::remove_file(&path).map_err(LabError::io("cannot remove", &path))
    }

    /// The pool as the host sees it: it is mounted inside the node alone.
    pub(crate) fn pool_dir(&self, node: &str) -> Result<PathBuf, LabError> {
        let root = PathBuf::from(format!("/proc/{}/root", self.pid(node, Part::Daemon)?));
        let inside = self.layout().node_dir(node).join("pool/mounted");
        Ok(inside.strip_prefix("/").map(|inside| root.join(inside)).unwrap_or(inside))
    }
}
