//! The state that readers see, and what it amounts to.
//!
//! There is one state, and its clones cost nothing ([`State`]). Entries are applied to it in batches;
//! after each a clone is published. A reader may hold one for as long as it likes: it never changes
//! (I4), and `apply` does not wait.
//!
//! ```text
//! state ── batch ──► state ── batch ──► state ──► …
//!   └► clone n         └► clone n+7       └► clone n+9      to readers, snapshots, the hasher
//! ```

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use holdfast_core::{Entry, Response, State, apply};
use tokio::sync::watch;

/// Hashes that are remembered, and that may wait to be computed.
const MAX_HASHES: usize = 256;
/// So many containers, and hashes are taken half as often as with half of them: a hash looks at all.
const ROWS_A_HASH: usize = 4_096;

/// The state after the entry at `index`.
#[derive(Debug, Clone)]
pub struct Applied {
    /// The index of the last entry applied; 0 before any.
    pub index: u64,
    /// The term of that entry.
    pub term: u64,
    /// The state. It never changes; holding it costs what has changed since.
    pub state: Arc<State>,
}

/// What the state amounted to at an index (I4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateHash {
    /// The index of the last entry applied.
    pub index: u64,
    /// [`State::hash`].
    pub hash: [u8; 32],
}

impl StateHash {
    fn of(index: u64, state: &State) -> Self {
        Self { index, hash: *state.hash().as_bytes() }
    }
}

impl Applied {
    /// The hash of this very state. Looks at all of it.
    pub fn hash(&self) -> StateHash {
        StateHash::of(self.index, &self.state)
    }
}

/// One entry of a batch; nothing in it for openraft's own.
pub(crate) struct Item {
    pub(crate) index: u64,
    pub(crate) entry: Option<Entry>,
}

/// The writing side. One owner: the state machine.
pub(crate) struct Publisher {
    state: State,
    tx: watch::Sender<Applied>,
    hashes: Hashes,
    pauses: Pauses,
}

