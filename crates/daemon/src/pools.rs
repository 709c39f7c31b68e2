//! This machine's pool: what the configuration says of it, what was made, and the open one.
//!
//! ```text
//! driver xfs: configured ─────────────────────────────▶ open (made at once)
//! driver lvm: none ──create──▶ <data_dir>/pool.json ──▶ open
//! ```
//! A machine whose pool is still to be made is a node all the same, and holds nothing.

mod change;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use holdfast_proto::v1;
use holdfast_storage::lvm::admin::{self, Request};
use holdfast_storage::lvm::{LvmOptions, LvmPool, LvmRecord, WhenFull};
use holdfast_storage::xfs::{LoopBacked, XfsOptions, XfsPool};
use holdfast_storage::{Capacity, Error, HandOver, Pool};
use holdfast_types::{ByteSize, ClusterId, Code};

use crate::config::{Config, PoolConfig, PoolDriver, PoolWhenFull};
use crate::machine::{MachineError, NewPool, PoolNews};
use crate::survey;

/// A pool stops admitting at so much physical use, in percent (DESIGN section 7).
const THRESHOLD_PERCENT: u8 = 90;

/// After a power cut the kernel takes mounts and loop devices down by itself, some time later.
const POOL_PATIENCE: Duration = Duration::from_secs(60);

/// The size of a pool in a file, if nobody says. The file is sparse.
const DEFAULT_SIZE: ByteSize = ByteSize::gib(16);

/// `XFS_SUPER_MAGIC` (linux/magic.h).
const XFS_MAGIC: i64 = 0x5846_5342;

/// This machine's pool.
pub(crate) struct Pools {
    config: PoolConfig,
    data_dir: PathBuf,
    open: Mutex<Option<OpenPool>>,
    /// Why it could not be opened, when that was tried last.
    trouble: Mutex<Option<String>>,
    /// The cluster whose backup this node's was restored from: a pool of it is this node's own.
    heir_of: Mutex<Option<ClusterId>>,
    /// Whether it was, or may have been.
    inherited: AtomicBool,
    /// Whether it is out of use because it is being repaired.
    mending: AtomicBool,
    /// One change at a time.
    changing: Mutex<()>,
}

/// An open pool.
#[derive(Clone)]
pub(crate) struct OpenPool {
    pub(crate) pool: Arc<dyn Pool>,
    pub(crate) name: String,
    pub(crate) driver: &'static str,
    /// The same, for what only this driver has.
    lvm: Option<Arc<LvmPool>>,
}

