//! A network device as the kernel describes it, reduced to what we compare.

use std::net::Ipv4Addr;

use holdfast_types::{ContainerUid, MacAddr};
use rtnetlink::packet_route::link::{
    InfoData, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};

use crate::{IfName, NetworkError};

/// The alias (`IFLA_IFALIAS`) of the bridge and the VXLAN device.
pub(crate) const OVERLAY_ALIAS: &str = "holdfast:overlay";
const CONTAINER_ALIAS: &str = "holdfast:container:";

/// The alias of the host side of a container's link.
pub(crate) fn container_alias(uid: ContainerUid) -> String {
    format!("{CONTAINER_ALIAS}{uid}")
}

/// A device of this node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// The driver's name, such as `bridge`; hardware has none.
    pub(crate) kind: Option<String>,
    pub(crate) alias: Option<String>,
    pub(crate) mac: Option<MacAddr>,
    pub(crate) mtu: u32,
    /// Index of the bridge that it is a port of.
    pub(crate) master: Option<u32>,
    pub(crate) group: u32,
    pub(crate) up: bool,
    pub(crate) carrier: bool,
    pub(crate) vxlan: Vxlan,
}

/// The parameters of a VXLAN device that cannot be changed while it lives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Vxlan {
    pub(crate) id: u32,
    pub(crate) port: u16,
    pub(crate) local: Option<Ipv4Addr>,
    pub(crate) learning: bool,
}

impl Link {
    /// The container whose link this is the host side of.
    pub(crate) fn container(&self) -> Option<ContainerUid> {
        self.alias.as_deref()?.strip_prefix(CONTAINER_ALIAS)?.parse().ok()
    }

    /// Refuses a device that is not of the kind that we make, or that somebody else made.
    ///
    /// An alias is set right after a device is made, not with it; so a device without one counts
    /// as ours while it has the MAC that we make it with, in case we died in between.
    pub(crate) fn check_ours(
        &self,
        name: &IfName,
        kind: &'static str,
        alias: &str,
        mac: MacAddr,
    ) -> Result<(), NetworkError> {
        let taken = |why: String| Err(NetworkError::NameTaken { name: name.clone(), why });
        match (self.kind.as_deref(), self.alias.as_deref()) {
            (Some(k), _) if k != kind => taken(format!("it is a {k} device, not a {kind}")),
            (None, _) => taken(format!("it is hardware, not a {kind}")),
            (_, Some(a)) if a == alias => Ok(()),
            (_, Some(a)) => taken(format!("its alias is {a:?}, not {alias:?}")),
            (_, None) if self.mac == Some(mac) => Ok(()),
            (_, None) => taken(format!("its alias is not {alias:?}")),
        }
    }
}

impl From<LinkMessage> for Link {
    fn from(message: LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut link = Link {
            index: message.header.index,
            up: flags.contains(LinkFlags::Up),
            carrier: flags.contains(LinkFlags::LowerUp),
            ..Link::default()
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
                LinkAttribute::Address(bytes) => link.mac = bytes.try_into().ok().map(MacAddr),
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::Controller(index) => link.master = Some(index),
                LinkAttribute::Group(group) => link.group = group,
                LinkAttribute::LinkInfo(infos) => link.read_info(infos),
                _ => {}
            }
        }
        link
    }
}

impl Link {
    fn read_info(&mut self, infos: Vec<LinkInfo>) {
        for info in infos {
            match info {
                LinkInfo::Kind(kind) => self.kind = Some(kind.to_string()),
                LinkInfo::Data(InfoData::Vxlan(values)) => {
                    values.iter().for_each(|value| self.vxlan.read(value));
                }
                _ => {}
            }
        }
    }
}

impl Vxlan {
    fn read(&mut self, value: &InfoVxlan) {
        match value {
            InfoVxlan::Id(id) => self.id = *id,
            InfoVxlan::Port(port) => self.port = *port,
            InfoVxlan::Local(address) => self.local = Some(*address),
            InfoVxlan::Learning(on) => self.learning = *on,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(kind: Option<&str>, alias: Option<&str>) -> Link {
        Link {
            kind: kind.map(str::to_owned),
            alias: alias.map(str::to_owned),
            mac: Some(MacAddr([2, 0, 0, 0, 0, 1])),
            ..Link::default()
        }
    }

    #[test]
    fn only_our_own_devices_are_touched() {
        let name: IfName = "hf0".parse().unwrap();
        let ours = MacAddr([2, 0, 0, 0, 0, 1]);
        let other = MacAddr([2, 0, 0, 0, 0, 2]);
        let check = |link: Link, mac| link.check_ours(&name, "bridge", OVERLAY_ALIAS, mac);
        assert!(check(link(Some("bridge"), Some(OVERLAY_ALIAS)), other).is_ok());
        assert!(check(link(Some("bridge"), None), ours).is_ok(), "died before it set the alias");
        for (theirs, mac) in [
            (link(Some("bridge"), None), other),
            (link(Some("bridge"), Some("office")), ours),
            (link(Some("dummy"), Some(OVERLAY_ALIAS)), ours),
            (link(None, None), ours),
        ] {
            assert!(matches!(check(theirs, mac), Err(NetworkError::NameTaken { .. })));
        }
    }

    #[test]
    fn an_alias_names_its_container() {
        let uid = ContainerUid::generate();
        assert_eq!(link(Some("veth"), Some(&container_alias(uid))).container(), Some(uid));
        assert_eq!(link(Some("veth"), Some("holdfast:container:x")).container(), None);
        assert_eq!(link(Some("veth"), None).container(), None);
    }
}
