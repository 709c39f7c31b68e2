//! What an agent is told at its start.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use holdfast_proto::Dialers;
use holdfast_types::{ClusterId, NodeId};

use crate::replicate::TransferLimits;
use crate::scrub::ScrubPace;
use crate::standing::Standing;

/// Who this node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgentIdentity {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Itself.
    pub node: NodeId,
}

/// How an agent starts.
#[derive(Clone)]
pub struct AgentConfig {
    /// Who this node is.
    pub identity: AgentIdentity,
    /// Volumes are mounted below `mounts/` in it.
    pub data_dir: PathBuf,
    /// Where the guardian listens.
    pub guardian_socket: PathBuf,
    /// The guardian's program, for entering its namespaces.
    pub guardian_binary: PathBuf,
    /// The link group of every protected container's host-side veth, as the guardian was told: it
    /// sets the whole group down.
    pub link_group: u32,
    /// Path of this node's cgroups below every hierarchy's mount point.
    pub cgroup_root: String,
    /// The helper that freezes and thaws filesystems (`holdfast-freeze`).
    pub freeze_binary: PathBuf,
    /// How often mounted filesystems are trimmed; never if zero.
    pub trim_every: Duration,
    /// This node's address below the overlay.
    pub underlay: Ipv4Addr,
    /// VXLAN endpoints of the overlay that are no nodes.
    pub overlay_gateways: Vec<Ipv4Addr>,
    /// VXLAN network identifier.
    pub vxlan_id: u32,
    /// UDP port of the overlay.
    pub vxlan_port: u16,
    /// How thoroughly this node's copies are looked at.
    pub scrub: ScrubPace,
    /// How many transfers it has at a time, and how fast they go.
    pub transfers: TransferLimits,
    /// Whether this node only votes: it runs nothing, so that it needs no guardian to hold its lease.
    pub witness: bool,
    /// How other nodes are called.
    pub dialers: Dialers,
    /// Whom this node believes.
    pub standing: Arc<Standing>,
    /// Addresses at which a leader may be asked for, `host:port`.
    pub seeds: Vec<String>,
}
