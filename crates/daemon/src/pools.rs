//! This machine's pool: what the configuration says of it, what was made, and the open one.
//!
//! ```text
//! driver xfs: configured ─────────────────────────────▶ open (made at once)
//! driver lvm: none ──create──▶ <data_dir>/pool.json ──▶ open
//! ```
//! A machine whose pool is still to be made is a node all the same, and holds nothing.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use holdfast_proto::v1;
use holdfast_storage::lvm::admin::{self, Progress, Request};
use holdfast_storage::lvm::{LvmOptions, LvmPool, LvmRecord, WhenFull};
use holdfast_storage::xfs::{LoopBacked, XfsOptions, XfsPool};
use holdfast_storage::{Capacity, Error, Pool};
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
    /// One change at a time.
    changing: Mutex<()>,
}

/// An open pool.
#[derive(Clone)]
pub(crate) struct OpenPool {
    pub(crate) pool: Arc<dyn Pool>,
    pub(crate) name: String,
    pub(crate) driver: &'static str,
}

impl Pools {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            config: config.pool.clone(),
            data_dir: config.data_dir.clone(),
            open: Mutex::default(),
            changing: Mutex::default(),
        }
    }

    /// The open pool; opened for this cluster if it is not. `None` while there is none.
    pub(crate) fn open(&self, cluster: ClusterId) -> Result<Option<OpenPool>, Error> {
        let mut open = self.opened();
        if open.is_none() {
            *open = match self.config.driver {
                PoolDriver::Xfs => Some(self.open_xfs(cluster)?),
                PoolDriver::Lvm => self.open_lvm(cluster)?,
            };
        }
        Ok(open.clone())
    }

    /// Whether it is still to be made.
    pub(crate) fn is_missing(&self) -> bool {
        self.config.driver == PoolDriver::Lvm && !self.record_file().exists()
    }

    /// Lets go of it: who opens it next may be another process.
    pub(crate) fn close(&self) {
        drop(self.opened().take());
    }

    /// What it is now, and how full.
    pub(crate) fn show(&self) -> Result<Option<v1::Pool>, MachineError> {
        let Some(mut shown) = self.described()? else { return Ok(None) };
        let open = self.opened().clone();
        shown.trouble = match open.map(|open| open.pool.capacity()) {
            Some(Ok(capacity)) => {
                shown.capacity = Some(shown_capacity(&shown, &capacity));
                String::new()
            }
            Some(Err(error)) => error.to_string(),
            None => "it is not open: this node is in no cluster yet, or its log says why".into(),
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
        let refused = |code, message: String| Err(MachineError { code, message });
        if self.config.driver != PoolDriver::Lvm {
            let how = "its configuration says driver xfs: set driver = \"lvm\" in [pool], and start \
                       holdfastd again";
            return refused(Code::WrongState, how.into());
        }
        let _changing = match self.changing.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                return refused(
                    Code::InUse,
                    "another change of this node's pool is under way".into(),
                );
            }
        };
        if let Some(made) = self.record()?.filter(|made| !is_it(asked, made)) {
            let LvmRecord { name, vg, thin_pool, .. } = made;
            let message = format!("this node has the pool {name} already, of {vg}/{thin_pool}");
            return refused(Code::AlreadyExists, message);
        }
        make(asked, tell, &self.record_file())
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
        survey::check(&record)?;
        let pool = LvmPool::open(&LvmOptions {
            vg: record.vg,
            thin_pool: record.thin_pool,
            mountpoint: self.data_dir.join("pool"),
            cluster,
            threshold_percent: THRESHOLD_PERCENT,
            when_full: match self.config.when_full {
                PoolWhenFull::Pause => WhenFull::Pause,
                PoolWhenFull::Error => WhenFull::Error,
            },
            patience: POOL_PATIENCE,
        })?;
        let driver = PoolDriver::Lvm.as_str();
        Ok(Some(OpenPool { pool: Arc::new(pool), name: record.name.to_string(), driver }))
    }

    fn open_xfs(&self, cluster: ClusterId) -> Result<OpenPool, Error> {
        let pool = XfsPool::open(&xfs_options(&self.config, cluster)?)?;
        let driver = PoolDriver::Xfs.as_str();
        Ok(OpenPool { pool: Arc::new(pool), name: self.config.name().to_owned(), driver })
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
    carry_out(&request, asked.dry_run, tell)?;
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

/// Plans a change, tells the plan, and does it, unless only the plan was asked for.
fn carry_out(
    request: &Request,
    dry_run: bool,
    tell: &mut dyn FnMut(PoolNews),
) -> Result<(), Error> {
    let plan = admin::plan(request, &admin::look(request)?)?;
    tell(PoolNews::Plan(plan.steps.iter().map(ToString::to_string).collect()));
    if dry_run {
        return Ok(());
    }
    let place = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
    admin::run(&plan, &mut |progress| {
        tell(match progress {
            Progress::Begun(at) => PoolNews::Began(place(at)),
            Progress::Part(_, percent) => PoolNews::Said(format!("{percent} %")),
            Progress::Done(at) => PoolNews::Done(place(at)),
        });
    })
}

impl From<Error> for MachineError {
    fn from(error: Error) -> Self {
        let mut message = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(next) = cause {
            message = format!("{message}: {next}");
            cause = next.source();
        }
        Self { code: error.code(), message: message.replace('\n', "; ") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A second pool under the first one's name would have been recorded in its place.
    #[test]
    fn a_pool_is_only_finished_where_it_was_begun() {
        let made = LvmRecord {
            name: "fast".parse().unwrap(),
            driver: LvmRecord::DRIVER.into(),
            vg: "fast".into(),
            thin_pool: "holdfast_pool".into(),
            vg_uuid: "a".into(),
            pool_uuid: "b".into(),
        };
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
