//! What one node does next about one container: desired × observed → an action, or nothing.
//!
//! Pure. The agent asks again after each action, so an action interrupted anywhere, or a world that
//! changed under it, is simply looked at anew. There is no memory in here.
//!
//! ```text
//!  assigned:  [kill stale run] ─▶ demote what diverged ─▶ clone image | promote branch
//!                 ─▶ mount ─▶ start            (gate: live lease, fresh view; DESIGN 5 rule 6)
//!                 ─▶ stop ─▶ unmount           (desired: stopped)
//!                 ─▶ grow the disk             (last: it keeps nothing from running)
//!  replica:   kill ─▶ unmount ─▶ demote        (then deltas arrive)
//!  removed:   kill ─▶ unmount ─▶ remove ─▶ report
//!  no duty:   kill                             (the data stays: nobody said that it may go)
//! ```

mod kept;
mod next;
mod observed;

pub use next::{Action, Duty, Gate, Step, Why, next};
pub use observed::{Observed, ObservedVolume};
