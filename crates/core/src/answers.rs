//! Answers that are remembered, so that a retried request applies once (I7), and what is known of those
//! that are not.
//!
//! [`KEPT`] answers are remembered, by their entries' order. A request id says nothing of its age that
//! could be relied on: the time in it is of the client's clock, and a clock that is hours ahead or behind
//! would lock others out, or itself. So a client names a revision that the cluster had reached before the
//! request was first sent ([`crate::Guarded`]): its entry, if there was one, came after that, and if every
//! forgotten answer is of an entry before, this request was never answered.
//!
//! ```text
//! log:   … forgotten │ remembered …                 │ now
//!              ▲ answers_forgotten
//! since before it: refused, for nobody can know     since at or after it: known, or new
//! ```

use holdfast_types::{RequestId, Revision};

use crate::{Response, State};

/// How many answers are remembered.
pub(crate) const KEPT: usize = 8192;

impl State {
    /// Remembers the answer that the entry at `revision` got.
    pub(crate) fn remember(&mut self, request: RequestId, revision: Revision, answer: &Response) {
        self.answered.insert(request, answer.clone());
        self.answered_order.push_back(request);
        self.answered_in.push_back(revision);
        if self.answered_order.len() <= KEPT {
            return;
        }
        let Some(oldest) = self.answered_order.pop_front() else { return };
        self.answered.remove(&oldest);
        self.answers_forgotten = match self.answered_in.len() > self.answered_order.len() {
            true => self.answered_in.pop_front(),
            // Of an entry that an older version did not note; those that are noted came later.
            false => self.answered_in.front().copied(),
        }
        .unwrap_or(revision);
    }

    /// Whether a request that was first sent when the cluster had reached `since`, and is not known, was
    /// never answered.
    pub(crate) fn is_new_since(&self, since: Revision) -> bool {
        since >= self.answers_forgotten
    }
}
