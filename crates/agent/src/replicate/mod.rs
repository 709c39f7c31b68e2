//! Ships a primary copy's snapshots, for as long as the copy is the primary one.
//!
//! ```text
//!   every replicate_every:  sync ─▶ unchanged? ─▶ the newest snapshot is current as of now
//!                                 ├▶ changed, and the pool full: nothing, and bases make room
//!                                 └▶ changed:  freeze, snapshot, thaw
//!                                        │ Latest
//!              ┌─────────────────────────┼─────────────────┐
//!           target n2                 target n3           …   one task each, at its own pace
//!         restamp | slot, offer, delta …
//!              └──── acknowledged ──▶ prune: what no copy needs as its base goes
//! ```

mod bucket;
mod history;
mod kept;
mod lanes;
mod limits;
mod news;
mod pace;
mod prune;
mod resume;
mod ship;
mod slots;
mod snapshot;
mod source;
mod target;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_types::ContainerUid;
use tokio::sync::{Notify, watch};

use crate::clock::boottime_ms;
use crate::context::Context;
use crate::error::AgentError;

pub use limits::TransferLimits;

pub(crate) use lanes::{LONG_MS, Lanes};
pub(crate) use limits::Limits;
pub(crate) use news::{Turn, Words, tell};
pub(crate) use prune::prune_replica;
pub(crate) use ship::ship_image;
pub(crate) use slots::Slots;
pub(crate) use source::run;

/// Every primary copy that is being shipped from here.
#[derive(Default)]
pub(crate) struct Shipments {
    volumes: Mutex<BTreeMap<ContainerUid, Arc<Shipment>>>,
}

/// One of them.
pub(crate) struct Shipment {
    /// Look now, not when it is due.
    pub(crate) now: Notify,
    /// How often the volume was taken out of use.
    pub(crate) rests: AtomicU64,
    /// The newest moment, on this node's BOOTTIME, for which some replica has everything, named
    /// snapshots included.
    pub(crate) current_as_of_ms: watch::Sender<u64>,
    /// The last moment, on this node's BOOTTIME, at which a full pool kept a snapshot from being
    /// taken.
    pub(crate) withheld_at_ms: watch::Sender<u64>,
}

impl Shipments {
    pub(crate) fn of(&self, uid: ContainerUid) -> Arc<Shipment> {
        let mut volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || {
            Arc::new(Shipment {
                now: Notify::new(),
                rests: AtomicU64::new(0),
                current_as_of_ms: watch::Sender::new(0),
                withheld_at_ms: watch::Sender::new(0),
            })
        };
        volumes.entry(uid).or_insert_with(fresh).clone()
    }

    /// The volume is about to be taken out of use: a snapshot from before it came into use may look
    /// as if it were one of the present rest.
    pub(crate) fn rests(&self, uid: ContainerUid) {
        let volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shipment) = volumes.get(&uid) {
            shipment.rests.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Somebody waits for the next round.
    pub(crate) fn look(&self, uid: ContainerUid) {
        let volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shipment) = volumes.get(&uid) {
            shipment.now.notify_one();
        }
    }

    pub(crate) fn forget(&self, uid: ContainerUid) {
        self.volumes.lock().unwrap_or_else(PoisonError::into_inner).remove(&uid);
    }
}

/// Ships at once, and returns when some replica has everything that was written before the call.
pub(crate) async fn sync_now(
    context: &Context,
    uid: ContainerUid,
    limit: Duration,
) -> Result<u64, AgentError> {
    let deadline = tokio::time::Instant::now() + limit;
    // A daemon that has just come back does not know yet what is its own.
    let mut views = context.watch_view();
    let known = tokio::time::timeout_at(deadline, views.wait_for(Option::is_some)).await;
    let view = known.ok().and_then(Result::ok).and_then(|view| view.clone());
    let view = view.ok_or(AgentError::Starting)?;
    if !view.assigned.iter().any(|a| a.uid == uid) {
        return Err(AgentError::NotHere { uid, reason: "is not assigned to this node" });
    }
    let asked_ms = boottime_ms();
    let shipment = context.shipments.of(uid);
    let mut current = shipment.current_as_of_ms.subscribe();
    let mut withheld = shipment.withheld_at_ms.subscribe();
    shipment.now.notify_one();
    tokio::select! {
        reached = current.wait_for(|as_of_ms| *as_of_ms >= asked_ms) => {
            reached.map(|as_of_ms| *as_of_ms).map_err(|_| AgentError::NotSynced)
        }
        _ = withheld.wait_for(|at_ms| *at_ms >= asked_ms) => Err(AgentError::PoolFull),
        () = tokio::time::sleep_until(deadline) => Err(AgentError::NotSynced),
    }
}
