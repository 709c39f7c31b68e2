//! What can go wrong in an agent.

use holdfast_fence::GuardianError;
use holdfast_network::NetworkError;
use holdfast_proto::{FieldError, RemoteError};
use holdfast_runtime::RuntimeError;
use holdfast_runtime::image::ImageError;
use holdfast_types::{Code, ContainerUid, NodeId, VolumeUid};

/// Why the agent did not do something.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The pool refused or failed.
    #[error(transparent)]
    Storage(#[from] holdfast_storage::Error),
    /// A container could not be run, stopped or asked.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// A link or the overlay could not be made.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The guardian did not do its part.
    #[error(transparent)]
    Guardian(#[from] GuardianError),
    /// An image was refused.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// Another node refused, or did not answer.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// A message is malformed.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// A peer speaks for another cluster.
    #[error("the peer belongs to another cluster")]
    WrongCluster,
    /// The node's storage is not open yet.
    #[error("this node is still starting")]
    Starting,
    /// The container is not this node's to do that with.
    #[error("container {uid} {reason}")]
    NotHere {
        /// Which container.
        uid: ContainerUid,
        /// What about it.
        reason: &'static str,
    },
    /// Another node than the one that has it to give speaks for a volume.
    #[error("node {sender} has nothing to say of {volume} here, by this node's newest view")]
    NotTheirs {
        /// Who spoke.
        sender: NodeId,
        /// Of what.
        volume: VolumeUid,
    },
    /// A sender is behind or ahead of what this node knows of the volume.
    #[error("{0}")]
    Epoch(String),
    /// No replica became current in time.
    #[error("no replica of the container became current in time")]
    NotSynced,
    /// No snapshot is taken in a pool past its threshold.
    #[error("the pool of the container's node is full: no snapshots are taken until there is room")]
    PoolFull,
    /// The node has as many transfers under way as it takes.
    #[error("the node has as many transfers under way as it takes at a time")]
    Busy,
    /// The transfer's sender came again.
    #[error("the transfer was begun anew by its sender")]
    Superseded,
    /// The transfer was interrupted for others.
    #[error("the transfer makes way for shorter ones and goes on later")]
    MadeWay,
    /// A pool that fills takes in nothing that the newest copy does without.
    #[error("the replica's pool is filling: it receives no older snapshots until there is room")]
    NoHistory,
    /// The guardian holds no live lease.
    #[error("this node has no lease now: its protected containers are stopped until it has")]
    NoLease,
    /// The guardian may take longer to stop everything than the cluster waits for it.
    #[error("the guardian's fence budget is {own_ms} ms, the cluster's {agreed_ms} ms")]
    Budget {
        /// The guardian's.
        own_ms: u64,
        /// What the cluster counts on.
        agreed_ms: u64,
    },
    /// A task of ours ended early.
    #[error("a task of the agent ended early")]
    Ended,
}

impl AgentError {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            Self::Storage(e) => e.code(),
            Self::Runtime(e) => e.code(),
            Self::Network(e) => e.code(),
            Self::Guardian(e) => e.code(),
            Self::Image(e) => e.code(),
            Self::Remote(e) => e.code(),
            Self::Field(e) => e.code(),
            Self::Budget { .. } => Code::Config,
            Self::WrongCluster => Code::WrongCluster,
            Self::Starting => Code::Unavailable,
            Self::NotHere { .. } => Code::WrongState,
            Self::NotTheirs { .. } => Code::Forbidden,
            Self::Epoch(_) => Code::StaleEpoch,
            Self::NotSynced => Code::Timeout,
            Self::PoolFull | Self::NoHistory => Code::PoolFull,
            Self::Busy | Self::MadeWay => Code::Busy,
            Self::Superseded => Code::Unavailable,
            Self::NoLease => Code::NoLease,
            Self::Ended => Code::Internal,
        }
    }

    /// The error with all its causes, in one line.
    pub fn line(&self) -> String {
        let mut line = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(next) = cause {
            line.push_str(": ");
            line.push_str(&next.to_string());
            cause = next.source();
        }
        line.replace('\n', "; ")
    }

    /// As a gRPC status.
    pub(crate) fn to_status(&self) -> tonic::Status {
        holdfast_proto::status_from(self.code(), self.line(), None)
    }
}

/// Runs what blocks on a thread that may.
pub(crate) async fn blocking<T: Send + 'static, E: Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, AgentError>
where
    AgentError: From<E>,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(AgentError::from),
        Err(_) => Err(AgentError::Ended),
    }
}
