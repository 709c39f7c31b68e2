//! Identities. Numbers are assigned by the replicated state, UUIDs (v7) are made at the edge.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Code;

/// A text that should have been an id and is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a valid {what}")]
pub struct IdError {
    /// What was expected, for people: "container uid", "epoch".
    pub what: &'static str,
    /// The text as given.
    pub text: String,
}

impl IdError {
    /// The stable code of this refusal.
    pub fn code(&self) -> Code {
        Code::InvalidArgument
    }
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The value one higher.
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(s: &str) -> Result<Self, IdError> {
                s.parse().map(Self).map_err(|_| IdError { what: $what, text: s.to_owned() })
            }
        }
    };
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A fresh UUIDv7. Only for the edge: `apply` and the planners never call it.
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }

            /// The 16 bytes, as they travel in protobuf `bytes` fields.
            pub fn to_bytes(self) -> Vec<u8> {
                self.0.as_bytes().to_vec()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(s: &str) -> Result<Self, IdError> {
                Uuid::parse_str(s)
                    .map(Self)
                    .map_err(|_| IdError { what: $what, text: s.to_owned() })
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = IdError;
            fn try_from(bytes: &[u8]) -> Result<Self, IdError> {
                Uuid::from_slice(bytes).map(Self).map_err(|_| IdError {
                    what: $what,
                    text: format!("{} bytes", bytes.len()),
                })
            }
        }
    };
}

number_id!(
    /// A node, for ever: the log index of the entry that admitted it (the founder is 1). Never reused.
    NodeId, "node id"
);
number_id!(
    /// How many times a node's daemon has registered. `n2#7` is node n2 in its seventh life.
    Incarnation, "incarnation"
);
number_id!(
    /// A container's fencing token: up by one each time its assignment moves. Starts at 1.
    Epoch, "epoch"
);
number_id!(
    /// A snapshot's number within its volume and epoch. Starts at 1.
    Seq, "sequence number"
);
number_id!(
    /// A point in the replicated state: the log index of the entry that last changed the object.
    Revision, "revision"
);

uuid_id!(
    /// One cluster. A data directory carries it and refuses to serve another.
    ClusterId, "cluster id"
);
uuid_id!(
    /// One container, whatever it is named.
    ContainerUid, "container uid"
);
uuid_id!(
    /// One image.
    ImageUid, "image uid"
);
uuid_id!(
    /// One volume on every node that holds a copy of it; a container's root has the container's uid.
    VolumeUid, "volume uid"
);
uuid_id!(
    /// One snapshot, on every node that holds it.
    SnapshotUuid, "snapshot uuid"
);
uuid_id!(
    /// One request of one client: applied once however often it is retried.
    RequestId, "request id"
);
uuid_id!(
    /// A long-running piece of work that a client can follow.
    OperationId, "operation id"
);

impl From<ContainerUid> for VolumeUid {
    fn from(uid: ContainerUid) -> Self {
        Self(uid.0)
    }
}

impl From<ImageUid> for VolumeUid {
    fn from(uid: ImageUid) -> Self {
        Self(uid.0)
    }
}

impl From<RequestId> for OperationId {
    fn from(id: RequestId) -> Self {
        Self(id.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip_through_text_and_bytes() {
        let uid = ContainerUid::generate();
        assert_eq!(uid.to_string().parse::<ContainerUid>(), Ok(uid));
        assert_eq!(ContainerUid::try_from(uid.to_bytes().as_slice()), Ok(uid));
        assert_eq!("7".parse::<Epoch>(), Ok(Epoch(7)));
    }

    #[test]
    fn wrong_texts_say_what_was_expected() {
        let err = "x".parse::<NodeId>().unwrap_err();
        assert_eq!(err.to_string(), "\"x\" is not a valid node id");
        assert!(SnapshotUuid::try_from([1u8, 2].as_slice()).is_err());
    }
}