impl Publisher {
    pub(crate) fn new(index: u64, term: u64, state: State, hashes: Hashes) -> Self {
        let tx = watch::Sender::new(Applied { index, term, state: Arc::new(state.clone()) });
        Self { state, tx, hashes, pauses: Pauses::default() }
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Applied> {
        self.tx.subscribe()
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    pub(crate) fn pauses(&self) -> Pauses {
        self.pauses.clone()
    }

    /// Applies a batch whose last entry has `term`, publishes the result, and answers in order.
    pub(crate) fn apply(&mut self, batch: Vec<Item>, term: u64) -> Vec<Option<Response>> {
        let began = Instant::now();
        let Some(index) = batch.last().map(|item| item.index) else { return Vec::new() };
        let mut answers = Vec::with_capacity(batch.len());
        for item in batch {
            answers.push(item.entry.map(|entry| apply(&mut self.state, item.index, entry)));
            self.hashes.note(item.index, &self.state);
        }
        self.publish(index, term);
        self.pauses.note(began.elapsed());
        answers
    }

    /// Replaces the state by one from a snapshot. Returns the one before, whose end may take a while.
    pub(crate) fn install(&mut self, index: u64, term: u64, state: State) -> State {
        let before = std::mem::replace(&mut self.state, state);
        self.publish(index, term);
        before
    }

    fn publish(&self, index: u64, term: u64) {
        self.tx.send_replace(Applied { index, term, state: Arc::new(self.state.clone()) });
    }
}

/// For how long batches kept others waiting.
#[derive(Clone, Default)]
pub(crate) struct Pauses {
    longest_us: Arc<AtomicU64>,
}

impl Pauses {
    fn note(&self, pause: Duration) {
        let us = u64::try_from(pause.as_micros()).unwrap_or(u64::MAX);
        self.longest_us.fetch_max(us, Ordering::Relaxed);
    }

    /// The longest since this was last asked.
    pub(crate) fn take_longest(&self) -> Duration {
        Duration::from_micros(self.longest_us.swap(0, Ordering::Relaxed))
    }
}

type Ring = Mutex<VecDeque<(u64, Option<StateHash>)>>;

/// Hashes at the indexes that were asked for, computed by a thread of their own from clones.
#[derive(Clone)]
pub(crate) struct Hashes {
    every: u64,
    /// Nothing in it while it is being computed.
    ring: Arc<Ring>,
    jobs: SyncSender<(u64, State)>,
    /// Counts what was computed.
    computed: watch::Sender<u64>,
    /// Held by whoever computes one for a caller.
    one_at_a_time: Arc<tokio::sync::Mutex<()>>,
}

impl Hashes {
    /// At each index that `every` divides, and of a large state at fewer of them; 0 for never.
    pub(crate) fn new(every: u64) -> Self {
        let (jobs, asked) = sync_channel(MAX_HASHES);
        let hashes = Self {
            every,
            ring: Arc::default(),
            jobs,
            computed: watch::Sender::new(0),
            one_at_a_time: Arc::default(),
        };
        let (ring, computed) = (hashes.ring.clone(), hashes.computed.clone());
        let run = move || compute_all(&asked, &ring, &computed);
        let thread = std::thread::Builder::new().name("state-hash".into()).spawn(run);
        if let Err(error) = thread {
            tracing::warn!(%error, "no hashes of the state are taken");
        }
        hashes
    }

    /// The hash at that index, waited for if it is being computed.
    pub(crate) async fn at(&self, index: u64) -> Option<StateHash> {
        let mut computed = self.computed.subscribe();
        loop {
            computed.borrow_and_update();
            let found = lock(&self.ring).iter().find(|(at, _)| *at == index)?.1;
            if found.is_some() {
                return found;
            }
            computed.changed().await.ok()?;
        }
    }

    /// The newest of those that every node takes.
    pub(crate) fn newest(&self) -> Option<StateHash> {
        let ring = lock(&self.ring);
        let taken = |(at, _): &&(u64, _)| self.every > 0 && at.is_multiple_of(self.every);
        ring.iter().filter(taken).filter_map(|(_, hash)| *hash).max_by_key(|hash| hash.index)
    }

    /// The hash of that state, computed once for all who ask for it.
    pub(crate) async fn of(&self, applied: &Applied) -> StateHash {
        let _one = self.one_at_a_time.lock().await;
        if let Some(known) = self.at(applied.index).await {
            return known;
        }
        let clone = applied.clone();
        let Ok(hash) = tokio::task::spawn_blocking(move || clone.hash()).await else {
            return applied.hash();
        };
        remember(&self.ring, applied.index, Some(hash));
        hash
    }

    /// The same indexes on every node: what decides is the entry and the state.
    fn due(&self, index: u64, state: &State) -> bool {
        let rows = (state.weight() / ROWS_A_HASH + 1).next_power_of_two() as u64;
        self.every > 0 && index.is_multiple_of(self.every.saturating_mul(rows))
    }

    fn note(&self, index: u64, state: &State) {
        // Whoever is too far behind leaves some out.
        if self.due(index, state) && self.jobs.try_send((index, state.clone())).is_ok() {
            remember(&self.ring, index, None);
        }
    }
}

fn compute_all(asked: &Receiver<(u64, State)>, ring: &Ring, computed: &watch::Sender<u64>) {
    while let Ok((index, state)) = asked.recv() {
        remember(ring, index, Some(StateHash::of(index, &state)));
        computed.send_modify(|count| *count += 1);
    }
}

fn remember(ring: &Ring, index: u64, hash: Option<StateHash>) {
    let mut ring = lock(ring);
    match ring.iter_mut().find(|(at, _)| *at == index) {
        // It may have been computed before the promise of it came here.
        Some((_, known)) => *known = known.or(hash),
        None => {
            if ring.len() == MAX_HASHES {
                ring.pop_front();
            }
            ring.push_back((index, hash));
        }
    }
}

fn lock(ring: &Ring) -> MutexGuard<'_, VecDeque<(u64, Option<StateHash>)>> {
    ring.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use holdfast_core::{Command, RemoveImage};
    use holdfast_types::{RequestId, TimestampMs};

    use super::*;

    fn item(index: u64) -> Item {
        let command = Command::RemoveImage(RemoveImage { name: "none".parse().unwrap() });
        let entry = Entry { request: RequestId::generate(), at: TimestampMs(index), command };
        Item { index, entry: (!index.is_multiple_of(5)).then_some(entry) }
    }

    /// I4: batches give what one entry after the other gives, what a reader holds never changes, and
    /// hashes are those of the very index, however late they are computed.
    #[tokio::test]
    async fn what_a_reader_holds_never_changes() {
        let hashes = Hashes::new(1);
        let mut publisher = Publisher::new(0, 0, State::default(), hashes.clone());
        let applied = publisher.subscribe();
        let mut plain = State::default();
        let (mut held, mut expected) = (Vec::new(), Vec::new());
        let mut index = 0;
        for round in 0..40u64 {
            let batch: Vec<_> = (0..=round % 4).map(|i| item(index + 1 + i)).collect();
            index += batch.len() as u64;
            let mut answers = Vec::new();
            for item in &batch {
                let answer = item.entry.clone().map(|e| apply(&mut plain, item.index, e));
                answers.push(answer);
                expected.push(StateHash::of(item.index, &plain));
            }
            assert_eq!(publisher.apply(batch, 1), answers);
            let now = applied.borrow().clone();
            assert_eq!((now.index, &*now.state), (index, &plain));
            held.push((now.hash(), rmp_serde::to_vec_named(&*now.state).unwrap(), now));
        }
        for (hash, bytes, now) in held {
            assert_eq!(now.hash(), hash);
            assert!(rmp_serde::to_vec_named(&*now.state).unwrap() == bytes);
        }
        for hash in expected {
            assert_eq!(hashes.at(hash.index).await, Some(hash));
            assert!(hashes.newest().is_some_and(|newest| newest.index >= hash.index));
        }
        assert_eq!(hashes.at(index + 1).await, None);
    }

    /// A state that a snapshot replaces is not what its holders see.
    #[test]
    fn an_installed_state_is_seen_by_those_who_look_anew() {
        let mut publisher = Publisher::new(0, 0, State::default(), Hashes::new(0));
        let applied = publisher.subscribe();
        publisher.apply(vec![item(1)], 1);
        let held = applied.borrow().clone();
        let before = publisher.install(9, 2, State::default());
        assert_eq!((&*held.state, held.state.answered.len()), (&before, 1));
        let now = applied.borrow().clone();
        assert_eq!((now.index, now.term, &*now.state), (9, 2, &State::default()));
    }
}
