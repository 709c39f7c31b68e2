//! Answers that are remembered, so that a retried request applies once (I7), and what is known of those
//! that are not.
//!
//! Those of the last minute are remembered, by their entries' times, but never fewer than [`LEAST`] and
//! never more than [`MOST`]. Nothing depends on those times but when an answer is forgotten: a clock that
//! jumps has some forgotten early, whose retries are then refused. One answer costs about 130 bytes in
//! memory and 80 in a snapshot, so at ten thousand writes a second, where `MOST` are those of 26 s, all
//! of them cost 33 MiB and 20; a refusal costs its words as well, of which [`WORDS`] bytes are kept.
//!
//! A request id says nothing of its age that could be relied on: the time in it is of the client's clock,
//! and a clock that is hours ahead or behind would lock others out, or itself. So a client names a
//! revision that the cluster had reached before the request was first sent ([`crate::Guarded`]): its
//! entry, if there was one, came after that, and if every forgotten answer is of an entry before, this
//! request was never answered.
//!
//! ```text
//! log:   … forgotten │ remembered …                 │ now
//!              ▲ answers_forgotten
//! since before it: refused, for nobody can know     since at or after it: known, or new
//! ```

use holdfast_types::{RequestId, Revision, TimestampMs};

use crate::{Refusal, Response, State};

/// So many answers are remembered, however old they are.
pub(crate) const LEAST: usize = 8_192;

/// No more than so many, however young they are.
pub(crate) const MOST: usize = 256 * 1_024;

/// Answers that are older are forgotten.
pub(crate) const AGE_MS: u64 = 60_000;

/// So many are forgotten for one that comes, after a busy time: an entry does not wait for all of them.
const AT_ONCE: usize = 2;

/// So much of a refusal's message is remembered, in bytes.
const WORDS: usize = 256;

impl State {
    /// Remembers the answer that the entry at `revision`, proposed at that time, got.
    pub(crate) fn remember(
        &mut self,
        request: RequestId,
        revision: Revision,
        at: TimestampMs,
        answer: &Response,
    ) {
        self.answered.insert(request, shortened(answer));
        self.answered_order.push_back(request);
        self.answered_in.push_back(revision);
        self.answered_at.push_back(at);
        for _ in 0..AT_ONCE {
            let count = self.answered_order.len();
            let old = || self.answered_at.front().is_none_or(|then| at.since(*then) > AGE_MS);
            if count <= LEAST || (count <= MOST && !old()) {
                return;
            }
            let Some(oldest) = self.answered_order.pop_front() else { return };
            self.answered.remove(&oldest);
            self.answered_at.pop_front();
            self.answers_forgotten = self.answered_in.pop_front().unwrap_or(revision);
        }
    }

    /// Whether a request that was first sent when the cluster had reached `since`, and is not known, was
    /// never answered.
    pub(crate) fn is_new_since(&self, since: Revision) -> bool {
        since >= self.answers_forgotten
    }

    /// How much there is of it, in containers: what a hash and a snapshot have to look at.
    pub fn weight(&self) -> usize {
        self.containers.len() + self.answered.len() / 4
    }
}

/// The answer as it is remembered: whoever retries has the code, and the words as far as they go.
fn shortened(answer: &Response) -> Response {
    match answer {
        Err(refusal) if refusal.message.len() > WORDS => {
            let message = &refusal.message;
            let kept = &message[..message.floor_char_boundary(WORDS)];
            Err(Refusal::new(refusal.code, format!("{kept}…")))
        }
        answer => answer.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Command, Entry, Outcome, RemoveImage, apply};
    use holdfast_types::{Code, ContainerUid, OperationId};
    use uuid::Uuid;

    /// So many entries at that moment.
    fn answer(state: &mut State, index: &mut u64, count: usize, at: u64) {
        for _ in 0..count {
            *index += 1;
            let request = RequestId(Uuid::from_u64_pair(*index, 1));
            let command = Command::RemoveImage(RemoveImage { name: "none".parse().unwrap() });
            let entry = Entry { request, at: TimestampMs(at), command };
            assert_eq!(apply(state, *index, entry).unwrap_err().code, Code::NotFound);
        }
    }

    /// I7: at ten thousand writes a second an answer was forgotten in less than one.
    #[test]
    fn a_busy_minute_pushed_answers_out() {
        let (mut state, mut index) = (State::default(), 0);
        answer(&mut state, &mut index, LEAST * 3, 1_000);
        assert_eq!((state.answered.len(), state.answers_forgotten), (LEAST * 3, Revision(0)));
        // Some at a time, once they are old.
        answer(&mut state, &mut index, LEAST, 1_001 + AGE_MS);
        assert_eq!(state.answered.len(), LEAST * 2);
        assert_eq!(state.answers_forgotten, Revision(2 * LEAST as u64));
        answer(&mut state, &mut index, LEAST * 2, 1_001 + AGE_MS);
        assert_eq!(state.answered.len(), LEAST * 3, "those are young");
        // A clock that went back makes none old, and one that went ahead leaves the newest.
        answer(&mut state, &mut index, 10, 0);
        assert_eq!(state.answered.len(), LEAST * 3 + 10);
        answer(&mut state, &mut index, LEAST * 3, u64::MAX);
        assert_eq!(state.answered.len(), LEAST * 3, "and what came now");
        let queues = [state.answered_order.len(), state.answered_in.len(), state.answered_at.len()];
        assert_eq!(queues, [LEAST * 3; 3]);
    }

    /// However many come, and whatever they are told, they stay small.
    #[test]
    fn answers_are_few_and_small() {
        let (mut state, words) = (State::default(), "ä".repeat(10_000));
        let operation = Outcome::Operation {
            container: ContainerUid(Uuid::nil()),
            operation: OperationId(Uuid::nil()),
        };
        for n in 0..MOST as u64 + 10 {
            let answer = match n % 8_192 {
                0 => Err(Refusal::new(Code::InUse, words.clone())),
                n if n % 2 == 0 => Ok(operation.clone()),
                n => Ok(Outcome::Version(Revision(1 << 40 | n))),
            };
            let request = RequestId(Uuid::from_u64_pair(n, n));
            state.remember(request, Revision(1 << 40 | n), TimestampMs(1 << 40), &answer);
        }
        assert_eq!(state.answered.len(), MOST);
        let refused = state.answered.values().filter_map(|answer| answer.as_ref().err());
        let words: Vec<_> = refused.map(|refusal| refusal.message.len()).collect();
        assert!(words.len() > 30 && words.iter().all(|bytes| *bytes < WORDS + 8));
        assert!(size_of::<(RequestId, Response)>() <= 64);
        let encoded = rmp_serde::to_vec_named(&state).unwrap().len() / MOST;
        assert!(encoded < 130, "{encoded} bytes each");
    }
}
