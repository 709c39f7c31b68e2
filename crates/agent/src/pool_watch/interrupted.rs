//! What interrupted transfers have left in a pool.

use holdfast_storage::{Error, Outcome, Pool};
use holdfast_types::VolumeUid;
use tracing::warn;

use crate::error::AgentError;

/// Drops what nobody is receiving; says of which volumes.
pub(super) fn drop_all(pool: &dyn Pool) -> Vec<VolumeUid> {
    let mut dropped = Vec::new();
    for volume in pool.volumes().into_iter().filter(|volume| volume.partial.is_some()) {
        let uid = volume.state.uid;
        match pool.drop_partial(uid) {
            Ok(Outcome::Changed) => dropped.push(uid),
            // It goes on at this moment.
            Ok(Outcome::AlreadyThere) | Err(Error::InUse(_)) => {}
            Err(error) => {
                let error = AgentError::from(error);
                warn!(volume = %uid, error = %error.line(), "what came of a transfer cannot be dropped");
            }
        }
    }
    dropped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{UID, snapshotted};
    use holdfast_storage::fake::FakePool;
    use holdfast_storage::{Begin, Offer};
    use holdfast_types::ByteSize;

    /// I20: half a copy kept a full pool full, and could neither go on nor be begun anew.
    #[test]
    fn half_a_copy_does_not_keep_a_pool_full() {
        let source = snapshotted();
        let info = source.volume(UID.into()).unwrap().state.newest().cloned().unwrap();
        let target = FakePool::new(source.identity(), ByteSize::gib(1));
        let offer = Offer::of(&info, None);
        let Ok(Begin::Receive(receiver)) = target.begin_receive(&offer) else { panic!("refused") };
        assert_eq!(drop_all(&target), [], "somebody receives it");
        drop(receiver);
        assert!(target.volume(UID.into()).unwrap().partial.is_some());
        assert_eq!(drop_all(&target), [UID.into()]);
        assert_eq!(drop_all(&target), []);
    }
}
