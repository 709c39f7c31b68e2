//! The [`Pool`] trait: what an agent asks of a node's storage, whatever the driver.

use std::path::{Path, PathBuf};

use holdfast_types::{
    ByteSize, ClusterId, Epoch, OperationId, SnapshotId, SnapshotUuid, TimestampMs, VolumeUid,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::catalog::{SnapshotInfo, SnapshotKind, VolumeState};
use crate::members::{Member, Shape};
use crate::{Error, Hold, Result};

/// Volume sizes are multiples of this, so that they mean the same to every driver.
pub const VOLUME_GRAIN: u64 = 4 << 20;

/// The volume size that a request for `size` gets: rounded up to [`VOLUME_GRAIN`].
pub fn round_size(size: ByteSize) -> Result<ByteSize> {
    const LARGEST: u64 = 16 << 40;
    match size.bytes() {
        0 => Err(Error::BadSize { size, reason: "it is zero" }),
        n if n > LARGEST => Err(Error::BadSize { size, reason: "it is over 16TiB" }),
        n => Ok(ByteSize(n.next_multiple_of(VOLUME_GRAIN))),
    }
}

/// Whether a verb changed anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It did.
    Changed,
    /// Everything was so already.
    AlreadyThere,
}

/// Which pool this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolIdentity {
    /// The cluster that it belongs to.
    pub cluster: ClusterId,
    /// The pool itself, for ever.
    pub pool: Uuid,
}

/// How full a pool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Physical size.
    pub size: ByteSize,
    /// Physical use, snapshots and metadata included.
    pub used: ByteSize,
    /// The sum of the sizes of all volumes.
    pub promised: ByteSize,
    /// Use and size of the metadata, where the driver has a place for it that can fill by itself.
    pub metadata: Option<(ByteSize, ByteSize)>,
    /// Past this much physical use (in percent) nothing new is admitted (I20).
    pub threshold_percent: u8,
}

impl Capacity {
    /// Use in percent, rounded down: of data or of metadata, whichever is fuller.
    pub fn used_percent(&self) -> u8 {
        self.data_percent().max(self.metadata_percent().unwrap_or(0))
    }

    /// Use of data in percent, rounded down.
    pub fn data_percent(&self) -> u8 {
        percent(self.used, self.size)
    }

    /// Use of metadata in percent, rounded down, where there is any.
    pub fn metadata_percent(&self) -> Option<u8> {
        self.metadata.map(|(used, size)| percent(used, size))
    }

    /// Whether nothing is left: what is written now waits, or fails.
    pub fn is_exhausted(&self) -> bool {
        self.used >= self.size || self.metadata.is_some_and(|(used, size)| used >= size)
    }

    /// What is kept in reserve of a pool of this size: 2 %, at most 4 GiB.
    pub fn reserve(&self) -> ByteSize {
        const MOST: u64 = 4 << 30;
        let wanted = (self.size.bytes() / 50).min(MOST);
        ByteSize(wanted - wanted % VOLUME_GRAIN)
    }

    /// Refuses `asked` more physical bytes if they would push the pool past its threshold.
    pub fn admit(&self, asked: ByteSize) -> Result<()> {
        if let Some((used, size)) = self.metadata
            && percent(used, size) >= self.threshold_percent
        {
            let threshold_percent = self.threshold_percent;
            return Err(Error::MetadataFull { used, size, threshold_percent });
        }
        let after = u128::from(self.used.bytes()) + u128::from(asked.bytes());
        let limit = u128::from(self.size.bytes()) * u128::from(self.threshold_percent) / 100;
        if after <= limit {
            return Ok(());
        }
        Err(self.full(asked))
    }

    /// Refuses a new volume of `size` in a pool past its threshold, or that could never hold it.
    pub fn admit_volume(&self, size: ByteSize) -> Result<()> {
        self.admit(ByteSize(0))?;
        if size > self.size { Err(self.full(size)) } else { Ok(()) }
    }

    fn full(&self, asked: ByteSize) -> Error {
        let Self { size, used, threshold_percent, .. } = *self;
        Error::Full { used, size, asked, threshold_percent }
    }
}

/// `used` of `size` in percent, rounded down; nothing is full.
fn percent(used: ByteSize, size: ByteSize) -> u8 {
    match size.bytes() {
        0 => 100,
        size => u8::try_from(u128::from(used.bytes()) * 100 / u128::from(size)).unwrap_or(u8::MAX),
    }
}