impl Pools {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            config: config.pool.clone(),
            data_dir: config.data_dir.clone(),
            open: Mutex::default(),
            trouble: Mutex::default(),
            heir_of: Mutex::default(),
            inherited: AtomicBool::default(),
            mending: AtomicBool::default(),
            changing: Mutex::default(),
        }
    }

    /// The open pool; opened for this cluster if it is not. `None` while there is none.
    pub(crate) fn open(&self, cluster: ClusterId) -> Result<Option<OpenPool>, Error> {
        let mut open = self.opened();
        if open.is_none() {
            *open = match self.config.driver {
                PoolDriver::None => None,
                PoolDriver::Xfs => Some(self.open_xfs(cluster)?),
                PoolDriver::Lvm => {
                    let opened = self.open_lvm(cluster);
                    *self.troubled() = opened.as_ref().err().map(told);
                    opened?
                }
            };
        }
        Ok(open.clone())
    }

    /// A pool of that cluster is this node's own from the next opening on.
    pub(crate) fn inherit(&self, from: ClusterId) {
        *self.heir_of.lock().unwrap_or_else(PoisonError::into_inner) = Some(from);
        self.inherited.store(false, Ordering::SeqCst);
    }

    /// Whether a pool may have been taken over since.
    pub(crate) fn has_inherited(&self) -> bool {
        self.inherited.load(Ordering::SeqCst)
    }

    /// Opens it for `cluster`; one of the cluster that this node's is the heir of is taken over.
    fn open_or_inherit<P: HandOver>(
        &self,
        cluster: ClusterId,
        open: impl Fn(ClusterId) -> Result<P, Error>,
    ) -> Result<P, Error> {
        let heir_of = *self.heir_of.lock().unwrap_or_else(PoisonError::into_inner);
        match (open(cluster), heir_of) {
            (Err(Error::WrongCluster { found, .. }), Some(from)) if found == from => {
                let mut pool = open(from)?;
                // One that fails may have done it all the same.
                self.inherited.store(true, Ordering::SeqCst);
                pool.hand_over(cluster)?;
                tracing::info!(%from, to = %cluster, "the pool is taken over with all that it holds");
                Ok(pool)
            }
            (opened, _) => opened,
        }
    }

    /// Whether it is still to be made.
    pub(crate) fn is_missing(&self) -> bool {
        self.config.driver == PoolDriver::Lvm && !self.record_file().exists()
    }

    /// Whether there is one that could not be opened.
    pub(crate) fn is_closed(&self) -> bool {
        self.troubled().is_some()
    }

    /// Lets go of it: who opens it next may be another process.
    pub(crate) fn close(&self) {
        drop(self.opened().take());
    }

    /// What it is now, and how full.
    pub(crate) fn show(&self) -> Result<Option<v1::Pool>, MachineError> {
        let Some(mut shown) = self.described()? else { return Ok(None) };
        let open = self.opened().clone();
        shown.trouble = match open.map(|open| (open.pool.capacity(), open.pool.writable())) {
            Some((Ok(capacity), writable)) => {
                shown.capacity = Some(shown_capacity(&shown, &capacity));
                // That it is full is in its capacity.
                let trouble = writable.err().filter(|error| error.code() != Code::PoolFull);
                trouble.map_or_else(String::new, |error| error.to_string())
            }
            Some((Err(error), _)) => error.to_string(),
            None => match self.trouble() {
                Some(trouble) => format!("it could not be opened: {trouble}"),
                None => {
                    "it is not open: this node is in no cluster yet, or its log says why".into()
                }
            },
        };
        if let Some(record) = self.record()?.filter(|_| self.config.driver == PoolDriver::Lvm)
            && let Err(error) = survey::describe(&record, &mut shown)
        {
            shown.trouble = MachineError::from(error).message;
        }
        Ok(Some(shown))
    }

    /// Makes the pool that is asked for, or finishes making it.
    pub(crate) fn create(
        &self,
        asked: &NewPool,
        tell: &mut dyn FnMut(PoolNews),
    ) -> Result<(), MachineError> {
        self.refuse_other_drivers()?;
        let _changing = self.begin_change()?;
        if let Some(made) = self.record()? {
            let LvmRecord { name, vg, thin_pool, .. } = &made;
            if !is_it(asked, &made) {
                let message = format!("this node has the pool {name} already, of {vg}/{thin_pool}");
                return Err(MachineError { code: Code::AlreadyExists, message });
            }
            survey::check(&made)?;
            let (group, pool) = survey::names(&made)?;
            if admin::identify(&group, &pool)?.is_none() {
                return Err(gone(&made));
            }
        }
        make(asked, tell, &self.record_file())
    }

    fn begin_change(&self) -> Result<MutexGuard<'_, ()>, MachineError> {
        match self.changing.try_lock() {
            Ok(guard) => Ok(guard),
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => Err(MachineError {
                code: Code::InUse,
                message: "another change of this node's pool is under way".into(),
            }),
        }
    }

    fn trouble(&self) -> Option<String> {
        self.troubled().clone()
    }

    fn troubled(&self) -> MutexGuard<'_, Option<String>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn opened(&self) -> MutexGuard<'_, Option<OpenPool>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record_file(&self) -> PathBuf {
        self.data_dir.join("pool.json")
    }

    fn record(&self) -> Result<Option<LvmRecord>, Error> {
        LvmRecord::load(&self.record_file())
    }

    fn open_lvm(&self, cluster: ClusterId) -> Result<Option<OpenPool>, Error> {
        let Some(record) = self.record()? else { return Ok(None) };
        if self.mending.load(Ordering::SeqCst) {
            return Err(Error::InUse("the pool, which is being repaired,".into()));
        }
        survey::check(&record)?;
        let options = |cluster| LvmOptions {
            vg: record.vg.clone(),
            thin_pool: record.thin_pool.clone(),
            mountpoint: self.data_dir.join("pool"),
            cluster,
            threshold_percent: THRESHOLD_PERCENT,
            when_full: match self.config.when_full {
                PoolWhenFull::Pause => WhenFull::Pause,
                PoolWhenFull::Error => WhenFull::Error,
            },
            patience: POOL_PATIENCE,
        };
        let pool = self.open_or_inherit(cluster, |cluster| LvmPool::open(&options(cluster)))?;
        let driver = PoolDriver::Lvm.as_str();
        let (pool, name) = (Arc::new(pool), record.name.to_string());
        Ok(Some(OpenPool { pool: pool.clone(), name, driver, lvm: Some(pool) }))
    }

    fn open_xfs(&self, cluster: ClusterId) -> Result<OpenPool, Error> {
        let open = |cluster| XfsPool::open(&xfs_options(&self.config, cluster)?);
        let pool = self.open_or_inherit(cluster, open)?;
        let driver = PoolDriver::Xfs.as_str();
        let name = self.config.name().to_owned();
        Ok(OpenPool { pool: Arc::new(pool), name, driver, lvm: None })
    }

    /// Which pool it is, open or not.
    fn described(&self) -> Result<Option<v1::Pool>, MachineError> {
        let driver = self.config.driver.as_str().to_owned();
        if self.config.driver == PoolDriver::Xfs {
            let (name, path) = (self.config.name().to_owned(), self.config.path());
            let path = path.display().to_string();
            return Ok(Some(v1::Pool { name, driver, path, ..Default::default() }));
        }
        Ok(self.record()?.map(|record| v1::Pool {
            name: record.name.to_string(),
            driver,
            vg: record.vg,
            thin_pool: record.thin_pool,
            vg_uuid: record.vg_uuid,
            thin_pool_uuid: record.pool_uuid,
            ..Default::default()
        }))
    }
}

