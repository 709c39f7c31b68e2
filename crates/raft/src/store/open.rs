//! Opening sled after whatever happened to it.
//!
//! A crash while sled writes its own snapshot leaves `snap.*.generating`, which it then refuses to
//! open: such files are removed first. If it still finds damage, the directory is copied aside,
//! sled's snapshots (a cache of its log) are removed, and it is tried once more. Then it is enough.

use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::dir::sync_dir;
use crate::error::RaftError;
use crate::fail;
use crate::sys;

const SEGMENT_BYTES: usize = 8 << 20;
const CACHE_BYTES: u64 = 16 << 20;
/// An earlier node of this process may take this long to close the files.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(20);
/// Copies of damaged directories that are kept for a person to look at.
const MAX_ASIDE: u32 = 3;

pub(super) struct Opened {
    pub(super) db: sled::Db,
    pub(super) log: sled::Tree,
    pub(super) meta: sled::Tree,
    /// Our own descriptor of sled's file, to sync it with.
    pub(super) descriptor: File,
    pub(super) file: PathBuf,
}

pub(super) fn open(dir: &Path) -> Result<Opened, RaftError> {
    let disk = |e: io::Error| RaftError::disk(dir, &e);
    fs::create_dir_all(dir).map_err(disk)?;
    remove_files(dir, |name| name.starts_with("snap.") && name.ends_with(".generating"))
        .map_err(disk)?;
    let file = dir.join("db");
    fail::at("open.begun").map_err(disk)?;
    let db = match open_unlocked(dir) {
        Err(Refused::Damaged(what)) => {
            let aside = copy_aside(dir)?;
            tracing::warn!(%what, aside = %aside.display(), "the log did not open; one more try");
            remove_files(dir, |name| name.starts_with("snap.")).map_err(disk)?;
            open_unlocked(dir)
        }
        other => other,
    };
    let db = db.map_err(|refused| match refused {
        Refused::Damaged(what) => RaftError::corrupt(&file, what),
        Refused::Locked => RaftError::InUse { path: dir.to_owned() },
        Refused::Io(e) => RaftError::disk(&file, &e),
    })?;
    let damaged = |e: sled::Error| RaftError::corrupt(&file, e.to_string());
    let log = db.open_tree("log").map_err(damaged)?;
    let meta = db.open_tree("meta").map_err(damaged)?;
    let descriptor = File::options()
        .read(true)
        .write(true)
        .open(&file)
        .map_err(|e| RaftError::disk(&file, &e))?;
    fail::at("open.opened").map_err(disk)?;
    prove_redirect(&db, &meta, &file)?;
    fail::at("open.proved").map_err(disk)?;
    sync_dir(dir)?;
    sync_dir(dir.parent().unwrap_or(dir))?;
    fail::at("open.durable").map_err(disk)?;
    Ok(Opened { db, log, meta, descriptor, file })
}

enum Refused {
    Damaged(String),
    Locked,
    Io(io::Error),
}

fn open_unlocked(dir: &Path) -> Result<sled::Db, Refused> {
    let began = Instant::now();
    loop {
        match open_once(dir) {
            Err(Refused::Locked) if began.elapsed() < LOCK_PATIENCE => {
                std::thread::sleep(LOCK_PAUSE);
            }
            other => return other,
        }
    }
}

fn open_once(dir: &Path) -> Result<sled::Db, Refused> {
    let config = sled::Config::new()
        .path(dir)
        .segment_size(SEGMENT_BYTES)
        .cache_capacity(CACHE_BYTES)
        .mode(sled::Mode::LowSpace)
        .flush_every_ms(None);
    // sled has asserts on what it reads.
    match catch_unwind(AssertUnwindSafe(|| config.open())) {
        Ok(Ok(db)) => Ok(db),
        Ok(Err(sled::Error::Io(e))) if e.to_string().contains("could not acquire lock") => {
            Err(Refused::Locked)
        }
        Ok(Err(sled::Error::Io(e))) if e.kind() != io::ErrorKind::UnexpectedEof => {
            Err(Refused::Io(e))
        }
        Ok(Err(e)) => Err(Refused::Damaged(e.to_string())),
        Err(_) => Err(Refused::Damaged("sled panicked while reading it".into())),
    }
}

/// Writes through sled and looks whether the sync landed in `sys`.
fn prove_redirect(db: &sled::Db, meta: &sled::Tree, file: &Path) -> Result<(), RaftError> {
    let failed = |e: sled::Error| RaftError::DiskIo { path: file.into(), what: e.to_string() };
    let before = sys::redirected_calls();
    let opened = meta.get("opened").map_err(failed)?;
    let count = opened.and_then(|v| v.as_ref().try_into().ok()).map_or(0, u64::from_be_bytes);
    meta.insert("opened", &count.wrapping_add(1).to_be_bytes()).map_err(failed)?;
    db.flush().map_err(failed)?;
    if sys::redirected_calls() == before { Err(RaftError::FlushNotRedirected) } else { Ok(()) }
}

fn remove_files(dir: &Path, matches: impl Fn(&str) -> bool) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(&matches) && entry.file_type()?.is_file() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn copy_aside(dir: &Path) -> Result<PathBuf, RaftError> {
    let aside = (1..=MAX_ASIDE)
        .map(|n| dir.with_extension(format!("aside-{n}")))
        .find(|path| !path.exists())
        .ok_or_else(|| RaftError::corrupt(dir, "damaged again; see the copies beside it"))?;
    let copy = || -> io::Result<()> {
        fs::create_dir(&aside)?;
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                fs::copy(entry.path(), aside.join(entry.file_name()))?;
            }
        }
        Ok(())
    };
    copy().map_err(|e| RaftError::disk(&aside, &e))?;
    Ok(aside)
}
