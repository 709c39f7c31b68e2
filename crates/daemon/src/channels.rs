//! Channels to other nodes, one an address, made when first needed and shared by all calls.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_proto::{Address, connect_lazy};
use tonic::transport::Channel;

use crate::fault::Fault;

/// A node that takes longer to accept a connection is treated as absent.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Beyond so many addresses the channels of old ones are let go.
const KEPT: usize = 256;

/// The channels. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Channels(Arc<Mutex<BTreeMap<String, Channel>>>);

impl Channels {
    /// The channel to that `host:port`; it connects by itself, again and again.
    pub(crate) fn to(&self, address: &str) -> Result<Channel, Fault> {
        let mut channels = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(address) {
            return Ok(channel.clone());
        }
        let parsed: Address = address
            .parse()
            .map_err(|e: holdfast_proto::AddressError| Fault::new(e.code(), e.to_string()))?;
        let channel = connect_lazy(&parsed, CONNECT_TIMEOUT)?;
        if channels.len() >= KEPT {
            channels.clear();
        }
        channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }
}
