//! The gRPC surface: code generated from the top-level `proto/`, conversions to the project's own
//! types, and the one table between error codes and gRPC statuses.
//!
//! `v1` is the public API, `internal` what nodes say to each other. Regenerate with
//! `cargo xtask codegen`.

pub mod backup;
#[cfg(feature = "client")]
mod connect;
mod convert;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
#[cfg(feature = "client")]
mod heartbeats;
mod metadata;
mod sender;
mod status;

#[cfg(feature = "client")]
pub use connect::{Address, AddressError, Dialer, Dialers};
pub use convert::{FieldError, required};
#[cfg(feature = "client")]
pub use heartbeats::Heartbeats;
pub use metadata::{AGE_KEY, APPLIED_KEY, NODE_KEY, READ_KEY, SINCE_KEY, STALE};
pub use sender::Sender;
pub use status::{RemoteError, is_answer, status_from};

/// The largest message either side accepts, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// How many bytes of a stream may be under way, as on a fast LAN: a snapshot must not wait for round
/// trips. A connection may have twice as many (RFC 9113, 5.2).
pub const STREAM_WINDOW: u32 = 8 << 20;

/// The largest HTTP/2 frame, in bytes (RFC 9113, 4.2). At the 16 KiB that are usual a snapshot costs
/// both ends a third more processor time; one that is much larger would keep others on the same
/// connection waiting on a slow link.
pub const STREAM_FRAME: u32 = 256 << 10;

/// The note of a node that is up by the log, where the leader's word on its lease is missing.
pub const LEASE_UNKNOWN: &str = "lease not known";

/// The largest view of a node, in bytes: it grows with the containers, copies and named snapshots
/// that the node has to do with, and is sent whole.
pub const MAX_VIEW_BYTES: usize = 64 << 20;

/// The public API.
#[allow(missing_docs, unreachable_pub, clippy::all)]
#[rustfmt::skip]
pub mod v1 {
    include!("generated/holdfast.v1.rs");
}

/// What nodes say to each other.
#[allow(missing_docs, unreachable_pub, clippy::all)]
#[rustfmt::skip]
pub mod internal {
    include!("generated/holdfast.internal.v1.rs");
}
