//! When a snapshot is due, and taking it.

use std::path::PathBuf;
use std::time::Duration;

use holdfast_storage::fsys::{self, FreezeHelper, FreezeWindow};
use holdfast_storage::{AtRest, Pool, Quiesce, SnapshotInfo, VolumeInfo};
use holdfast_types::{ContainerUid, Epoch, SnapshotUuid};

use crate::clock::{boottime_ms, wall};
use crate::error::AgentError;
use crate::mounts;
use crate::places::Places;
use crate::replicate::source::Latest;

/// How long a filesystem may stay frozen before the helper thaws it by itself, at first.
const FREEZE_LIMIT: Duration = Duration::from_secs(2);

/// Where that was too short, as long as this: a disk that takes so long to freeze would never have a
/// snapshot. The helper allows no more.
const LONGEST_FREEZE: Duration = Duration::from_secs(10);

/// Thawing ext4 writes the block of its superblock once (`ext4_unfreeze`). Of the sectors written
/// since the instant of the snapshot this many (one block of 4 KiB) are the thaw's own; more mean
/// that the container wrote meanwhile.
const THAW_SECTORS: u64 = 8;

/// What a round came to.
#[derive(Debug)]
pub(crate) enum Round {
    /// The volume is not the primary copy of that epoch, or is between inactive and running.
    NotReady,
    /// This snapshot holds everything as of then.
    Current(Latest),
    /// Something was written, and no snapshot may be taken of it.
    Withheld,
}

/// What is to be snapshotted, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) uid: ContainerUid,
    pub(crate) epoch: Epoch,
    /// How often the volume was taken out of use so far.
    pub(crate) rests: u64,
    pub(crate) places: &'a Places,
    /// Whether a new snapshot may be taken: not in a pool past its threshold (I20), because then
    /// whatever the container overwrites needs new space.
    pub(crate) may_take: bool,
    /// Whether what is dirty may be written: an exhausted pool would have us wait for ever.
    pub(crate) may_sync: bool,
    /// A snapshot of that identity is to be taken, changed or not.
    pub(crate) wanted: Option<SnapshotUuid>,
}

/// Remembers what the newest snapshot covers, and how long freezing may take.
pub(crate) struct Snapshooter {
    rests: u64,
    covered: Option<Covered>,
    freeze_limit: Duration,
}

impl Default for Snapshooter {
    fn default() -> Self {
        Self { rests: 0, covered: None, freeze_limit: FREEZE_LIMIT }
    }
}

/// The newest snapshot holds everything while the devices' write counters stay at this.
struct Covered {
    snapshot: SnapshotUuid,
    /// How often the volume had come to rest: devices count anew each time.
    rests: u64,
    /// None when the volume was inactive.
    writes: Option<u64>,
}

impl Snapshooter {
    /// The newest snapshot after one round; a new one if anything was written.
    pub(crate) fn round(
        &mut self,
        pool: &dyn Pool,
        subject: Subject<'_>,
        freezer: &FreezeHelper,
        running: impl Fn() -> bool,
    ) -> Result<Round, AgentError> {
        let volume = match pool.volume(subject.uid.into()) {
            Ok(volume) => volume,
            Err(_) => return Ok(Round::NotReady),
        };
        let live = volume.state.live.as_ref();
        if live.is_none_or(|live| live.epoch != subject.epoch) {
            return Ok(Round::NotReady);
        }
        self.covered.take_if(|covered| covered.rests != subject.rests);
        self.rests = subject.rests;
        if volume.state.data.iter().any(|member| member.blank) {
            return Ok(Round::NotReady);
        }
        let places = subject.places.of_set(volume.state.data.len());
        let devices = mounts::devices(&volume);
        let whole = devices.len() == places.len();
        match fsys::mounted(places)?.len() {
            mounted if whole && mounted == places.len() => {
                self.mounted(pool, &volume, &devices, subject, freezer)
            }
            0 if devices.is_empty() && !running() => self.inactive(pool, &volume, subject),
            // Between two states; the worker is at it.
            _ => Ok(Round::NotReady),
        }
    }

