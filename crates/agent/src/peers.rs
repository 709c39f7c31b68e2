//! Channels to other nodes.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use holdfast_proto::internal::leader_service_client::LeaderServiceClient;
use holdfast_proto::internal::peer_service_client::PeerServiceClient;
use holdfast_proto::{Address, Dialer, MAX_MESSAGE_BYTES, RemoteError};
use holdfast_types::Code;
use tonic::transport::Channel;

/// A client of the leader's service.
pub(crate) type Leader = LeaderServiceClient<Channel>;

/// A client of another node's service.
pub(crate) type Peer = PeerServiceClient<Channel>;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// One channel per address, made at its first use.
pub(crate) struct Peers {
    dialer: Dialer,
    channels: Mutex<BTreeMap<String, Channel>>,
}

impl Peers {
    pub(crate) fn new(dialer: Dialer) -> Self {
        Self { dialer, channels: Mutex::default() }
    }

    /// A client of the node at that address.
    pub(crate) fn at(&self, address: &str) -> Result<Peer, RemoteError> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let channel = match channels.get(address) {
            Some(channel) => channel.clone(),
            None => {
                let parsed: Address = address.parse().map_err(|_| RemoteError {
                    code: Code::InvalidArgument,
                    message: format!("{address:?} is no address of a node"),
                    leader: None,
                })?;
                let channel = self.dialer.lazy(&parsed, CONNECT_TIMEOUT);
                channels.insert(address.to_owned(), channel.clone());
                channel
            }
        };
        Ok(PeerServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES))
    }

    /// Drops the channel, so that the next use connects anew.
    pub(crate) fn drop_channel(&self, address: &str) {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner).remove(address);
    }
}
