//! Where the log ended when it was last acknowledged, beside sled: a witness against sled itself.
//!
//! sled takes a damaged byte in its file for the end of it, drops all that follows and opens
//! without a word. Acknowledged entries would be gone, and so would the vote, which then could be
//! given twice. So after each sync the flusher records here what the sync covered, and the check
//! at the start compares.
//!
//! ```text
//! offset 0: slot for even numbers | 4096: slot for odd ones;  slot = length u32 LE | sealed record
//! ```
//!
//! The record is a floor. A power cut may leave an older one, which is true as well, for entries
//! are only ever added; so it is itself synced only where the floor must not be old: when the vote
//! changes, and before a truncation.

use std::cmp::Ordering;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Heads;
use crate::codec::{seal, unseal};
use crate::dir::{replace_file, sync_dir};
use crate::error::RaftError;
use crate::fail;
use crate::types::{LogId, Vote};

const SLOT_BYTES: usize = 4096;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Record {
    number: u64,
    vote: Option<Vote>,
    last: Option<LogId>,
}

/// The file, and what it says.
pub(super) struct Tail {
    file: File,
    path: PathBuf,
    record: Record,
}

impl Tail {
    /// Opens the record of the log in `log_dir`; makes it if there is no log yet.
    pub(super) fn open(log_dir: &Path) -> Result<Self, RaftError> {
        let path = log_dir.with_extension("tail");
        if !path.exists() {
            if log_dir.join("db").exists() {
                return Err(RaftError::corrupt(&path, "it is missing beside a log"));
            }
            let slot = slot(&Record::default()).map_err(|e| RaftError::disk(&path, &e))?;
            replace_file(&path, &slot)?;
        }
        let disk = |e: io::Error| RaftError::disk(&path, &e);
        let file = File::options().read(true).write(true).open(&path).map_err(disk)?;
        let slots = [read_slot(&file, 0).map_err(disk)?, read_slot(&file, 1).map_err(disk)?];
        let newest = slots.into_iter().flatten().max_by_key(|record| record.number);
        let record = newest.ok_or_else(|| RaftError::corrupt(&path, "neither record is whole"))?;
        sync_dir(path.parent().unwrap_or(log_dir))?;
        Ok(Self { file, path, record })
    }

    /// Whether a log with these heads has everything that was acknowledged.
    pub(super) fn check(&self, heads: &Heads, db: &Path) -> Result<(), RaftError> {
        let Record { vote, last, .. } = &self.record;
        if let Some(vote) = vote
            && !heads
                .vote
                .is_some_and(|v| !matches!(v.partial_cmp(vote), Some(Ordering::Less) | None))
        {
            let what = format!("it lacks the vote {vote}, which was acknowledged");
            return Err(RaftError::corrupt(db, what));
        }
        if let Some(last) = last
            && heads.last.is_none_or(|l| l.index < last.index)
        {
            let end =
                heads.last.map_or("is empty".into(), |l| format!("ends at entry {}", l.index));
            let what = format!("it {end}, but entry {} was acknowledged", last.index);
            return Err(RaftError::corrupt(db, what));
        }
        Ok(())
    }

    /// Records what a sync has covered.
    pub(super) fn record(&mut self, heads: &Heads) -> io::Result<()> {
        let Heads { vote, last, .. } = *heads;
        if self.record.vote == vote && self.record.last == last {
            return Ok(());
        }
        let must_be_new = self.record.vote != vote || last < self.record.last;
        let record = Record { number: self.record.number + 1, vote, last };
        self.file.write_all_at(&slot(&record)?, (record.number % 2) * SLOT_BYTES as u64)?;
        fail::at("tail.written")?;
        if must_be_new {
            self.file.sync_data()?;
            fail::at("tail.synced")?;
        }
        self.record = record;
        Ok(())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

fn slot(record: &Record) -> io::Result<Vec<u8>> {
    let sealed = seal(record).map_err(io::Error::other)?;
    let len = u32::try_from(sealed.len()).map_err(io::Error::other)?;
    let mut slot = len.to_le_bytes().to_vec();
    slot.extend_from_slice(&sealed);
    Ok(slot)
}

fn read_slot(file: &File, at: u64) -> io::Result<Option<Record>> {
    let mut slot = vec![0; SLOT_BYTES];
    let mut filled = 0;
    while filled < SLOT_BYTES {
        match file.read_at(&mut slot[filled..], at * SLOT_BYTES as u64 + filled as u64)? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(parse_slot(&slot[..filled]))
}

/// Nothing where there is no whole record: never written, or torn.
fn parse_slot(slot: &[u8]) -> Option<Record> {
    let (len, rest) = slot.split_first_chunk()?;
    let body = rest.get(..u32::from_le_bytes(*len) as usize)?;
    unseal(body).ok()
}

/// Whether a slot has a whole record.
#[cfg(any(test, fuzzing))]
pub(crate) fn is_record(slot: &[u8]) -> bool {
    parse_slot(slot).is_some()
}
