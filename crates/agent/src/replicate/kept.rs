//! Named snapshots on the primary: taken when they are wanted, and shipped to every replica.

use std::collections::BTreeSet;

use holdfast_storage::{Pool, SnapshotInfo, SnapshotKind};
use holdfast_types::{
    AssignedView, Code, ContainerUid, Epoch, NodeId, Report, SnapshotId, SnapshotUuid, VolumeUid,
};
use tracing::debug;

use crate::act::{holds, is_kept};
use crate::context::Context;
use crate::error::AgentError;
use crate::report;

/// The first snapshot that is wanted and not here. What is kept before a restore is what is there
/// when the container has come to rest.
pub(crate) fn wanted(pool: &dyn Pool, assigned: &AssignedView) -> Option<SnapshotUuid> {
    let volume = pool.volume(assigned.uid.into()).ok()?;
    let last = assigned.restore.map(|restore| restore.before).filter(|_| volume.device.is_some());
    let mut wanted = assigned.kept.iter().filter(|kept| kept.wanted).map(|kept| kept.uuid);
    wanted.find(|uuid| volume.state.find(*uuid).is_none() && Some(*uuid) != last)
}

/// Gives those that are wanted and here their names. A crash before this leaves a snapshot that is
/// found again by its identity.
pub(crate) fn keep(
    pool: &dyn Pool,
    assigned: &AssignedView,
) -> Result<Vec<SnapshotInfo>, AgentError> {
    let state = pool.volume(assigned.uid.into())?.state;
    let mut taken = Vec::new();
    for kept in assigned.kept.iter().filter(|kept| kept.wanted) {
        if let Some(snapshot) = state.find(kept.uuid) {
            let label = kept.name.to_string();
            pool.label_snapshot(kept.uuid, SnapshotKind::Kept { label })?;
            taken.push(snapshot.clone());
        }
    }
    Ok(taken)
}

/// Tells the cluster that these are there. What it did not hear is told at the next round.
pub(crate) async fn tell_taken(context: &Context, epoch: Epoch, taken: Vec<SnapshotInfo>) {
    for SnapshotInfo { id, taken, size, .. } in taken {
        let report = Report::SnapshotTaken { epoch, id, taken, size };
        if let Err(error) = report::send(context, &report).await {
            debug!(volume = %id.volume, error = %error.line(), "a named snapshot is told of later");
        }
    }
}

/// Whether whoever waits for a snapshot is told why it is not taken, after so many rounds in a row:
/// at once of a full pool, which may last for days; of what will not go by itself when it is no matter
/// of the very moment at which the volume was taken out of use; of the rest when it lasts.
pub(crate) fn is_told(error: &AgentError, rounds: u32) -> bool {
    match error.code() {
        Code::PoolFull => true,
        code if code.retryable() => rounds >= LASTS,
        _ => rounds > 1,
    }
}

/// Rounds come once a second while they fail.
const LASTS: u32 = 60;

/// Tells the cluster why this one is not taken.
pub(crate) async fn tell_refused(
    context: &Context,
    uid: ContainerUid,
    epoch: Epoch,
    snapshot: SnapshotUuid,
    error: &AgentError,
) {
    let (code, message) = (error.code(), error.line());
    let report = Report::SnapshotFailed { uid, epoch, snapshot, code, message };
    if let Err(error) = report::send(context, &report).await {
        debug!(container = %uid, error = %error.line(), "a refusal is told of later");
    }
}

/// What one replica has been given of the named snapshots, beyond what the cluster knows.
#[derive(Debug, Default)]
pub(crate) struct Given {
    given: BTreeSet<SnapshotUuid>,
}

impl Given {
    /// The replica has this one, verified and durable.
    pub(crate) fn add(&mut self, snapshot: SnapshotUuid) {
        self.given.insert(snapshot);
    }

    /// The named snapshots here that the replica lacks, oldest first. Once the cluster knows that it
    /// has one, the cluster also knows when it has lost it.
    pub(crate) fn lacking(
        &mut self,
        pool: &dyn Pool,
        assigned: &AssignedView,
        node: NodeId,
    ) -> Vec<SnapshotInfo> {
        let Ok(volume) = pool.volume(assigned.uid.into()) else { return Vec::new() };
        let mut here: Vec<_> = volume.state.sound().filter(|s| is_kept(&s.kind)).cloned().collect();
        here.sort_by_key(|s| s.id.order());
        let known = |uuid: &SnapshotUuid| {
            assigned.kept.iter().any(|kept| kept.uuid == *uuid && kept.holders.contains(&node))
        };
        self.given.retain(|uuid| !known(uuid) && here.iter().any(|s| s.id.uuid == *uuid));
        here.retain(|s| !known(&s.id.uuid) && !self.given.contains(&s.id.uuid));
        here
    }
}

