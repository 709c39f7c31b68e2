//! What happened, for people and scripts; part of the replicated state, bounded.
//!
//! The oldest are dropped, and the state knows up to which revision: whoever asks for more is told that
//! it is gone, and never gets what is left of an entry whose first events were dropped.

use std::collections::BTreeMap;
use std::sync::Arc;

use holdfast_types::{ContainerName, ContainerUid, NodeName, Revision, TimestampMs};
use serde::{Deserialize, Serialize};

use crate::State;

/// How many events the state keeps; older ones are dropped.
pub(crate) const KEPT: usize = 4096;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The log index of the entry that caused it.
    pub revision: Revision,
    /// Its number among that entry's events.
    pub index: u32,
    /// When the entry was proposed.
    pub at: TimestampMs,
    /// Machine-readable: `takeover`, `node-lost`, `container-running`.
    pub kind: String,
    /// The node that it is about.
    pub node: Option<NodeName>,
    /// The container that it is about.
    pub container: Option<(ContainerUid, ContainerName)>,
    /// One line for a person.
    pub message: String,
    /// Kind-specific values, such as `data_as_of_ms` and `evidence`.
    #[serde(default)]
    pub fields: BTreeMap<String, String>,
}

impl Event {
    /// Where it is in the sequence of all events.
    pub fn position(&self) -> (Revision, u32) {
        (self.revision, self.index)
    }
}

/// What was asked for is kept no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compacted {
    /// Everything after this is there.
    pub after: Revision,
}

impl State {
    /// The events after that position, oldest first. Those of the first revision, 0, are the oldest that
    /// are whole.
    pub fn events_after(
        &self,
        (revision, index): (Revision, u32),
    ) -> Result<impl Iterator<Item = &Event>, Compacted> {
        let after = self.events_whole_after();
        if revision != Revision(0) && (revision, index) < (after, u32::MAX) {
            return Err(Compacted { after });
        }
        let seen = (revision, index).max((after, u32::MAX));
        let first = self.events.partition_point(|event| event.position() <= seen);
        Ok(self.events.range(first..).map(|event| &**event))
    }

    /// All events of later entries are there.
    fn events_whole_after(&self) -> Revision {
        match self.events.front() {
            // A state of a version that did not note what it dropped.
            Some(oldest) if self.events_dropped == Revision(0) && self.events.len() >= KEPT => {
                oldest.revision
            }
            _ => self.events_dropped,
        }
    }

    /// Adds an event, and drops the oldest beyond what is kept.
    pub(crate) fn add_event(&mut self, event: Event) {
        self.events.push_back(Arc::new(event));
        while self.events.len() > KEPT {
            if let Some(oldest) = self.events.pop_front() {
                self.events_dropped = oldest.revision;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(revision: u64, index: u32) -> Event {
        Event {
            revision: Revision(revision),
            index,
            at: TimestampMs(0),
            kind: "test".into(),
            node: None,
            container: None,
            message: String::new(),
            fields: BTreeMap::new(),
        }
    }

    fn after(state: &State, revision: u64) -> Result<Vec<(u64, u32)>, u64> {
        let found = state.events_after((Revision(revision), u32::MAX));
        let events = found.map_err(|gone| gone.after.0)?;
        Ok(events.map(|e| (e.revision.0, e.index)).collect())
    }

    #[test]
    fn what_comes_after_a_revision_is_whole_and_in_order() {
        let mut state = State::default();
        for (revision, index) in [(5, 0), (5, 1), (9, 0)] {
            state.add_event(event(revision, index));
        }
        assert_eq!(after(&state, 0), Ok(vec![(5, 0), (5, 1), (9, 0)]));
        assert_eq!(after(&state, 4), after(&state, 0));
        assert_eq!(after(&state, 5), Ok(vec![(9, 0)]));
        assert_eq!(after(&state, 100), Ok(vec![]));
    }

    /// Whoever was away for long was not told that it had missed something.
    #[test]
    fn dropped_history_was_skipped_without_a_word() {
        let mut state = State::default();
        // Two events an entry: the oldest entry that is kept loses one of them.
        for n in 0..=KEPT as u64 {
            state.add_event(event(10 + n / 2, u32::from(n % 2 == 1)));
        }
        assert_eq!(state.events.len(), KEPT);
        assert_eq!(state.events.get(0).unwrap().position(), (Revision(10), 1));
        assert_eq!(after(&state, 9), Err(10));
        assert_eq!(after(&state, 10).unwrap()[0], (11, 0), "the half of an entry is not told");
        let halfway = state.events_after((Revision(10), 0)).err();
        assert_eq!(halfway, Some(Compacted { after: Revision(10) }), "who was amid it is told so");
        assert_eq!(after(&state, 0).unwrap()[0], (11, 0));
    }

    /// A state of the version before did not note what it had dropped.
    #[test]
    fn a_full_history_of_an_older_version_claims_nothing_that_it_may_lack() {
        let mut state = State::default();
        for n in 0..KEPT as u64 {
            state.events.push_back(Arc::new(event(10 + n, 0)));
        }
        assert_eq!(after(&state, 9), Err(10));
        assert_eq!(after(&state, 10).unwrap().len(), KEPT - 1);
    }
}