    fn mounted(
        &mut self,
        pool: &dyn Pool,
        volume: &VolumeInfo,
        devices: &[PathBuf],
        subject: Subject<'_>,
        freezer: &FreezeHelper,
    ) -> Result<Round, AgentError> {
        let places = subject.places.of_set(volume.state.data.len());
        if !subject.may_sync {
            return Ok(Round::Withheld);
        }
        // Whatever is written after this moment may be missing from the snapshot.
        let as_of_ms = boottime_ms();
        places.iter().try_for_each(|place| fsys::sync(place))?;
        let writes = written(devices)?;
        if subject.wanted.is_none()
            && let Some(covered) = &self.covered
            && covered.writes == Some(writes)
            && let Some(newest) = of_this_epoch(volume, covered.snapshot)
        {
            return Ok(Round::Current(Latest { snapshot: newest.clone(), as_of_ms }));
        }
        if !subject.may_take {
            return Ok(Round::Withheld);
        }
        let mut window = Counting {
            window: freezer.window(places, self.freeze_limit),
            devices: devices.to_vec(),
            at_freeze: None,
        };
        let taken = take(pool, volume, subject.wanted, &mut window);
        if matches!(taken, Err(AgentError::Storage(holdfast_storage::Error::Timeout(_)))) {
            self.freeze_limit = (self.freeze_limit * 2).min(LONGEST_FREEZE);
        }
        let snapshot = taken?;
        let after_thaw = written(devices)?;
        let thaws = THAW_SECTORS * devices.len() as u64;
        let writes = window.at_freeze.map(|at| match after_thaw - at <= thaws {
            true => after_thaw,
            // The container wrote at once: the next round must see a difference.
            false => at,
        });
        let rests = self.rests;
        self.covered = Some(Covered { snapshot: snapshot.id.uuid, rests, writes });
        Ok(Round::Current(Latest { snapshot, as_of_ms }))
    }

    fn inactive(
        &mut self,
        pool: &dyn Pool,
        volume: &VolumeInfo,
        subject: Subject<'_>,
    ) -> Result<Round, AgentError> {
        let as_of_ms = boottime_ms();
        if subject.wanted.is_none()
            && let Some(Covered { snapshot, writes: None, .. }) = &self.covered
            && let Some(newest) = of_this_epoch(volume, *snapshot)
        {
            return Ok(Round::Current(Latest { snapshot: newest.clone(), as_of_ms }));
        }
        if !subject.may_take {
            return Ok(Round::Withheld);
        }
        let snapshot = match take(pool, volume, subject.wanted, &mut AtRest) {
            // The worker has taken it into use since.
            Err(AgentError::Storage(holdfast_storage::Error::InUse(_))) => {
                return Ok(Round::NotReady);
            }
            taken => taken?,
        };
        let rests = self.rests;
        self.covered = Some(Covered { snapshot: snapshot.id.uuid, rests, writes: None });
        Ok(Round::Current(Latest { snapshot, as_of_ms }))
    }
}

/// The snapshot, unless the live part has gone on in another epoch since: replicas take none but
/// the present one's.
fn of_this_epoch(volume: &VolumeInfo, uuid: SnapshotUuid) -> Option<&SnapshotInfo> {
    let live = volume.state.live.as_ref()?;
    volume.state.find(uuid).filter(|snapshot| snapshot.id.epoch == live.epoch)
}

fn take(
    pool: &dyn Pool,
    volume: &VolumeInfo,
    wanted: Option<SnapshotUuid>,
    quiesce: &mut dyn Quiesce,
) -> Result<SnapshotInfo, AgentError> {
    let uid = volume.state.uid;
    let gone = AgentError::Storage(holdfast_storage::Error::NoVolume(uid));
    let uuid = wanted.unwrap_or_else(SnapshotUuid::generate);
    let id = volume.state.next_snapshot(uuid).ok_or(gone)?;
    pool.snapshot(&id, wall(), quiesce)?;
    let state = pool.volume(uid)?.state;
    let missing = AgentError::Storage(holdfast_storage::Error::NoSnapshot(id.uuid));
    state.find(id.uuid).cloned().ok_or(missing)
}

/// The sum of the devices' write counters: it stays the same only if each does.
fn written(devices: &[PathBuf]) -> holdfast_storage::Result<u64> {
    devices.iter().map(|device| fsys::write_counter(device)).sum()
}

/// A freeze window that notes the devices' write counters at the instant of the snapshot.
struct Counting {
    window: FreezeWindow,
    devices: Vec<PathBuf>,
    at_freeze: Option<u64>,
}

