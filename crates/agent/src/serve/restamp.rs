//! Stamps: a snapshot that is still what the primary has.
//!
//! Only the primary of the present epoch knows. One that was fenced may reach this node when its
//! successor does not, and goes on for as long as its view is old: its word would make a copy look
//! current that lacks all of the newer epoch (I22).

use holdfast_proto::FieldError;
use holdfast_proto::internal::{RestampRequest, RestampResponse};
use holdfast_storage::{Error, Pool};
use holdfast_types::{Epoch, NodeId, SnapshotUuid, VolumeUid};

use super::PeerApi;
use crate::clock::{boottime_ms, meant_ms};
use crate::error::AgentError;

impl PeerApi {
    pub(super) fn restamp_all(
        &self,
        sender: NodeId,
        request: &RestampRequest,
    ) -> Result<RestampResponse, AgentError> {
        let arrived_ms = boottime_ms();
        let parts = self.parts(&request.cluster_id)?;
        let mut held = Vec::with_capacity(request.items.len());
        for item in &request.items {
            let volume = VolumeUid::try_from(&item.volume[..]).map_err(FieldError::from)?;
            let uuid = SnapshotUuid::try_from(&item.snapshot[..]).map_err(FieldError::from)?;
            let epoch = Epoch(item.epoch);
            self.may_vouch(sender, &*parts.pool, volume, epoch)?;
            let state = parts.pool.volume(volume).map(|v| v.state);
            let newest = state.ok().filter(|s| s.live.is_none()).and_then(|s| s.newest().cloned());
            let is_it = newest.is_some_and(|s| s.id.uuid == uuid && s.id.epoch == epoch);
            if is_it {
                let (clock_ms, since_ms) = (request.clock_ms, request.since_ms);
                let as_of_ms = meant_ms(arrived_ms, item.age_ms, clock_ms, since_ms);
                let age_ms = boottime_ms().saturating_sub(as_of_ms);
                self.context.holdings.stamp(volume, uuid, age_ms);
            }
            held.push(is_it);
        }
        Ok(RestampResponse { held, clock_ms: boottime_ms() })
    }

    /// Whether the primary of that epoch may say how old a copy here is.
    pub(super) fn may_vouch(
        &self,
        sender: NodeId,
        pool: &dyn Pool,
        volume: VolumeUid,
        epoch: Epoch,
    ) -> Result<(), AgentError> {
        self.is_present(sender, volume, epoch)?;
        // A seal may be here before the view that follows it.
        let sealed = pool.volume(volume).map(|v| v.state.record.sealed);
        match sealed.ok().filter(|sealed| epoch <= *sealed) {
            Some(floor) => Err(Error::StaleEpoch { volume, offered: epoch, floor }.into()),
            None => Ok(()),
        }
    }
}
