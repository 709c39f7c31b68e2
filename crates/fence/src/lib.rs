//! The fence: a small separate process, the *guardian*, that stops every protected container when
//! the node's lease runs out (DESIGN section 5, rule 3), and the client that the agent uses.
//!
//! Protected containers live below one cgroup, the *ancestor*, and in one pid namespace, whose
//! init is the guardian's child. The agent renews the lease through [`GuardianClient`]; when it
//! stops doing so, for whatever reason, the guardian freezes the ancestor and sets the containers'
//! links down, by itself. Programs are started under the fence by [`enter_command`].

pub mod args;
mod child;
mod client;
mod clock;
pub mod enter;
pub mod guardian;
mod launch;
pub mod protocol;
mod sys;
mod unified;

pub use child::{ChildPath, ChildPathError};
pub use client::{DEFAULT_TIMEOUT, GuardianClient, GuardianError};
pub use clock::boottime_ns;
pub use holdfast_types::Code;
pub use launch::enter_command;
pub use unified::find_unified;
