//! A pool passes from a cluster to the one that was restored from its backup.

use holdfast_types::ClusterId;

use super::DirectoryPool;
use super::blocks::Blocks;
use super::open::{KIND, file};
use crate::pool::PoolIdentity;
use crate::{Result, durable};

/// A pool that can pass to another cluster, with all that it holds.
pub trait HandOver {
    /// Makes it that cluster's, durably. Nothing of the former one can open it any more, so nothing in
    /// it is ever run by both. The caller has seen that the other cluster is the former's heir.
    fn hand_over(&mut self, cluster: ClusterId) -> Result<()>;
}

impl<B: Blocks> HandOver for DirectoryPool<B> {
    fn hand_over(&mut self, cluster: ClusterId) -> Result<()> {
        let identity = PoolIdentity { cluster, ..self.identity };
        durable::store(&file(&self.root), KIND, &identity)?;
        self.identity = identity;
        Ok(())
    }
}
