//! Offers: whether a snapshot may come here, and on which base.

use holdfast_proto::internal::{OfferRequest, OfferResponse};
use holdfast_proto::{FieldError, required};
use holdfast_storage::{Partial, Pool};
use holdfast_types::{
    ContainerUid, Epoch, NodeId, SnapshotId, SnapshotName, SnapshotUuid, VolumeUid,
};

use super::PeerApi;
use crate::clock::boottime_ms;
use crate::error::{AgentError, blocking};

impl PeerApi {
    pub(super) async fn answer_offer(
        &self,
        sender: NodeId,
        request: OfferRequest,
    ) -> Result<OfferResponse, AgentError> {
        let parts = self.parts(&request.cluster_id)?;
        let id = SnapshotId::try_from(required(request.snapshot, "snapshot")?)?;
        self.may_receive(sender, &id)?;
        let view = self.context.view().ok_or(AgentError::Starting)?;
        if !view.images.iter().any(|image| image.snapshot == id) {
            self.context.intake.end(id.volume).await?;
        }
        let candidates = request.candidates.iter().map(|c| SnapshotUuid::try_from(&c[..]));
        let candidates: Vec<_> = candidates.collect::<Result<_, _>>().map_err(FieldError::from)?;
        let origin = self.origin_of(id.volume);
        let look = move || {
            let own = |base: &SnapshotUuid| is_base(&*parts.pool, id.volume, origin, *base);
            let candidates: Vec<_> = candidates.into_iter().filter(own).collect();
            let chosen = choose(&*parts.pool, &id, &candidates);
            let is_history = !chosen.already_there && is_history(&*parts.pool, &id);
            Ok::<_, AgentError>((chosen, is_history))
        };
        let (chosen, is_history) = blocking(look).await?;
        if is_history && self.context.fullness.is_filling() {
            return Err(AgentError::NoHistory);
        }
        if !chosen.already_there {
            self.has_place(chosen.resume_at)?;
        }
        Ok(OfferResponse { clock_ms: boottime_ms(), ..chosen })
    }

    /// Refuses what there would be no place for, before its sender looks for what is to be sent.
    fn has_place(&self, resume_at: u64) -> Result<(), AgentError> {
        let refused = |_: &AgentError| self.context.counters.received.refused();
        self.context.intake.check(resume_at > 0).inspect_err(refused)
    }

    /// Whether this node is to hold that snapshot, and to have it of that node, by its newest view (I11,
    /// I26).
    pub(super) fn may_receive(&self, sender: NodeId, id: &SnapshotId) -> Result<(), AgentError> {
        let view = self.context.view().ok_or(AgentError::Starting)?;
        if let Some(image) = view.images.iter().find(|image| image.snapshot == *id) {
            return is_theirs(image.source == Some(sender), sender, id.volume);
        }
        match self.is_present(sender, id.volume, id.epoch) {
            Err(AgentError::Epoch(_)) if self.name_of(id).is_some() => Ok(()),
            other => other,
        }
    }

    /// Whether that is the present epoch of a volume that has its replica here and its primary copy
    /// there, by the newest view.
    pub(super) fn is_present(
        &self,
        sender: NodeId,
        volume: VolumeUid,
        epoch: Epoch,
    ) -> Result<(), AgentError> {
        let view = self.context.view().ok_or(AgentError::Starting)?;
        let uid = ContainerUid(volume.0);
        let replica = view.replicas.iter().find(|replica| replica.uid == uid);
        let reason = "has no replica on this node";
        let replica = replica.ok_or(AgentError::NotHere { uid, reason })?;
        is_theirs(replica.primary == sender, sender, volume)?;
        let known = replica.chain.epoch;
        match epoch == known {
            true => Ok(()),
            false => Err(AgentError::Epoch(format!(
                "the snapshot is of epoch {epoch}, this node knows epoch {known}"
            ))),
        }
    }

    /// What a volume that has its replica here began as, by the newest view.
    pub(super) fn origin_of(&self, volume: VolumeUid) -> Option<SnapshotUuid> {
        let view = self.context.view()?;
        view.replicas.iter().find(|replica| replica.uid.0 == volume.0)?.origin
    }

    /// The name under which this node, as the volume's replica, is to keep that snapshot.
    pub(super) fn name_of(&self, id: &SnapshotId) -> Option<SnapshotName> {
        let view = self.context.view()?;
        let replica = view.replicas.iter().find(|r| r.uid.0 == id.volume.0)?;
        let kept = replica.kept.iter().find(|kept| kept.uuid == id.uuid)?;
        Some(kept.name.clone())
    }
}

fn is_theirs(it_is: bool, sender: NodeId, volume: VolumeUid) -> Result<(), AgentError> {
    if it_is { Ok(()) } else { Err(AgentError::NotTheirs { sender, volume }) }
}

/// Whether a delta of that volume may be made on that snapshot: of another volume's it would make a copy
/// of what its sender has no part in (I26).
pub(super) fn is_base(
    pool: &dyn Pool,
    volume: VolumeUid,
    origin: Option<SnapshotUuid>,
    base: SnapshotUuid,
) -> bool {
    let own = pool.volume(volume).is_ok_and(|volume| volume.state.find(base).is_some());
    own || origin == Some(base)
}

