//! What a caller asks of the network, and what it hears back.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use holdfast_types::{ContainerUid, MacAddr};

use crate::IfName;

/// Whether a call had to change anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Something was made, mended or removed.
    Changed,
    /// All was as it should be.
    Same,
}

impl Outcome {
    /// `Changed` if either is.
    pub fn or(self, other: Outcome) -> Outcome {
        if self == Outcome::Changed { self } else { other }
    }
}

/// The overlay as it should be on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverlaySpec {
    /// VXLAN network identifier, 24 bits: one per cluster on a shared underlay.
    pub vxlan_id: u32,
    /// UDP port of the overlay on every node (IANA's is 4789; ours 7789).
    pub port: u16,
    /// This node's address on the underlay. A device of this node must have it.
    pub local: Ipv4Addr,
    /// Where broadcast and unknown frames go: every other node and gateway on the overlay.
    pub peers: BTreeSet<Ipv4Addr>,
    /// MTU inside the overlay, in bytes; by default the underlay's less VXLAN's 50 (RFC 7348).
    pub mtu: Option<u32>,
    /// The IPv4 address of this node's bridge, for a node that containers reach the world
    /// through. The bridge has no other: `None` takes away what is there.
    pub address: Option<BridgeAddress>,
}

/// An address with its network's prefix length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BridgeAddress {
    /// The address.
    pub address: Ipv4Addr,
    /// Prefix length, 0 to 32.
    pub prefix: u8,
}

/// A container's link as it should be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttachSpec {
    /// Whose link.
    pub uid: ContainerUid,
    /// The MAC of the container's side.
    pub mac: MacAddr,
    /// The link group of the host side: the guardian's for a protected container, `None` (the
    /// kernel's default group 0) for a pinned one.
    pub link_group: Option<u32>,
    /// Whether to bring the host side up at once, or leave it down for [`crate::Network::set_up`].
    pub up: bool,
}

/// The two ends of a container's link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkNames {
    /// In the bridge.
    pub host: IfName,
    /// For the runtime to move into the container (`lxc.net.0.type = phys`).
    pub container: IfName,
}

impl LinkNames {
    /// The names that follow from a container's uid.
    pub fn of(uid: ContainerUid) -> Self {
        Self { host: IfName::host_side(uid), container: IfName::container_side(uid) }
    }
}

/// A link of ours that is on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachedLink {
    /// Whose link.
    pub uid: ContainerUid,
    /// The host side's name.
    pub host: IfName,
    /// The host side's link group; 0 is the kernel's default.
    pub link_group: u32,
    /// Whether the host side is administratively up.
    pub up: bool,
    /// Whether both sides are up, which the kernel calls a carrier.
    pub carrier: bool,
}
