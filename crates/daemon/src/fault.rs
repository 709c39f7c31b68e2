//! Why a call is refused, on its way to becoming a gRPC status.

use holdfast_controller::{GrantRefusal, PortError};
use holdfast_core::Refusal;
use holdfast_planner::{GrowthError, PlacementError};
use holdfast_proto::{FieldError, RemoteError, status_from};
use holdfast_raft::RaftError;
use holdfast_trust::TrustError;
use holdfast_types::{Code, IdError, LabelError, NameError, SpecError};
use tonic::Status;

use crate::error::DaemonError;
use crate::machine::MachineError;

/// A refusal with its stable code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// The stable code.
    pub code: Code,
    /// One line for a person.
    pub message: String,
    /// With [`Code::NotLeader`]: the address to ask instead.
    pub leader: Option<String>,
}

impl Fault {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), leader: None }
    }

    pub(crate) fn not_leader(leader: Option<String>) -> Self {
        let message = match &leader {
            Some(address) => format!("this node does not lead; {address} does"),
            None => "this node does not lead, and knows of no leader".to_owned(),
        };
        Self { code: Code::NotLeader, message, leader }
    }

    pub(crate) fn no_quorum() -> Self {
        Self::new(Code::NoQuorum, "no quorum: no leader with a majority behind it answered in time")
    }
}

macro_rules! coded {
    ($($error:ty),*) => { $(
        impl From<$error> for Fault {
            fn from(error: $error) -> Self {
                Self::new(error.code(), error.to_string())
            }
        }
    )* };
}

coded!(
    IdError,
    LabelError,
    NameError,
    SpecError,
    FieldError,
    PlacementError,
    GrowthError,
    GrantRefusal,
    TrustError,
    DaemonError
);

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.code, refusal.message)
    }
}

impl From<MachineError> for Fault {
    fn from(error: MachineError) -> Self {
        Self::new(error.code, error.message)
    }
}

impl From<RaftError> for Fault {
    fn from(error: RaftError) -> Self {
        match error {
            RaftError::NotLeader { leader } => Self::not_leader(leader.map(|peer| peer.addr)),
            other => Self::new(other.code(), other.to_string()),
        }
    }
}

impl From<RemoteError> for Fault {
    fn from(error: RemoteError) -> Self {
        Self { code: error.code, message: error.message, leader: error.leader }
    }
}

impl From<Status> for Fault {
    fn from(status: Status) -> Self {
        RemoteError::from(status).into()
    }
}

impl From<Fault> for Status {
    fn from(fault: Fault) -> Self {
        status_from(fault.code, fault.message, fault.leader.as_deref())
    }
}

impl From<Fault> for PortError {
    fn from(fault: Fault) -> Self {
        Self { code: fault.code, message: fault.message }
    }
}