fn shown_capacity(pool: &v1::Pool, capacity: &Capacity) -> v1::Capacity {
    v1::Capacity {
        name: pool.name.clone(),
        driver: pool.driver.clone(),
        size_bytes: capacity.size.bytes(),
        used_bytes: capacity.used.bytes(),
        promised_bytes: capacity.promised.bytes(),
        admits: capacity.admit(ByteSize(0)).is_ok(),
        metadata_used_bytes: capacity.metadata.map(|(used, _)| used.bytes()),
        metadata_size_bytes: capacity.metadata.map(|(_, size)| size.bytes()),
    }
}

/// In a file of its own where a size is given, or where the directory is on no XFS.
fn xfs_options(pool: &PoolConfig, cluster: ClusterId) -> Result<XfsOptions, Error> {
    let path = pool.path();
    let io = |source| Error::Unusable {
        path: path.to_owned(),
        reason: std::io::Error::to_string(&source),
    };
    std::fs::create_dir_all(path).map_err(io)?;
    let on_xfs = rustix::fs::statfs(path).is_ok_and(|fs| fs.f_type == XFS_MAGIC);
    let made_before = path.join("pool.img").exists();
    let in_file = made_before || pool.size.is_some() || !on_xfs;
    let size = pool.size.unwrap_or(DEFAULT_SIZE);
    Ok(XfsOptions {
        dir: path.to_owned(),
        cluster,
        threshold_percent: THRESHOLD_PERCENT,
        loop_backed: in_file.then(|| LoopBacked { size, mountpoint: path.join("mounted") }),
        patience: POOL_PATIENCE,
    })
}

/// Whether what is asked for is what was made: then what is left to be done is finished.
fn is_it(asked: &NewPool, made: &LvmRecord) -> bool {
    let group = asked.vg.as_deref().unwrap_or(asked.name.as_str());
    let same_pool = asked.thin_pool.as_ref().is_none_or(|pool| *pool == made.thin_pool);
    made.name == asked.name && made.vg == group && same_pool
}