/// Which base the sender should use: the one of an interrupted transfer of this very snapshot,
/// else the first candidate that is here. An interrupted transfer of another one is told of.
fn choose(pool: &dyn Pool, id: &SnapshotId, candidates: &[SnapshotUuid]) -> OfferResponse {
    let volume = pool.volume(id.volume).ok();
    let own = volume.as_ref().map(|v| &v.state);
    let sound = |uuid: &SnapshotUuid| match own.filter(|state| state.find(*uuid).is_some()) {
        Some(state) => !state.is_rotten(*uuid),
        // It is of an image, or of a container that this one is a clone of.
        None => !pool.volumes().iter().any(|v| v.state.is_rotten(*uuid)),
    };
    let there = volume.as_ref().is_some_and(|v| v.state.find(id.uuid).is_some());
    if there && sound(&id.uuid) {
        return OfferResponse { already_there: true, ..Default::default() };
    }
    let partial = volume.as_ref().and_then(|v| v.partial);
    if let Some(partial) = partial.filter(|p| p.snapshot == id.uuid)
        && partial.base.is_none_or(|base| candidates.contains(&base) && sound(&base))
    {
        let base = partial.base.map(|b| b.to_bytes().into()).unwrap_or_default();
        return OfferResponse { base, resume_at: partial.synced, ..Default::default() };
    }
    let here = |uuid: &&SnapshotUuid| sound(uuid) && pool.hold(**uuid).is_ok();
    let base = candidates.iter().find(here).map(|b| b.to_bytes().into()).unwrap_or_default();
    let can_go_on = |p: &Partial| {
        p.snapshot != id.uuid && p.synced > 0 && p.base.is_none_or(|base| here(&&base))
    };
    let under_way = partial.filter(can_go_on).map(|p| p.snapshot.to_bytes().into());
    OfferResponse { base, under_way: under_way.unwrap_or_default(), ..Default::default() }
}

/// Whether a newer snapshot is here already. Full pools give such ones up: taken in again at once they
/// would come and go for ever.
fn is_history(pool: &dyn Pool, id: &SnapshotId) -> bool {
    let newest = pool.volume(id.volume).ok().and_then(|v| v.state.newest().map(|s| s.id.order()));
    newest.is_some_and(|newest| newest > id.order())
}

#[cfg(test)]
mod tests {
    use holdfast_storage::fake::FakePool;
    use holdfast_storage::{AlreadyQuiet, PoolIdentity};
    use holdfast_types::{ByteSize, ClusterId, TimestampMs};

    use super::*;

    /// I15, I19: a copy that has rotted is received again, and is no base for anything.
    #[test]
    fn a_rotten_copy_is_asked_for_again() {
        let (volume, uuid) = (VolumeUid::generate(), SnapshotUuid::generate());
        let identity = PoolIdentity { cluster: ClusterId::generate(), pool: volume.0 };
        let pool = FakePool::new(identity, ByteSize::gib(1));
        pool.create(volume, ByteSize::mib(8), Epoch(1)).unwrap();
        let id = pool.volume(volume).unwrap().state.next_snapshot(uuid).unwrap();
        pool.snapshot(&id, TimestampMs(1), &mut AlreadyQuiet).unwrap();
        pool.demote(volume, Some(uuid), None).unwrap();
        let next = SnapshotId { uuid: SnapshotUuid::generate(), seq: id.seq.next(), ..id };
        assert!(choose(&pool, &id, &[]).already_there);
        assert!(!choose(&pool, &next, &[uuid]).base.is_empty());
        let other = SnapshotId { volume: VolumeUid::generate(), ..next };
        assert!(!choose(&pool, &other, &[uuid]).base.is_empty(), "as an origin");
        pool.rot(volume).unwrap();
        assert!(!choose(&pool, &id, &[]).already_there);
        assert!(choose(&pool, &next, &[uuid]).base.is_empty());
        assert!(choose(&pool, &other, &[uuid]).base.is_empty(), "as an origin");
    }

    /// A full replica gave up a named snapshot, and its primary shipped it again, for ever.
    #[test]
    fn what_is_older_than_the_newest_here_is_history() {
        let volume = VolumeUid::generate();
        let identity = PoolIdentity { cluster: ClusterId::generate(), pool: volume.0 };
        let pool = FakePool::new(identity, ByteSize::gib(1));
        pool.create(volume, ByteSize::mib(8), Epoch(1)).unwrap();
        let mut ids = Vec::new();
        for _ in 0..2 {
            let state = pool.volume(volume).unwrap().state;
            let id = state.next_snapshot(SnapshotUuid::generate()).unwrap();
            pool.snapshot(&id, TimestampMs(1), &mut AlreadyQuiet).unwrap();
            ids.push(id);
        }
        let newer = SnapshotId { seq: ids[1].seq.next(), ..ids[1] };
        assert!(is_history(&pool, &ids[0]));
        assert!(!is_history(&pool, &ids[1]) && !is_history(&pool, &newer));
        assert!(!is_history(&pool, &SnapshotId { volume: VolumeUid::generate(), ..newer }));
    }
}
