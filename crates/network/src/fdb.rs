//! Forwarding entries (bridge(8) `fdb`): the VXLAN device's flood list, and which bridge port a
//! container's MAC is at.
//!
//! rtnetlink 0.24 adds neighbours with `NLM_F_EXCL` or `NLM_F_REPLACE` only. A flood list is many
//! destinations under the one all-zero MAC, which needs `NLM_F_APPEND`, so these messages are
//! built here from the packet types.

use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;

use holdfast_types::MacAddr;
use nix::libc;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, NLM_F_REQUEST,
};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::netlink::{Netlink, kernel};
use crate::{NetworkError, Outcome};

/// The MAC under which a VXLAN device keeps the destinations of broadcast and unknown frames.
const FLOOD: MacAddr = MacAddr([0; 6]);

/// Makes the flood list of a VXLAN device equal to `peers`.
pub(crate) async fn ensure_flood_list(
    netlink: &Netlink,
    vxlan: u32,
    peers: &BTreeSet<Ipv4Addr>,
) -> Result<Outcome, NetworkError> {
    let present = flood_list(netlink, vxlan).await?;
    for peer in peers.difference(&present) {
        let message = flood_entry(vxlan, *peer);
        let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_APPEND;
        match netlink.request(RouteNetlinkMessage::NewNeighbour(message), flags).await {
            Err(e) if e.raw_os_error() != Some(libc::EEXIST) => {
                return Err(kernel(&format!("add {peer} to the overlay's flood list"), e));
            }
            _ => {}
        }
    }
    for gone in present.difference(peers) {
        remove(netlink, flood_entry(vxlan, *gone))
            .await
            .map_err(|e| kernel(&format!("remove {gone} from the overlay's flood list"), e))?;
    }
    Ok(if present == *peers { Outcome::Same } else { Outcome::Changed })
}

/// Points the bridge at `port` for frames to `mac`, wherever it pointed before. While the port
/// has no carrier the kernel takes no entry (`EPERM`); then the one through `vxlan` is removed,
/// so that frames to the MAC are flooded rather than sent to the node where it was.
pub(crate) async fn point_at(
    netlink: &Netlink,
    port: u32,
    vxlan: Option<u32>,
    mac: MacAddr,
) -> Result<(), NetworkError> {
    let mut message = entry(port, mac, NeighbourFlags::Controller);
    message.header.state = NeighbourState::Reachable;
    let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
    let refusal = match netlink.request(RouteNetlinkMessage::NewNeighbour(message), flags).await {
        Ok(_) => return Ok(()),
        Err(e) => e,
    };
    match (refusal.raw_os_error(), vxlan) {
        (Some(libc::EPERM), Some(vxlan)) => {
            let stale = entry(vxlan, mac, NeighbourFlags::Controller);
            remove(netlink, stale).await
        }
        _ => Err(refusal),
    }
    .map_err(|e| kernel(&format!("point the bridge at the port of {mac}"), e))
}

/// The destinations now in the flood list of a VXLAN device.
async fn flood_list(netlink: &Netlink, vxlan: u32) -> Result<BTreeSet<Ipv4Addr>, NetworkError> {
    let mut filter = NeighbourMessage::default();
    filter.header.family = AddressFamily::Bridge;
    filter.header.ifindex = vxlan;
    let entries = netlink
        .request(RouteNetlinkMessage::GetNeighbour(filter), NLM_F_REQUEST | NLM_F_DUMP)
        .await
        .map_err(|e| kernel("list the overlay's forwarding entries", e))?;
    Ok(entries
        .iter()
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewNeighbour(entry) if entry.header.ifindex == vxlan => {
                flood_destination(entry)
            }
            _ => None,
        })
        .collect())
}

fn flood_destination(entry: &NeighbourMessage) -> Option<Ipv4Addr> {
    let is_flood = |a: &NeighbourAttribute| matches!(a, NeighbourAttribute::LinkLayerAddress(mac) if mac[..] == FLOOD.0);
    entry.attributes.iter().find(|a| is_flood(a))?;
    entry.attributes.iter().find_map(|a| match a {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(*address),
        // In messages of the bridge family the packet types leave the address as bytes.
        NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => {
            <[u8; 4]>::try_from(bytes.as_slice()).ok().map(Ipv4Addr::from)
        }
        _ => None,
    })
}

fn flood_entry(vxlan: u32, peer: Ipv4Addr) -> NeighbourMessage {
    let mut message = entry(vxlan, FLOOD, NeighbourFlags::Own);
    message.header.state = NeighbourState::Permanent;
    message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::Inet(peer)));
    message
}

/// An entry of the device's own table (`Own`) or of the bridge that it is a port of
/// (`Controller`, the kernel's `NTF_MASTER`).
fn entry(index: u32, mac: MacAddr, table: NeighbourFlags) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = index;
    message.header.flags = table;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    message
}

async fn remove(netlink: &Netlink, message: NeighbourMessage) -> Result<(), io::Error> {
    let flags = NLM_F_REQUEST | NLM_F_ACK;
    match netlink.request(RouteNetlinkMessage::DelNeighbour(message), flags).await {
        Err(e) if e.raw_os_error() != Some(libc::ENOENT) => Err(e),
        _ => Ok(()),
    }
}
