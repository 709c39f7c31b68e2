//! Named snapshots of the container, and its way back to one.

use holdfast_reconcile::Duty;
use holdfast_storage::SnapshotKind;
use holdfast_types::{Code, Epoch, OperationId, Report, SnapshotName, SnapshotUuid};

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
        let assigned = view.assigned.iter().filter(|a| a.uid == self.uid).flat_map(|a| &a.kept);
        let replicas = view.replicas.iter().filter(|r| r.uid == self.uid).flat_map(|r| &r.kept);
        if assigned.chain(replicas).any(|kept| kept.uuid == snapshot) {
            return Ok(());
        }
        let (pool, uid) = (self.parts.pool.clone(), self.uid);
        let keep = match duty {
            Duty::Replica(view) => Some(view.keep.clone()),
            // The primary's bases are looked after where they are shipped from.
            Duty::Assigned(_) | Duty::Remove(_) | Duty::None(_) => None,
        };
        blocking(move || {
            pool.label_snapshot(snapshot, SnapshotKind::Chain)?;
            match keep {
                Some(keep) => replicate::prune_replica(&*pool, uid.into(), &keep),
                None => Ok(()),
            }
        })
        .await
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
