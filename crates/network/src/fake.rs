//! The network in memory: what the real one promises, without a kernel.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use holdfast_types::{ContainerUid, MacAddr};

use crate::{
    AttachSpec, AttachedLink, IfName, LinkNames, Network, NetworkError, Outcome, OverlaySpec,
};

/// A network that only remembers.
#[derive(Debug, Default)]
pub struct FakeNetwork {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    overlay: Option<OverlaySpec>,
    links: BTreeMap<ContainerUid, AttachSpec>,
    announced: Vec<(ContainerUid, MacAddr, Ipv4Addr)>,
    failures: u32,
}

impl FakeNetwork {
    /// The bridge that the fake pretends to have.
    pub const BRIDGE: &'static str = "hf0";

    /// An empty network.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the next `count` calls fail, whatever they ask.
    pub fn fail_next(&self, count: u32) {
        self.lock().failures = count;
    }

    /// The overlay as last ensured.
    pub fn overlay(&self) -> Option<OverlaySpec> {
        self.lock().overlay.clone()
    }

    /// How a container was attached, with its present link state.
    pub fn link(&self, uid: ContainerUid) -> Option<AttachSpec> {
        self.lock().links.get(&uid).copied()
    }

    /// Every announcement so far, oldest first.
    pub fn announced(&self) -> Vec<(ContainerUid, MacAddr, Ipv4Addr)> {
        self.lock().announced.clone()
    }

    /// What the guardian does to a link group when it fences (`false`) or thaws (`true`).
    pub fn set_group(&self, group: u32, up: bool) {
        for link in self.lock().links.values_mut().filter(|l| l.link_group == Some(group)) {
            link.up = up;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call(&self, what: &str) -> Result<MutexGuard<'_, State>, NetworkError> {
        let mut state = self.lock();
        if state.failures > 0 {
            state.failures -= 1;
            let detail = "the fake was told to fail".to_owned();
            return Err(NetworkError::Netlink { what: what.to_owned(), detail });
        }
        Ok(state)
    }
}

#[async_trait]
impl Network for FakeNetwork {
    async fn ensure_overlay(&self, spec: &OverlaySpec) -> Result<Outcome, NetworkError> {
        let mut state = self.call("make the overlay")?;
        if state.overlay.as_ref() == Some(spec) {
            return Ok(Outcome::Same);
        }
        state.overlay = Some(spec.clone());
        Ok(Outcome::Changed)
    }

    async fn attach(&self, spec: &AttachSpec) -> Result<LinkNames, NetworkError> {
        let mut state = self.call("attach a container")?;
        if state.overlay.is_none() {
            return Err(NetworkError::NoBridge { bridge: Self::BRIDGE.parse()? });
        }
        state.links.insert(spec.uid, *spec);
        Ok(LinkNames::of(spec.uid))
    }

    async fn set_up(&self, uid: ContainerUid, up: bool) -> Result<Outcome, NetworkError> {
        let mut state = self.call("set a link")?;
        let link = state.links.get_mut(&uid).ok_or(NetworkError::NotAttached { uid })?;
        let before = std::mem::replace(&mut link.up, up);
        Ok(if before == up { Outcome::Same } else { Outcome::Changed })
    }

    async fn detach(&self, uid: ContainerUid) -> Result<Outcome, NetworkError> {
        let gone = self.call("detach a container")?.links.remove(&uid);
        Ok(if gone.is_some() { Outcome::Changed } else { Outcome::Same })
    }

    async fn attached(&self) -> Result<Vec<AttachedLink>, NetworkError> {
        let state = self.call("list links")?;
        let seen = |link: &AttachSpec| AttachedLink {
            uid: link.uid,
            host: IfName::host_side(link.uid),
            link_group: link.link_group.unwrap_or(0),
            up: link.up,
            carrier: link.up,
        };
        Ok(state.links.values().map(seen).collect())
    }

    async fn announce(
        &self,
        uid: ContainerUid,
        mac: MacAddr,
        address: Ipv4Addr,
    ) -> Result<(), NetworkError> {
        let mut state = self.call("announce an address")?;
        match state.links.get(&uid) {
            None => return Err(NetworkError::NotAttached { uid }),
            Some(link) if !link.up => return Err(NetworkError::LinkDown { uid }),
            Some(_) => {}
        }
        state.announced.push((uid, mac, address));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlay() -> OverlaySpec {
        OverlaySpec {
            vxlan_id: 7,
            port: 7789,
            local: Ipv4Addr::new(10, 0, 0, 1),
            peers: [Ipv4Addr::new(10, 0, 0, 2)].into(),
            mtu: None,
            address: None,
        }
    }

    #[tokio::test]
    async fn the_fake_keeps_the_traits_promises() {
        let net = FakeNetwork::new();
        let uid = ContainerUid::generate();
        let spec = AttachSpec {
            uid,
            mac: MacAddr::from_ipv4(Ipv4Addr::new(10, 77, 0, 5)),
            link_group: Some(72),
            up: false,
        };
        assert!(matches!(net.attach(&spec).await, Err(NetworkError::NoBridge { .. })));
        assert_eq!(net.ensure_overlay(&overlay()).await.unwrap(), Outcome::Changed);
        assert_eq!(net.ensure_overlay(&overlay()).await.unwrap(), Outcome::Same);

        assert_eq!(net.attach(&spec).await.unwrap(), LinkNames::of(uid));
        assert_eq!(net.set_up(uid, true).await.unwrap(), Outcome::Changed);
        assert_eq!(net.set_up(uid, true).await.unwrap(), Outcome::Same);
        net.set_group(72, false);
        assert!(!net.attached().await.unwrap()[0].up);

        let address = Ipv4Addr::new(10, 77, 0, 5);
        let fenced = net.announce(uid, spec.mac, address).await;
        assert!(matches!(fenced, Err(NetworkError::LinkDown { .. })));
        net.set_group(72, true);
        net.announce(uid, spec.mac, address).await.unwrap();
        assert_eq!(net.announced().len(), 1);

        net.fail_next(1);
        assert!(net.detach(uid).await.is_err());
        assert_eq!(net.detach(uid).await.unwrap(), Outcome::Changed);
        assert_eq!(net.detach(uid).await.unwrap(), Outcome::Same);
    }
}
