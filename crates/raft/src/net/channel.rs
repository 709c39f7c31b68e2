//! Channels to peers, one for each purpose, so that a snapshot never delays a heartbeat.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use holdfast_proto::RemoteError;
use tonic::transport::Channel;

use crate::config::Connector;

/// A connection attempt is given this long before deadlines in a row end it: a peer that is far
/// away must not be cut off by short calls again and again.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a channel is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Purpose {
    Entries,
    /// Heartbeats and votes: small, urgent.
    Liveness,
    Snapshots,
    /// Questions to the leader on behalf of this node's readers.
    Reads,
    /// Lasts as long as the peer's process.
    Life,
}

type Lanes = BTreeMap<(u64, Purpose), Arc<Lane>>;

/// All channels of a node. Cheap to clone.
#[derive(Clone)]
pub(super) struct Channels {
    connector: Connector,
    lanes: Arc<Mutex<Lanes>>,
}

impl Channels {
    pub(super) fn new(connector: Connector) -> Self {
        Self { connector, lanes: Arc::default() }
    }

    /// The lane to `node`, made anew if its address has changed.
    pub(super) fn lane(&self, node: u64, addr: &str, purpose: Purpose) -> Arc<Lane> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let lane = lanes.entry((node, purpose)).or_insert_with(|| self.make(addr));
        if lane.addr != addr {
            *lane = self.make(addr);
        }
        lane.clone()
    }

    fn make(&self, addr: &str) -> Arc<Lane> {
        let (addr, connector) = (addr.to_owned(), self.connector.clone());
        Arc::new(Lane { addr, connector, open: Mutex::new(None) })
    }
}

/// One address, and the channel to it if there is one.
pub(super) struct Lane {
    addr: String,
    connector: Connector,
    open: Mutex<Option<Open>>,
}

struct Open {
    channel: Channel,
    /// When it was made, or last carried an answer.
    good_at: Instant,
}

impl Lane {
    pub(super) fn addr(&self) -> &str {
        &self.addr
    }

    pub(super) fn channel(&self) -> Result<Channel, RemoteError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = &*open {
            return Ok(open.channel.clone());
        }
        let channel = (self.connector)(&self.addr)?;
        *open = Some(Open { channel: channel.clone(), good_at: Instant::now() });
        Ok(channel)
    }

    pub(super) fn answered(&self) {
        if let Some(open) = &mut *self.open.lock().unwrap_or_else(PoisonError::into_inner) {
            open.good_at = Instant::now();
        }
    }

    pub(super) fn broke(&self) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) fn timed_out(&self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.as_ref().is_some_and(|o| o.good_at.elapsed() > PATIENCE) {
            *open = None;
        }
    }
}
