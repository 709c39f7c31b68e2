//! A whole Holdfast cluster on one machine (DESIGN sections 3 and 10).
//!
//! Each node is a network, mount and pid namespace with its own sysfs, procfs and cgroups, which
//! runs the real daemon and guardian; a bridge in a namespace of its own is the network between
//! them. SIGKILL to a node's init ends all its processes in one stroke: a power cut. What is not
//! lost, and would be on a real machine, is data written and not yet synced: the kernel is shared.
//!
//! Behind `holdfast lab`, the quickstart and the chaos tests.

mod client;
mod clock;
mod cluster;
mod config;
mod error;
mod fill;
mod lab;
mod layout;
mod links;
pub mod node;
pub mod observe;
mod pace;
mod parts;
mod plan;
mod plumbing;
mod power;
mod programs;
pub mod quickstart;
mod record;
mod rot;
mod scoped;
mod status;
mod sys;
mod teardown;
mod up;
mod wait;
pub mod workload;

pub use client::in_client;
pub use clock::{BootInstant, wall_ms};
pub use cluster::Cluster;
pub use error::LabError;
pub use lab::Lab;
pub use layout::{CLIENT_ADDRESS, CLIENT_OVERLAY_ADDRESS, DEFAULT_LAB, Layout};
pub use pace::{Pace, PaceError};
pub use plan::Part;
pub use plumbing::tool::check_machine;
pub use programs::{BIN_DIR_VARIABLE, Programs};
pub use record::{LabRecord, NodeRecord, Power, Purpose, Role};
pub use scoped::ScopedLab;
pub use status::{NodeStatus, PartStatus};
pub use up::UpOptions;
pub use wait::wait_until;