/// A receive that was interrupted and can go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partial {
    /// The snapshot that was being received.
    pub snapshot: SnapshotUuid,
    /// The base that it was built on.
    pub base: Option<SnapshotUuid>,
    /// Everything below this byte offset is durable.
    pub synced: u64,
}

/// What the pool holds of one volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeInfo {
    /// Its catalogued state: size, live part, snapshots, record.
    pub state: VolumeState,
    /// The live part's block device, while active: the root's.
    pub device: Option<PathBuf>,
    /// Those of its data members, in their order, while all are active.
    pub data_devices: Vec<PathBuf>,
    /// An interrupted receive.
    pub partial: Option<Partial>,
}

/// Whether a range differs by new content or by none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtentKind {
    /// The range's content is to be read from the snapshot.
    Data,
    /// The range reads as zeros.
    Hole,
}

/// A range in which a snapshot may differ from its base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// First byte.
    pub offset: u64,
    /// Number of bytes, never zero.
    pub len: u64,
    /// What is there.
    pub kind: ExtentKind,
}

/// In how many pieces a snapshot lies, and how many its driver compares without effort.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragmentation {
    /// Pieces.
    pub extents: u64,
    /// Beyond so many, comparing takes long enough to be done less often.
    pub comfortable: u64,
}

/// What a look at a part of a copy found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// Bytes that were read.
    pub read: u64,
    /// Bytes of it that had a hash from before to be compared with.
    pub compared: u64,
    /// The look reached the end: the next one begins anew.
    pub whole: bool,
    /// What is not as it was.
    pub rot: Option<Rot>,
}

/// A place of a snapshot that is not what was verified, or that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rot {
    /// The snapshot that was read.
    pub snapshot: SnapshotUuid,
    /// First byte of the block, by address (see [`members`](crate::members)).
    pub offset: u64,
    /// The disk refused to return it; else it returned something else.
    pub unreadable: bool,
}

/// What a sender has for a receiver, agreed on before any data flows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// What the delta applies to; `None` is everything.
    pub base: Option<SnapshotUuid>,
    /// The root's size at that snapshot.
    pub size: ByteSize,
    /// The data members at that snapshot.
    #[serde(default)]
    pub data: Vec<Member>,
    /// When the snapshot was taken, on the primary's clock.
    pub taken: TimestampMs,
    /// It is kept for somebody, and may come after newer ones, whatever its epoch (which the caller
    /// answers for: it is on the chain).
    #[serde(default)]
    pub history: bool,
}

impl Offer {
    /// Of a snapshot that is here, as a delta to `base` or whole.
    pub fn of(snapshot: &SnapshotInfo, base: Option<SnapshotUuid>) -> Self {
        let SnapshotInfo { id, size, data, taken, .. } = snapshot.clone();
        Self { snapshot: id, base, size, data, taken, history: false }
    }

    /// The sizes of all members.
    pub fn shape(&self) -> Shape {
        Shape { root: self.size, data: self.data.clone() }
    }

    /// Refuses what no volume can be.
    pub(crate) fn check(&self) -> Result<()> {
        let (shape, size) = (self.shape(), ByteSize(self.shape().bytes()));
        let reason = match shape.rounded()? == shape {
            false => "it is no multiple of 4MiB",
            true if self.data.iter().any(|m| m.blank) => "a member of it has nothing on it yet",
            true => return Ok(()),
        };
        Err(Error::BadSize { size, reason })
    }
}

/// What a live part is kept as when it is dropped (I21).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tail {
    /// The identity of the snapshot that keeps it.
    pub uuid: SnapshotUuid,
    /// When it was kept.
    pub taken: TimestampMs,
    /// Why, for people.
    pub label: String,
}

/// Stops and resumes writes around the instant of a snapshot.
///
/// A driver calls `freeze` just before that instant and `thaw` just after, also when the snapshot
/// failed; all slow work is done outside.
pub trait Quiesce {
    /// Whether the volume must be out of use, so that there is nothing to freeze. Of one that is in
    /// use the snapshot is refused with [`Error::InUse`].
    fn at_rest(&self) -> bool {
        false
    }
    /// Makes what is on the device a consistent filesystem, and keeps it so. `hold` names the
    /// device-mapper devices that must take no request meanwhile. Whoever holds them lets them go
    /// also if this process is killed at any instant.
    fn freeze(&mut self, hold: &[&str]) -> Result<()>;
    /// Lets requests and writes go on.
    fn thaw(&mut self) -> Result<()>;
}

