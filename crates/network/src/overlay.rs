//! The bridge and the VXLAN device: made if missing, mended if different.

use std::net::Ipv4Addr;

use holdfast_types::MacAddr;
use nix::libc;
use rtnetlink::{LinkBridge, LinkUnspec, LinkVxlan};

use crate::fdb::ensure_flood_list;
use crate::link::{Link, OVERLAY_ALIAS, Vxlan};
use crate::netlink::Netlink;
use crate::{IfName, NetworkError, Outcome, OverlaySpec};

/// What VXLAN over IPv4 adds to each frame (RFC 7348): Ethernet, IPv4, UDP and its own header.
const VXLAN_OVERHEAD: u32 = 50;
/// The smallest MTU of IPv4 (RFC 791).
const MIN_MTU: u32 = 68;

/// The overlay's two devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Devices {
    pub(crate) bridge: IfName,
    pub(crate) vxlan: IfName,
}

impl Devices {
    /// The VXLAN device is named after the bridge, with an `x`.
    pub(crate) fn of(bridge: IfName) -> Result<Self, NetworkError> {
        let vxlan = format!("{bridge}x").parse()?;
        Ok(Self { bridge, vxlan })
    }
}

/// See [`crate::Network::ensure_overlay`].
pub(crate) async fn ensure(
    netlink: &Netlink,
    devices: &Devices,
    spec: &OverlaySpec,
) -> Result<Outcome, NetworkError> {
    check(spec)?;
    let mtu = match spec.mtu {
        Some(mtu) => mtu,
        None => underlay_mtu(netlink, spec.local).await?.saturating_sub(VXLAN_OVERHEAD),
    };

    let (bridge, made_bridge) = bridge(netlink, &devices.bridge, spec).await?;
    let wanted = Wanted { mac: own_mac(0x49, spec.local), mtu, master: None };
    let mended_bridge = mend(netlink, &devices.bridge, &bridge, &wanted).await?;
    let addressed = address(netlink, &bridge, spec).await?;

    let (vxlan, made_vxlan) = vxlan(netlink, &devices.vxlan, spec).await?;
    let wanted = Wanted { mac: own_mac(0x4a, spec.local), mtu, master: Some(bridge.index) };
    let mended_vxlan = mend(netlink, &devices.vxlan, &vxlan, &wanted)
        .await
        .map_err(|e| port_taken(e, spec.port))?;
    let flooded = ensure_flood_list(netlink, vxlan.index, &spec.peers).await?;

    Ok([made_bridge, mended_bridge, addressed, made_vxlan, mended_vxlan, flooded]
        .into_iter()
        .fold(Outcome::Same, Outcome::or))
}

fn check(spec: &OverlaySpec) -> Result<(), NetworkError> {
    let out = |what, value, range| Err(NetworkError::OutOfRange { what, value, range });
    if spec.vxlan_id == 0 || spec.vxlan_id >= 1 << 24 {
        return out("a VXLAN identifier", spec.vxlan_id, "1 to 16777215");
    }
    if spec.port == 0 {
        return out("the overlay's UDP port", 0, "1 to 65535");
    }
    match (spec.mtu, spec.address) {
        (Some(mtu), _) if !(MIN_MTU..=65535).contains(&mtu) => {
            out("the overlay's MTU", mtu, "68 to 65535 bytes")
        }
        (_, Some(at)) if at.prefix > 32 => out("a prefix length", u32::from(at.prefix), "0 to 32"),
        _ => Ok(()),
    }
}

/// The MTU of the device that has the node's underlay address.
async fn underlay_mtu(netlink: &Netlink, local: Ipv4Addr) -> Result<u32, NetworkError> {
    let addresses = netlink.addresses(None).await?;
    let index = addresses.iter().find(|a| a.at.address == local).map(|a| a.index);
    let links = netlink.links().await?;
    links
        .iter()
        .find(|link| Some(link.index) == index)
        .map(|link| link.mtu)
        .ok_or(NetworkError::NoUnderlay { address: local })
}

async fn bridge(
    netlink: &Netlink,
    name: &IfName,
    spec: &OverlaySpec,
) -> Result<(Link, Outcome), NetworkError> {
    let mac = own_mac(0x49, spec.local);
    if let Some(link) = netlink.link(name).await? {
        link.check_ours(name, "bridge", OVERLAY_ALIAS, mac)?;
        return Ok((link, Outcome::Same));
    }
    let message = LinkBridge::new(name.as_str()).address(mac.0.to_vec()).build();
    netlink.add(name, "bridge", message).await?;
    Ok((made(netlink, name).await?, Outcome::Changed))
}

