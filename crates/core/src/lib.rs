//! The replicated state of a Holdfast cluster: `apply(&mut State, index, Entry) -> Response` and its queries.
//!
//! Pure, ordered and bit-identical on every node: no clock, no randomness, no map order. Time and
//! ids come in with the entry.

mod apply;
mod entry;
mod state;

pub use apply::apply;
pub use entry::{Command, Entry, Outcome, Refusal, Response};
pub use state::State;
