//! Throw-away writable clones of snapshots.

use std::fs::File;
use std::path::{Path, PathBuf};

use holdfast_types::SnapshotUuid;
use rustix::fs::ioctl_ficlone;
use uuid::Uuid;

use super::volume::create;
use crate::loopdev::LoopDevice;
use crate::pool::Scratch;
use crate::{Error, Result, durable};

struct FileScratch {
    path: PathBuf,
    device: PathBuf,
    attached: Option<LoopDevice>,
}

pub(super) fn make(root: &Path, snapshot: SnapshotUuid, file: &File) -> Result<Box<dyn Scratch>> {
    let path = root.join("scratch").join(format!("{snapshot}-{}", Uuid::now_v7()));
    let clone = create(&path)?;
    let attached = ioctl_ficlone(&clone, file)
        .map_err(Error::io("cloning into", &path))
        .and_then(|()| LoopDevice::attach(&path));
    match attached {
        Ok(device) => {
            let node = device.path().to_owned();
            Ok(Box::new(FileScratch { path, device: node, attached: Some(device) }))
        }
        Err(error) => {
            durable::remove_file(&path)?;
            Err(error)
        }
    }
}

impl Scratch for FileScratch {
    fn device(&self) -> &Path {
        &self.device
    }
}

impl Drop for FileScratch {
    /// If it is still mounted, the kernel frees it when that mount goes.
    fn drop(&mut self) {
        let detached = self.attached.take().map_or(Ok(()), LoopDevice::detach);
        if let Err((_, error)) = detached {
            tracing::warn!(%error, "a scratch clone is still in use");
        }
        if let Err(error) = durable::remove_file(&self.path) {
            tracing::warn!(%error, "a scratch clone stays until the pool is opened again");
        }
    }
}
