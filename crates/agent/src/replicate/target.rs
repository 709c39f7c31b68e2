//! One replica of one volume: brings it to the newest snapshot, over and over.

use std::sync::Arc;
use std::time::Duration;

use holdfast_proto::internal::{RestampItem, RestampRequest};
use holdfast_types::{ContainerUid, NodeId};
use tokio::sync::watch;
use tracing::{debug, warn};

use crate::clock::{PeerClock, boottime_ms};
use crate::context::Context;
use crate::error::AgentError;
use crate::replicate::prune::Bases;
use crate::replicate::ship::{candidates, ship};
use crate::replicate::source::Latest;

const FIRST_BACKOFF: Duration = Duration::from_millis(200);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);

/// How long a stamp may take.
const RESTAMP_LIMIT: Duration = Duration::from_secs(2);

/// The task of one replica.
pub(crate) struct Target {
    pub(crate) context: Arc<Context>,
    pub(crate) uid: ContainerUid,
    pub(crate) node: NodeId,
    pub(crate) latest: watch::Receiver<Option<Latest>>,
    pub(crate) bases: Arc<Bases>,
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

    async fn bring(&mut self, latest: &Latest, address: &str) -> Result<(), AgentError> {
        let uuid = latest.snapshot.id.uuid;
        let has_it = self.bases.of(self.node) == Some(uuid);
        let clock = self.clock.filter(|_| has_it);
        let restamped = match clock {
            Some(clock) => self.restamp(latest, clock, address).await?,
            None => None,
        };
        self.clock = match restamped {
            Some(clock) => Some(clock),
            None => Some(self.send(latest, address).await?),
        };
        self.bases.acknowledge(self.node, uuid);
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

    async fn send(&self, latest: &Latest, address: &str) -> Result<PeerClock, AgentError> {
        let parts = self.context.parts().ok_or(AgentError::Starting)?;
        let view = self.context.view().ok_or(AgentError::Starting)?;
        let mine = view.assigned.iter().find(|a| a.uid == self.uid);
        let floor = mine.and_then(|a| a.replicas.iter().find(|c| c.node == self.node));
        let image = mine.map(|a| a.image);
        let first = [self.bases.of(self.node), floor.and_then(|c| c.newest)];
        let bases = candidates(&*parts.pool, &latest.snapshot, first, image);
        let sent = ship(&self.context, address, &latest.snapshot, latest.as_of_ms, bases).await;
        if let Err(error) = &sent {
            debug!(container = %self.uid, node = %self.node, error = %error.line(), "a transfer ended");
            if error.code().retryable() {
                self.context.peers.drop_channel(address);
            }
        }
        sent
    }
}
