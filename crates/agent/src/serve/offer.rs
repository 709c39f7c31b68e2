//! Offers: whether a snapshot may come here, and on which base.

use holdfast_proto::internal::{OfferRequest, OfferResponse};
use holdfast_proto::{FieldError, required};
use holdfast_storage::Pool;
use holdfast_types::{ContainerUid, SnapshotId, SnapshotUuid};

use super::PeerApi;
use crate::clock::boottime_ms;
use crate::error::{AgentError, blocking};

impl PeerApi {
    pub(super) async fn answer_offer(
        &self,
        request: OfferRequest,
    ) -> Result<OfferResponse, AgentError> {
        let parts = self.parts(&request.cluster_id)?;
        let id = SnapshotId::try_from(required(request.snapshot, "snapshot")?)?;
        self.may_receive(&id)?;
        let candidates = request.candidates.iter().map(|c| SnapshotUuid::try_from(&c[..]));
        let candidates: Vec<_> = candidates.collect::<Result<_, _>>().map_err(FieldError::from)?;
        let choose = move || Ok::<_, AgentError>(choose(&*parts.pool, &id, &candidates));
        let chosen = blocking(choose).await?;
        Ok(OfferResponse { clock_ms: boottime_ms(), ..chosen })
    }

    /// Whether this node is to hold that snapshot, by its newest view (I11).
    pub(super) fn may_receive(&self, id: &SnapshotId) -> Result<(), AgentError> {
        let view = self.context.view().ok_or(AgentError::Starting)?;
        let uid = ContainerUid(id.volume.0);
        if let Some(replica) = view.replicas.iter().find(|r| r.uid == uid) {
            let epoch = replica.chain.epoch;
            return match id.epoch == epoch {
                true => Ok(()),
                false => Err(AgentError::Epoch(format!(
                    "the snapshot is of epoch {}, this node knows epoch {epoch}",
                    id.epoch
                ))),
            };
        }
        match view.images.iter().any(|i| i.snapshot == *id) {
            true => Ok(()),
            false => Err(AgentError::NotHere { uid, reason: "has no replica on this node" }),
        }
    }
}

/// Which base the sender should use: the one of an interrupted transfer of this very snapshot,
/// else the first candidate that is here.
fn choose(pool: &dyn Pool, id: &SnapshotId, candidates: &[SnapshotUuid]) -> OfferResponse {
    let volume = pool.volume(id.volume).ok();
    if volume.as_ref().is_some_and(|v| v.state.find(id.uuid).is_some()) {
        return OfferResponse { already_there: true, ..Default::default() };
    }
    if let Some(partial) = volume.and_then(|v| v.partial).filter(|p| p.snapshot == id.uuid)
        && partial.base.is_none_or(|base| candidates.contains(&base))
    {
        let base = partial.base.map(|b| b.to_bytes().into()).unwrap_or_default();
        return OfferResponse { base, resume_at: partial.synced, ..Default::default() };
    }
    let here = |uuid: &&SnapshotUuid| pool.hold(**uuid).is_ok();
    let base = candidates.iter().find(here).map(|b| b.to_bytes().into()).unwrap_or_default();
    OfferResponse { base, ..Default::default() }
}
