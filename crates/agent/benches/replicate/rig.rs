//! Two pools on loop-backed XFS files, a connection between them, and the volumes in them.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use holdfast_storage::xfs::{LoopBacked, XfsOptions, XfsPool};
use holdfast_storage::{AlreadyQuiet, Offer, Pool, SnapshotInfo};
use holdfast_types::{ByteSize, ClusterId, Epoch, SnapshotUuid, TimestampMs, VolumeUid};
use serde_json::Value;

use crate::Measured;
use crate::wire::{Link, Shipped};

/// The argument by which this program becomes the freeze helper.
pub(crate) const HELPER: &str = "freeze-helper";

/// Larger than the largest volume; the files are sparse.
const POOL: ByteSize = ByteSize::gib(112);
const EPOCH: Epoch = Epoch(1);

/// The pools, from `source` to `target`.
pub(crate) struct Rig {
    pub(crate) dir: PathBuf,
    pub(crate) source: Side,
    pub(crate) target: Side,
    pub(crate) link: Link,
}

/// One pool.
pub(crate) struct Side {
    pub(crate) pool: std::sync::Arc<XfsPool>,
    pub(crate) mountpoint: PathBuf,
}

impl Rig {
    pub(crate) fn new(dir: &Path) -> Result<Self> {
        let cluster = ClusterId::generate();
        let (source, target) = (Side::new(dir, "a", cluster)?, Side::new(dir, "b", cluster)?);
        let link = Link::new(target.pool.clone())?;
        Ok(Self { dir: dir.to_owned(), source, target, link })
    }

    /// A volume with content, active no more, and its first snapshot. `write` gets its device.
    pub(crate) fn volume(
        &self,
        size: u64,
        write: impl FnOnce(&File) -> Result<()>,
    ) -> Result<(VolumeUid, SnapshotInfo)> {
        let uid = VolumeUid::generate();
        self.source.pool.create(uid, ByteSize(size), EPOCH)?;
        Ok((uid, self.change(uid, write)?))
    }

    /// Writes to a volume's device, and takes a snapshot.
    pub(crate) fn change(
        &self,
        uid: VolumeUid,
        write: impl FnOnce(&File) -> Result<()>,
    ) -> Result<SnapshotInfo> {
        let pool = &self.source.pool;
        let device = pool.activate(uid, EPOCH)?;
        let file = OpenOptions::new().read(true).write(true).open(&device)?;
        let written = write(&file).and_then(|()| Ok(file.sync_all()?));
        drop(file);
        pool.deactivate(uid)?;
        written?;
        let id = pool.volume(uid)?.state.next_snapshot(SnapshotUuid::generate());
        let id = id.context("a volume without a live part")?;
        pool.snapshot(&id, TimestampMs(1), &mut AlreadyQuiet)?;
        let state = pool.volume(uid)?.state;
        state.find(id.uuid).cloned().context("a snapshot that is gone")
    }

    /// Ships a snapshot, from a cold cache, with everything durable at the end.
    pub(crate) fn ship(
        &self,
        snapshot: &SnapshotInfo,
        base: Option<SnapshotUuid>,
    ) -> Result<Shipped> {
        let offer = Offer::of(snapshot, base);
        cold()?;
        self.link.ship(self.source.pool.clone(), offer)
    }

    /// Removes a volume on both sides and gives its room back to the disk.
    pub(crate) fn remove(&self, uid: VolumeUid) -> Result<()> {
        for side in [&self.source, &self.target] {
            if side.pool.volume(uid).is_ok() {
                side.pool.remove_volume(uid)?;
            }
            side.trim()?;
        }
        Ok(())
    }
}

impl Side {
    fn new(dir: &Path, name: &str, cluster: ClusterId) -> Result<Self> {
        let (dir, mountpoint) = (dir.join(name), dir.join(format!("{name}.mnt")));
        fs::create_dir_all(&dir)?;
        let loop_backed = Some(LoopBacked { size: POOL, mountpoint: mountpoint.clone() });
        let patience = Duration::from_secs(5);
        let options = XfsOptions { dir, cluster, threshold_percent: 95, loop_backed, patience };
        Ok(Self { pool: XfsPool::open(&options)?.into(), mountpoint })
    }

    /// The file of a snapshot.
    pub(crate) fn file(&self, snapshot: &SnapshotInfo) -> PathBuf {
        let volume = self.mountpoint.join("volumes").join(snapshot.id.volume.to_string());
        volume.join(format!("snap-{}", snapshot.id.uuid))
    }

    /// Gives free room back to the disk, so that the next to write has the same to do.
    pub(crate) fn trim(&self) -> Result<()> {
        run("fstrim", &[self.mountpoint.to_str().context("a path of text")?])
    }
}

/// Drops what is cached.
pub(crate) fn cold() -> Result<()> {
    rustix::fs::sync();
    fs::write("/proc/sys/vm/drop_caches", "3").context("dropping the page cache")
}

/// How long something takes, in seconds.
pub(crate) fn timed(what: impl FnOnce() -> Result<()>) -> Result<f64> {
    let began = Instant::now();
    what()?;
    Ok(began.elapsed().as_secs_f64())
}

/// The processor time that this process has used, in seconds (`proc(5)`, at 100 ticks a second).
pub(crate) fn used() -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let rest = stat.rsplit_once(')').context("this process's stat")?.1;
    let ticks = rest.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    Ok(ticks.sum::<Result<f64, _>>()? / 100.0)
}

/// Runs a program to its end.
pub(crate) fn run(program: &str, args: &[&str]) -> Result<()> {
    let mut command = std::process::Command::new(program);
    let out = command.args(args).stdin(std::process::Stdio::null()).output();
    let out = out.with_context(|| format!("starting {program}"))?;
    if !out.status.success() {
        bail!("{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(())
}

/// Refuses to go on without a program, naming the package that has it.
pub(crate) fn require(program: &str, package: &str) -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|dir| dir.join(program).is_file());
    if !found {
        bail!("{program} is not installed: apt-get install {package}");
    }
    Ok(())
}

/// Adds a number to a list.
pub(crate) fn note(measured: &mut Measured, name: &str, value: f64) {
    let list = measured.entry(name).or_insert_with(|| Value::Array(Vec::new()));
    if let Some(list) = list.as_array_mut() {
        list.push(value.into());
    }
}