/// The snapshots that a delta can be made from for a replica that has newer ones already: the
/// nearest after it first. A base is never larger than what is built on it.
pub(crate) fn bases_of_history(
    pool: &dyn Pool,
    snapshot: &SnapshotInfo,
    image: Option<SnapshotId>,
) -> Vec<SnapshotUuid> {
    let Ok(volume) = pool.volume(VolumeUid(snapshot.id.volume.0)) else { return Vec::new() };
    let order = snapshot.id.order();
    let mut chain: Vec<_> =
        volume.state.sound().filter(|s| s.id.order() != order && s.size <= snapshot.size).collect();
    chain.sort_by_key(|s| s.id.order());
    let after = chain.partition_point(|s| s.id.order() < order);
    let nearest = chain[after..].iter().chain(chain[..after].iter().rev());
    let mut bases: Vec<_> = nearest.map(|s| s.id.uuid).collect();
    bases.extend(image.filter(|id| holds(pool, *id)).map(|id| id.uuid));
    bases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{UID, assigned, snapshotted as pool};
    use holdfast_storage::AlreadyQuiet;
    use holdfast_types::{ByteSize, KeptView, RestoreView, TimestampMs};
    use uuid::Uuid;

    fn uuid(n: u128) -> SnapshotUuid {
        SnapshotUuid(Uuid::from_u128(n))
    }

    fn named(n: u128, wanted: bool, holders: &[u64]) -> KeptView {
        let holders = holders.iter().map(|n| NodeId(*n)).collect();
        let name = format!("s{n}").parse().unwrap();
        KeptView { name, uuid: uuid(n), wanted, held: !wanted, holders }
    }

    fn uuids(snapshots: Vec<SnapshotInfo>) -> Vec<SnapshotUuid> {
        snapshots.into_iter().map(|s| s.id.uuid).collect()
    }

    /// A crash after the snapshot and before its name finds it again, and takes no other.
    #[test]
    fn what_was_taken_before_a_crash_is_not_taken_again() {
        let pool = pool();
        let mut view = assigned();
        view.kept = vec![named(2, true, &[]), named(7, true, &[])];
        assert_eq!(wanted(&pool, &view), Some(uuid(7)));
        assert_eq!(uuids(keep(&pool, &view).unwrap()), [uuid(2)]);
        assert_eq!(uuids(keep(&pool, &view).unwrap()), [uuid(2)], "until the cluster has heard");
        let kind = pool.volume(UID.into()).unwrap().state.find(uuid(2)).unwrap().kind.clone();
        assert_eq!(kind, SnapshotKind::Kept { label: "s2".into() });
        view.kept = vec![named(2, false, &[1])];
        assert_eq!(wanted(&pool, &view), None);
    }

    /// A restore, and a schedule, waited for ever for a snapshot that cannot be taken.
    #[test]
    fn what_cannot_be_taken_was_told_to_nobody() {
        let bad = AgentError::Storage(holdfast_storage::Error::BadText("label"));
        assert!(is_told(&bad, 2) && !is_told(&bad, 1));
        assert!(is_told(&AgentError::PoolFull, 1));
        let slow = AgentError::Storage(holdfast_storage::Error::Timeout("freezing".into()));
        assert!(!is_told(&slow, 2), "the next round may take it");
        assert!(is_told(&slow, LASTS));
    }

    /// It was asked for while the container was at rest, and taken when it ran again.
    #[test]
    fn what_a_restore_keeps_first_was_taken_of_a_running_container() {
        let pool = pool();
        let mut view = assigned();
        let operation = holdfast_types::OperationId(Uuid::from_u128(9));
        view.restore = Some(RestoreView { operation, from: uuid(1), before: uuid(7) });
        view.kept = vec![named(7, true, &[]), named(8, true, &[])];
        pool.activate(UID.into(), Epoch(1)).unwrap();
        assert_eq!(wanted(&pool, &view), Some(uuid(8)));
        pool.deactivate(UID.into()).unwrap();
        assert_eq!(wanted(&pool, &view), Some(uuid(7)));
    }

    /// Every named snapshot goes to every replica, and again to one that has lost it.
    #[test]
    fn a_replica_lacks_what_neither_it_nor_the_cluster_says_it_has() {
        let (pool, mut given) = (pool(), Given::default());
        let mut view = assigned();
        view.kept = vec![named(1, false, &[1, 2]), named(2, true, &[]), named(3, false, &[1])];
        for n in [1, 2, 3] {
            let label = format!("s{n}");
            pool.label_snapshot(uuid(n), SnapshotKind::Kept { label }).unwrap();
        }
        let lacks =
            |view: &AssignedView, given: &mut Given| uuids(given.lacking(&pool, view, NodeId(2)));
        assert_eq!(lacks(&view, &mut given), [uuid(2), uuid(3)]);
        given.add(uuid(3));
        assert_eq!(lacks(&view, &mut given), [uuid(2)]);
        view.kept[2].holders.push(NodeId(2));
        assert_eq!(lacks(&view, &mut given), [uuid(2)]);
        view.kept[2].holders.pop();
        assert_eq!(lacks(&view, &mut given), [uuid(2), uuid(3)]);
    }

    #[test]
    fn history_builds_on_the_nearest_that_is_no_larger() {
        let pool = pool();
        pool.resize(UID.into(), ByteSize::mib(128)).unwrap();
        let id = pool.volume(UID.into()).unwrap().state.next_snapshot(uuid(5)).unwrap();
        pool.snapshot(&id, TimestampMs(0), &mut AlreadyQuiet).unwrap();
        let state = pool.volume(UID.into()).unwrap().state;
        let of_two = bases_of_history(&pool, state.find(uuid(2)).unwrap(), None);
        assert_eq!(of_two, [uuid(3), uuid(4), uuid(1)]);
    }
}
