//! Channels to other nodes, one an address, made when first needed and shared by all calls; and the
//! relays over them, which share a stream as well.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_proto::{Address, Dialer, Dialers};
use tonic::transport::Channel;

use crate::fault::Fault;
use crate::relay::Relay;

/// A node that takes longer to accept a connection is treated as absent.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Beyond so many addresses the channels of old ones are let go.
const KEPT: usize = 256;

/// The channels. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Channels {
    nodes: Ways,
    members: Ways,
}

/// Those of one dialer.
#[derive(Clone)]
struct Ways {
    dialer: Dialer,
    known: Arc<Mutex<BTreeMap<String, There>>>,
}

/// The ways to a node.
#[derive(Clone)]
pub(crate) struct There {
    /// For calls of any kind.
    pub(crate) channel: Channel,
    /// For unary ones, of which there are many.
    pub(crate) relay: Relay,
}

impl Channels {
    pub(crate) fn new(dialers: Dialers) -> Self {
        let ways = |dialer| Ways { dialer, known: Arc::default() };
        Self { nodes: ways(dialers.nodes), members: ways(dialers.members) }
    }

    /// The channel to the node at that `host:port`; it connects by itself, again and again.
    pub(crate) fn to(&self, address: &str) -> Result<Channel, Fault> {
        Ok(self.nodes.there(address)?.channel)
    }

    /// The ways to the member there, who may lead. Within a runtime.
    pub(crate) fn there(&self, address: &str) -> Result<There, Fault> {
        self.members.there(address)
    }
}

impl Ways {
    fn there(&self, address: &str) -> Result<There, Fault> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = known.get(address) {
            return Ok(there.clone());
        }
        let parsed: Address = address
            .parse()
            .map_err(|e: holdfast_proto::AddressError| Fault::new(e.code(), e.to_string()))?;
        let channel = self.dialer.lazy(&parsed, CONNECT_TIMEOUT);
        if known.len() >= KEPT {
            known.clear();
        }
        let there = There { relay: Relay::over(channel.clone()), channel };
        known.insert(address.to_owned(), there.clone());
        Ok(there)
    }
}