async fn vxlan(
    netlink: &Netlink,
    name: &IfName,
    spec: &OverlaySpec,
) -> Result<(Link, Outcome), NetworkError> {
    let mac = own_mac(0x4a, spec.local);
    let wanted =
        Vxlan { id: spec.vxlan_id, port: spec.port, local: Some(spec.local), learning: true };
    if let Some(link) = netlink.link(name).await? {
        link.check_ours(name, "vxlan", OVERLAY_ALIAS, mac)?;
        if link.vxlan == wanted {
            return Ok((link, Outcome::Same));
        }
        // None of these can be changed in place.
        netlink.remove(&link).await?;
    }
    let message = LinkVxlan::new(name.as_str(), spec.vxlan_id)
        .address(mac.0.to_vec())
        .port(spec.port)
        .local(spec.local)
        .learning(true)
        .build();
    netlink.add(name, "vxlan", message).await.map_err(|e| match e {
        NetworkError::Kernel { source, .. } if source.raw_os_error() == Some(libc::EEXIST) => {
            NetworkError::VxlanTaken { vxlan_id: spec.vxlan_id, port: spec.port }
        }
        other => other,
    })?;
    Ok((made(netlink, name).await?, Outcome::Changed))
}

/// What can be changed on a device that exists.
struct Wanted {
    mac: MacAddr,
    mtu: u32,
    master: Option<u32>,
}

/// Sets what differs, the alias first: from then on the device is known to be ours.
async fn mend(
    netlink: &Netlink,
    name: &IfName,
    link: &Link,
    wanted: &Wanted,
) -> Result<Outcome, NetworkError> {
    let change = || LinkUnspec::new_with_index(link.index);
    let mut changes = Vec::new();
    if link.alias.as_deref() != Some(OVERLAY_ALIAS) {
        changes.push(("set the alias of", change().alias(OVERLAY_ALIAS)));
    }
    if link.mac != Some(wanted.mac) {
        changes.push(("set the MAC of", change().address(wanted.mac.0.to_vec())));
    }
    if link.mtu != wanted.mtu {
        changes.push(("set the MTU of", change().mtu(wanted.mtu)));
    }
    if link.master != wanted.master {
        changes.push(("set the bridge of", change().controller(wanted.master.unwrap_or(0))));
    }
    if !link.up {
        changes.push(("bring up", change().up()));
    }
    let outcome = if changes.is_empty() { Outcome::Same } else { Outcome::Changed };
    for (verb, change) in changes {
        netlink.set(&format!("{verb} the network device {name}"), change.build()).await?;
    }
    Ok(outcome)
}

async fn address(
    netlink: &Netlink,
    bridge: &Link,
    spec: &OverlaySpec,
) -> Result<Outcome, NetworkError> {
    let mut present = netlink.addresses(Some(bridge.index)).await?;
    let kept = present.iter().position(|a| Some(a.at) == spec.address);
    if let Some(kept) = kept {
        present.remove(kept);
    }
    let missing = spec.address.filter(|_| kept.is_none());
    let outcome =
        if present.is_empty() && missing.is_none() { Outcome::Same } else { Outcome::Changed };
    for stray in present {
        netlink.remove_address(stray).await?;
    }
    if let Some(missing) = missing {
        netlink.add_address(bridge.index, missing).await?;
    }
    Ok(outcome)
}

/// The device that was just made.
pub(crate) async fn made(netlink: &Netlink, name: &IfName) -> Result<Link, NetworkError> {
    netlink.link(name).await?.ok_or_else(|| NetworkError::Netlink {
        what: format!("make the network device {name}"),
        detail: "it vanished at once".to_owned(),
    })
}

/// A MAC of the overlay's own devices: it follows from the node's address and so is the same after
/// every repair. (A bridge left to itself takes the lowest MAC of its ports, and changes it when a
/// container comes or goes.)
fn own_mac(kind: u8, local: Ipv4Addr) -> MacAddr {
    let [a, b, c, d] = local.octets();
    MacAddr([0x02, kind, a, b, c, d])
}

fn port_taken(error: NetworkError, port: u16) -> NetworkError {
    match error {
        NetworkError::Kernel { source, .. } if source.raw_os_error() == Some(libc::EADDRINUSE) => {
            NetworkError::PortTaken { port }
        }
        other => other,
    }
}
