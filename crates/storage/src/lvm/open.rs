//! Opening a pool: the group and what is in it are checked, the catalog is mounted.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use holdfast_types::ClusterId;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::LvmPool;
use super::admin::{self, ANCHOR, CATALOG};
use super::blocks::ThinItems;
use super::counts::Counts;
use super::status::Mode;
use super::thin::ThinPool;
use super::tools::{self, Lv};
use crate::{Error, Outcome, Result, durable, fsys, wait};

/// How long the last user of a catalog may take to let go of it.
const UNMOUNT_TIME: Duration = Duration::from_secs(10);

/// Where a pool is and whose.
#[derive(Debug, Clone)]
pub struct LvmOptions {
    /// The volume group.
    pub vg: String,
    /// The thin pool in it.
    pub thin_pool: String,
    /// Where the catalog is mounted, in this process's mount namespace.
    pub mountpoint: PathBuf,
    /// The cluster of this node. A pool of another one is refused.
    pub cluster: ClusterId,
    /// Physical use in percent, of data or of metadata, at which admission stops.
    pub threshold_percent: u8,
    /// What becomes of writes when it is full all the same.
    pub when_full: WhenFull,
    /// How long to wait for what an earlier life left to go away.
    pub patience: Duration,
}

/// What becomes of a write for which a thin pool has no room left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// It waits for room, however long. Nothing fails, and all goes on when the pool has grown.
    #[default]
    Pause,
    /// It fails at once. A filesystem that cannot write its journal becomes read-only.
    Error,
}

impl WhenFull {
    /// As LVM calls it (lvmthin(7), *Data space exhaustion*).
    fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "queue",
            Self::Error => "error",
        }
    }

    /// Sets a pool that does otherwise.
    fn set(self, name: &str, pool: &Lv) -> Result<()> {
        if self == Self::Pause {
            // For all pools of this machine: a minute, unless somebody says otherwise, and then
            // what waits fails.
            const TIMEOUT: &str = "/sys/module/dm_thin_pool/parameters/no_space_timeout";
            fs::write(TIMEOUT, "0").map_err(Error::io("writing", TIMEOUT))?;
        }
        if pool.lv_when_full == self.as_str() {
            return Ok(());
        }
        let error = if self == Self::Error { "y" } else { "n" };
        tools::lvm(&["lvchange", "-qq", "--errorwhenfull", error, name]).map(drop)
    }
}

impl LvmPool {
    /// Opens the pool that was made by [`admin`], or begins in it. Finishes or undoes
    /// what a crash left.
    pub fn open(options: &LvmOptions) -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Err(Error::NotRoot);
        }
        check_names(&options.vg, &options.thin_pool)?;
        admin::check_tools()?;
        Self::open_named(options).map_err(|error| explained(&options.vg, error))
    }

    fn open_named(options: &LvmOptions) -> Result<Self> {
        let LvmOptions { vg, thin_pool, .. } = options;
        let there = tools::volumes(vg, [thin_pool, CATALOG, ANCHOR])?;
        let find = |name: &str| there.iter().find(|lv| lv.lv_name == name);
        let missing =
            |what: &str| unusable(vg, format!("{what}; holdfast pool create makes what it lacks"));
        let pool = find(thin_pool).ok_or_else(|| missing("it has no thin pool of that name"))?;
        check_pool(vg, pool)?;
        let catalog = find(CATALOG).ok_or_else(|| missing("it has no catalog of Holdfast"))?;
        if find(ANCHOR).is_none_or(|anchor| anchor.pool_lv != *thin_pool) {
            return Err(missing("its thin pool has no anchor of Holdfast"));
        }
        let lock = lock(vg, options.patience)?;
        let [first, second, third] =
            [thin_pool.as_str(), ANCHOR, CATALOG].map(|name| format!("{vg}/{name}"));
        // A thin pool that is not active runs its check here; that takes as long as it takes.
        tools::lvm(&["lvchange", "-qq", "-ay", "-y", &first, &second, &third])?;
        options.when_full.set(&format!("{vg}/{thin_pool}"), pool)?;
        let bond = Bond { vg: pool.vg_uuid.clone(), pool: pool.lv_uuid.clone() };
        let pool = ThinPool::connect(vg, &pool.lv_dm_path, options.threshold_percent)?;
        pool.resume()?;
        check_state(&format!("{vg}/{thin_pool}"), &pool)?;
        pool.recover()?;
        mount(wait_for_node(catalog)?, &options.mountpoint)?;
        bond.check(&options.mountpoint, pool.count())?;
        let items = ThinItems {
            pool: Arc::new(pool),
            root: options.mountpoint.clone(),
            settled: AtomicBool::new(false),
            counts: Counts::default(),
            _lock: lock,
        };
        Self::load(&options.mountpoint, options.cluster, Arc::new(items))
    }

    /// Closes a pool whose volumes are all inactive: unmounts the catalog. The group stays active.
    pub fn close(self) -> Result<()> {
        let items = self.into_blocks();
        fsys::unmount(&items.root, UNMOUNT_TIME).map(drop)
    }
}

