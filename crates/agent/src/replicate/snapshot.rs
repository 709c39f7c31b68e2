//! When a snapshot is due, and taking it.

use std::path::{Path, PathBuf};

use holdfast_storage::fsys::{self, FreezeHelper, FreezeWindow};
use holdfast_storage::{AlreadyQuiet, Pool, Quiesce, SnapshotInfo, VolumeInfo};
use holdfast_types::{ContainerUid, Epoch, SnapshotUuid};

use crate::clock::{boottime_ms, wall};
use crate::error::AgentError;
use crate::replicate::source::Latest;

/// How long a filesystem may stay frozen before the helper thaws it by itself.
const FREEZE_LIMIT: std::time::Duration = std::time::Duration::from_secs(2);

/// Thawing ext4 writes its superblock once (`ext4_unfreeze`). Of the writes since the instant of
/// the snapshot this many are the thaw's own; more mean that the container wrote meanwhile.
const THAW_WRITES: u64 = 1;

/// Remembers what the newest snapshot covers.
#[derive(Default)]
pub(crate) struct Snapshooter {
    covered: Option<Covered>,
}

/// The newest snapshot holds everything while the device's write counter stays at this.
struct Covered {
    snapshot: SnapshotUuid,
    /// None when the volume was inactive: it is covered until it becomes active again.
    writes: Option<u64>,
}

impl Snapshooter {
    /// The newest snapshot after one round; a new one if anything was written. None while the
    /// volume is not the primary copy of that epoch, or is between inactive and running.
    pub(crate) fn round(
        &mut self,
        pool: &dyn Pool,
        uid: ContainerUid,
        epoch: Epoch,
        mountpoint: &Path,
        freezer: &FreezeHelper,
        running: impl Fn() -> bool,
    ) -> Result<Option<Latest>, AgentError> {
        let volume = match pool.volume(uid.into()) {
            Ok(volume) => volume,
            Err(_) => return Ok(None),
        };
        let live = volume.state.live.as_ref();
        if live.is_none_or(|live| live.epoch != epoch) {
            return Ok(None);
        }
        match volume.device.clone() {
            Some(device) if fsys::is_mounted(mountpoint)? => {
                self.mounted(pool, &volume, &device, mountpoint, freezer).map(Some)
            }
            // Between two states; the worker is at it.
            Some(_) => Ok(None),
            None if running() => Ok(None),
            None => self.inactive(pool, &volume),
        }
    }

    fn mounted(
        &mut self,
        pool: &dyn Pool,
        volume: &VolumeInfo,
        device: &Path,
        mountpoint: &Path,
        freezer: &FreezeHelper,
    ) -> Result<Latest, AgentError> {
        // Whatever is written after this moment may be missing from the snapshot.
        let as_of_ms = boottime_ms();
        fsys::sync(mountpoint)?;
        let writes = fsys::write_counter(device)?;
        if let Some(covered) = &self.covered
            && covered.writes == Some(writes)
            && let Some(newest) = volume.state.find(covered.snapshot)
        {
            return Ok(Latest { snapshot: newest.clone(), as_of_ms });
        }
        let mut window = Counting {
            window: freezer.window(mountpoint, FREEZE_LIMIT),
            device: device.to_owned(),
            at_freeze: None,
        };
        let snapshot = take(pool, volume, &mut window)?;
        let after_thaw = fsys::write_counter(device)?;
        let writes = window.at_freeze.map(|at| match after_thaw - at <= THAW_WRITES {
            true => after_thaw,
            // The container wrote at once: the next round must see a difference.
            false => at,
        });
        self.covered = Some(Covered { snapshot: snapshot.id.uuid, writes });
        Ok(Latest { snapshot, as_of_ms })
    }

    fn inactive(
        &mut self,
        pool: &dyn Pool,
        volume: &VolumeInfo,
    ) -> Result<Option<Latest>, AgentError> {
        let as_of_ms = boottime_ms();
        if let Some(Covered { snapshot, writes: None }) = &self.covered
            && let Some(newest) = volume.state.find(*snapshot)
        {
            return Ok(Some(Latest { snapshot: newest.clone(), as_of_ms }));
        }
        let snapshot = take(pool, volume, &mut AlreadyQuiet)?;
        self.covered = Some(Covered { snapshot: snapshot.id.uuid, writes: None });
        Ok(Some(Latest { snapshot, as_of_ms }))
    }
}

fn take(
    pool: &dyn Pool,
    volume: &VolumeInfo,
    quiesce: &mut dyn Quiesce,
) -> Result<SnapshotInfo, AgentError> {
    let uid = volume.state.uid;
    let gone = AgentError::Storage(holdfast_storage::Error::NoVolume(uid));
    let id = volume.state.next_snapshot(SnapshotUuid::generate()).ok_or(gone)?;
    pool.snapshot(&id, wall(), quiesce)?;
    let state = pool.volume(uid)?.state;
    let missing = AgentError::Storage(holdfast_storage::Error::NoSnapshot(id.uuid));
    state.find(id.uuid).cloned().ok_or(missing)
}

/// A freeze window that notes the device's write counter at the instant of the snapshot.
struct Counting {
    window: FreezeWindow,
    device: PathBuf,
    at_freeze: Option<u64>,
}

impl Quiesce for Counting {
    fn freeze(&mut self) -> holdfast_storage::Result<()> {
        self.window.freeze()?;
        self.at_freeze = fsys::write_counter(&self.device).ok();
        Ok(())
    }

    fn thaw(&mut self) -> holdfast_storage::Result<()> {
        self.window.thaw()
    }
}
