//! The one function that changes the state.

use crate::{Entry, Outcome, Response, State};

/// Applies the entry at log index `index`.
pub fn apply(_state: &mut State, _index: u64, _entry: Entry) -> Response {
    Ok(Outcome::Done)
}
