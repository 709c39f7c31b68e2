//! One replica of one volume: brings it to the newest snapshot, over and over.

use std::sync::Arc;
use std::time::Duration;

use holdfast_proto::internal::{RestampItem, RestampRequest};
use holdfast_storage::{Pool, SnapshotInfo};
use holdfast_types::{AssignedView, Code, ContainerUid, NodeId, SnapshotUuid};
use tokio::sync::watch;
use tracing::{debug, warn};

use crate::clock::{PeerClock, boottime_ms};
use crate::context::Context;
use crate::error::AgentError;
use crate::replicate::kept::Given;
use crate::replicate::lanes::Due;
use crate::replicate::prune::Bases;
use crate::replicate::ship::{Offered, candidates, offer, send};
use crate::replicate::slots::Slot;
use crate::replicate::source::Latest;

const FIRST_BACKOFF: Duration = Duration::from_millis(200);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);

/// How long a stamp may take. A node that is gone is noticed sooner, by the connection.
const RESTAMP_LIMIT: Duration = Duration::from_secs(20);

/// For what a snapshot is the whole content, if nobody remembers: no promise is built on what wall
/// clocks say of it (I22).
pub(super) const UNKNOWN: u64 = 0;

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
    /// The BOOTTIME as of which it has everything, or since when it is to.
    pub(crate) as_of_ms: u64,
    /// Whether its transfer has had a slot for long and was not done.
    pub(crate) long: bool,
    /// The BOOTTIME from which on a named snapshot of the past waits for its turn, if one does.
    pub(crate) waits_since_ms: Option<u64>,
    /// Whether it was told that the replica is shipped from the beginning.
    pub(crate) resync_told: bool,
    /// What it was last sent as the newest, and the BOOTTIME for which that is the whole content.
    pub(crate) sent: Option<(SnapshotUuid, u64)>,
    /// An interrupted transfer that cannot go on.
    pub(crate) unfit: Option<SnapshotUuid>,
}

