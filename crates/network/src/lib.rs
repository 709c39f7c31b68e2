//! The network of one node: the bridge that containers sit on, the VXLAN overlay that joins the
//! bridges of all nodes into one Ethernet segment, and each container's veth pair.
//!
//! ```text
//!  container netns          node netns
//!  ┌──────────────┐
//!  │ eth0 (hc…)   ├─veth─ hv… ┐
//!  └──────────────┘           ├─ hf0 (bridge) ─ hf0x (VXLAN, UDP 7789) ─ underlay ─ other nodes
//!  ┌──────────────┐           │
//!  │ eth0 (hc…)   ├─veth─ hv… ┘
//!  └──────────────┘
//! ```
//!
//! A container keeps its MAC and IPv4 address wherever it runs, so a move changes nothing but
//! which bridge port answers for the MAC: [`Network::announce`] teaches that to every bridge and
//! VXLAN device at once, where they would otherwise forward to the old node for minutes.
//!
//! The host sides of protected containers share one *link group* (`IFLA_GROUP`), which the
//! guardian takes down and up in a single netlink request when it fences and thaws (DESIGN
//! section 5, rule 3). This crate only puts them into the group, and never brings a link up that
//! its caller did not ask for.
//!
//! Each verb compares what is there with what should be, changes only the difference, and says
//! whether there was one; all may be called again at any time. Devices of ours carry an alias
//! (`ip -d link`) that says so; a device without it is never touched, even under our name.

mod arp;
mod attach;
mod error;
mod fdb;
mod iface;
mod link;
mod linux;
mod netlink;
mod overlay;
mod spec;
mod sys;

#[cfg(any(test, feature = "fake"))]
pub mod fake;

use std::net::Ipv4Addr;

use async_trait::async_trait;
use holdfast_types::{ContainerUid, MacAddr};

pub use error::NetworkError;
pub use iface::IfName;
pub use linux::LinuxNetwork;
pub use spec::{AttachSpec, AttachedLink, BridgeAddress, LinkNames, Outcome, OverlaySpec};

/// What the agent needs from a node's network.
#[async_trait]
pub trait Network: Send + Sync {
    /// Makes the bridge and the VXLAN device as the spec says, or mends what differs: missing or
    /// changed devices, their MTU and state, the flood list of peers, the bridge's address.
    async fn ensure_overlay(&self, spec: &OverlaySpec) -> Result<Outcome, NetworkError>;

    /// Makes a fresh veth pair for a container that is about to start: the host side in the
    /// bridge (and in the link group, if it has one), the container side with the container's MAC
    /// in the node's network namespace, for the runtime to move into the container. A pair left
    /// over from an earlier run is replaced. Not for a running container: its link would be cut.
    async fn attach(&self, spec: &AttachSpec) -> Result<LinkNames, NetworkError>;

    /// Brings the host side of a container's link up or down. Up is only for a container that may
    /// run: pinned, or protected under a live lease.
    async fn set_up(&self, uid: ContainerUid, up: bool) -> Result<Outcome, NetworkError>;

    /// Removes a container's veth pair.
    async fn detach(&self, uid: ContainerUid) -> Result<Outcome, NetworkError>;

    /// Every veth pair of ours on this node, by container uid: to find leftovers.
    async fn attached(&self) -> Result<Vec<AttachedLink>, NetworkError>;

    /// Tells every node that the container's MAC and address are here now: broadcasts gratuitous
    /// ARP (RFC 5227) with the container's MAC as source and points this node's own bridge at the
    /// container's port. Sends once before it returns, then at +100 ms, +300 ms and +1 s in the
    /// background, for frames that got lost or came before the link had a carrier. Refused while
    /// the link is down: a fenced node must not draw its container's traffic back to itself.
    async fn announce(
        &self,
        uid: ContainerUid,
        mac: MacAddr,
        address: Ipv4Addr,
    ) -> Result<(), NetworkError>;
}
