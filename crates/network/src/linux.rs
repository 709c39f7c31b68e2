//! The network of a Linux node, by netlink.

use std::net::Ipv4Addr;
use std::time::Duration;

use async_trait::async_trait;
use holdfast_types::{ContainerUid, MacAddr};
use tokio::sync::Mutex;

use crate::arp::FrameSocket;
use crate::netlink::{Netlink, kernel};
use crate::overlay::Devices;
use crate::{
    AttachSpec, AttachedLink, IfName, LinkNames, Network, NetworkError, Outcome, OverlaySpec,
    attach, fdb, overlay,
};

/// How long after the one before each repetition of an announcement is sent: +100 ms, +300 ms and
/// +1 s after the first.
const ANNOUNCE_AGAIN: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(200), Duration::from_millis(700)];

/// The real network: of the network namespace in which it was opened.
#[derive(Debug)]
pub struct LinuxNetwork {
    devices: Devices,
    netlink: Netlink,
    /// Held by whoever changes devices: looking and changing are two requests.
    changing: Mutex<()>,
}

impl LinuxNetwork {
    /// A network around the bridge with this name (the overlay's VXLAN device gets an `x` behind
    /// it, so it has at most 14 characters). Touches nothing yet. Call it inside a tokio runtime
    /// whose threads are all in the node's network namespace.
    pub fn open(bridge: IfName) -> Result<Self, NetworkError> {
        let devices = Devices::of(bridge)?;
        Ok(Self { devices, netlink: Netlink::open()?, changing: Mutex::new(()) })
    }
}

#[async_trait]
impl Network for LinuxNetwork {
    async fn ensure_overlay(&self, spec: &OverlaySpec) -> Result<Outcome, NetworkError> {
        let _changing = self.changing.lock().await;
        overlay::ensure(&self.netlink, &self.devices, spec).await
    }

    async fn attach(&self, spec: &AttachSpec) -> Result<LinkNames, NetworkError> {
        let _changing = self.changing.lock().await;
        attach::attach(&self.netlink, &self.devices.bridge, spec).await
    }

    async fn set_up(&self, uid: ContainerUid, up: bool) -> Result<Outcome, NetworkError> {
        let _changing = self.changing.lock().await;
        attach::set_up(&self.netlink, uid, up).await
    }

    async fn detach(&self, uid: ContainerUid) -> Result<Outcome, NetworkError> {
        let _changing = self.changing.lock().await;
        attach::detach(&self.netlink, uid).await
    }

    async fn attached(&self) -> Result<Vec<AttachedLink>, NetworkError> {
        attach::attached(&self.netlink).await
    }

    async fn announce(
        &self,
        uid: ContainerUid,
        mac: MacAddr,
        address: Ipv4Addr,
    ) -> Result<(), NetworkError> {
        let bridge = &self.devices.bridge;
        let Some(bridge_link) = self.netlink.link(bridge).await? else {
            return Err(NetworkError::NoBridge { bridge: bridge.clone() });
        };
        let socket =
            FrameSocket::open(bridge_link.index).map_err(|e| kernel("open a packet socket", e))?;
        let announcement = Announcement {
            netlink: self.netlink.clone(),
            vxlan: self.devices.vxlan.clone(),
            socket,
            uid,
            mac,
            address,
        };
        announcement.send().await?;
        tokio::spawn(announcement.repeat());
        Ok(())
    }
}

/// A container's address on its way to everybody.
struct Announcement {
    netlink: Netlink,
    vxlan: IfName,
    socket: FrameSocket,
    uid: ContainerUid,
    mac: MacAddr,
    address: Ipv4Addr,
}

impl Announcement {
    /// Sends both ARP forms out of the bridge, which floods them; a bridge does not learn from
    /// what it sends itself, so its own entry is set by hand.
    async fn send(&self) -> Result<(), NetworkError> {
        let uid = self.uid;
        let host = attach::host_link(&self.netlink, uid).await?;
        let host = host.ok_or(NetworkError::NotAttached { uid })?;
        if !host.up {
            return Err(NetworkError::LinkDown { uid });
        }
        let vxlan = self.netlink.link(&self.vxlan).await?.map(|link| link.index);
        fdb::point_at(&self.netlink, host.index, vxlan, self.mac).await?;
        self.socket
            .announce(self.mac, self.address)
            .map_err(|e| kernel(&format!("announce {}", self.address), e))
    }

    /// Ends early once the link is gone or down: the container has left, or is fenced.
    async fn repeat(self) {
        for pause in ANNOUNCE_AGAIN {
            tokio::time::sleep(pause).await;
            match self.send().await {
                Ok(()) => {}
                Err(NetworkError::NotAttached { .. } | NetworkError::LinkDown { .. }) => return,
                Err(error) => {
                    let (uid, address) = (self.uid, self.address);
                    tracing::warn!(container = %uid, %address, %error, "cannot announce again");
                    return;
                }
            }
        }
    }
}
