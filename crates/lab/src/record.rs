//! The lab's record of itself, and the lock that its commands take.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use holdfast_types::ByteSize;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::LabError;
use crate::clock::BootInstant;
use crate::layout::Layout;
use crate::pace::Pace;
use crate::programs::Programs;

/// What a node is in the cluster that the lab forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Takes part in Raft.
    Voter,
    /// Has the log, and a vote only when one of the voters is lost.
    Standby,
    /// Runs containers only.
    Worker,
}

/// Whether a node has power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "power")]
pub enum Power {
    /// Its init was started and not killed since.
    On,
    /// Its power was cut at this instant (the last moment at which all was well).
    Off {
        /// CLOCK_BOOTTIME.
        since_boot_ns: BootInstant,
    },
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Its name, `n1` and so on.
    pub name: String,
    /// What it is in the cluster.
    pub role: Role,
    /// Its address on the fabric.
    pub address: Ipv4Addr,
    /// Whether it has power.
    #[serde(flatten)]
    pub power: Power,
    /// Whether its link to the fabric is up.
    pub linked: bool,
    /// The disk that its pool is a volume group on; without one the pool is a file on XFS.
    #[serde(default)]
    pub device: Option<PathBuf>,
}

/// Why a lab was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// Somebody asked for it, and will take it down.
    Use,
    /// A rehearsal, which may be replaced by the next.
    Rehearsal,
}

/// The whole lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabRecord {
    /// Its name.
    pub name: String,
    /// Why it was made.
    pub purpose: Purpose,
    /// Where its data is.
    pub dir: PathBuf,
    /// What its nodes run.
    pub programs: Programs,
    /// Size of each node's pool.
    pub pool_size: ByteSize,
    /// How much slower than usual this machine is.
    #[serde(default)]
    pub pace: Pace,
    /// Its nodes, in order.
    pub nodes: Vec<NodeRecord>,
    /// One-way cuts: frames from the first to the second node are dropped.
    pub drops: BTreeSet<(String, String)>,
}

impl LabRecord {
    /// The record of the lab with this name.
    pub(crate) fn load(layout: &Layout) -> Result<Self, LabError> {
        let path = layout.state_file();
        let text = match fs::read_to_string(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(LabError::NoLab(layout.name().to_owned()));
            }
            other => other.map_err(LabError::io("cannot read", &path))?,
        };
        serde_json::from_str(&text).map_err(|e| LabError::Corrupt { path, why: e.to_string() })
    }

    pub(crate) fn save(&self, layout: &Layout) -> Result<(), LabError> {
        let path = layout.state_file();
        let text = serde_json::to_string_pretty(self)
            .map_err(|e| LabError::Corrupt { path: path.clone(), why: e.to_string() })?;
        let next = path.with_extension("new");
        fs::write(&next, text).map_err(LabError::io("cannot write", &next))?;
        fs::rename(&next, &path).map_err(LabError::io("cannot write", &path))
    }

    pub(crate) fn node(&self, name: &str) -> Result<&NodeRecord, LabError> {
        let have = || self.nodes.iter().map(|n| n.name.as_str()).collect::<Vec<_>>().join(", ");
        let missing = || LabError::NoNode { node: name.to_owned(), have: have() };
        self.nodes.iter().find(|n| n.name == name).ok_or_else(missing)
    }
}

/// Holds off other commands on the same lab until dropped.
pub(crate) struct LabLock {
    lock: Flock<File>,
    path: PathBuf,
}

impl LabLock {
    pub(crate) fn take(layout: &Layout) -> Result<Self, LabError> {
        let path = layout.lock_file();
        loop {
            let file = OpenOptions::new()
                .create(true)
                .append(true)
                .open(&path)
                .map_err(LabError::io("cannot open", &path))?;
            let lock = Flock::lock(file, FlockArg::LockExclusive)
                .map_err(|(_, source)| LabError::Sys { what: "cannot lock the lab", source })?;
            // The holder before may have removed the file while this one waited for it.
            let ours = lock.metadata().map(|m| m.ino()).ok();
            if fs::metadata(&path).map(|m| m.ino()).ok() == ours {
                return Ok(Self { lock, path });
            }
        }
    }

    /// Lets go and leaves no file behind.
    pub(crate) fn remove(self) {
        let _ = fs::remove_file(&self.path);
        drop(self.lock);
    }
}
