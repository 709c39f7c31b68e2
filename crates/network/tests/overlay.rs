//! The real network, in namespaces: three nodes on one underlay, containers on them. Needs root.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use holdfast_network::{
    AttachSpec, BridgeAddress, LinkNames, LinuxNetwork, Network, NetworkError, Outcome, OverlaySpec,
};
use holdfast_types::{Code, ContainerUid, MacAddr};
use support::{Netns, Underlay, wait_for};

const GROUP: u32 = 7200;

/// A node's network, driven inside the node's namespace.
struct Node<'a> {
    ns: &'a Netns,
    net: Arc<LinuxNetwork>,
    spec: OverlaySpec,
}

impl<'a> Node<'a> {
    /// Node `n` (from 1) of `count`.
    fn new(underlay: &'a Underlay, n: u8) -> Self {
        let ns = &underlay.nodes[usize::from(n) - 1];
        let count = underlay.nodes.len() as u8;
        let peers = (1..=count).filter(|p| *p != n).map(underlay_address).collect();
        let net =
            ns.run(|| async { Arc::new(LinuxNetwork::open("hf0".parse().unwrap()).unwrap()) });
        let spec = OverlaySpec {
            vxlan_id: 72,
            port: 7789,
            local: underlay_address(n),
            peers,
            mtu: None,
            address: None,
        };
        Self { ns, net, spec }
    }

    fn ensure(&self) -> Result<Outcome, NetworkError> {
        let (net, spec) = (self.net.clone(), self.spec.clone());
        self.ns.run(move || async move { net.ensure_overlay(&spec).await })
    }

    fn attach(&self, spec: AttachSpec) -> Result<LinkNames, NetworkError> {
        let net = self.net.clone();
        self.ns.run(move || async move { net.attach(&spec).await })
    }

    fn set_up(&self, uid: ContainerUid, up: bool) -> Result<Outcome, NetworkError> {
        let net = self.net.clone();
        self.ns.run(move || async move { net.set_up(uid, up).await })
    }

    fn detach(&self, uid: ContainerUid) -> Result<Outcome, NetworkError> {
        let net = self.net.clone();
        self.ns.run(move || async move { net.detach(uid).await })
    }

    fn announce(&self, c: &Container) -> Result<(), NetworkError> {
        let (net, uid, mac, address) = (self.net.clone(), c.uid, c.mac(), c.address);
        self.ns.run(move || async move { net.announce(uid, mac, address).await })
    }

    /// Attaches a container and starts it: a namespace with the address on the link's far end.
    fn start(&self, container: &Container) -> Netns {
        let names = self.attach(container.spec(true)).unwrap();
        let inside = Netns::new();
        let cidr = format!("{}/16", container.address);
        self.ns.give(names.container.as_str(), &inside, "eth0", &cidr);
        inside
    }

    fn flood_list(&self) -> BTreeSet<String> {
        let table = self.ns.exec("bridge fdb show dev hf0x");
        let entries = table.lines().filter(|line| line.starts_with("00:00:00:00:00:00"));
        entries.map(|line| line.split_whitespace().nth(2).unwrap().to_owned()).collect()
    }
}

struct Container {
    uid: ContainerUid,
    address: Ipv4Addr,
}

impl Container {
    fn new(last: u8) -> Self {
        Self { uid: ContainerUid::generate(), address: Ipv4Addr::new(10, 77, 0, last) }
    }

    fn mac(&self) -> MacAddr {
        MacAddr::from_ipv4(self.address)
    }

    fn spec(&self, up: bool) -> AttachSpec {
        AttachSpec { uid: self.uid, mac: self.mac(), link_group: Some(GROUP), up }
    }
}

fn underlay_address(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, n)
}

fn nodes(underlay: &Underlay) -> Vec<Node<'_>> {
    let nodes: Vec<_> = (1..=underlay.nodes.len() as u8).map(|n| Node::new(underlay, n)).collect();
    for node in &nodes {
        assert_eq!(node.ensure().unwrap(), Outcome::Changed);
    }
    nodes
}

fn index_of(ns: &Netns, device: &str) -> String {
    let text = ns.exec(&format!("ip -o link show dev {device}"));
    text.split(':').next().unwrap().to_owned()
}

#[test]
fn containers_on_two_nodes_reach_each_other() {
    let underlay = Underlay::new(2);
    let nodes = nodes(&underlay);
    let (web, db) = (Container::new(5), Container::new(6));
    let web_ns = nodes[0].start(&web);
    let _db_ns = nodes[1].start(&db);

    assert!(web_ns.reaches(db.address));
    assert!(web_ns.exec("ip link show eth0").contains("mtu 1450"));
    assert!(web_ns.exec("ip link show eth0").contains(&web.mac().to_string()));
    let whole = format!("ping -n -c 1 -w 10 -M do -s 1422 {}", db.address);
    assert!(web_ns.try_exec(&whole).status.success(), "a frame of full MTU fits the underlay");
}

