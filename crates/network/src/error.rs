//! What can go wrong with the network, and what to do about it.

use std::io;
use std::net::Ipv4Addr;

use holdfast_types::{Code, ContainerUid};

use crate::IfName;

/// A network call that did not succeed. What it had changed by then stays; calling again goes on
/// from there.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A text that cannot name a network device.
    #[error("{text:?} cannot name a network device: 1 to 15 visible characters without / and :")]
    BadName {
        /// The text as given, cut to 80 characters.
        text: String,
    },
    /// A number in a spec that the kernel could not take.
    #[error("{what} cannot be {value}: it must be {range}")]
    OutOfRange {
        /// Which field.
        what: &'static str,
        /// Its value.
        value: u32,
        /// What is allowed.
        range: &'static str,
    },
    /// The process may not change network devices.
    #[error("cannot {what}: changing network devices needs root (CAP_NET_ADMIN)")]
    NotPermitted {
        /// What was tried.
        what: String,
    },
    /// A device of somebody else has a name that we need.
    #[error("the network device {name} is not one of ours ({why}): rename or remove it")]
    NameTaken {
        /// The device.
        name: IfName,
        /// How we know.
        why: String,
    },
    /// Another VXLAN device of this node has our identifier and port.
    #[error(
        "another VXLAN device has identifier {vxlan_id} on UDP port {port}: remove it, or give \
         this cluster another identifier"
    )]
    VxlanTaken {
        /// The identifier.
        vxlan_id: u32,
        /// The UDP port.
        port: u16,
    },
    /// Another program of this node has the overlay's UDP port.
    #[error("UDP port {port} is taken: stop what has it, or give the overlay another port")]
    PortTaken {
        /// The UDP port.
        port: u16,
    },
    /// The kernel cannot make a kind of device.
    #[error(
        "the kernel cannot make {kind} devices: load its module (modprobe {kind}), or run a kernel \
         that has it"
    )]
    KindMissing {
        /// `bridge`, `vxlan` or `veth`.
        kind: &'static str,
    },
    /// No device has the address that the overlay should send from.
    #[error("no network device of this node has the address {address}: check the node's address")]
    NoUnderlay {
        /// The address.
        address: Ipv4Addr,
    },
    /// The bridge that a link should join is not there.
    #[error("the bridge {bridge} does not exist yet: the overlay must be made first")]
    NoBridge {
        /// The bridge.
        bridge: IfName,
    },
    /// The container has no link on this node.
    #[error("container {uid} has no network link on this node")]
    NotAttached {
        /// The container.
        uid: ContainerUid,
    },
    /// The container's link is down, so its address is not here.
    #[error("the network link of container {uid} is down: bring it up first")]
    LinkDown {
        /// The container.
        uid: ContainerUid,
    },
    /// The kernel refused something else.
    #[error("cannot {what}")]
    Kernel {
        /// What was tried.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The netlink socket closed or spoke nonsense.
    #[error("cannot {what}: netlink: {detail}")]
    Netlink {
        /// What was tried.
        what: String,
        /// What was wrong.
        detail: String,
    },
}

impl NetworkError {
    /// The stable code of this failure.
    pub fn code(&self) -> Code {
        match self {
            Self::BadName { .. } | Self::OutOfRange { .. } => Code::InvalidArgument,
            Self::NotPermitted { .. } => Code::NotRoot,
            Self::NotAttached { .. } => Code::NotFound,
            Self::LinkDown { .. } => Code::WrongState,
            Self::PortTaken { .. } => Code::AddressInUse,
            Self::NameTaken { .. }
            | Self::VxlanTaken { .. }
            | Self::KindMissing { .. }
            | Self::NoUnderlay { .. }
            | Self::NoBridge { .. }
            | Self::Kernel { .. }
            | Self::Netlink { .. } => Code::Network,
        }
    }
}
