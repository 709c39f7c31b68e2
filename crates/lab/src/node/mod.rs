//! What runs *inside* the making of a node: small programs, one after the other.
//!
//! ```text
//! lab up ── node-boot: enters the node's netns and cgroups, unshares, mounts ── ends
//!                └── node-init: pid 1 of the node; starts, reaps, restarts
//!                        ├── node-fuse: dies, and the node with it
//!                        ├── node-exec → holdfast-guardian serve …
//!                        └── node-exec → holdfastd --config …
//! ```
//!
//! SIGKILL to node-init ends every process of the node at once: the lab's power cut.

mod boot;
mod exec;
mod init;

pub use boot::boot;
pub use exec::exec;
pub use init::{fuse, init};
