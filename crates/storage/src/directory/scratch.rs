//! Throw-away writable clones of snapshots.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_types::SnapshotUuid;
use uuid::Uuid;

use super::blocks::{Blocks, Device};
use crate::Result;
use crate::pool::Scratch;

struct Clone<B: Blocks> {
    blocks: Arc<B>,
    item: PathBuf,
    device: PathBuf,
    attached: Option<B::Device>,
}

/// A clone of the snapshot in `from`, in `dir`.
pub(super) fn make<B: Blocks>(
    blocks: &Arc<B>,
    dir: &Path,
    snapshot: SnapshotUuid,
    from: &Path,
    size: u64,
) -> Result<Box<dyn Scratch>> {
    let item = dir.join(format!("{snapshot}-{}", Uuid::now_v7()));
    let attached = blocks.clone_item(from, &item, size).and_then(|()| blocks.attach(&item));
    match attached {
        Ok(device) => Ok(Box::new(Clone {
            blocks: blocks.clone(),
            item,
            device: device.path().to_owned(),
            attached: Some(device),
        })),
        Err(error) => {
            blocks.remove(&item)?;
            Err(error)
        }
    }
}

impl<B: Blocks> Scratch for Clone<B> {
    fn device(&self) -> &Path {
        &self.device
    }
}

impl<B: Blocks> Drop for Clone<B> {
    /// If it is still mounted, opening the pool anew removes it when that mount has gone.
    fn drop(&mut self) {
        let detached = self.attached.take().map_or(Ok(()), Device::detach);
        if let Err((_, error)) = detached {
            tracing::warn!(%error, "a scratch clone is still in use");
        }
        if let Err(error) = self.blocks.remove(&self.item) {
            tracing::warn!(%error, "a scratch clone stays until the pool is opened again");
        }
    }
}
