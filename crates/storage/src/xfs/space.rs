//! How full the pool is.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use holdfast_types::ByteSize;
use rustix::fs::statvfs;

use crate::pool::Capacity;
use crate::{Error, Result};

/// What to measure.
#[derive(Debug, Clone)]
pub(super) struct Space {
    pub(super) root: PathBuf,
    /// The sparse file that carries the pool: its own filesystem may fill first.
    pub(super) carrier: Option<PathBuf>,
    pub(super) threshold_percent: u8,
}

impl Space {
    /// Measures now; `promised` is left at zero.
    pub(super) fn measure(&self) -> Result<Capacity> {
        let stat = statvfs(&self.root).map_err(Error::io("measuring", &self.root))?;
        let size = stat.f_blocks * stat.f_frsize;
        let used = (stat.f_blocks - stat.f_bfree) * stat.f_frsize;
        let mut free = stat.f_bavail * stat.f_frsize;
        if let Some(carrier) = &self.carrier {
            let io = Error::io("measuring", carrier);
            let below = statvfs(carrier).map_err(Error::io("measuring", carrier))?;
            let held = std::fs::metadata(carrier).map_err(io)?.blocks() * 512;
            let room = below.f_bavail * below.f_frsize + held.saturating_sub(used);
            free = free.min(room);
        }
        Ok(Capacity {
            size: ByteSize(size),
            used: ByteSize(size.saturating_sub(free)),
            promised: ByteSize(0),
            metadata: None,
            threshold_percent: self.threshold_percent,
        })
    }
}
