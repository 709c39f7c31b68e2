//! What is being received: at most so many transfers at a time, and one for each volume.
//!
//! One too many is refused, and its sender comes again; places are given by the rules of
//! [`lanes`](crate::replicate::Lanes). A volume has one sender, so its next offer means that it has
//! given up the transfer before, whether or not that connection has noticed yet.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holdfast_types::VolumeUid;
use tokio::sync::watch;

use crate::clock::boottime_ms;
use crate::error::AgentError;
use crate::replicate::{LONG_MS, Lanes};

/// How often a transfer looks whether it is to make way.
const LOOK: Duration = Duration::from_millis(200);

/// Senders that were refused come again within this time.
const AGAIN_MS: u64 = 6_000;

/// How long a transfer that is over may take to make durable what it has.
const END_LIMIT: Duration = Duration::from_secs(3);

/// All that is being received here.
#[derive(Clone)]
pub(crate) struct Intake {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    lanes: Lanes,
    volumes: BTreeMap<VolumeUid, Running>,
    next: u64,
    /// When one was refused that has never had a place.
    refused_ms: Option<u64>,
}

struct Running {
    id: u64,
    over: watch::Sender<bool>,
}

/// The place of one transfer. It is given back when this is dropped: after what was received was
/// made durable.
pub(crate) struct Place {
    intake: Intake,
    volume: VolumeUid,
    id: u64,
}

/// What a transfer watches while it runs.
pub(crate) struct Stay {
    intake: Intake,
    id: u64,
    over: watch::Receiver<bool>,
}

impl Intake {
    pub(crate) fn new(places: usize) -> Self {
        let inner = Inner {
            lanes: Lanes::new(places, LONG_MS),
            volumes: BTreeMap::new(),
            next: 0,
            refused_ms: None,
        };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// Whether there is a place; `long` if the transfer goes on from before.
    pub(crate) fn check(&self, long: bool) -> Result<(), AgentError> {
        self.lock().check(long, boottime_ms())
    }

    /// A place for a transfer of this volume; `long` if it goes on from before.
    pub(crate) fn begin(&self, volume: VolumeUid, long: bool) -> Result<(Place, Stay), AgentError> {
        let now_ms = boottime_ms();
        let mut inner = self.lock();
        inner.check(long, now_ms)?;
        if inner.volumes.contains_key(&volume) {
            return Err(AgentError::Busy);
        }
        inner.next += 1;
        let id = inner.next;
        inner.lanes.enter(id, long, now_ms);
        let (over, watched) = watch::channel(false);
        inner.volumes.insert(volume, Running { id, over });
        let stay = Stay { intake: self.clone(), id, over: watched };
        Ok((Place { intake: self.clone(), volume, id }, stay))
    }

    /// Ends what is being received of this volume, and returns once nothing is.
    pub(crate) async fn end(&self, volume: VolumeUid) -> Result<(), AgentError> {
        let ended = {
            let inner = self.lock();
            let Some(running) = inner.volumes.get(&volume) else { return Ok(()) };
            running.over.send_replace(true);
            running.over.clone()
        };
        let gone = async {
            while self.lock().volumes.get(&volume).is_some_and(|r| r.over.same_channel(&ended)) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(END_LIMIT, gone).await.map_err(|_| AgentError::Busy)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn check(&mut self, long: bool, now_ms: u64) -> Result<(), AgentError> {
        if self.lanes.admit(long, now_ms) {
            return Ok(());
        }
        if !long {
            self.refused_ms = Some(now_ms);
        }
        Err(AgentError::Busy)
    }
}

impl Stay {
    /// Returns when the transfer is to end, with what its sender is told.
    pub(crate) async fn over(&mut self) -> AgentError {
        loop {
            if self.makes_way() {
                return AgentError::Busy;
            }
            let mut over = self.over.clone();
            let waiting = async { over.wait_for(|over| *over).await.is_ok() };
            match tokio::time::timeout(LOOK, waiting).await {
                Ok(true) => return AgentError::Superseded,
                // It has no place any more, because it has failed: the pool's error says how.
                Ok(false) => std::future::pending::<()>().await,
                Err(_) => {}
            }
        }
    }

    fn makes_way(&self) -> bool {
        let now_ms = boottime_ms();
        let inner = self.intake.lock();
        let since = |at_ms: u64| now_ms.saturating_sub(at_ms);
        let wanted = inner.refused_ms.is_some_and(|at_ms| since(at_ms) < AGAIN_MS);
        wanted && inner.lanes.makes_way(now_ms) == Some(self.id)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inner = self.intake.lock();
        inner.lanes.leave(self.id);
        if inner.volumes.get(&self.volume).is_some_and(|running| running.id == self.id) {
            inner.volumes.remove(&self.volume);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_types::Code;

    fn refused(begun: Result<(Place, Stay), AgentError>) -> bool {
        begun.is_err_and(|error| error.code() == Code::Busy && error.code().retryable())
    }

    #[test]
    fn one_too_many_is_refused_and_may_come_again() {
        let intake = Intake::new(2);
        let volumes = [1, 2, 3].map(|_| VolumeUid::generate());
        let held = intake.begin(volumes[0], false).unwrap();
        assert!(refused(intake.begin(volumes[0], false)), "one for each volume");
        let long = intake.begin(volumes[1], true).unwrap();
        assert!(refused(intake.begin(volumes[2], false)));
        drop(held);
        assert!(refused(intake.begin(volumes[2], true)), "the last place is for short ones");
        assert!(intake.begin(volumes[2], false).is_ok());
        drop(long);
        assert!(intake.begin(volumes[1], true).is_ok());
    }

    /// A sender that comes again does not wait until its dead connection is noticed.
    #[tokio::test]
    async fn the_next_offer_of_a_volume_ends_its_transfer() {
        let intake = Intake::new(2);
        let volume = VolumeUid::generate();
        let (place, mut stay) = intake.begin(volume, false).unwrap();
        let running = tokio::spawn(async move {
            let told = stay.over().await;
            drop(place);
            told
        });
        intake.end(volume).await.unwrap();
        assert!(matches!(running.await.unwrap(), AgentError::Superseded));
        assert!(intake.begin(volume, false).is_ok());
        intake.end(VolumeUid::generate()).await.unwrap();
    }
}