impl Target {
    /// One that nothing was given yet, of the node `node`.
    pub(crate) fn new(
        context: Arc<Context>,
        uid: ContainerUid,
        node: NodeId,
        latest: watch::Receiver<Option<Latest>>,
        bases: Arc<Bases>,
    ) -> Self {
        Self {
            context,
            uid,
            node,
            latest,
            bases,
            given: Given::default(),
            clock: None,
            as_of_ms: boottime_ms(),
            long: false,
            waits_since_ms: None,
            resync_told: false,
            sent: None,
            unfit: None,
        }
    }

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
                // Its place in the queue is what it waits for.
                Err(AgentError::MadeWay) => {}
                Err(error) => {
                    if error.code().retryable() && error.code() != Code::Busy {
                        self.context.peers.drop_channel(&address);
                    }
                    if !std::mem::replace(&mut quiet, true) {
                        warn!(container = %self.uid, node = %self.node, error = %error.line(), "not shipped yet");
                    }
                    tokio::time::sleep(backoff).await;
                    backoff = (backoff * 2).min(LONGEST_BACKOFF);
                }
            }
        }
    }

    /// Vouches for the newest snapshot if the replica has it, else ships it; then what it lacks of
    /// the named ones.
    pub(super) async fn bring(&mut self, latest: &Latest, address: &str) -> Result<(), AgentError> {
        let clock = self.clock.filter(|_| self.has(latest));
        let vouched = match clock {
            Some(clock) => self.restamp(latest, clock, address).await?,
            None => None,
        };
        let newest = match vouched {
            Some(clock) => {
                self.clock = Some(clock);
                latest.clone()
            }
            None => match self.ship_newest(address).await? {
                Some(newest) => newest,
                None => return Ok(()),
            },
        };
        self.as_of_ms = newest.as_of_ms;
        if !self.has_history(address).await? {
            return Ok(());
        }
        let as_of_ms = newest.as_of_ms;
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

    pub(super) fn has(&self, latest: &Latest) -> bool {
        self.bases.of(self.node) == Some(latest.snapshot.id.uuid)
    }

    /// Ships what is the newest once there is a slot; `None` if there is nothing to ship then.
    async fn ship_newest(&mut self, address: &str) -> Result<Option<Latest>, AgentError> {
        let due = Due::of(&self.assigned()?.spec, self.as_of_ms);
        let slot = self.context.slots.take(due, self.long).await;
        let Some(newest) = self.latest.borrow_and_update().clone() else { return Ok(None) };
        let sent = self.bring_newest(&newest, address, &slot).await;
        self.long = sent.is_err() && (self.long || slot.is_long());
        self.clock = Some(sent?);
        Ok(Some(newest))
    }

    /// Named snapshots go first where they are on the way, so that a replica that has something has
    /// everything named before it; and after the newest where the replica is ahead of them. Before
    /// all goes what was interrupted: begun anew with each newer snapshot, the copy of a large volume
    /// would never arrive over a path that breaks now and then.
    async fn bring_newest(
        &mut self,
        newest: &Latest,
        address: &str,
        slot: &Slot,
    ) -> Result<PeerClock, AgentError> {
        let snapshot = &newest.snapshot;
        let mut offered = self.offer(snapshot, address).await?;
        if let Some(older) = self.interrupted(&offered, snapshot)
            && self.go_on(&older, address, slot).await?
        {
            offered = self.offer(snapshot, address).await?;
        }
        if self.give_on_the_way(newest, address, slot).await {
            offered = self.offer(snapshot, address).await?;
        }
        self.tell_resync(&offered).await;
        self.hold(snapshot);
        self.sent = Some((snapshot.id.uuid, newest.as_of_ms));
        self.send(snapshot, newest.as_of_ms, &offered, address, slot).await?;
        self.resync_told = false;
        self.arrived(snapshot);
        Ok(offered.clock)
    }

    /// Vouches for the snapshot that the replica has. Returns its clock if it still has it.
    pub(super) async fn restamp(
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
    /// is history then: it keeps nothing newer back. Returns whether any arrived.
    async fn give_on_the_way(&mut self, newest: &Latest, address: &str, slot: &Slot) -> bool {
        let Some(acked) = self.bases.of(self.node) else { return false };
        let Ok((pool, lacking)) = self.lacking() else { return false };
        let state = pool.volume(self.uid.into()).map(|volume| volume.state).ok();
        let Some(from) = state.and_then(|s| s.find(acked).map(|s| s.id.order())) else {
            return false;
        };
        let between =
            |s: &&SnapshotInfo| from < s.id.order() && s.id.order() < newest.snapshot.id.order();
        let mut any = false;
        for snapshot in lacking.iter().filter(between) {
            let Ok(offered) = self.offer(snapshot, address).await else { return any };
            match self.send(snapshot, UNKNOWN, &offered, address, slot).await {
                Ok(()) => any = true,
                Err(AgentError::Storage(_)) => {}
                Err(_) => return any,
            }
            self.given.add(snapshot.id.uuid);
        }
        any
    }

    pub(super) fn lacking(&mut self) -> Result<(Arc<dyn Pool>, Vec<SnapshotInfo>), AgentError> {
        let pool = self.context.parts().ok_or(AgentError::Starting)?.pool.clone();
        let assigned = self.assigned()?;
        let lacking = self.given.lacking(&*pool, &assigned, self.node);
        Ok((pool, lacking))
    }

    pub(super) fn assigned(&self) -> Result<AssignedView, AgentError> {
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

    pub(super) async fn offer(
        &self,
        snapshot: &SnapshotInfo,
        address: &str,
    ) -> Result<Offered, AgentError> {
        let bases = self.bases_of(snapshot)?;
        offer(&self.context, address, snapshot.id, &bases).await
    }

    pub(super) async fn send(
        &self,
        snapshot: &SnapshotInfo,
        as_of_ms: u64,
        offered: &Offered,
        address: &str,
        slot: &Slot,
    ) -> Result<(), AgentError> {
        let sent = send(&self.context, address, snapshot, as_of_ms, offered, slot).await;
        if let Err(error) = &sent {
            debug!(container = %self.uid, node = %self.node, error = %error.line(), "a transfer ended");
        }
        sent
    }
}
