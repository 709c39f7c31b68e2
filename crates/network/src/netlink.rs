//! A connection to the kernel's routing netlink (rtnetlink(7)) and the few requests that we make,
//! each with the kernel's refusal turned into a [`NetworkError`].

use std::io;
use std::net::Ipv4Addr;

use futures::{StreamExt, TryStreamExt};
use nix::libc;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::{AddressMessageBuilder, Error, Handle};

use crate::link::Link;
use crate::{BridgeAddress, IfName, NetworkError};

/// An open connection, in the network namespace of the thread that opened it.
#[derive(Debug, Clone)]
pub(crate) struct Netlink {
    handle: Handle,
}

impl Netlink {
    /// Opens a connection, served by a task of the current tokio runtime. It checks strictly
    /// (`NETLINK_GET_STRICT_CHK`), so that dumps heed their filters.
    pub(crate) fn open() -> Result<Self, NetworkError> {
        let (connection, handle, _unsolicited) = rtnetlink::new_connection_with_strict_check()
            .map_err(|e| kernel("open a netlink socket", e))?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// Every device of this namespace.
    pub(crate) async fn links(&self) -> Result<Vec<Link>, NetworkError> {
        let found: Vec<LinkMessage> = self
            .handle
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(|e| refused("list network devices", e))?;
        Ok(found.into_iter().map(Link::from).collect())
    }

    /// The device with the name, if there is one.
    pub(crate) async fn link(&self, name: &IfName) -> Result<Option<Link>, NetworkError> {
        let mut found = self.handle.link().get().match_name(name.as_str()).execute();
        match found.try_next().await {
            Ok(message) => Ok(message.map(Link::from)),
            Err(e) if errno(&e) == Some(libc::ENODEV) => Ok(None),
            Err(e) => Err(refused(&format!("look up the network device {name}"), e)),
        }
    }

    /// Makes a device.
    pub(crate) async fn add(
        &self,
        name: &IfName,
        kind: &'static str,
        message: LinkMessage,
    ) -> Result<(), NetworkError> {
        self.handle.link().add(message).execute().await.map_err(|e| match errno(&e) {
            Some(libc::EOPNOTSUPP) => NetworkError::KindMissing { kind },
            _ => refused(&format!("make the {kind} device {name}"), e),
        })
    }

    /// Changes a device.
    pub(crate) async fn set(&self, what: &str, message: LinkMessage) -> Result<(), NetworkError> {
        self.handle.link().set(message).execute().await.map_err(|e| refused(what, e))
    }

    /// Removes a device; that it is gone already is fine.
    pub(crate) async fn remove(&self, link: &Link) -> Result<(), NetworkError> {
        match self.handle.link().del(link.index).execute().await {
            Err(e) if errno(&e) != Some(libc::ENODEV) => {
                Err(refused(&format!("remove the network device {}", link.name), e))
            }
            _ => Ok(()),
        }
    }

    /// The IPv4 addresses of one device, or of all.
    pub(crate) async fn addresses(&self, index: Option<u32>) -> Result<Vec<Address>, NetworkError> {
        let mut request = self.handle.address().get();
        request.message_mut().header.family = rtnetlink::packet_route::AddressFamily::Inet;
        if let Some(index) = index {
            request = request.set_link_index_filter(index);
        }
        let found: Vec<AddressMessage> = request
            .execute()
            .try_collect()
            .await
            .map_err(|e| refused("list network addresses", e))?;
        Ok(found.into_iter().filter_map(Address::read).collect())
    }

    /// Gives a device an address.
    pub(crate) async fn add_address(
        &self,
        index: u32,
        to: BridgeAddress,
    ) -> Result<(), NetworkError> {
        let message =
            AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(to.address, to.prefix);
        let what = format!("add the address {}/{}", to.address, to.prefix);
        let mut request = self.handle.address().add(index, to.address.into(), to.prefix);
        *request.message_mut() = message.build();
        request.execute().await.map_err(|e| refused(&what, e))
    }

    /// Takes an address away.
    pub(crate) async fn remove_address(&self, address: Address) -> Result<(), NetworkError> {
        let what = format!("remove the address {}", address.at.address);
        let request = self.handle.address().del(address.message);
        request.execute().await.map_err(|e| refused(&what, e))
    }

    /// Sends a message for which rtnetlink has no words, and waits for the kernel's verdict.
    pub(crate) async fn request(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>, io::Error> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = flags;
        let mut answers = self
            .handle
            .clone()
            .request(request)
            .map_err(|_| io::Error::other("the netlink connection closed"))?;
        let mut out = Vec::new();
        while let Some(answer) = answers.next().await {
            match answer.payload {
                NetlinkPayload::Error(e) if e.code.is_some() => return Err(e.to_io()),
                NetlinkPayload::InnerMessage(message) => out.push(message),
                _ => {}
            }
        }
        Ok(out)
    }
}

/// An IPv4 address of a device.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    /// The device's index.
    pub(crate) index: u32,
    /// The address and its prefix length.
    pub(crate) at: BridgeAddress,
    message: AddressMessage,
}

impl Address {
    fn read(message: AddressMessage) -> Option<Self> {
        // IFA_LOCAL is the device's own; IFA_ADDRESS is the peer's on point-to-point devices.
        let own = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(std::net::IpAddr::V4(address)) => Some(*address),
            _ => None,
        })?;
        let at = BridgeAddress { address: own, prefix: message.header.prefix_len };
        Some(Self { index: message.header.index, at, message })
    }
}

/// The error of a failed system call.
pub(crate) fn kernel(what: &str, source: io::Error) -> NetworkError {
    let what = what.to_owned();
    match source.raw_os_error() {
        Some(libc::EPERM) => NetworkError::NotPermitted { what },
        _ => NetworkError::Kernel { what, source },
    }
}

fn refused(what: &str, error: Error) -> NetworkError {
    match error {
        Error::NetlinkError(message) => kernel(what, message.to_io()),
        other => NetworkError::Netlink { what: what.to_owned(), detail: other.to_string() },
    }
}

fn errno(error: &Error) -> Option<i32> {
    match error {
        Error::NetlinkError(message) => message.to_io().raw_os_error(),
        _ => None,
    }
}