/// Mounts the catalog. One that an earlier life has mounted, and that had to give up writing when its
/// disk failed, does so for ever: it is mounted anew, which replays its journal.
fn mount(catalog: &Path, at: &Path) -> Result<()> {
    let stuck = || Ok::<_, Error>(fsys::is_read_only(at)? || durable::sync_dir(at).is_err());
    if fsys::mount(catalog, at)? == Outcome::AlreadyThere && stuck()? {
        fsys::unmount(at, UNMOUNT_TIME)?;
        fsys::mount(catalog, at)?;
    }
    Ok(())
}

/// Where LVM refuses in words of its own, and what is wrong with the group is known, that is said:
/// it is not there, lacks a device, or has one twice.
fn explained(vg: &str, error: Error) -> Error {
    if !matches!(error, Error::Tool { .. }) {
        return error;
    }
    let refusal = vg.parse().map(|group| admin::why_unusable(&group));
    match refusal {
        Ok(Ok(Some(refusal))) => refusal.into(),
        _ => error,
    }
}

fn check_names(vg: &str, thin_pool: &str) -> Result<()> {
    for name in [vg, thin_pool] {
        if !tools::is_name(name) {
            return Err(unusable(name, "LVM has no such names".into()));
        }
    }
    Ok(())
}

/// Refuses what only looks like a thin pool of ours: nothing falls back to thick volumes.
fn check_pool(vg: &str, lv: &Lv) -> Result<()> {
    let name = format!("{vg}/{}", lv.lv_name);
    if lv.segtype != "thin-pool" {
        return Err(unusable(&name, format!("it is a {} volume, not a thin pool", lv.segtype)));
    }
    if lv.zero != "zero" {
        let cure = format!("it does not zero new chunks: lvchange -Zy {name}");
        return Err(unusable(&name, cure));
    }
    let chunk: u64 = lv.chunk_size.parse().unwrap_or(0);
    match chunk.is_power_of_two() && chunk <= 4 << 20 {
        true => Ok(()),
        false => Err(unusable(&name, format!("its chunks of {chunk} bytes divide no volume"))),
    }
}

/// Refuses a pool that is damaged, or whose metadata is full or too small to be lived with. One that
/// is full of data opens, so that room can be made.
fn check_state(name: &str, pool: &ThinPool) -> Result<()> {
    const LEAST_METADATA: u64 = 64 << 20;
    let status = pool.status()?;
    if status.mode != Some(Mode::OutOfData)
        && let Some(refusal) = status.refusal(&pool.limits)
    {
        return Err(refusal);
    }
    let metadata = status.metadata_bytes().1.bytes();
    if metadata >= LEAST_METADATA {
        return Ok(());
    }
    let metadata_mib = metadata >> 20;
    Err(unusable(
        name,
        format!(
            "its metadata of {metadata_mib} MiB is too small: lvextend --poolmetadatasize 128m {name}"
        ),
    ))
}

/// Which thin pool a catalog is the account of.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Bond {
    /// The group's uuid.
    vg: String,
    /// The thin pool's.
    pool: String,
}

impl Bond {
    /// Refuses a catalog of another pool, and an empty one beside a pool with `devices` of ours in
    /// it: what such a catalog does not name is not nobody's.
    fn check(&self, root: &Path, devices: usize) -> Result<()> {
        const KIND: &str = "lvm";
        let path = root.join("lvm.json");
        match durable::load::<Self>(&path, KIND)? {
            Some(known) if known == *self => Ok(()),
            Some(known) => Err(Error::Corrupt {
                path,
                reason: format!(
                    "it is the account of the thin pool {}, not of {}",
                    known.pool, self.pool
                ),
            }),
            None if devices > 0 => Err(Error::Corrupt {
                path,
                reason: format!(
                    "it is missing, and the thin pool holds {devices} devices of Holdfast"
                ),
            }),
            None => durable::store(&path, KIND, self),
        }
    }
}

/// Waits for a volume's node, which udev makes.
fn wait_for_node(lv: &Lv) -> Result<&Path> {
    const NODE_TIME: Duration = Duration::from_secs(10);
    match wait::until(NODE_TIME, || Path::new(&lv.lv_dm_path).exists()) {
        true => Ok(Path::new(&lv.lv_dm_path)),
        false => Err(Error::Timeout(lv.lv_dm_path.clone())),
    }
}

/// One process per group. The lock goes with its holder, however that ends.
fn lock(vg: &str, patience: Duration) -> Result<File> {
    let dir = Path::new("/run/lock");
    fs::create_dir_all(dir).map_err(Error::io("making", dir))?;
    let path = dir.join(format!("holdfast-{vg}"));
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(Error::io("opening", &path))?;
    match wait::until(patience, || flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()) {
        true => Ok(file),
        false => Err(Error::InUse(format!("the pool in the volume group {vg}"))),
    }
}

fn unusable(path: &str, reason: String) -> Error {
    Error::Unusable { path: path.into(), reason }
}
