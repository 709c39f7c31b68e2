//! The error ↔ status table. A status carries our code in the metadata key `holdfast-code`, so
//! that the stable code survives whatever gRPC code it maps to.

use std::fmt;

use holdfast_types::Code;
use tonic::metadata::MetadataValue;
use tonic::{Code as Grpc, Status};

const CODE_KEY: &str = "holdfast-code";
const LEADER_KEY: &str = "holdfast-leader";

/// The gRPC code of each of ours.
fn grpc_code(code: Code) -> Grpc {
    match code {
        Code::InvalidArgument
        | Code::InvalidName
        | Code::InvalidSize
        | Code::BadImage
        | Code::TooLarge
        | Code::Config => Grpc::InvalidArgument,
        Code::NotFound => Grpc::NotFound,
        Code::AlreadyExists => Grpc::AlreadyExists,
        Code::Conflict => Grpc::Aborted,
        Code::Compacted => Grpc::OutOfRange,
        Code::WrongState
        | Code::InUse
        | Code::RequestExpired
        | Code::NotInitialized
        | Code::WrongCluster
        | Code::Superseded
        | Code::RecoveryUnfinished
        | Code::VersionTooOld
        | Code::FeatureLevel
        | Code::StaleEpoch
        | Code::NodeLost
        | Code::NodeRemoved
        | Code::QuorumAtRisk
        | Code::StaleIncarnation
        | Code::Held
        | Code::WrongBase
        | Code::NoPool
        | Code::MissingTool
        | Code::ToolTooOld
        | Code::PoolDamaged
        | Code::DeviceNotEmpty
        | Code::DeviceMissing
        | Code::DuplicateDevice
        | Code::AddressInUse => Grpc::FailedPrecondition,
        Code::NoPlacement
        | Code::PoolFull
        | Code::GroupFull
        | Code::NoAddress
        | Code::Busy
        | Code::TooManySnapshots => Grpc::ResourceExhausted,
        Code::Untrusted => Grpc::Unauthenticated,
        Code::NotRoot | Code::Forbidden => Grpc::PermissionDenied,
        Code::NoQuorum
        | Code::NotLeader
        | Code::NoLease
        | Code::Guardian
        | Code::Unavailable
        | Code::Network
        | Code::Runtime => Grpc::Unavailable,
        Code::Timeout => Grpc::DeadlineExceeded,
        Code::Corrupt | Code::CopyRotten | Code::StreamCorrupt => Grpc::DataLoss,
        Code::PoolIo | Code::PoolUnusable | Code::PoolWorn | Code::DiskIo | Code::Internal => {
            Grpc::Internal
        }
    }
}

/// A status for the wire. `leader` is the address to ask instead, with [`Code::NotLeader`].
pub fn status_from(code: Code, message: impl Into<String>, leader: Option<&str>) -> Status {
    let mut status = Status::new(grpc_code(code), message);
    status.metadata_mut().insert(CODE_KEY, MetadataValue::from_static(code.as_str()));
    if let Some(value) = leader.and_then(|address| MetadataValue::try_from(address).ok()) {
        status.metadata_mut().insert(LEADER_KEY, value);
    }
    status
}

/// Whether a status is a server's own answer: a broken connection, or a call that was given up,
/// gives one without a code of ours.
pub fn is_answer(status: &Status) -> bool {
    status.metadata().contains_key(CODE_KEY)
}

/// What a peer or server answered, or that it did not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct RemoteError {
    /// The stable code. [`Code::Unavailable`] when the peer could not be reached.
    pub code: Code,
    /// One line for a person.
    pub message: String,
    /// With [`Code::NotLeader`]: the address to ask instead.
    pub leader: Option<String>,
}

impl fmt::Display for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl RemoteError {
    /// The stable code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The same error as a status, for forwarding.
    pub fn to_status(&self) -> Status {
        status_from(self.code, self.message.clone(), self.leader.as_deref())
    }
}

impl From<Status> for RemoteError {
    fn from(status: Status) -> Self {
        #[cfg(feature = "client")]
        if let Some(message) = holdfast_trust::why_untrusted(&status) {
            return Self { code: Code::Untrusted, message, leader: None };
        }
        let text = |key| status.metadata().get(key).and_then(|v| v.to_str().ok());
        let code = text(CODE_KEY).and_then(|t| t.parse().ok()).unwrap_or(match status.code() {
            Grpc::DeadlineExceeded | Grpc::Cancelled => Code::Timeout,
            Grpc::OutOfRange | Grpc::ResourceExhausted => Code::TooLarge,
            Grpc::InvalidArgument => Code::InvalidArgument,
            Grpc::Unimplemented => Code::WrongState,
            _ => Code::Unavailable,
        });
        Self {
            code,
            message: status.message().to_owned(),
            leader: text(LEADER_KEY).map(str::to_owned),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_the_wire() {
        for code in Code::ALL {
            let error = RemoteError::from(status_from(*code, "why", Some("10.0.0.1:7443")));
            assert_eq!(error.code, *code);
            assert_eq!(error.message, "why");
            assert_eq!(error.leader.as_deref(), Some("10.0.0.1:7443"));
        }
    }

    #[test]
    fn a_foreign_status_gets_a_code_too() {
        assert_eq!(RemoteError::from(Status::unknown("x")).code, Code::Unavailable);
        assert!(!is_answer(&Status::unavailable("broken pipe")));
        assert!(is_answer(&status_from(Code::Unavailable, "starting", None)));
    }
}
