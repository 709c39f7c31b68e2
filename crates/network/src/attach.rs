//! Containers' veth pairs (veth(4)).

use holdfast_types::{ContainerUid, MacAddr};
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth, LinkMessage};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth};

use crate::link::{Link, container_alias};
use crate::netlink::Netlink;
use crate::overlay::made;
use crate::{AttachSpec, AttachedLink, IfName, LinkNames, NetworkError, Outcome};

/// See [`crate::Network::attach`]. The host side is up only after it is in its link group.
pub(crate) async fn attach(
    netlink: &Netlink,
    bridge: &IfName,
    spec: &AttachSpec,
) -> Result<LinkNames, NetworkError> {
    let names = LinkNames::of(spec.uid);
    let Some(bridge_link) = netlink.link(bridge).await? else {
        return Err(NetworkError::NoBridge { bridge: bridge.clone() });
    };
    if let Some(stale) = netlink.link(&names.host).await? {
        let alias = container_alias(spec.uid);
        stale.check_ours(&names.host, "veth", &alias, host_mac(spec.mac))?;
        netlink.remove(&stale).await?;
    }
    if netlink.link(&names.container).await?.is_some() {
        let why = "it is not the other side of ours".to_owned();
        return Err(NetworkError::NameTaken { name: names.container, why });
    }

    netlink.add(&names.host, "veth", pair(&names, spec, bridge_link.mtu)).await?;
    let host = made(netlink, &names.host).await?;
    let change = || LinkUnspec::new_with_index(host.index);
    let alias = change().alias(container_alias(spec.uid)).build();
    netlink.set(&format!("set the alias of {}", names.host), alias).await?;
    let joined = change().controller(bridge_link.index).build();
    netlink.set(&format!("put {} into the bridge {bridge}", names.host), joined).await?;
    if spec.up {
        netlink.set(&format!("bring up {}", names.host), change().up().build()).await?;
    }
    Ok(names)
}

/// See [`crate::Network::set_up`].
pub(crate) async fn set_up(
    netlink: &Netlink,
    uid: ContainerUid,
    up: bool,
) -> Result<Outcome, NetworkError> {
    let host = host_link(netlink, uid).await?.ok_or(NetworkError::NotAttached { uid })?;
    if host.up == up {
        return Ok(Outcome::Same);
    }
    let change = LinkUnspec::new_with_index(host.index);
    let (verb, change) = if up { ("up", change.up()) } else { ("down", change.down()) };
    netlink.set(&format!("bring {} {verb}", host.name), change.build()).await?;
    Ok(Outcome::Changed)
}

/// See [`crate::Network::detach`].
pub(crate) async fn detach(netlink: &Netlink, uid: ContainerUid) -> Result<Outcome, NetworkError> {
    match host_link(netlink, uid).await? {
        Some(host) => netlink.remove(&host).await.map(|()| Outcome::Changed),
        None => Ok(Outcome::Same),
    }
}

/// See [`crate::Network::attached`].
pub(crate) async fn attached(netlink: &Netlink) -> Result<Vec<AttachedLink>, NetworkError> {
    let seen = |link: Link| {
        let uid = link.container()?;
        let host = link.name.parse().ok()?;
        Some(AttachedLink { uid, host, link_group: link.group, up: link.up, carrier: link.carrier })
    };
    let mut found: Vec<AttachedLink> =
        netlink.links().await?.into_iter().filter_map(seen).collect();
    found.sort_by_key(|link| link.uid);
    Ok(found)
}

/// The host side of a container's link, if it is here and really that container's.
pub(crate) async fn host_link(
    netlink: &Netlink,
    uid: ContainerUid,
) -> Result<Option<Link>, NetworkError> {
    let found = netlink.link(&IfName::host_side(uid)).await?;
    Ok(found.filter(|link| link.container() == Some(uid)))
}

/// The message that makes both sides, down, with the host side in its group from the start.
fn pair(names: &LinkNames, spec: &AttachSpec, mtu: u32) -> LinkMessage {
    let container = LinkUnspec::new_with_name(names.container.as_str())
        .address(spec.mac.0.to_vec())
        .mtu(mtu)
        .build();
    LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .name(names.host.as_str())
        .address(host_mac(spec.mac).0.to_vec())
        .mtu(mtu)
        .link_group(spec.link_group.unwrap_or(0))
        .set_info_data(InfoData::Veth(InfoVeth::Peer(container)))
        .build()
}

/// The MAC of the host side: the container's with the first byte `fe`, high so that no bridge
/// would take it for its own. Nothing is ever sent to it.
fn host_mac(MacAddr([_, b, c, d, e, f]): MacAddr) -> MacAddr {
    MacAddr([0xfe, b, c, d, e, f])
}
