//! One replica of one volume: brings it to the newest snapshot, over and over.

use std::sync::Arc;
use std::time::Duration;

use holdfast_proto::internal::{RestampItem, RestampRequest};
use holdfast_storage::{Pool, SnapshotInfo};
use holdfast_types::{AssignedView, ContainerUid, NodeId, SnapshotUuid};
use tokio::sync::watch;
use tracing::{debug, warn};

use crate::clock::{PeerClock, boottime_ms, wall};
use crate::context::Context;
use crate::error::AgentError;
use crate::replicate::kept::{Given, bases_of_history};
use crate::replicate::prune::Bases;
use crate::replicate::ship::{candidates, ship};
use crate::replicate::source::Latest;

const FIRST_BACKOFF: Duration = Duration::from_millis(200);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);

/// How long a stamp may take. A node that is gone is noticed sooner, by the connection.
const RESTAMP_LIMIT: Duration = Duration::from_secs(20);

/// The task of one replica.
pub(crate) struct Target {
    pub(crate) context: Arc<Context>,
    pub(crate) uid: ContainerUid,
    pub(crate) node: NodeId,
    pub(crate) latest: watch::Receiver<Option<Latest>>,
    pub(crate) bases: Arc<Bases>,
    /// What it was given of the named snapshots.
    pub(crate) given: Given,
    /// The replica's clock, once it has answered.
    pub(crate) clock: Option<PeerClock>,
}