impl Quiesce for Counting {
    fn freeze(&mut self, hold: &[&str]) -> holdfast_storage::Result<()> {
        self.window.freeze(hold)?;
        self.at_freeze = written(&self.devices).ok();
        Ok(())
    }

    fn thaw(&mut self) -> holdfast_storage::Result<()> {
        self.window.thaw()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_storage::PoolIdentity;
    use holdfast_storage::fake::FakePool;
    use holdfast_types::{ByteSize, ClusterId};

    use crate::testing::{Bench, UID};
    use std::path::Path;

    fn round(bench: &Bench, snapshooter: &mut Snapshooter) -> u64 {
        round_if(bench, snapshooter, true).unwrap()
    }

    fn round_if(bench: &Bench, snapshooter: &mut Snapshooter, may_take: bool) -> Option<u64> {
        let places = &bench.places;
        let (epoch, may_sync, wanted) = (Epoch(1), true, None);
        let subject = Subject { uid: UID, epoch, rests: 0, places, may_take, may_sync, wanted };
        let freezer = FreezeHelper::new(Bench::helper(), &[]);
        match snapshooter.round(bench.pool(), subject, &freezer, || true).unwrap() {
            Round::Current(latest) => Some(latest.snapshot.id.seq.0),
            Round::NotReady | Round::Withheld => None,
        }
    }

    fn at_rest(pool: &FakePool, snapshooter: &mut Snapshooter, epoch: u64, rests: u64) -> u64 {
        taking(pool, snapshooter, epoch, rests, None)
    }

    fn taking(
        pool: &FakePool,
        snapshooter: &mut Snapshooter,
        epoch: u64,
        rests: u64,
        wanted: Option<SnapshotUuid>,
    ) -> u64 {
        let nobody = FreezeHelper::new("/bin/false", &[]);
        let places = &Places::of(Path::new("/nonexistent"), UID);
        let epoch = Epoch(epoch);
        let (may_take, may_sync) = (true, true);
        let subject = Subject { uid: UID, epoch, rests, places, may_take, may_sync, wanted };
        match snapshooter.round(pool, subject, &nobody, || false).unwrap() {
            Round::Current(latest) => latest.snapshot.id.seq.0,
            other => panic!("{other:?}"),
        }
    }

    fn fake() -> FakePool {
        let cluster = ClusterId(uuid::Uuid::from_u128(1));
        let identity = PoolIdentity { cluster, pool: uuid::Uuid::from_u128(2) };
        let pool = FakePool::new(identity, ByteSize::gib(1));
        pool.create(UID.into(), ByteSize::mib(64), Epoch(1)).unwrap();
        pool
    }

    /// I22: started, written to and stopped between two rounds, it looked as if it had never run,
    /// and its old snapshot was vouched for.
    #[test]
    fn a_volume_that_was_in_use_between_two_rounds_is_not_covered() {
        let (pool, mut snapshooter) = (fake(), Snapshooter::default());
        let first = at_rest(&pool, &mut snapshooter, 1, 1);
        assert_eq!(at_rest(&pool, &mut snapshooter, 1, 1), first, "nobody touched it");
        assert_eq!(at_rest(&pool, &mut snapshooter, 1, 2), first + 1);
    }

    /// A named snapshot is taken of a volume at rest too, once, under the identity that the cluster
    /// chose; and it covers what is there as any other does.
    #[test]
    fn a_wanted_snapshot_is_taken_changed_or_not() {
        let (pool, mut snapshooter) = (fake(), Snapshooter::default());
        let first = at_rest(&pool, &mut snapshooter, 1, 0);
        let uuid = SnapshotUuid(uuid::Uuid::from_u128(9));
        assert_eq!(taking(&pool, &mut snapshooter, 1, 0, Some(uuid)), first + 1);
        let newest = pool.volume(UID.into()).unwrap().state.newest().unwrap().id;
        assert_eq!(newest.uuid, uuid);
        assert_eq!(at_rest(&pool, &mut snapshooter, 1, 0), first + 1);
    }

    /// I16: a start between the look and the snapshot made it one of a disk that was being written
    /// to, neither frozen nor suspended.
    #[test]
    fn a_volume_was_snapshotted_while_it_was_taken_into_use() {
        let (pool, mut snapshooter) = (fake(), Snapshooter::default());
        let nobody = FreezeHelper::new("/bin/false", &[]);
        let places = &Places::of(Path::new("/nonexistent"), UID);
        let (epoch, rests, wanted, may_take, may_sync) = (Epoch(1), 0, None, true, true);
        let subject = Subject { uid: UID, epoch, rests, places, may_take, may_sync, wanted };
        let starts = || {
            pool.activate(UID.into(), Epoch(1)).unwrap();
            false
        };
        let round = snapshooter.round(&pool, subject, &nobody, starts).unwrap();
        assert!(matches!(round, Round::NotReady), "{round:?}");
        assert_eq!(pool.volume(UID.into()).unwrap().state.snapshots, []);
    }

    /// L3: replicas take only what is of the epoch in force, so an idle volume that goes on in a
    /// new one needs one more snapshot.
    #[test]
    fn a_new_epoch_gets_a_snapshot_of_its_own() {
        let (pool, mut snapshooter) = (fake(), Snapshooter::default());
        at_rest(&pool, &mut snapshooter, 1, 0);
        pool.continue_live(UID.into(), Epoch(2)).unwrap();
        at_rest(&pool, &mut snapshooter, 2, 0);
        let newest = pool.volume(UID.into()).unwrap().state.newest().unwrap().id;
        assert_eq!((newest.epoch.0, newest.seq.0), (2, 1));
    }

    /// A container that writes nothing ships nothing; the first byte it writes is noticed. If a
    /// kernel's thaw wrote more or less than [`THAW_SECTORS`], one half of this would fail.
    #[test]
    fn an_idle_volume_needs_one_snapshot_and_a_written_one_a_new_one() {
        let bench = Bench::new();
        let mut snapshooter = Snapshooter::default();
        let first = round(&bench, &mut snapshooter);
        for _ in 0..3 {
            assert_eq!(round(&bench, &mut snapshooter), first, "nothing was written");
        }
        std::fs::write(bench.places.root().join("a"), "a byte").unwrap();
        let second = round(&bench, &mut snapshooter);
        assert_eq!(second, first + 1);
        assert_eq!(round(&bench, &mut snapshooter), second);
    }

    /// I22: a disk on which freezing alone took longer than the limit never had a snapshot.
    #[test]
    fn a_window_that_was_too_short_is_longer_the_next_time() {
        const EXPIRES: &str = "echo frozen; cat >/dev/null; echo $2 >>$0; echo expired 1";
        let bench = Bench::new();
        let said = bench.places.root().with_extension("limits");
        let freezer = FreezeHelper::new("/bin/sh", &["-c", EXPIRES, said.to_str().unwrap()]);
        let mut snapshooter = Snapshooter::default();
        for _ in 0..4 {
            let (places, wanted) = (&bench.places, None);
            let (epoch, rests, may_take, may_sync) = (Epoch(1), 0, true, true);
            let subject = Subject { uid: UID, epoch, rests, places, may_take, may_sync, wanted };
            snapshooter.round(bench.pool(), subject, &freezer, || true).unwrap_err();
        }
        let limits = std::fs::read_to_string(said).unwrap();
        assert_eq!(
            limits.split_whitespace().collect::<Vec<_>>(),
            ["2000", "4000", "8000", "10000"]
        );
    }

    /// I17, I22: of a set, what any member was written to is noticed, and all are of one moment.
    #[test]
    fn a_set_is_unchanged_only_if_every_member_is() {
        let bench = Bench::of_set();
        let mut snapshooter = Snapshooter::default();
        let first = round(&bench, &mut snapshooter);
        assert_eq!(round(&bench, &mut snapshooter), first, "nothing was written");
        for (place, n) in bench.places.of_set(2).iter().zip(1..) {
            std::fs::write(place.join("a"), "a byte").unwrap();
            assert_eq!(round(&bench, &mut snapshooter), first + n, "{place:?}");
            assert_eq!(round(&bench, &mut snapshooter), first + n);
        }
    }

    /// I20: in a full pool what was written waits; an idle volume needs no snapshot to be current.
    #[test]
    fn a_full_pool_gets_no_more_snapshots() {
        let bench = Bench::new();
        let mut snapshooter = Snapshooter::default();
        let first = round(&bench, &mut snapshooter);
        assert_eq!(round_if(&bench, &mut snapshooter, false), Some(first), "nothing was written");
        std::fs::write(bench.places.root().join("a"), "a byte").unwrap();
        assert_eq!(round_if(&bench, &mut snapshooter, false), None);
        assert_eq!(round(&bench, &mut snapshooter), first + 1, "there is room again");
    }
}
