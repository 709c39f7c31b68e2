//! Sealing: this node refuses old epochs for ever, and says what it holds.

use holdfast_proto::FieldError;
use holdfast_proto::internal::{Holding, SealItem, SealRequest, SealResponse, Sealed};
use holdfast_storage::{Pool, SnapshotInfo};
use holdfast_types::{Epoch, HeldSnapshot, VolumeUid};
use tracing::warn;

use super::PeerApi;
use crate::context::Context;
use crate::error::{AgentError, blocking};

impl PeerApi {
    pub(super) async fn seal_all(&self, request: SealRequest) -> Result<SealResponse, AgentError> {
        let parts = self.parts(&request.cluster_id)?;
        let context = self.context.clone();
        blocking(move || {
            let one = |volume, epoch| seal(&context, &*parts.pool, volume, epoch);
            Ok::<_, AgentError>(SealResponse { sealed: each(&request.items, one)? })
        })
        .await
    }
}

/// Seals one after the other. What fails is left out of the answer, and so is not sealed for the
/// leader; the others do not wait for it.
fn each(
    items: &[SealItem],
    seal: impl Fn(VolumeUid, Epoch) -> Result<Vec<Holding>, AgentError>,
) -> Result<Vec<Sealed>, AgentError> {
    let mut sealed = Vec::with_capacity(items.len());
    for item in items {
        let volume = VolumeUid::try_from(&item.volume[..]).map_err(FieldError::from)?;
        match seal(volume, Epoch(item.epoch)) {
            Ok(held) => sealed.push(Sealed { volume: item.volume.clone(), held }),
            Err(error) => warn!(%volume, %error, "could not seal"),
        }
    }
    Ok(sealed)
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
    Ok(state.sound().map(held).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One volume that could not be sealed kept every other container of the lost node waiting.
    #[test]
    fn a_seal_that_fails_is_left_out_alone() {
        let volume = |n: u128| VolumeUid(uuid::Uuid::from_u128(n));
        let item = |n| SealItem { volume: volume(n).to_bytes().into(), epoch: 1 };
        let seal = |asked: VolumeUid, _| match asked == volume(1) {
            true => Err(holdfast_storage::Error::NoVolume(asked).into()),
            false => Ok(Vec::new()),
        };
        let sealed = each(&[item(1), item(2)], seal).unwrap();
        assert_eq!(sealed.len(), 1);
        assert_eq!(sealed[0].volume, volume(2).to_bytes());
    }
}
