//! The check at the start: every value whole, every index in its place. What fails it is named,
//! never repaired.

use std::path::Path;

use serde::de::DeserializeOwned;

use super::{COMMITTED, Heads, PURGED, Spans, VOTE, key};
use crate::codec::unseal;
use crate::error::RaftError;
use crate::sys::boottime;
use crate::types::{LogEntry, LogId};

/// Reads everything once, finishes a purge that a crash cut short, and returns the heads and what
/// the log holds.
pub(super) fn check(
    log: &sled::Tree,
    meta: &sled::Tree,
    file: &Path,
) -> Result<(Heads, Spans), RaftError> {
    let vote = meta_value(meta, VOTE, file)?;
    let purged: Option<LogId> = meta_value(meta, PURGED, file)?;
    let _committed: Option<LogId> = meta_value(meta, COMMITTED, file)?;
    if let Some(purged) = &purged {
        finish_purge(log, purged.index, file)?;
    }
    let (mut last, mut spans, now) = (purged, Spans::default(), boottime());
    for item in log.iter() {
        let (k, v) = item.map_err(|e| RaftError::corrupt(file, e.to_string()))?;
        let index = index_of(&k).ok_or_else(|| RaftError::corrupt(file, "a key is no index"))?;
        let entry: LogEntry =
            unseal(&v).map_err(|e| RaftError::corrupt(file, format!("log entry {index}: {e}")))?;
        follows(last.as_ref(), &entry.log_id, index)
            .map_err(|what| RaftError::corrupt(file, format!("log entry {index}: {what}")))?;
        last = Some(entry.log_id);
        spans.append(index, v.len() as u64, now);
    }
    Ok((Heads { vote, purged, last }, spans))
}

/// Whether an entry found under `index` continues a log that ends with `last`.
fn follows(last: Option<&LogId>, id: &LogId, index: u64) -> Result<(), &'static str> {
    let expected = last.map_or(0, |l| l.index + 1);
    if id.index != index {
        return Err("it carries another index");
    }
    if index != expected {
        return Err("entries before it are missing");
    }
    if last.is_some_and(|l| l.leader_id > id.leader_id) {
        return Err("its term is older than the one before it");
    }
    Ok(())
}

fn finish_purge(log: &sled::Tree, upto: u64, file: &Path) -> Result<(), RaftError> {
    for item in log.range(..=key(upto)).keys() {
        let result = item.and_then(|k| log.remove(k));
        result.map_err(|e| RaftError::corrupt(file, e.to_string()))?;
    }
    Ok(())
}

fn meta_value<T: DeserializeOwned>(
    meta: &sled::Tree,
    name: &[u8],
    file: &Path,
) -> Result<Option<T>, RaftError> {
    let describe = |what: String| {
        RaftError::corrupt(file, format!("the {}: {what}", String::from_utf8_lossy(name)))
    };
    let value = meta.get(name).map_err(|e| describe(e.to_string()))?;
    value.map(|v| unseal(&v)).transpose().map_err(|e| describe(e.to_string()))
}

fn index_of(key: &[u8]) -> Option<u64> {
    key.try_into().ok().map(u64::from_be_bytes)
}
