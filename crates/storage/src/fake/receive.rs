//! Receiving into memory: what is not synced is lost when the receiver is dropped.

use super::FakePool;
use super::content::Content;
use crate::catalog::SnapshotInfo;
use crate::pool::Offer;
use crate::stream::Sink;
use crate::{Error, Hold, Result};

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
    /// The pool's when it began.
    pub(super) life: u64,
    pub(super) partial: FakePartial,
    /// On the base, and on the snapshot that is to be: a second receive of it is refused.
    pub(super) _holds: (Option<Hold>, Hold),
}

impl FakeSink {
    fn alive(&self) -> Result<()> {
        match self.pool.life() == self.life {
            true => Ok(()),
            false => Err(Error::Timeout("a disk without power".into())),
        }
    }
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
        self.alive()?;
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
        self.alive()?;
        let FakePartial { offer, content, .. } = self.partial;
        self.pool.with(offer.snapshot.volume, |volume| {
            volume.partial = None;
            let info = volume.state.add_received(&offer)?;
            volume.data.insert(info.id.uuid, content);
            Ok(info)
        })
    }

    fn discard(self: Box<Self>) {
        if self.alive().is_err() {
            return;
        }
        // The volume may be gone; then so is its partial.
        let _ = self.pool.with(self.partial.offer.snapshot.volume, |volume| {
            volume.partial = None;
            Ok(())
        });
    }
}
