//! The LXC 5 driver: Debian's `lxc-*` programs, plain cgroup files for everything that is asked
//! often.

mod config;
mod enter;

pub use config::LxcConfig;
pub use enter::{Enter, Unguarded};
