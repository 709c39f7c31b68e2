//! The outside observer: which containers run on which node, judged from the host by what their
//! tasks do, never by what a daemon says.
//!
//! It polls the cgroups of all protected containers of a lab every [`PERIOD`] and makes *run
//! intervals* of what it sees; [`sweep()`] then judges invariant I8 on them: no two run intervals of
//! one container overlap on different nodes.

mod sweep;
mod task;
mod watch;

pub use sweep::{Interval, Verdict, sweep};
pub use watch::{Observation, Observer, PERIOD};
