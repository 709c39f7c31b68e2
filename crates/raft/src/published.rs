//! The state that readers see, without copying it for every entry.
//!
//! Two states take turns. Entries are applied to the one that nobody sees; it is published; the
//! one seen until then becomes the spare and first catches up with the batch that it missed.
//! `apply` gives the same result twice (I4), so the cost is each entry applied twice instead of
//! the whole state cloned. Only while a reader still holds the spare is it cloned.
//!
//! ```text
//! published: S(n)      spare: S(n-1), behind by batch n
//! apply n+1: spare + batch n + batch n+1 = S(n+1) ─► published; spare: S(n), behind by n+1
//! ```

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_core::{Entry, Response, State, apply};
use tokio::sync::watch;

/// Hashes that are remembered.
const MAX_HASHES: usize = 256;

/// The state after the entry at `index`.
#[derive(Debug, Clone)]
pub struct Applied {
    /// The index of the last entry applied; 0 before any.
    pub index: u64,
    /// The term of that entry.
    pub term: u64,
    /// The state. Let go of it soon: a state that is still held must be cloned to go on.
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

/// One entry of a batch; nothing in it for openraft's own.
pub(crate) struct Item {
    pub(crate) index: u64,
    pub(crate) entry: Option<Entry>,
}

/// The writing side. One owner: the state machine.
pub(crate) struct Publisher {
    now: Arc<State>,
    spare: Option<Spare>,
    tx: watch::Sender<Applied>,
    hashes: Hashes,
}

struct Spare {
    state: Arc<State>,
    behind: Vec<Item>,
}

/// Hashes at the indexes that were asked for.
#[derive(Clone)]
pub(crate) struct Hashes {
    every: u64,
    ring: Arc<Mutex<VecDeque<StateHash>>>,
}

impl Hashes {
    pub(crate) fn new(every: u64) -> Self {
        Self { every, ring: Arc::default() }
    }

    pub(crate) fn at(&self, index: u64) -> Option<StateHash> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.iter().find(|h| h.index == index).copied()
    }

    fn note(&self, index: u64, state: &State) {
        if self.every == 0 || !index.is_multiple_of(self.every) {
            return;
        }
        let hash = StateHash::of(index, state);
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.len() == MAX_HASHES {
            ring.pop_front();
        }
        ring.push_back(hash);
    }
}

impl Applied {
    /// The hash of this very state.
    pub fn hash(&self) -> StateHash {
        StateHash::of(self.index, &self.state)
    }
}

impl Publisher {
    pub(crate) fn new(index: u64, term: u64, state: State, hashes: Hashes) -> Self {
        let now = Arc::new(state);
        let tx = watch::Sender::new(Applied { index, term, state: now.clone() });
        Self { now, spare: None, tx, hashes }
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Applied> {
        self.tx.subscribe()
    }

    pub(crate) fn state(&self) -> Arc<State> {
        self.now.clone()
    }

    /// Applies a batch whose last entry has `term`, publishes the result, and answers in order.
    pub(crate) fn apply(&mut self, batch: Vec<Item>, term: u64) -> Vec<Option<Response>> {
        let Some(index) = batch.last().map(|item| item.index) else { return Vec::new() };
        let mut next = self.take_spare();
        let mut answers = Vec::with_capacity(batch.len());
        for item in &batch {
            answers.push(item.entry.clone().map(|entry| apply(&mut next, item.index, entry)));
            self.hashes.note(item.index, &next);
        }
        let old = self.publish(index, term, next);
        self.spare = Some(Spare { state: old, behind: batch });
        answers
    }

    /// Replaces the state by one from a snapshot.
    pub(crate) fn install(&mut self, index: u64, term: u64, state: State) {
        self.publish(index, term, state);
        self.spare = None;
    }

    fn take_spare(&mut self) -> State {
        let spare = self.spare.take();
        let caught_up = spare.and_then(|spare| {
            let mut state = Arc::try_unwrap(spare.state).ok()?;
            for item in spare.behind {
                if let Some(entry) = item.entry {
                    // Answered when it was applied to the other state.
                    let _same = apply(&mut state, item.index, entry);
                }
            }
            Some(state)
        });
        caught_up.unwrap_or_else(|| State::clone(&self.now))
    }

    fn publish(&mut self, index: u64, term: u64, state: State) -> Arc<State> {
        let state = Arc::new(state);
        let old = std::mem::replace(&mut self.now, state.clone());
        self.tx.send_replace(Applied { index, term, state });
        old
    }
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

    /// I4: taking turns gives what one state gives, and what a reader holds never changes.
    #[test]
    fn two_states_in_turn_are_one_state() {
        let hashes = Hashes::new(1);
        let mut publisher = Publisher::new(0, 0, State::default(), hashes.clone());
        let applied = publisher.subscribe();
        let mut plain = State::default();
        let mut held = Vec::new();
        let mut index = 0;
        for round in 0..40u64 {
            let batch: Vec<_> = (0..=round % 4).map(|i| item(index + 1 + i)).collect();
            index += batch.len() as u64;
            let mut expected = Vec::new();
            for item in &batch {
                let answer = item.entry.clone().map(|e| apply(&mut plain, item.index, e));
                expected.push(answer);
            }
            assert_eq!(publisher.apply(batch, 1), expected);
            let now = applied.borrow().clone();
            assert_eq!((now.index, &*now.state), (index, &plain));
            assert_eq!(hashes.at(index), Some(now.hash()));
            if round % 3 == 0 {
                held.push((now.hash(), now));
            }
        }
        assert!(held.iter().all(|(hash, state)| state.hash() == *hash));
    }
}
