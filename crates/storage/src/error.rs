//! Why a pool refuses or fails.

use std::io;
use std::path::{Path, PathBuf};

use holdfast_types::{ByteSize, ClusterId, Code, Epoch, SnapshotUuid, VolumeUid};

use crate::lvm::admin::Refusal;
use crate::stream::StreamError;

/// What every operation of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a pool operation did not happen. Unless it says otherwise, nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The pool has no such volume.
    #[error("the pool has no volume {0}")]
    NoVolume(VolumeUid),
    /// The pool has no such snapshot.
    #[error("the pool has no snapshot {0}")]
    NoSnapshot(SnapshotUuid),
    /// A volume of that uid is there and is another one (size, origin or epoch differ).
    #[error("volume {0} exists already and is not the one asked for")]
    VolumeExists(VolumeUid),
    /// The volume's state does not allow the change.
    #[error("volume {volume}: {reason}")]
    WrongState {
        /// Which volume.
        volume: VolumeUid,
        /// What about its state, for people.
        reason: &'static str,
    },
    /// A volume, snapshot or pool is being used by something else.
    #[error("{0} is in use")]
    InUse(String),
    /// Something else has the thin pool's metadata snapshot, without which nothing is compared.
    #[error(
        "something else holds the metadata snapshot of the thin pool {0}: end that, or `dmsetup message {0} 0 release_metadata_snap`"
    )]
    MetadataHeld(String),
    /// The epoch is not above what this pool durably refuses (I11).
    #[error("volume {volume}: epoch {offered} is stale, only epochs above {floor} are accepted")]
    StaleEpoch {
        /// Which volume.
        volume: VolumeUid,
        /// The epoch asked for.
        offered: Epoch,
        /// The highest epoch that is refused.
        floor: Epoch,
    },
    /// The delta's base is not here (I19).
    #[error("volume {volume}: base snapshot {base} is not in this pool")]
    WrongBase {
        /// Which volume.
        volume: VolumeUid,
        /// The base that was offered.
        base: SnapshotUuid,
    },
    /// The snapshot's content is no longer what was verified when it came.
    #[error("snapshot {0} has rotted: what its disk returns is not what was written")]
    Rotten(SnapshotUuid),
    /// The pool is past its admission threshold, or would be.
    #[error(
        "the pool is full: {used} of {size} used, {asked} more asked for, admission stops at {threshold_percent} %"
    )]
    Full {
        /// Bytes in physical use.
        used: ByteSize,
        /// Physical size.
        size: ByteSize,
        /// What was to be added.
        asked: ByteSize,
        /// Where admission stops.
        threshold_percent: u8,
    },
    /// The pool's metadata is past its threshold.
    #[error(
        "the pool's metadata is full: {used} of {size} used, admission stops at {threshold_percent} %; grow it"
    )]
    MetadataFull {
        /// Bytes in use.
        used: ByteSize,
        /// All of it.
        size: ByteSize,
        /// Where admission stops.
        threshold_percent: u8,
    },
    /// The thin pool has had nearly as many snapshots as its metadata can tell apart.
    #[error(
        "the thin pool is worn: {percent} % of the snapshots of its life were taken; make a new one"
    )]
    Worn {
        /// How much of its life is over.
        percent: u8,
    },
    /// A size of zero, beyond what a volume can have, or smaller than before.
    #[error("a volume size of {size} is not possible: {reason}")]
    BadSize {
        /// The size asked for.
        size: ByteSize,
        /// Why not.
        reason: &'static str,
    },
    /// A label or role is too long or holds control characters.
    #[error("the {0} is longer than allowed or holds control characters")]
    BadText(&'static str),
    /// The pool belongs to another cluster.
    #[error("{path} belongs to cluster {found}, not to {wanted}")]
    WrongCluster {
        /// The identity file.
        path: PathBuf,
        /// The cluster that the file names.
        found: ClusterId,
        /// The cluster of this node.
        wanted: ClusterId,
    },
    /// A file of ours is damaged. Nothing was guessed.
    #[error("{path} is damaged: {reason}")]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The place cannot carry a pool: no reflink, no direct I/O, no loop device.
    #[error("{path} cannot be used as a pool: {reason}")]
    Unusable {
        /// Which directory or file.
        path: PathBuf,
        /// Why not, and the cure where there is one.
        reason: String,
    },
    /// A thin pool's metadata must be checked before it is written again.
    #[error(
        "{0} takes no writes: its metadata needs a check; stop what runs on it, and repair it (`holdfast pool repair`)"
    )]
    Damaged(String),
    /// A pool is not changed as an operator asked. Nothing was done.
    #[error(transparent)]
    Refused(Box<Refusal>),
    /// A delta stream failed verification; nothing of it became a snapshot.
    #[error("the delta stream was refused")]
    Stream(#[from] StreamError),
    /// The kernel refused.
    #[error("{what} {path}")]
    Io {
        /// What was tried, as a verb: "reading".
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A program is not installed.
    #[error("the program {0} is not installed")]
    MissingTool(String),
    /// A program failed.
    #[error("{tool} failed: {stderr}")]
    Tool {
        /// Which program.
        tool: String,
        /// The last of what it said.
        stderr: String,
    },
    /// Something did not happen by its deadline.
    #[error("gave up waiting for {0}")]
    Timeout(String),
    /// The kernel lets only a process with CAP_SYS_RESOURCE do it.
    #[error("{0} needs CAP_SYS_RESOURCE, which this process lacks")]
    NotPermitted(&'static str),
    /// Root is needed.
    #[error("the storage driver must run as root")]
    NotRoot,
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(Box::new(refusal))
    }
}

impl Error {
    /// The stable code of this failure.
    pub fn code(&self) -> Code {
        match self {
            Self::NoVolume(_) | Self::NoSnapshot(_) => Code::NotFound,
            Self::VolumeExists(_) => Code::AlreadyExists,
            Self::WrongState { .. } => Code::WrongState,
            Self::InUse(_) | Self::MetadataHeld(_) => Code::InUse,
            Self::StaleEpoch { .. } => Code::StaleEpoch,
            Self::WrongBase { .. } => Code::WrongBase,
            Self::Rotten(_) => Code::CopyRotten,
            Self::Full { .. } | Self::MetadataFull { .. } => Code::PoolFull,
            Self::Worn { .. } => Code::PoolWorn,
            Self::BadSize { .. } => Code::InvalidSize,
            Self::BadText(_) => Code::InvalidArgument,
            Self::WrongCluster { .. } => Code::WrongCluster,
            Self::Corrupt { .. } => Code::Corrupt,
            Self::Unusable { .. } => Code::PoolUnusable,
            Self::Damaged(_) => Code::PoolDamaged,
            Self::Refused(refusal) => refusal.code(),
            Self::Stream(_) => Code::StreamCorrupt,
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Code::PoolFull
            }
            Self::Io { .. } | Self::Tool { .. } => Code::PoolIo,
            Self::MissingTool(_) => Code::MissingTool,
            Self::Timeout(_) => Code::Timeout,
            Self::NotPermitted(_) | Self::NotRoot => Code::NotRoot,
        }
    }

    /// For `map_err`: the failure of `what` on `path`.
    pub(crate) fn io<E: Into<io::Error>>(
        what: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::Io { what, path: path.as_ref().to_owned(), source: source.into() }
    }
}