#[test]
fn ensuring_again_changes_nothing_and_mends_what_was_broken_by_hand() {
    let underlay = Underlay::new(3);
    let mut node = Node::new(&underlay, 1);
    assert_eq!(node.ensure().unwrap(), Outcome::Changed);
    assert_eq!(node.ensure().unwrap(), Outcome::Same);
    assert_eq!(node.flood_list(), ["10.0.0.2".to_owned(), "10.0.0.3".to_owned()].into());
    let bridge = index_of(node.ns, "hf0");

    for damage in [
        "bridge fdb del 00:00:00:00:00:00 dev hf0x dst 10.0.0.2",
        "bridge fdb append 00:00:00:00:00:00 dev hf0x dst 10.0.0.9",
        "ip link set hf0x down",
        "ip link set hf0x nomaster",
        "ip link set hf0x mtu 1400",
        "ip link del hf0x",
        "ip link set hf0 down",
        "ip link set hf0 address 02:00:00:00:00:99",
        "ip addr add 192.0.2.1/24 dev hf0",
    ] {
        node.ns.exec(damage);
        assert_eq!(node.ensure().unwrap(), Outcome::Changed, "{damage}");
        assert_eq!(node.ensure().unwrap(), Outcome::Same, "{damage}");
        assert_eq!(node.flood_list().len(), 2, "{damage}");
    }
    assert_eq!(index_of(node.ns, "hf0"), bridge, "containers' ports were never torn away");

    node.ns.exec("ip link del hf0");
    assert_eq!(node.ensure().unwrap(), Outcome::Changed);
    assert_eq!(node.ensure().unwrap(), Outcome::Same);

    let shown = node.ns.exec("ip -d link show hf0x");
    for property in ["master hf0", "id 72", "local 10.0.0.1", "dstport 7789", ",UP"] {
        assert!(shown.contains(property), "{property}: {shown}");
    }
    assert!(!shown.contains("nolearning"), "{shown}");

    node.spec.peers = [underlay_address(3)].into();
    assert_eq!(node.ensure().unwrap(), Outcome::Changed);
    assert_eq!(node.flood_list(), ["10.0.0.3".to_owned()].into());
    node.spec.peers = BTreeSet::new();
    assert_eq!(node.ensure().unwrap(), Outcome::Changed);
    assert_eq!(node.flood_list(), BTreeSet::new());
}

#[test]
fn a_gateways_bridge_has_an_address_that_containers_reach() {
    let underlay = Underlay::new(2);
    let mut nodes = nodes(&underlay);
    let gateway = Ipv4Addr::new(10, 77, 0, 1);
    nodes[1].spec.address = Some(BridgeAddress { address: gateway, prefix: 16 });
    assert_eq!(nodes[1].ensure().unwrap(), Outcome::Changed);
    assert_eq!(nodes[1].ensure().unwrap(), Outcome::Same);

    let web = nodes[0].start(&Container::new(5));
    assert!(web.reaches(gateway));

    nodes[1].spec.address = None;
    assert_eq!(nodes[1].ensure().unwrap(), Outcome::Changed);
    assert!(!web.pings(gateway));
}

/// The point of announcing: every bridge and VXLAN device believes that the MAC is at the old node,
/// and the old node is not there to contradict (it lost its power).
#[test]
fn a_moved_container_is_reached_at_once() {
    let underlay = Underlay::new(3);
    let nodes = nodes(&underlay);
    let client = nodes[2].start(&Container::new(9));
    let local_client = nodes[1].start(&Container::new(8));
    let web = Container::new(5);
    let before = nodes[0].start(&web);
    assert!(client.reaches(web.address) && local_client.reaches(web.address));

    nodes[0].ns.exec("ip link set eth0 down");
    let after = nodes[1].start(&web);
    nodes[1].announce(&web).unwrap();

    let deadline = Duration::from_secs(1);
    for (who, asks) in [("another node", &client), ("the new node", &local_client)] {
        let quick = format!("ping -n -c 1 -W 0.2 {}", web.address);
        let took = wait_for(deadline, || asks.try_exec(&quick).status.success());
        assert!(took.is_some(), "no answer on {who}");
    }
    drop((before, after));
}

#[test]
fn a_link_that_is_down_is_not_announced() {
    let underlay = Underlay::new(2);
    let nodes = nodes(&underlay);
    let web = Container::new(5);
    assert!(matches!(nodes[0].announce(&web), Err(NetworkError::NotAttached { .. })));
    nodes[0].attach(web.spec(false)).unwrap();
    assert!(matches!(nodes[0].announce(&web), Err(NetworkError::LinkDown { .. })));
    // Up, though without a carrier as nobody has opened the far end yet.
    assert_eq!(nodes[0].set_up(web.uid, true).unwrap(), Outcome::Changed);
    nodes[0].announce(&web).unwrap();
}

