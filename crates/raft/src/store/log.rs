//! Writing the log and the vote. openraft calls these one after the other, never two at once.

use std::io;

use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use serde::Serialize;
use tokio::sync::oneshot;

use super::{COMMITTED, Inner, LogReader, LogStore, MAX_VALUE_BYTES, PURGED, VOTE, key};
use crate::codec::{seal, unseal};
use crate::error::RaftError;
use crate::sys::boottime;
use crate::types::{LogEntry, LogId, TypeConfig, Vote};

/// Entries deleted at once by a purge.
const PURGE_BATCH: usize = 1_024;

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let heads = self.inner.heads();
        Ok(LogState { last_purged_log_id: heads.purged, last_log_id: heads.last })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        self.reader()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.inner.at("vote.begun")?;
        self.inner.put(VOTE, vote)?;
        self.inner.update(|heads| heads.vote = Some(*vote));
        self.inner.at("vote.written")?;
        self.inner.durable().await?;
        Ok(self.inner.at("vote.durable")?)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        // Rides along with the next flush. Losing it costs a replay later, nothing else.
        Ok(self.inner.put(COMMITTED, &committed)?)
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        let value = self.inner.meta.get(COMMITTED).map_err(|e| self.inner.failed(&e))?;
        let decoded = value.map(|v| unseal::<Option<LogId>>(&v)).transpose();
        let committed =
            decoded.map_err(|e| self.inner.corrupt(format!("the committed id: {e}")))?.flatten();
        // A leader may count entries committed by others before its own disk has them.
        let last = self.inner.heads().last;
        Ok(committed.min(last))
    }

    async fn append<I>(&mut self, entries: I, done: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = LogEntry> + Send,
        I::IntoIter: Send,
    {
        self.inner.at("append.begun")?;
        let last = self.inner.write(entries)?;
        self.inner.at("append.written")?;
        if last.is_some() {
            self.inner.update(|heads| heads.last = last);
        }
        let done = move |result: Result<(), RaftError>| {
            done.io_completed(result.map_err(io::Error::from));
        };
        self.inner.flusher.then(Box::new(done)).await;
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        self.inner.at("truncate.begun")?;
        // The record of the tail goes back first, or a crash between looks like lost entries.
        self.inner.update(|heads| heads.last = last.min(heads.last).max(heads.purged));
        self.inner.durable().await?;
        self.inner.at("truncate.recorded")?;
        let from = last.map_or(0, |id| id.index + 1);
        self.inner.recent.truncate(from);
        let mut batch = sled::Batch::default();
        for k in self.inner.log.range(key(from)..).keys() {
            batch.remove(k.map_err(|e| self.inner.failed(&e))?);
        }
        self.inner.log.apply_batch(batch).map_err(|e| self.inner.failed(&e))?;
        self.inner.usage.update(|spans| spans.truncate(from));
        self.inner.at("truncate.removed")?;
        self.inner.durable().await?;
        Ok(self.inner.at("truncate.durable")?)
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        self.inner.at("purge.begun")?;
        self.inner.put(PURGED, &upto)?;
        self.inner.update(|heads| {
            heads.purged = Some(upto);
            heads.last = heads.last.max(Some(upto));
        });
        self.inner.at("purge.marked")?;
        self.inner.durable().await?;
        self.inner.at("purge.durable")?;
        self.inner.usage.update(|spans| spans.purge(upto.index));
        self.inner.recent.forget(upto.index);
        Ok(self.inner.delete_upto(upto.index)?)
    }
}

impl Inner {
    fn put<T: Serialize>(&self, name: &[u8], value: &T) -> Result<(), RaftError> {
        self.health.check()?;
        let value = seal(value).map_err(|e| RaftError::Internal { what: e.to_string() })?;
        self.meta.insert(name, value).map_err(|e| self.failed(&e))?;
        Ok(())
    }

    /// Puts the entries where readers see them, and returns the last one's id.
    fn write(
        &self,
        entries: impl IntoIterator<Item = LogEntry>,
    ) -> Result<Option<LogId>, RaftError> {
        self.health.check()?;
        let (mut last, mut sizes) = (None, Vec::new());
        // One by one: sled replays writes in their order, so a crash leaves a beginning of them, and
        // none of them was acknowledged. Its batches reserve their manifest first; where a flush
        // comes in between, that is written and synced by itself.
        for entry in entries {
            let value = seal(&entry).map_err(|e| RaftError::Internal { what: e.to_string() })?;
            if value.len() > MAX_VALUE_BYTES {
                let (size_bytes, limit_bytes) = (value.len(), MAX_VALUE_BYTES);
                return Err(RaftError::TooLarge { size_bytes, limit_bytes });
            }
            sizes.push((entry.log_id.index, value.len() as u64));
            self.log.insert(key(entry.log_id.index), value).map_err(|e| self.failed(&e))?;
            last = Some(entry.log_id);
            self.recent.push(entry);
        }
        let now = boottime();
        self.usage
            .update(|spans| sizes.iter().for_each(|(i, bytes)| spans.append(*i, *bytes, now)));
        Ok(last)
    }

    /// Returns once everything written before the call is durable.
    async fn durable(&self) -> Result<(), RaftError> {
        let (tx, rx) = oneshot::channel();
        // Nobody waits any more if the receiver is gone.
        self.flusher.then(Box::new(move |result| drop(tx.send(result)))).await;
        rx.await.unwrap_or(Err(RaftError::Stopped))
    }

    fn delete_upto(&self, index: u64) -> Result<(), RaftError> {
        loop {
            let mut batch = sled::Batch::default();
            let mut found = 0;
            for k in self.log.range(..=key(index)).keys().take(PURGE_BATCH) {
                batch.remove(k.map_err(|e| self.failed(&e))?);
                found += 1;
            }
            self.log.apply_batch(batch).map_err(|e| self.failed(&e))?;
            self.at("purge.deleted")?;
            if found < PURGE_BATCH {
                return Ok(());
            }
        }
    }
}
