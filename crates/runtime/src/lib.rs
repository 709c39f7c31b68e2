//! Runs containers: the [`Runtime`] trait, its LXC driver, an in-memory fake, and images.
//!
//! Everything here blocks: an async caller wraps it in `spawn_blocking`. What is asked for comes
//! in as values ([`StartRequest`]), verbs say whether anything changed ([`Started`], [`Stopped`],
//! [`Changed`]), and no call waits for ever: a helper program that overruns its deadline (as every
//! `lxc-*` does against a frozen tree) is killed and reported as [`RuntimeError::Timeout`].
//!
//! The runtime starts what it is told to start. Whether a start is *allowed* (lease, epoch,
//! guardian; DESIGN section 5) is decided before it is called.

mod error;
mod exec;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod image;
pub mod lxc;
mod process;
mod runtime;
mod sys;

pub use error::RuntimeError;
pub use exec::{ExecChild, ExecOutput, ExecRequest, ExecSession, ExecStatus, TermSize};
pub use runtime::{
    Changed, ContainerMount, ContainerNet, RunEvent, Runtime, StartRequest, Started, Status,
    Stopped, Usage, Watching,
};
