//! The LXC 5 driver: Debian's `lxc-start` and `lxc-attach`, and plain cgroup files for everything
//! that is asked often or must never hang.

mod attach;
mod conf;
mod config;
mod driver;
mod enter;
mod groups;
mod hierarchies;
pub(crate) mod init;
mod logs;
mod reach;
mod start;
mod stop;
mod terminal;
mod watcher;

pub use config::LxcConfig;
pub use driver::LxcRuntime;
pub use enter::{Enter, Unguarded};
pub use hierarchies::{Carrier, Hierarchies};
pub use start::apparmor_enabled;

use crate::error::io_error;
