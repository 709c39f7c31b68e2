//! Reading a thin pool's metadata, by the tools of thin-provisioning-tools: from a snapshot of it,
//! of which a pool has one at a time, and which is held no longer than a tool reads.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::delta::{self, Ask, Delta};
use super::note::FIRST_ID;
use super::thin::{BUSY, ThinPool};
use crate::{Error, Result, wait};

/// How long a tool may read; its work grows with what is mapped.
const READ_TIME: Duration = Duration::from_secs(600);

impl ThinPool {
    /// Where two devices differ, or all that one maps.
    pub(super) fn delta(&self, base: Option<u32>, id: u32, size: u64) -> Result<Delta> {
        let (left, ask) = match base {
            Some(base) => (base, Ask::Changes),
            None => (id, Ask::Everything),
        };
        let mut tool = Command::new("thin_delta");
        tool.args(["-m", "--snap1", &left.to_string(), "--snap2", &id.to_string()]);
        let delta = self.read_metadata(tool, |answer| delta::read(answer, ask, size))?;
        let delta = delta.ok_or_else(|| Error::Tool {
            tool: "thin_delta".into(),
            stderr: "its answer cannot be read".into(),
        })?;
        self.time.fetch_max(delta.time, Ordering::SeqCst);
        Ok(delta)
    }

    /// The pool's time: in the first line of any of the tools' answers.
    pub(super) fn read_time(&self) -> Result<u32> {
        let mut tool = Command::new("thin_dump");
        tool.arg("-m");
        let first = self.peek_metadata(tool)?;
        delta::number(&first, "time").ok_or_else(|| Error::Tool {
            tool: "thin_dump".into(),
            stderr: format!("its answer begins with {first:?}"),
        })
    }

    pub(super) fn list_ids(&self) -> Result<BTreeSet<u32>> {
        let mut tool = Command::new("thin_ls");
        tool.args(["-m", "--no-headers", "-o", "DEV"]);
        let unreadable =
            || Error::Tool { tool: "thin_ls".into(), stderr: "its answer cannot be read".into() };
        let ids = self.read_metadata(tool, |answer| {
            let words = answer.lines().map(|line| line.ok()?.trim().parse::<u32>().ok());
            words.collect::<Option<BTreeSet<u32>>>()
        })?;
        Ok(ids.ok_or_else(unreadable)?.into_iter().filter(|id| *id >= FIRST_ID).collect())
    }

    /// Runs a tool on a snapshot of the metadata for its exit status.
    pub(super) fn try_metadata(&self, tool: Command) -> Result<()> {
        let all = |answer: &mut dyn BufRead| io::copy(answer, &mut io::sink()).ok();
        self.read_metadata(tool, all).map(drop)
    }

    /// Runs a tool on a snapshot of the metadata, which is held no longer than it reads.
    fn read_metadata<T>(
        &self,
        tool: Command,
        read: impl FnOnce(&mut dyn BufRead) -> Option<T>,
    ) -> Result<Option<T>> {
        self.on_metadata(tool, read, true)
    }

    /// The first line that a tool says of the metadata; what follows is not waited for.
    fn peek_metadata(&self, tool: Command) -> Result<String> {
        let first = |answer: &mut dyn BufRead| {
            let mut line = String::new();
            answer.read_line(&mut line).ok().map(|_| line)
        };
        Ok(self.on_metadata(tool, first, false)?.unwrap_or_default())
    }

    fn on_metadata<T>(
        &self,
        mut tool: Command,
        read: impl FnOnce(&mut dyn BufRead) -> Option<T>,
        whole: bool,
    ) -> Result<Option<T>> {
        let _one = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let name = tool.get_program().to_string_lossy().into_owned();
        self.reserve()?;
        let result = run(tool.arg(&self.metadata), &name, read, whole);
        let released = self.release();
        result.and_then(|value| released.map(|()| value))
    }

    /// One that somebody else holds is theirs; one of ours whose release failed is released first.
    fn reserve(&self) -> Result<()> {
        if self.unreleased.load(Ordering::SeqCst) {
            self.release()?;
        }
        self.message("reserve_metadata_snap").map_err(|error| match error {
            Error::Io { source, .. } if source.raw_os_error() == Some(BUSY) => {
                self.held_by_others()
            }
            other => other,
        })?;
        self.unreleased.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// Refuses while somebody else has the metadata snapshot, without which nothing can be compared.
    pub(super) fn refuse_held_by_others(&self) -> Result<()> {
        let Ok(_reading) = self.reading.try_lock() else { return Ok(()) };
        match self.status()?.held && !self.unreleased.load(Ordering::SeqCst) {
            true => Err(self.held_by_others()),
            false => Ok(()),
        }
    }

    fn held_by_others(&self) -> Error {
        Error::MetadataHeld(self.name.clone())
    }

    fn release(&self) -> Result<()> {
        self.message("release_metadata_snap")?;
        self.unreleased.store(false, Ordering::SeqCst);
        Ok(())
    }
}

/// Runs a tool and reads its answer as it comes; ended at the deadline, or when enough was read.
fn run<T>(
    tool: &mut Command,
    name: &str,
    read: impl FnOnce(&mut dyn BufRead) -> Option<T>,
    whole: bool,
) -> Result<Option<T>> {
    tool.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = tool.spawn().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => Error::MissingTool(name.into()),
        _ => Error::Io { what: "starting", path: Path::new(name).into(), source },
    })?;
    let Some(stdout) = child.stdout.take() else { return Ok(None) };
    let stderr = child.stderr.take();
    let stderr = std::thread::spawn(move || wait::tail(stderr, wait::KEEP));
    let (done_tx, done) = std::sync::mpsc::channel();
    let child = std::sync::Arc::new(Mutex::new(child));
    let watched = child.clone();
    let watch = std::thread::spawn(move || {
        if done.recv_timeout(READ_TIME).is_err() {
            end(&mut watched.lock().unwrap_or_else(PoisonError::into_inner));
        }
    });
    let answer = read(&mut BufReader::new(stdout));
    let _ = done_tx.send(());
    let _ = watch.join();
    let mut child = child.lock().unwrap_or_else(PoisonError::into_inner);
    if !whole {
        end(&mut child);
        return Ok(answer);
    }
    let status = child.wait().map_err(Error::io("waiting for", name))?;
    match status.success() {
        true => Ok(answer),
        false => {
            let said = stderr.join().unwrap_or_default();
            Err(Error::Tool { tool: name.into(), stderr: format!("{status}: {}", said.trim()) })
        }
    }
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}
