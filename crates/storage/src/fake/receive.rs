//! Receiving into memory: what is not synced is lost when the receiver is dropped.

use super::FakePool;
use super::content::Content;
use crate::catalog::SnapshotInfo;
use crate::pool::Offer;
use crate::stream::Sink;
use crate::{Hold, Result};

/// What of a receive would survive a crash.
#[derive(Debug, Clone)]
pub(super) struct FakePartial {
    pub(super) offer: Offer,
    pub(super) content: Content,
    pub(super) synced: u64,
}

/// The working copy of a partial.
pub(super) struct FakeSink {
    pub(super) pool: FakePool,
    pub(super) partial: FakePartial,
    /// On the base, and on the snapshot that is to be: a second receive of it is refused.
    pub(super) _holds: (Option<Hold>, Hold),
}

impl Sink for FakeSink {
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        self.partial.content.write(offset, data);
        Ok(())
    }

    fn zero(&mut self, offset: u64, len: u64) -> Result<()> {
        self.partial.content.zero(offset, len);
        Ok(())
    }

    fn sync(&mut self, offset: u64) -> Result<()> {
        self.partial.synced = offset;
        let partial = self.partial.clone();
        self.pool.with(partial.offer.snapshot.volume, |volume| {
            if volume.partial.as_ref().is_some_and(|p| p.offer == partial.offer) {
                volume.partial = Some(partial);
            }
            Ok(())
        })
    }

    fn commit(self: Box<Self>) -> Result<SnapshotInfo> {
        let FakePartial { offer, content, .. } = self.partial;
        self.pool.with(offer.snapshot.volume, |volume| {
            let info = volume.state.add_received(&offer)?;
            volume.data.insert(info.id.uuid, content);
            volume.partial = None;
            Ok(info)
        })
    }

    fn discard(self: Box<Self>) {
        // The volume may be gone; then so is its partial.
        let _ = self.pool.with(self.partial.offer.snapshot.volume, |volume| {
            volume.partial = None;
            Ok(())
        });
    }
}