/// An empty pool in the place of one that is gone would be taken for it, and what that held for lost
/// by nobody.
fn gone(made: &LvmRecord) -> MachineError {
    let LvmRecord { name, vg, thin_pool, .. } = made;
    let message = format!(
        "the pool {name} was made here, and {vg}/{thin_pool} is not there any more: bring its devices \
         back, or let this machine join the cluster as a new node"
    );
    MachineError { code: Code::WrongState, message }
}

fn make(
    asked: &NewPool,
    tell: &mut dyn FnMut(PoolNews),
    record: &Path,
) -> Result<(), MachineError> {
    let name = |text: &str| text.parse::<admin::Name>().map_err(Error::from);
    let request = match &asked.vg {
        None => {
            let group = name(asked.name.as_str())?;
            Request::on_devices(group, asked.devices.clone(), asked.wipe.clone())
        }
        Some(group) => {
            let thin_pool = asked.thin_pool.as_deref().map(name).transpose()?;
            Request::in_group(name(group)?, thin_pool)
        }
    };
    change::carry_out(&request, asked.dry_run, tell)?;
    if asked.dry_run {
        return Ok(());
    }
    let made = admin::identify(&request.group, &request.thin_pool)?;
    let Some(made) = made else {
        let path = format!("{}/{}", request.group, request.thin_pool).into();
        return Err(Error::Unusable { path, reason: "it is gone again".into() }.into());
    };
    let record_of = LvmRecord {
        name: asked.name.clone(),
        driver: LvmRecord::DRIVER.into(),
        vg: made.group,
        thin_pool: made.thin_pool,
        vg_uuid: made.group_uuid,
        pool_uuid: made.pool_uuid,
    };
    Ok(record_of.store(record)?)
}

impl From<Error> for MachineError {
    fn from(error: Error) -> Self {
        Self { code: error.code(), message: told(&error) }
    }
}

/// An error and its causes, in one line.
fn told(error: &Error) -> String {
    let mut message = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        message = format!("{message}: {next}");
        cause = next.source();
    }
    message.replace('\n', "; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pools of a machine in a temporary directory.
    pub(super) fn pools(driver: &str) -> (Pools, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let place = if driver == "xfs" { "path = \"/nonexistent\"\n" } else { "" };
        let text = format!(
            "name = \"n1\"\nlisten = \"192.0.2.1:1\"\nadvertise = \"192.0.2.1:1\"\n\
             data_dir = {:?}\n[guardian]\nsocket = \"/nonexistent\"\n[pool]\n\
             driver = {driver:?}\n{place}[network]\nunderlay = \"192.0.2.1\"\n",
            dir.path()
        );
        let file = dir.path().join("holdfastd.toml");
        std::fs::write(&file, text).unwrap();
        (Pools::new(&Config::load(&file).unwrap()), dir)
    }

    pub(super) fn record() -> LvmRecord {
        LvmRecord {
            name: "fast".parse().unwrap(),
            driver: LvmRecord::DRIVER.into(),
            vg: "fast".into(),
            thin_pool: "holdfast_pool".into(),
            vg_uuid: "a".into(),
            pool_uuid: "b".into(),
        }
    }

    /// A second pool under the first one's name would have been recorded in its place.
    #[test]
    fn a_pool_is_only_finished_where_it_was_begun() {
        let made = record();
        let asked = NewPool {
            name: "fast".parse().unwrap(),
            devices: vec!["/dev/sdb".into()],
            vg: None,
            thin_pool: None,
            wipe: Vec::new(),
            dry_run: false,
        };
        assert!(is_it(&asked, &made));
        let other = |vg: &str, thin_pool: Option<&str>| NewPool {
            vg: Some(vg.into()),
            thin_pool: thin_pool.map(str::to_owned),
            ..asked.clone()
        };
        assert!(is_it(&other("fast", Some("holdfast_pool")), &made));
        assert!(!is_it(&other("slow", None), &made));
        assert!(!is_it(&other("fast", Some("other")), &made));
        assert!(!is_it(&NewPool { name: "slow".parse().unwrap(), ..asked.clone() }, &made));
    }
}