/// What the guardian does when it fences (I8): one request for the whole link group.
#[test]
fn taking_the_link_group_down_cuts_traffic() {
    let underlay = Underlay::new(2);
    let nodes = nodes(&underlay);
    let (web, pinned, client) = (Container::new(5), Container::new(6), Container::new(9));
    let _web = nodes[0].start(&web);
    let unprotected = AttachSpec { link_group: None, ..pinned.spec(true) };
    let names = nodes[0].attach(unprotected).unwrap();
    let inside = Netns::new();
    nodes[0].ns.give(names.container.as_str(), &inside, "eth0", "10.77.0.6/16");
    let client = nodes[1].start(&client);
    assert!(client.reaches(web.address) && client.reaches(pinned.address));

    nodes[0].ns.exec(&format!("ip link set group {GROUP} down"));
    assert!(!client.pings(web.address));
    assert!(client.reaches(pinned.address), "only the group is cut");
    nodes[0].ns.exec(&format!("ip link set group {GROUP} up"));
    assert!(wait_for(Duration::from_secs(5), || client.pings(web.address)).is_some());
}

#[test]
fn a_link_stays_down_until_it_is_asked_up() {
    let underlay = Underlay::new(2);
    let nodes = nodes(&underlay);
    let web = Container::new(5);
    let names = nodes[0].attach(web.spec(false)).unwrap();
    let inside = Netns::new();
    nodes[0].ns.give(names.container.as_str(), &inside, "eth0", "10.77.0.5/16");
    let client = nodes[1].start(&Container::new(9));
    assert!(!client.pings(web.address));
    assert_eq!(nodes[0].set_up(web.uid, true).unwrap(), Outcome::Changed);
    assert_eq!(nodes[0].set_up(web.uid, true).unwrap(), Outcome::Same);
    assert!(wait_for(Duration::from_secs(5), || client.pings(web.address)).is_some());
}

/// L4: what is attached can be found and removed, whatever happened in between.
#[test]
fn attaching_replaces_what_is_stale_and_detaching_leaves_nothing() {
    let underlay = Underlay::new(1);
    let node = Node::new(&underlay, 1);
    let web = Container::new(5);
    assert!(matches!(node.attach(web.spec(false)), Err(NetworkError::NoBridge { .. })));
    node.ensure().unwrap();
    let names = node.attach(web.spec(false)).unwrap();
    let stale = index_of(node.ns, names.host.as_str());
    assert_eq!(node.attach(web.spec(true)).unwrap(), names);
    assert_ne!(index_of(node.ns, names.host.as_str()), stale);

    let listed = |net: Arc<LinuxNetwork>| node.ns.run(move || async move { net.attached().await });
    let [link] = listed(node.net.clone()).unwrap().try_into().unwrap();
    assert_eq!((link.uid, &link.host, link.link_group), (web.uid, &names.host, GROUP));
    assert!(link.up);

    assert_eq!(node.detach(web.uid).unwrap(), Outcome::Changed);
    assert_eq!(node.detach(web.uid).unwrap(), Outcome::Same);
    assert!(listed(node.net.clone()).unwrap().is_empty());
    assert!(matches!(node.set_up(web.uid, true), Err(NetworkError::NotAttached { .. })));
    assert!(!node.ns.exec("ip -o link").contains(names.container.as_str()));
}

#[test]
fn other_peoples_devices_are_left_alone() {
    let underlay = Underlay::new(1);
    let mut node = Node::new(&underlay, 1);
    let refused = |node: &Node<'_>| match node.ensure() {
        Err(e) => (e.code(), e.to_string()),
        Ok(outcome) => panic!("it must refuse, and was {outcome:?}"),
    };

    node.ns.exec("ip link add hf0 type bridge");
    let (code, text) = refused(&node);
    assert_eq!(code, Code::Network);
    assert!(text.starts_with("the network device hf0 is not one of ours"), "{text}");
    node.ns.exec("ip link del hf0");

    node.ns.exec("ip link add hf0x type bridge");
    assert!(refused(&node).1.contains("it is a bridge device, not a vxlan"));
    node.ns.exec("ip link del hf0x");

    node.ns.exec("ip link add theirs type vxlan id 72 dstport 7789 local 10.0.0.1");
    assert!(refused(&node).1.contains("another VXLAN device has identifier 72"));
    node.ns.exec("ip link del theirs");

    node.spec.local = Ipv4Addr::new(10, 0, 0, 200);
    assert!(refused(&node).1.contains("no network device of this node has the address"));
    node.spec.local = underlay_address(1);

    node.spec.vxlan_id = 0;
    assert_eq!(refused(&node).0, Code::InvalidArgument);
    node.spec.vxlan_id = 72;

    let socket = node.ns.run(|| async { std::net::UdpSocket::bind("0.0.0.0:7789").unwrap() });
    assert_eq!(refused(&node).0, Code::AddressInUse);
    drop(socket);
    assert_eq!(node.ensure().unwrap(), Outcome::Changed, "what was in the way is gone");
}
