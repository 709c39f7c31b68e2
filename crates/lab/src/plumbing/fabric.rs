//! The network between the nodes: a namespace with a bridge, a veth pair to each node and one to
//! the client, which is also an endpoint of the overlay.
//!
//! Each lab has its own fabric, so addresses may repeat from one lab to the next.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::net::Ipv4Addr;

use holdfast_types::MacAddr;

use super::tool::{run, run_with_input};
use crate::LabError;
use crate::layout::{CLIENT_ADDRESS, CLIENT_OVERLAY_ADDRESS, Layout};

/// The bridge's name, and the port of the client on it.
const BRIDGE: &str = "br0";
const CLIENT_PORT: &str = "client";
/// The overlay as nodes have it by default (DESIGN section 8): VXLAN on 7789/udp.
const VNI: &str = "77";
const VXLAN_PORT: &str = "7789";
/// VXLAN in IPv4 takes 50 bytes of the underlay's 1500.
const OVERLAY_MTU: &str = "1450";

/// Makes the fabric and the client, without nodes.
pub(crate) fn create(layout: &Layout) -> Result<(), LabError> {
    let fabric = layout.fabric();
    run(&["ip", "netns", "add", &fabric])?;
    let bridge =
        format!("link add {BRIDGE} type bridge stp_state 0 forward_delay 0 mcast_snooping 0");
    batch(&fabric, &[&bridge, &format!("link set {BRIDGE} up"), "link set lo up"])?;
    let client = layout.client();
    attach(layout, CLIENT_PORT, &client, CLIENT_ADDRESS)?;
    batch(
        &client,
        &[
            &format!(
                "link add overlay type vxlan id {VNI} dstport {VXLAN_PORT} local {CLIENT_ADDRESS}"
            ),
            &format!("link set overlay mtu {OVERLAY_MTU} up"),
            &format!("address add {CLIENT_OVERLAY_ADDRESS}/16 dev overlay"),
        ],
    )
}

/// Lets the client flood what it cannot address yet to this node too.
pub(crate) fn add_overlay_peer(layout: &Layout, node: Ipv4Addr) -> Result<(), LabError> {
    let (client, node) = (layout.client(), node.to_string());
    let everyone = "00:00:00:00:00:00";
    run(&["bridge", "-n", &client, "fdb", "append", everyone, "dev", "overlay", "dst", &node])?;
    Ok(())
}

/// Makes a network namespace with one link to the fabric, named after the part.
pub(crate) fn attach(
    layout: &Layout,
    port: &str,
    netns: &str,
    address: Ipv4Addr,
) -> Result<(), LabError> {
    run(&["ip", "netns", "add", netns])?;
    // A machine keeps its MAC through a power cut, and others remember it.
    let mac = MacAddr::from_ipv4(address);
    batch(
        &layout.fabric(),
        &[
            &format!("link add {port} type veth peer name eth0 address {mac} netns {netns}"),
            &format!("link set {port} master {BRIDGE} up"),
        ],
    )?;
    let address = format!("address add {address}/24 dev eth0");
    batch(netns, &["link set lo up", "link set eth0 up", &address])
}

/// Removes a node's link and network namespace, if they are there.
pub(crate) fn detach(layout: &Layout, node: &str) -> Result<(), LabError> {
    // The namespace dies later than its name: its end of the link must be gone before.
    let _ = run(&["ip", "-n", &layout.fabric(), "link", "del", node]);
    delete_netns(&layout.netns(node))
}

/// Sets a node's link to the fabric up or down.
pub(crate) fn set_link(layout: &Layout, node: &str, up: bool) -> Result<(), LabError> {
    let state = if up { "up" } else { "down" };
    run(&["ip", "-n", &layout.fabric(), "link", "set", node, state])?;
    Ok(())
}

/// Drops every frame from the first to the second node of each pair, and nothing else.
pub(crate) fn set_drops(
    layout: &Layout,
    drops: &BTreeSet<(String, String)>,
) -> Result<(), LabError> {
    let netns = layout.fabric();
    run_with_input(&["ip", "netns", "exec", &netns, "nft", "-f", "-"], &ruleset(drops))?;
    Ok(())
}

fn ruleset(drops: &BTreeSet<(String, String)>) -> String {
    let mut text = String::from("table bridge cuts\ndelete table bridge cuts\n");
    text.push_str("table bridge cuts {\n chain pass {\n  type filter hook forward priority 0;\n");
    for (from, to) in drops {
        let _ = writeln!(text, "  iifname \"{from}\" oifname \"{to}\" drop");
    }
    text.push_str(" }\n}\n");
    text
}

/// Removes every network namespace of the lab, and with them all links.
pub(crate) fn destroy(layout: &Layout) -> Result<(), LabError> {
    let prefix = layout.netns_prefix();
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        if let Some(name) = entry.file_name().to_str().filter(|n| n.starts_with(&prefix)) {
            delete_netns(name)?;
        }
    }
    Ok(())
}

fn delete_netns(name: &str) -> Result<(), LabError> {
    if std::path::Path::new("/run/netns").join(name).exists() {
        run(&["ip", "netns", "del", name])?;
    }
    Ok(())
}

fn batch(netns: &str, lines: &[&str]) -> Result<(), LabError> {
    run_with_input(&["ip", "-n", netns, "-batch", "-"], &(lines.join("\n") + "\n"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_one_way_cut_drops_one_direction() {
        let text = ruleset(&[("n1".to_owned(), "n2".to_owned())].into());
        assert!(text.contains("iifname \"n1\" oifname \"n2\" drop"));
        assert!(!text.contains("iifname \"n2\""));
    }
}
