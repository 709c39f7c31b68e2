//! The gate before a node's outgoing transfers: waits for a place in [`lanes`](super::lanes).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::lanes::{Due, Queue};
use crate::clock::boottime_ms;

/// How often a transfer looks whether it is to make way.
const LOOK: Duration = Duration::from_millis(200);

/// The gate. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Slots {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    queue: Queue,
    waiting: BTreeMap<u64, oneshot::Sender<()>>,
}

/// A place, or the wait for one: either is given back when this is dropped.
pub(crate) struct Slot {
    slots: Slots,
    id: u64,
}

impl Slots {
    /// So many slots. What has had one for `long_ms` is long.
    pub(crate) fn new(places: usize, long_ms: u64) -> Self {
        let inner = Inner { queue: Queue::new(places, long_ms), waiting: BTreeMap::new() };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// Reslots once there is a place, and nobody who waits is more overdue. `long` if it has had one
    /// before and was not done.
    pub(crate) async fn take(&self, due: Due, long: bool) -> Slot {
        let (sender, given) = oneshot::channel();
        let slot = {
            let mut inner = self.lock();
            let id = inner.queue.join(due, long);
            inner.waiting.insert(id, sender);
            inner.admit();
            Slot { slots: self.clone(), id }
        };
        // The sender is there for as long as the slot is.
        let _ = given.await;
        slot
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn admit(&mut self) {
        while let Some(id) = self.queue.admit(boottime_ms()) {
            if let Some(waiting) = self.waiting.remove(&id) {
                // Who stopped waiting leaves by its drop.
                let _ = waiting.send(());
            }
        }
    }
}

impl Slot {
    /// Reslots when it is to make way for others.
    pub(crate) async fn over(&self) {
        while !self.slots.lock().queue.makes_way(self.id, boottime_ms()) {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Whether it has had its place for long.
    pub(crate) fn is_long(&self) -> bool {
        self.slots.lock().queue.is_long(self.id, boottime_ms())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut inner = self.slots.lock();
        inner.waiting.remove(&self.id);
        inner.queue.leave(self.id);
        inner.admit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replicate::LONG_MS;
    use holdfast_types::ContainerSpec;

    fn due(age_ms: u64) -> Due {
        Due::of(&ContainerSpec::default(), boottime_ms().saturating_sub(age_ms))
    }

    /// Lets every task that can run do so.
    async fn settle() {
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn places_go_to_the_most_overdue_and_come_back() {
        let slots = Slots::new(2, LONG_MS);
        let held = [slots.take(due(0), false).await, slots.take(due(0), false).await];
        let order: Arc<Mutex<Vec<u64>>> = Arc::default();
        let wait = |age_ms: u64| {
            let (slots, order) = (slots.clone(), order.clone());
            tokio::spawn(async move {
                let slot = slots.take(due(age_ms), false).await;
                order.lock().unwrap().push(age_ms);
                drop(slot);
            })
        };
        let given_up = wait(90_000);
        let waiting = [wait(10_000), wait(60_000), wait(30_000)];
        settle().await;
        assert!(order.lock().unwrap().is_empty(), "both places are taken");
        given_up.abort();
        assert!(given_up.await.is_err());
        drop(held);
        for task in waiting {
            task.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), [60_000, 30_000, 10_000]);
        let free = [slots.take(due(0), false).await, slots.take(due(0), false).await];
        assert!(!free[0].is_long(), "what was given up or done holds no place");
    }
}
