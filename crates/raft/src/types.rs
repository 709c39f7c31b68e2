//! openraft's type parameters, as this project sets them.

use std::fmt;

use bytes::Bytes;
use holdfast_core::{Entry, Response};
use serde::{Deserialize, Serialize};

use crate::MAX_ENTRY_BYTES;
use crate::codec::{self, CodecError};
use crate::error::RaftError;
use crate::machine::Machine;
use crate::snapshot::SnapshotData;

openraft::declare_raft_types!(
    /// Standard leader ids: at most one leader a term (I1).
    pub(crate) TypeConfig:
        D = EntryBytes,
        R = Answer,
        NodeId = u64,
        Node = openraft::impls::BasicNode,
        Term = u64,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>,
);

pub(crate) type Raft = openraft::Raft<TypeConfig, Machine>;
pub(crate) type LogEntry = <TypeConfig as openraft::RaftTypeConfig>::Entry;
pub(crate) type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
pub(crate) type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
pub(crate) type Membership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
pub(crate) type Members = openraft::Membership<u64, openraft::impls::BasicNode>;
pub(crate) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;
pub(crate) type Snapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, SnapshotData>;

/// An entry as its proposer encoded it. Nodes of different versions pass it on bit for bit, so
/// that fields that one does not know reach those that do.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct EntryBytes(Bytes);

impl EntryBytes {
    pub(crate) fn encode(entry: &Entry) -> Result<Self, RaftError> {
        let bytes =
            codec::encode(entry).map_err(|e| RaftError::Internal { what: e.to_string() })?;
        if bytes.len() > MAX_ENTRY_BYTES {
            let (size_bytes, limit_bytes) = (bytes.len(), MAX_ENTRY_BYTES);
            return Err(RaftError::TooLarge { size_bytes, limit_bytes });
        }
        Ok(Self(bytes.into()))
    }

    pub(crate) fn decode(&self) -> Result<Entry, CodecError> {
        codec::decode(&self.0)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Debug for EntryBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "entry of {} bytes", self.0.len())
    }
}

impl fmt::Display for EntryBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// What applying gave; nothing for openraft's own entries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer(pub(crate) Option<Response>);
