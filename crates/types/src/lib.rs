//! The words of Holdfast as types: ids, names, sizes, epochs, specs, statuses and error codes.
//!
//! Everything past the edge of the system speaks in these newtypes; a bare `String` or `u64` from
//! a user, a peer or a disk becomes one of them through `FromStr` or `TryFrom`, or is refused with
//! an error that has a [`Code`]. No IO, no clock and no randomness live here.

mod chain;
mod code;
mod container;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod ids;
mod keep;
mod kept;
mod label;
mod lease;
mod level;
mod name;
mod net;
mod report;
mod size;
mod snapshot;
mod time;
mod view;
mod volume;

pub use chain::{Chain, LEAP};
pub use code::Code;
pub use container::{
    ContainerSpec, DesiredState, Limits, MAX_VOLUMES, Protection, RunState, SpecError,
};
pub use ids::{
    ClusterId, ContainerUid, Epoch, IdError, ImageUid, Incarnation, NodeId, OperationId, RequestId,
    Revision, Seq, SnapshotUuid, VolumeUid,
};
pub use keep::{KeepError, KeepRules, Period};
pub use kept::{KeptBy, KeptView, MAX_KEPT, RestoreView};
pub use label::{LabelError, LabelValue, MAX_LABELS};
pub use lease::LeaseSettings;
pub use level::FeatureLevel;
pub use name::{
    ContainerName, ImageName, LabelKey, NameError, NodeName, PoolName, SnapshotName, VolumeName,
};
pub use net::{CidrV4, MacAddr, NetError};
pub use report::Report;
pub use size::{ByteSize, SizeError};
pub use snapshot::{HeldSnapshot, SnapshotId};
pub use time::TimestampMs;
pub use view::{AssignedView, CopyView, ImageView, NodeView, PeerView, ReplicaView};
pub use volume::{DataVolume, MountPath, VolumeError};
