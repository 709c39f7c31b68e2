//! Sealing: this node refuses old epochs for ever, and says what it holds.

use holdfast_proto::FieldError;
use holdfast_proto::internal::{Holding, SealItem, SealRequest, SealResponse, Sealed};
use holdfast_storage::{Pool, SnapshotInfo};
use holdfast_types::{Epoch, HeldSnapshot, VolumeUid};

use super::PeerApi;
use crate::context::Context;
use crate::error::{AgentError, blocking};

impl PeerApi {
    pub(super) async fn seal_all(&self, request: SealRequest) -> Result<SealResponse, AgentError> {
        let parts = self.parts(&request.cluster_id)?;
        let context = self.context.clone();
        blocking(move || {
            let seal = |item: &SealItem| {
                let volume = VolumeUid::try_from(&item.volume[..]).map_err(FieldError::from)?;
                let held = seal(&context, &*parts.pool, volume, Epoch(item.epoch))?;
                Ok::<_, AgentError>(Sealed { volume: item.volume.clone(), held })
            };
            let sealed = request.items.iter().map(seal).collect::<Result<_, _>>()?;
            Ok::<_, AgentError>(SealResponse { sealed })
        })
        .await
    }
}

/// Refuses the epoch and all before it, durably, and lists what is held. What has no volume here
/// has nothing to refuse for: a receive is refused by the view.
fn seal(
    context: &Context,
    pool: &dyn Pool,
    volume: VolumeUid,
    epoch: Epoch,
) -> Result<Vec<Holding>, AgentError> {
    match pool.seal(volume, epoch) {
        Ok(_) => {}
        Err(holdfast_storage::Error::NoVolume(_)) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    }
    let state = pool.volume(volume)?.state;
    let held =
        |s: &SnapshotInfo| HeldSnapshot { id: s.id, age_ms: context.holdings.age_ms(s) }.into();
    Ok(state.snapshots.iter().filter(|s| s.kind.on_chain()).map(held).collect())
}