impl Target {
    /// Ships until it is aborted.
    pub(crate) async fn run(mut self) {
        let mut backoff = FIRST_BACKOFF;
        let mut quiet = false;
        loop {
            let latest = self.latest.borrow_and_update().clone();
            let address = self.context.peer(self.node).filter(|p| p.up).map(|p| p.address);
            let (Some(latest), Some(address)) = (latest, address) else {
                let _ = tokio::time::timeout(LONGEST_BACKOFF, self.latest.changed()).await;
                continue;
            };
            match self.bring(&latest, &address).await {
                Ok(()) => {
                    (backoff, quiet) = (FIRST_BACKOFF, false);
                    if self.latest.changed().await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut quiet, true) {
                        warn!(container = %self.uid, node = %self.node, error = %error.line(), "not shipped yet");
                    }
                    tokio::time::sleep(backoff).await;
                    backoff = (backoff * 2).min(LONGEST_BACKOFF);
                }
            }
        }
    }

    /// Named snapshots go first where they are on the way, so that a replica that has something has
    /// everything named before it; and after the newest where the replica is ahead of them.
    async fn bring(&mut self, latest: &Latest, address: &str) -> Result<(), AgentError> {
        self.give_on_the_way(latest, address).await;
        let uuid = latest.snapshot.id.uuid;
        let has_it = self.bases.of(self.node) == Some(uuid);
        let clock = self.clock.filter(|_| has_it);
        let restamped = match clock {
            Some(clock) => self.restamp(latest, clock, address).await?,
            None => None,
        };
        self.clock = match restamped {
            Some(clock) => Some(clock),
            None => {
                let bases = self.bases_of(&latest.snapshot)?;
                Some(self.send(&latest.snapshot, latest.as_of_ms, bases, address).await?)
            }
        };
        self.bases.acknowledge(self.node, uuid);
        self.given.add(uuid);
        if !self.give_history(address).await? {
            return Ok(());
        }
        let as_of_ms = latest.as_of_ms;
        let shipment = self.context.shipments.of(self.uid);
        shipment.current_as_of_ms.send_if_modified(|current| {
            let newer = as_of_ms > *current;
            if newer {
                *current = as_of_ms;
            }
            newer
        });
        Ok(())
    }

    /// Vouches for the snapshot that the replica has. Returns its clock if it still has it.
    async fn restamp(
        &self,
        latest: &Latest,
        clock: PeerClock,
        address: &str,
    ) -> Result<Option<PeerClock>, AgentError> {
        let item = RestampItem {
            volume: self.uid.to_bytes().into(),
            epoch: latest.snapshot.id.epoch.0,
            snapshot: latest.snapshot.id.uuid.to_bytes().into(),
            age_ms: boottime_ms().saturating_sub(latest.as_of_ms),
        };
        let cluster_id = self.context.config.identity.cluster.to_bytes().into();
        let (clock_ms, since_ms) = (clock.clock_ms, clock.since_ms());
        let request = RestampRequest { cluster_id, items: vec![item], clock_ms, since_ms };
        let mut peer = self.context.peers.at(address)?;
        match tokio::time::timeout(RESTAMP_LIMIT, peer.restamp(request)).await {
            Ok(Ok(answer)) => {
                let answer = answer.into_inner();
                let held = answer.held.first() == Some(&true);
                Ok(held.then(|| PeerClock::heard(answer.clock_ms)))
            }
            Ok(Err(status)) => Err(holdfast_proto::RemoteError::from(status).into()),
            Err(_) => {
                self.context.peers.drop_channel(address);
                Err(AgentError::NotSynced)
            }
        }
    }

    /// Ships named snapshots between what the replica has and the newest. What does not arrive now
    /// is history then: it keeps nothing newer back.
    async fn give_on_the_way(&mut self, latest: &Latest, address: &str) {
        let Some(acked) = self.bases.of(self.node) else { return };
        let Ok((pool, lacking)) = self.lacking() else { return };
        let state = pool.volume(self.uid.into()).map(|volume| volume.state).ok();
        let Some(from) = state.and_then(|s| s.find(acked).map(|s| s.id.order())) else { return };
        let between =
            |s: &&SnapshotInfo| from < s.id.order() && s.id.order() < latest.snapshot.id.order();
        for snapshot in lacking.iter().filter(between) {
            let Ok(bases) = self.bases_of(snapshot) else { return };
            if self.send(snapshot, taken_ms(snapshot), bases, address).await.is_err() {
                return;
            }
            self.given.add(snapshot.id.uuid);
        }
    }

    /// Ships the named snapshots that the replica is ahead of, the latest first: each is the next
    /// one's base. Stops after any if there is something newer to ship. Returns whether it has all.
    async fn give_history(&mut self, address: &str) -> Result<bool, AgentError> {
        let (pool, lacking) = self.lacking()?;
        let image = self.assigned()?.image;
        for snapshot in lacking.iter().rev() {
            let bases = bases_of_history(&*pool, snapshot, Some(image));
            self.send(snapshot, taken_ms(snapshot), bases, address).await?;
            self.given.add(snapshot.id.uuid);
            if self.latest.has_changed().unwrap_or(true) {
                break;
            }
        }
        Ok(self.lacking()?.1.is_empty())
    }

    fn lacking(&mut self) -> Result<(Arc<dyn Pool>, Vec<SnapshotInfo>), AgentError> {
        let pool = self.context.parts().ok_or(AgentError::Starting)?.pool.clone();
        let assigned = self.assigned()?;
        let lacking = self.given.lacking(&*pool, &assigned, self.node);
        Ok((pool, lacking))
    }

    fn assigned(&self) -> Result<AssignedView, AgentError> {
        let view = self.context.view().ok_or(AgentError::Starting)?;
        let mine = view.assigned.iter().find(|a| a.uid == self.uid).cloned();
        let reason = "is not assigned to this node";
        mine.ok_or(AgentError::NotHere { uid: self.uid, reason })
    }

    /// What a delta to the replica's next snapshot can be made from.
    fn bases_of(&self, snapshot: &SnapshotInfo) -> Result<Vec<SnapshotUuid>, AgentError> {
        let parts = self.context.parts().ok_or(AgentError::Starting)?;
        let mine = self.assigned()?;
        let floor = mine.replicas.iter().find(|copy| copy.node == self.node);
        let first = [self.bases.of(self.node), floor.and_then(|copy| copy.newest)];
        Ok(candidates(&*parts.pool, snapshot, first, Some(mine.image)))
    }

    async fn send(
        &self,
        snapshot: &SnapshotInfo,
        as_of_ms: u64,
        bases: Vec<SnapshotUuid>,
        address: &str,
    ) -> Result<PeerClock, AgentError> {
        let sent = ship(&self.context, address, snapshot, as_of_ms, bases).await;
        if let Err(error) = &sent {
            debug!(container = %self.uid, node = %self.node, error = %error.line(), "a transfer ended");
            if error.code().retryable() {
                self.context.peers.drop_channel(address);
            }
        }
        sent
    }
}

/// The BOOTTIME at which it was taken, by this node's clocks as they are now.
fn taken_ms(snapshot: &SnapshotInfo) -> u64 {
    boottime_ms().saturating_sub(wall().since(snapshot.taken))
}
