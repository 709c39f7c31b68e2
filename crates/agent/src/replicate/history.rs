//! Named snapshots that a replica is ahead of: it has the newest, and lacks them.
//!
//! One may be long on its way: it waits until nobody is more overdue, and keeps to the rate of one
//! transfer.
//!
//! - All the while the newest is vouched for as ever: a copy that has everything must not look old.
//! - Its wait for a place ends when there is something newer, and the replica overdue with that. The
//!   wait counts from where it began, so that its turn comes.
//! - What has begun is not interrupted for something newer: a volume takes in one snapshot at a time,
//!   and lets go what it has the beginning of for the next. It would begin anew each time.

use std::convert::Infallible;
use std::time::Duration;

use holdfast_storage::{Pool, SnapshotInfo};
use holdfast_types::{AssignedView, Code, ContainerSpec};
use tracing::debug;

use crate::clock::{PeerClock, boottime_ms};
use crate::error::AgentError;
use crate::replicate::kept::bases_of_history;
use crate::replicate::lanes::Due;
use crate::replicate::ship::offer;
use crate::replicate::source::Latest;
use crate::replicate::target::{Target, UNKNOWN};

impl Target {
    /// Whether the replica has all named snapshots that it can have now. One that cannot be read here,
    /// or for which there is no room there, keeps nobody waiting who asked for the newest.
    pub(super) async fn has_history(&mut self, address: &str) -> Result<bool, AgentError> {
        match self.give_history(address).await {
            Err(error) if is_of_history_alone(&error) => {
                debug!(container = %self.uid, node = %self.node, error = %error.line(), "a named snapshot waits");
                Ok(true)
            }
            other => other,
        }
    }

    /// Ships the named snapshots that the replica is ahead of, the latest first: each is the next
    /// one's base. Stops after any if there is something newer to ship. Returns whether it has all.
    async fn give_history(&mut self, address: &str) -> Result<bool, AgentError> {
        let (pool, lacking) = self.lacking()?;
        let assigned = self.assigned()?;
        self.waits_since_ms.take_if(|_| lacking.is_empty());
        for snapshot in lacking.iter().rev() {
            let since_ms = *self.waits_since_ms.get_or_insert(self.as_of_ms);
            let due = Due::of(&assigned.spec, since_ms).patient();
            let mut vouched = (self.clock, self.as_of_ms);
            let given = tokio::select! {
                given = self.give_old(&*pool, &assigned, (snapshot, due), address) => given,
                never = self.vouch_meanwhile(address, &mut vouched) => match never {},
            };
            (self.clock, self.as_of_ms) = vouched;
            match given {
                // What cannot be read here keeps nothing else back; the next life tries again.
                Ok(()) | Err(AgentError::Storage(_)) => {
                    self.given.add(snapshot.id.uuid);
                    self.waits_since_ms = None;
                }
                Err(error) => return Err(error),
            }
            if self.latest.has_changed().unwrap_or(true) {
                break;
            }
        }
        Ok(self.lacking()?.1.is_empty())
    }

    /// Ships one of them once there is a slot, unless the newest cannot wait so long.
    async fn give_old(
        &self,
        pool: &dyn Pool,
        assigned: &AssignedView,
        (snapshot, due): (&SnapshotInfo, Due),
        address: &str,
    ) -> Result<(), AgentError> {
        let slot = tokio::select! {
            slot = self.context.slots.take(due, false) => slot,
            () = self.overdue(&assigned.spec) => return Err(AgentError::MadeWay),
        };
        let bases = bases_of_history(pool, snapshot, Some(assigned.image));
        let offered = offer(&self.context, address, snapshot.id, &bases).await?;
        self.send(snapshot, UNKNOWN, &offered, address, &slot).await
    }

    /// Returns once there is something that the replica lacks, and it is overdue with it.
    async fn overdue(&self, spec: &ContainerSpec) {
        let mut latest = self.latest.clone();
        let is_newer = |latest: &Option<Latest>| latest.as_ref().is_some_and(|l| !self.has(l));
        if latest.wait_for(is_newer).await.is_err() {
            return std::future::pending().await;
        }
        let left_ms = Due::of(spec, self.as_of_ms).left_ms(boottime_ms());
        tokio::time::sleep(Duration::from_millis(left_ms)).await;
    }

    /// Vouches for what the replica has each time that it turns out to be the newest still.
    async fn vouch_meanwhile(
        &self,
        address: &str,
        (clock, as_of_ms): &mut (Option<PeerClock>, u64),
    ) -> Infallible {
        let mut latest = self.latest.clone();
        while latest.changed().await.is_ok() {
            let newest = latest.borrow_and_update().clone().filter(|latest| self.has(latest));
            let (Some(newest), Some(known)) = (newest, *clock) else { continue };
            // Who sends notices what becomes of the path.
            if let Ok(Some(heard)) = self.restamp(&newest, known, address).await {
                (*clock, *as_of_ms) = (Some(heard), newest.as_of_ms);
            }
        }
        std::future::pending().await
    }
}

/// Whether what failed concerns one old snapshot, and neither the path nor the replica itself.
fn is_of_history_alone(error: &AgentError) -> bool {
    let code = error.code();
    matches!(error, AgentError::Storage(_)) || !code.retryable() || code == Code::PoolFull
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_types::SnapshotUuid;

    /// `sync` waited for a named snapshot that could not be read, and was never answered again.
    #[test]
    fn one_broken_snapshot_kept_every_sync_from_its_answer() {
        let rotten = holdfast_storage::Error::Rotten(SnapshotUuid::generate());
        assert!(is_of_history_alone(&AgentError::Storage(rotten)));
        assert!(is_of_history_alone(&AgentError::NoHistory));
        assert!(!is_of_history_alone(&AgentError::NotSynced), "the replica does not answer");
    }
}
