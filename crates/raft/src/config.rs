//! What a node needs to take part: who it is, where its files are, how fast it ticks.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use holdfast_proto::{Dialer, RemoteError};
use holdfast_types::{ClusterId, NodeId};
use tonic::transport::Channel;

use crate::care::CareLimits;
use crate::error::RaftError;
use crate::retention::Limits;

/// Who a data directory belongs to. Written once, checked at each start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node. Never reused, and never given to a node that starts from an empty directory.
    pub node: NodeId,
}

/// Makes a channel to a peer's address. Called again after failures, so it should be lazy.
pub type Connector = Arc<dyn Fn(&str) -> Result<Channel, RemoteError> + Send + Sync>;

/// The connector for that dialer.
pub fn connector(dialer: Dialer) -> Connector {
    Arc::new(move |addr| {
        let address = addr.parse().map_err(|e: holdfast_proto::AddressError| RemoteError {
            code: e.code(),
            message: e.to_string(),
            leader: None,
        })?;
        Ok(dialer.lazy(&address, CONNECT_TIMEOUT))
    })
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How a node starts.
#[derive(Clone)]
pub struct RaftConfig {
    /// The directory of the log, the vote and the snapshots. Made if absent; nothing else may
    /// live in it.
    pub dir: PathBuf,
    /// Who this node is.
    pub identity: Identity,
    /// How many times the cluster had been recovered when it let this node in. Read only where there
    /// is no log yet: after that the directory knows.
    pub generation: u64,
    /// How peers are reached.
    pub connector: Connector,
    /// Timeouts.
    pub timing: Timing,
    /// What makes this node give up leadership.
    pub care: CareLimits,
    /// A snapshot is made after so many entries since the last.
    pub snapshot_every: u64,
    /// So many entries that a snapshot covers stay in the log, for followers that are behind.
    pub keep_entries: u64,
    /// The log is kept at about so many bytes; one that is half as large past its snapshot gets a
    /// new one.
    pub keep_bytes: u64,
    /// An entry stays in the log for about so long: an idle cluster's goes then as well.
    pub keep_age: Duration,
    /// The state's hash is remembered at each index that this divides (I4); 0 for never.
    pub hash_every: u64,
}

impl RaftConfig {
    /// The defaults of DESIGN section 8 for this directory and identity, and those peers.
    pub fn new(dir: impl Into<PathBuf>, identity: Identity, peers: Dialer) -> Self {
        Self {
            dir: dir.into(),
            identity,
            generation: 0,
            connector: connector(peers),
            timing: Timing::default(),
            care: CareLimits::default(),
            snapshot_every: 5_000,
            keep_entries: 20_000,
            keep_bytes: 64 << 20,
            keep_age: Duration::from_secs(3600),
            hash_every: 1_024,
        }
    }
}

/// How fast a node ticks, and how long it waits.
///
/// An election needs votes that are durable in time: a candidate waits for them for about 300 ms with the
/// defaults, in which a voter's disk is synced twice. With a majority on slower disks nobody is elected; a
/// longer heartbeat gives them more time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// The leader's heartbeat period.
    pub heartbeat_ms: u64,
    /// A follower that has not heard from the leader for `election_max_ms` (until then it votes
    /// for nobody else) waits at least this much longer before it stands,
    pub election_min_ms: u64,
    /// and at most this much longer: with the defaults it stands 1.6 to 2 s after the last
    /// heartbeat.
    pub election_max_ms: u64,
    /// How long a proposal, a read or a change of the membership may take.
    pub deadline_ms: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self { heartbeat_ms: 250, election_min_ms: 400, election_max_ms: 600, deadline_ms: 4_500 }
    }
}

impl Timing {
    /// For a leader that lets hear from itself this often: elections take as much longer. What a
    /// client waits for stays.
    pub fn with_heartbeat(heartbeat_ms: u64) -> Self {
        let usual = Self::default();
        let scaled = |ms: u64| ms * heartbeat_ms / usual.heartbeat_ms;
        Self {
            heartbeat_ms,
            election_min_ms: scaled(usual.election_min_ms),
            election_max_ms: scaled(usual.election_max_ms),
            deadline_ms: usual.deadline_ms,
        }
    }

    /// Past this without a word from the leader, a follower no longer names it.
    pub(crate) fn leader_silence(&self) -> Duration {
        Duration::from_millis(self.election_max_ms + self.heartbeat_ms)
    }

    /// Past this without any leader, a node stands that would rather not: when its leader is known
    /// to be silent the others wait for one election at most, and one more is theirs.
    pub(crate) fn last_resort(&self) -> Duration {
        Duration::from_millis(self.election_max_ms * 2)
    }

    pub(crate) fn deadline(&self) -> Duration {
        Duration::from_millis(self.deadline_ms)
    }
}

impl RaftConfig {
    pub(crate) fn limits(&self) -> Limits {
        Limits { entries: self.keep_entries, bytes: self.keep_bytes, age: self.keep_age }
    }

    pub(crate) fn openraft(&self) -> Result<openraft::Config, RaftError> {
        let t = &self.timing;
        openraft::Config {
            cluster_name: self.identity.cluster.to_string(),
            heartbeat_interval: t.heartbeat_ms,
            election_timeout_min: t.election_min_ms,
            election_timeout_max: t.election_max_ms,
            enable_pre_vote: Some(true),
            // A leader counts from when this process gained leadership (DESIGN section 5 rule 2).
            enable_leader_restore: Some(false),
            allow_log_reversion: Some(false),
            snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(self.snapshot_every),
            // `retention` decides.
            max_in_snapshot_log_to_keep: u64::MAX,
            // A follower's disk is synced once for each request; its size is limited by bytes as well.
            max_payload_entries: 1_024,
            replication_lag_threshold: self.snapshot_every.saturating_mul(2),
            // The idle limit of a snapshot transfer; see `net::client` for the whole's.
            install_snapshot_timeout: 10_000,
            backoff: "100ms 200ms 400ms ...800ms".to_owned(),
            ..openraft::Config::default()
        }
        .validate()
        .map_err(|e| RaftError::Config { what: e.to_string() })
    }
}
