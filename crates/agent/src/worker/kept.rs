//! Named snapshots of the container, and its way back to one.

use holdfast_reconcile::Duty;
use holdfast_storage::{Pool, SnapshotKind};
use holdfast_types::{
    Code, ContainerUid, Epoch, NodeView, OperationId, Report, SnapshotName, SnapshotUuid,
};

use super::Worker;
use crate::error::{AgentError, blocking};
use crate::{replicate, report};

impl Worker {
    pub(super) async fn keep(
        &self,
        snapshot: SnapshotUuid,
        name: SnapshotName,
    ) -> Result<(), AgentError> {
        let pool = self.parts.pool.clone();
        let kind = SnapshotKind::Kept { label: name.into() };
        blocking(move || pool.label_snapshot(snapshot, kind)).await.map(drop)
    }

    /// A snapshot that bears a name was named here before it bore one: a view that came since says
    /// whether it is no longer.
    pub(super) async fn let_go(
        &self,
        duty: Duty<'_>,
        snapshot: SnapshotUuid,
    ) -> Result<(), AgentError> {
        let Some(view) = self.context.view() else { return Ok(()) };
        if is_named(&view, self.uid, snapshot) {
            return Ok(());
        }
        let (pool, uid) = (self.parts.pool.clone(), self.uid);
        let keep = match duty {
            Duty::Replica(view) => Some(view.keep.clone()),
            // The primary's bases are looked after where they are shipped from.
            Duty::Assigned(_) | Duty::Remove(_) | Duty::None(_) => None,
        };
        blocking(move || unname(&*pool, uid, snapshot, keep.as_deref())).await
    }

    pub(super) async fn restore(
        &mut self,
        epoch: Epoch,
        from: SnapshotUuid,
        operation: OperationId,
    ) -> Result<(), AgentError> {
        let (pool, uid) = (self.parts.pool.clone(), self.uid);
        let restore = move || pool.restore(uid.into(), from, epoch, operation);
        let restored = blocking(restore).await;
        // What was snapshotted while it rested is not what is there now.
        self.context.shipments.rests(self.uid);
        match restored {
            Ok(_) => Ok(()),
            Err(error) if error.code().retryable() => Err(error),
            Err(error) => {
                let failure = Some((error.code(), error.line()));
                self.report_restored(epoch, operation, failure).await
            }
        }
    }

    pub(super) async fn report_restored(
        &self,
        epoch: Epoch,
        operation: OperationId,
        failure: Option<(Code, String)>,
    ) -> Result<(), AgentError> {
        let report = Report::Restored { uid: self.uid, epoch, operation, failure };
        report::send(&self.context, &report).await
    }
}

/// Whether the view names a snapshot of that container.
fn is_named(view: &NodeView, uid: ContainerUid, snapshot: SnapshotUuid) -> bool {
    let assigned = view.assigned.iter().filter(|a| a.uid == uid).flat_map(|a| &a.kept);
    let replicas = view.replicas.iter().filter(|r| r.uid == uid).flat_map(|r| &r.kept);
    assigned.chain(replicas).any(|kept| kept.uuid == snapshot)
}

/// Keeps it no longer for its name's sake: a replica drops it, unless it is the newest or among `keep`.
fn unname(
    pool: &dyn Pool,
    uid: ContainerUid,
    snapshot: SnapshotUuid,
    keep: Option<&[SnapshotUuid]>,
) -> Result<(), AgentError> {
    pool.label_snapshot(snapshot, SnapshotKind::Chain)?;
    match keep {
        Some(keep) => replicate::prune_replica(pool, uid.into(), keep),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{UID, snapshotted};
    use uuid::Uuid;

    /// I18: what is let go of stays where something may build on it.
    #[test]
    fn a_replica_drops_what_is_let_go_and_is_no_base() {
        let pool = snapshotted();
        let uuid = |n| SnapshotUuid(Uuid::from_u128(n));
        for n in 1..=3 {
            let label = format!("s{n}");
            pool.label_snapshot(uuid(n), SnapshotKind::Kept { label }).unwrap();
        }
        let here = || {
            let state = pool.volume(UID.into()).unwrap().state;
            (1..=4).filter(|n| state.find(uuid(*n)).is_some()).collect::<Vec<_>>()
        };
        unname(&pool, UID, uuid(1), None).unwrap();
        assert_eq!(here(), [1, 2, 3, 4], "the primary prunes where it ships from");
        pool.demote(UID.into(), Some(uuid(4)), None).unwrap();
        unname(&pool, UID, uuid(2), Some(&[uuid(1)])).unwrap();
        assert_eq!(here(), [1, 3, 4]);
        unname(&pool, UID, uuid(3), Some(&[])).unwrap();
        assert_eq!(here(), [4]);
    }
}