/// For a volume that is out of use. Nobody takes it into use while the snapshot is taken.
#[derive(Debug, Clone, Copy)]
pub struct AtRest;

impl Quiesce for AtRest {
    fn at_rest(&self) -> bool {
        true
    }
    fn freeze(&mut self, _hold: &[&str]) -> Result<()> {
        Ok(())
    }
    fn thaw(&mut self) -> Result<()> {
        Ok(())
    }
}

/// For a volume whose only user is the one who asks: there is no request to hold back.
#[derive(Debug, Clone, Copy)]
pub struct AlreadyQuiet;

impl Quiesce for AlreadyQuiet {
    fn freeze(&mut self, _hold: &[&str]) -> Result<()> {
        Ok(())
    }
    fn thaw(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Random reads of a snapshot, which stays held meanwhile.
pub trait SnapshotReader: Send {
    /// Fills `buf` from an address. Reading past a member's end is an error.
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<()>;

    /// A range that will be read soon; a driver may begin to fetch it.
    fn expect(&mut self, _offset: u64, _len: u64) {}
}

/// A throw-away writable clone of a snapshot (a diverged filesystem's journal needs replay).
/// Dropping it removes the clone; unmount first.
pub trait Scratch: Send {
    /// Its block device: the root's.
    fn device(&self) -> &Path;
    /// Those of its data members, in their order.
    fn data_devices(&self) -> Vec<&Path>;
}

/// What the receiving side does with an offer.
pub enum Begin {
    /// The snapshot is here and verified: nothing to send.
    AlreadyThere(SnapshotInfo),
    /// Ready; the sender starts at [`Receiver::resume_at`].
    Receive(Box<dyn Receiver>),
}

/// Takes one delta stream (see [`stream`](crate::stream)) and makes a snapshot of it.
///
/// Dropping it without `finish` keeps what is durable, for a resume by the same offer; nothing of
/// it can be mounted or listed as a snapshot (I17).
pub trait Receiver: Send {
    /// Where the sender's stream must begin: what is below is durable already.
    fn resume_at(&self) -> u64;
    /// Takes the stream's next bytes, cut anywhere. An error is final.
    fn feed(&mut self, bytes: &[u8]) -> Result<()>;
    /// Everything below this byte offset is durable now.
    fn synced_offset(&self) -> u64;
    /// Verifies the whole, makes it durable, and only then turns it into a snapshot (I16).
    fn finish(self: Box<Self>) -> Result<SnapshotInfo>;
}

/// A node's storage.
///
/// A volume in a pool has snapshots, a [`VolumeRecord`](crate::VolumeRecord) and, on the primary,
/// a live (writable) part:
///
/// ```text
///            create, clone_volume              begin_receive … finish
///                   │                                   │
///                   ▼            demote                 ▼
///   activate ┌──────────────┐ ──────────────▶ ┌──────────────────┐
///    ┌──────▶│ primary copy │                 │ replica (no live)│
///    └───────│  (has live)  │ ◀────────────── └──────────────────┘
/// deactivate └──────────────┘  promote(epoch)
/// ```
///
/// Every change is durable when its verb returns, safe to repeat, and after a crash either has
/// happened or has not. Epochs at or below a volume's sealed floor are refused here, in the pool,
/// whoever asks (I11).
pub trait Pool: Send + Sync {
    /// Which pool this is.
    fn identity(&self) -> PoolIdentity;

    /// How full it is, measured now.
    fn capacity(&self) -> Result<Capacity>;

    /// Why it takes no writes, if it takes none: exhausted or damaged, with the cure.
    fn writable(&self) -> Result<()> {
        Ok(())
    }

    /// Why snapshots cannot be compared at this moment, if they cannot, with the cure.
    fn comparable(&self) -> Result<()> {
        Ok(())
    }

    /// How much of its life is over, in percent; 0 for a driver whose pools do not wear out.
    fn worn_percent(&self) -> u8 {
        0
    }

    /// How much room is held in reserve: taken, and used by nothing. It is counted as used.
    fn reserved(&self) -> ByteSize;

    /// Adds a little to the reserve, unless it is [what it should be](Capacity::reserve). Refused
    /// if the pool would then be past its threshold.
    fn fill_reserve(&self) -> Result<Outcome>;

    /// Gives the reserve to what running containers write (DESIGN section 7, *Full pools*).
    fn spend_reserve(&self) -> Result<Outcome>;

    /// Every volume, ordered by uid, from what the pool itself holds.
    fn volumes(&self) -> Vec<VolumeInfo>;

    /// One volume.
    fn volume(&self, volume: VolumeUid) -> Result<VolumeInfo>;

    /// Makes an empty volume of one member (see [`Pool::create_set`]).
    fn create(&self, volume: VolumeUid, size: ByteSize, epoch: Epoch) -> Result<Outcome> {
        self.create_set(volume, &size.into(), epoch)
    }

    /// Makes an empty volume of that shape (see [`round_size`]) with a live part under `epoch`. Its
    /// data members are blank, whatever `shape` says.
    fn create_set(&self, volume: VolumeUid, shape: &Shape, epoch: Epoch) -> Result<Outcome>;

    /// Makes a volume of one member as a clone (see [`Pool::clone_set`]).
    fn clone_volume(
        &self,
        from: SnapshotUuid,
        volume: VolumeUid,
        size: ByteSize,
        epoch: Epoch,
    ) -> Result<Outcome> {
        self.clone_set(from, volume, &size.into(), epoch)
    }

    /// Makes a volume whose live part begins as a thin clone of a snapshot of any volume. Each
    /// member is at least as large as the snapshot's, and the filesystem on it is grown afterwards;
    /// data members that the snapshot lacks are blank.
    fn clone_set(
        &self,
        from: SnapshotUuid,
        volume: VolumeUid,
        shape: &Shape,
        epoch: Epoch,
    ) -> Result<Outcome>;

    /// Something is on every data member now; snapshots may be taken.
    fn filled(&self, volume: VolumeUid) -> Result<Outcome>;

    /// Grows the live part's root. Online: an active device grows with it.
    fn resize(&self, volume: VolumeUid, size: ByteSize) -> Result<Outcome> {
        self.resize_member(volume, 0, size)
    }

    /// Grows one member of the live part: 0 is the root, then the data members in their order.
    fn resize_member(&self, volume: VolumeUid, member: usize, size: ByteSize) -> Result<Outcome>;

    /// Removes a volume with all that it has. Refused while active or held.
    fn remove_volume(&self, volume: VolumeUid) -> Result<Outcome>;

    /// Takes a snapshot of the live part, of all members at one moment;
    /// [`VolumeState::next_snapshot`] makes its identity. It is durable when this returns (I16).
    /// Refused while a member is blank.
    fn snapshot(
        &self,
        id: &SnapshotId,
        taken: TimestampMs,
        quiesce: &mut dyn Quiesce,
    ) -> Result<Outcome>;

    /// Says what a snapshot is kept for.
    fn label_snapshot(&self, snapshot: SnapshotUuid, kind: SnapshotKind) -> Result<Outcome>;

    /// Removes a snapshot. Refused while held.
    fn remove_snapshot(&self, snapshot: SnapshotUuid) -> Result<Outcome>;

    /// Keeps a snapshot from being removed until the guard is dropped.
    fn hold(&self, snapshot: SnapshotUuid) -> Result<Hold>;

    /// Gives a replica a live part that begins as `from`, under an `epoch` above every one that
    /// it was sealed, released or promoted at. No data is copied.
    fn promote(&self, volume: VolumeUid, from: SnapshotUuid, epoch: Epoch) -> Result<Outcome>;

    /// Lets the live part that is there go on under a higher epoch.
    fn continue_live(&self, volume: VolumeUid, epoch: Epoch) -> Result<Outcome>;

    /// Makes the volume a replica at `to`: the live part is dropped (after being kept as `tail`,
    /// if given), and its snapshots after `to` become diverged ones. Refused while active, and
    /// without a tail if the live part holds what its newest snapshot does not (I21).
    fn demote(
        &self,
        volume: VolumeUid,
        to: Option<SnapshotUuid>,
        tail: Option<&Tail>,
    ) -> Result<Outcome>;

    /// Lets the live part's content begin anew as `from`, any snapshot of the volume, once for each
    /// `request`. Its epoch, its place in the lineage and its size stay, so the next snapshot
    /// follows on the chain; the filesystem on it is grown afterwards. Refused while active, and
    /// if the live part holds what its newest snapshot does not. No data is copied.
    fn restore(
        &self,
        volume: VolumeUid,
        from: SnapshotUuid,
        epoch: Epoch,
        request: OperationId,
    ) -> Result<Outcome>;

    /// From now on refuses every epoch up to `up_to`, durably. Never goes down.
    fn seal(&self, volume: VolumeUid, up_to: Epoch) -> Result<Outcome>;

    /// Gives up `epoch` durably: it never becomes active here again. Refused while active.
    fn release(&self, volume: VolumeUid, epoch: Epoch) -> Result<Outcome>;

    /// Stores a text of the caller's with the volume (at most 64 KiB).
    fn set_role(&self, volume: VolumeUid, role: &str) -> Result<Outcome>;

    /// Makes each member of the live part a block device; the root's is returned, the others are in
    /// [`VolumeInfo::data_devices`]. `epoch` must be the live part's, above what is sealed
    /// and released. Repeating it gives the same device.
    fn activate(&self, volume: VolumeUid, epoch: Epoch) -> Result<PathBuf>;

    /// Takes the block devices away; unmount first.
    fn deactivate(&self, volume: VolumeUid) -> Result<Outcome>;

    /// A throw-away writable clone of a snapshot, as a block device.
    fn scratch(&self, snapshot: SnapshotUuid) -> Result<Box<dyn Scratch>>;

    /// Where, by address (see [`members`](crate::members)), `snapshot` may differ from `base` (of any volume; `None` is all zeros), ordered and
    /// without overlap. What is not listed is equal.
    fn diff(&self, base: Option<SnapshotUuid>, snapshot: SnapshotUuid) -> Result<Vec<Extent>>;

    /// What [`Pool::diff`] of a snapshot costs.
    fn fragmentation(&self, snapshot: SnapshotUuid) -> Result<Fragmentation>;

    /// Opens a snapshot for reading.
    fn open_snapshot(&self, snapshot: SnapshotUuid) -> Result<Box<dyn SnapshotReader>>;

    /// Looks at the next `blocks` blocks of [`HASH_BLOCK`](crate::catalog::HASH_BLOCK) bytes of a
    /// replica's newest snapshot, past every cache: those that have a hash are compared with it, the
    /// others get one. What has rotted is marked so durably, with all snapshots that share it: they
    /// are not listed as the newest, not promoted, cloned or built on any more, and may be received
    /// again. A primary copy, and one with nothing to look at, is left alone.
    fn scrub(&self, volume: VolumeUid, blocks: u32) -> Result<Scrubbed>;

    /// Prepares to receive. An interrupted receive goes on if the offer is the same; any other
    /// partial of that volume is dropped.
    fn begin_receive(&self, offer: &Offer) -> Result<Begin>;

    /// Drops an interrupted receive.
    fn drop_partial(&self, volume: VolumeUid) -> Result<Outcome>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_round_up_to_the_grain() {
        assert_eq!(round_size(ByteSize(1)).unwrap(), ByteSize::mib(4));
        assert_eq!(round_size(ByteSize::gib(1)).unwrap(), ByteSize::gib(1));
        assert!(round_size(ByteSize(0)).is_err());
        assert!(round_size(ByteSize(u64::MAX)).is_err());
    }

    /// I20: admission stops before the pool is full.
    #[test]
    fn admission_stops_at_the_threshold() {
        let capacity = Capacity {
            size: ByteSize(1000),
            used: ByteSize(890),
            promised: ByteSize(5000),
            metadata: None,
            threshold_percent: 90,
        };
        assert!(capacity.admit(ByteSize(10)).is_ok());
        assert!(matches!(capacity.admit(ByteSize(11)), Err(Error::Full { .. })));
        assert_eq!(capacity.used_percent(), 89);
        let metadata = Some((ByteSize(90), ByteSize(100)));
        let capacity = Capacity { used: ByteSize(0), metadata, ..capacity };
        assert!(matches!(capacity.admit(ByteSize(0)), Err(Error::MetadataFull { .. })));
        assert_eq!(capacity.used_percent(), 90);
    }
}
