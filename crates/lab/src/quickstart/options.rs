//! What is to be rehearsed.

use std::path::PathBuf;

use clap::ValueEnum;

use crate::pace::Pace;
use crate::programs::Programs;

/// Which node loses its power; the container is placed there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// A node that takes no part in Raft (the lab gets one).
    Worker,
    /// A voter that does not lead.
    Follower,
    /// The Raft leader.
    Leader,
}

/// What the container is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ImageKind {
    /// Debian's busybox and three scripts: 2 MB.
    Busybox,
    /// Debian 12 with systemd, made by mmdebstrap.
    Debian12,
}

/// Everything about a rehearsal.
#[derive(Debug, Clone)]
pub struct QuickstartOptions {
    /// The lab's name.
    pub name: String,
    /// Where its nodes keep their data.
    pub dir: Option<PathBuf>,
    /// What its nodes run.
    pub programs: Programs,
    /// Blank disks, one a node, to make LVM pools of.
    pub devices: Vec<PathBuf>,
    /// How much slower than usual this machine is.
    pub pace: Pace,
    /// Whose power is cut; any node's, at random, by default.
    pub kill: Option<Target>,
    /// How often.
    pub rounds: u32,
    /// Leave the lab up.
    pub keep: bool,
    /// Where the nodes' logs are left, whole, when something goes wrong.
    pub logs: Option<PathBuf>,
    /// What the container is made of.
    pub image: ImageKind,
    /// Bytes that the container rewrites each second besides its records.
    pub noise_bytes_per_s: u64,
}

impl QuickstartOptions {
    /// One round on any node, with busybox.
    pub fn new(name: &str, programs: Programs) -> Self {
        Self {
            name: name.to_owned(),
            dir: None,
            programs,
            devices: Vec::new(),
            pace: Pace::default(),
            kill: None,
            rounds: 1,
            keep: false,
            logs: None,
            image: ImageKind::Busybox,
            noise_bytes_per_s: 0,
        }
    }
}
