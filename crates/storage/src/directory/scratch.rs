//! Throw-away writable clones of snapshots.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_types::SnapshotUuid;
use uuid::Uuid;

use super::blocks::{Blocks, Device};
use super::volume::{begin, set};
use crate::Result;
use crate::members::Shape;
use crate::pool::Scratch;

struct Clone<B: Blocks> {
    blocks: Arc<B>,
    /// The root's and those of the data members, as far as they were made.
    items: Vec<PathBuf>,
    attached: Vec<B::Device>,
    device: PathBuf,
}

/// A clone of the snapshot in the items `from`, in `dir`.
pub(super) fn make<B: Blocks>(
    blocks: &Arc<B>,
    dir: &Path,
    snapshot: SnapshotUuid,
    from: &[PathBuf],
    shape: &Shape,
) -> Result<Box<dyn Scratch>> {
    let root = dir.join(format!("{snapshot}-{}", Uuid::now_v7()));
    let items = set(&root, shape.data.len());
    let mut clone =
        Clone { blocks: blocks.clone(), items, attached: Vec::new(), device: PathBuf::new() };
    begin(&**blocks, from, &clone.items, shape)?;
    for item in &clone.items {
        clone.attached.push(blocks.attach(item)?);
    }
    clone.device = clone.attached.first().map(|d| d.path().to_owned()).unwrap_or_default();
    Ok(Box::new(clone))
}

impl<B: Blocks> Scratch for Clone<B> {
    fn device(&self) -> &Path {
        &self.device
    }

    fn data_devices(&self) -> Vec<&Path> {
        self.attached.iter().skip(1).map(Device::path).collect()
    }
}

impl<B: Blocks> Drop for Clone<B> {
    /// What is still mounted goes when the pool is opened anew after that.
    fn drop(&mut self) {
        for device in self.attached.drain(..) {
            if let Err((_, error)) = device.detach() {
                tracing::warn!(%error, "a scratch clone is still in use");
            }
        }
        for item in &self.items {
            if let Err(error) = self.blocks.remove(item) {
                tracing::warn!(%error, "a scratch clone stays until the pool is opened again");
            }
        }
    }
}
