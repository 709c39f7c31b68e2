//! The state machine as openraft sees it: `holdfast_core::apply` over a state in memory.
//!
//! Nothing of it is durable but its snapshots; after a start the log is applied again from there.
//! openraft calls it from one task, so the work between two awaits is bounded by [`BATCH`].

use std::io;

use futures::{Stream, StreamExt};
use holdfast_core::State;
use openraft::EntryPayload;
use openraft::storage::{ApplyResponder, EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use tokio::sync::watch;

use crate::error::RaftError;
use crate::fail;
use crate::published::{Applied, Hashes, Item, Pauses, Publisher};
use crate::snapshot::{Fault, Found, SnapshotData, SnapshotFile};
use crate::store::Health;
use crate::types::{Answer, LogId, Membership, Snapshot, SnapshotMeta, TypeConfig};

/// Entries applied and published together.
const BATCH: usize = 64;
/// A snapshot writes every container and answer, so it waits until one entry in so many was applied:
/// a restart applies as many again, which takes less time than reading the containers.
const ROWS_AN_ENTRY: u64 = 8;

/// The adapter.
pub(crate) struct Machine {
    publisher: Publisher,
    last_applied: Option<LogId>,
    membership: Membership,
    file: SnapshotFile,
    health: Health,
}

impl Machine {
    /// Starts from what was found, or from nothing.
    pub(crate) fn new(
        file: SnapshotFile,
        found: Option<Found>,
        hashes: Hashes,
        health: Health,
    ) -> Self {
        let (meta, state) = found.unwrap_or_default();
        let (index, term) = position(meta.last_log_id.as_ref());
        Self {
            publisher: Publisher::new(index, term, state, hashes),
            last_applied: meta.last_log_id,
            membership: meta.last_membership,
            file,
            health,
        }
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Applied> {
        self.publisher.subscribe()
    }

    pub(crate) fn pauses(&self) -> Pauses {
        self.publisher.pauses()
    }

    pub(crate) fn files(&self) -> SnapshotFile {
        self.file.clone()
    }

    /// Whether so much has changed that a snapshot is worth what it costs.
    fn snapshot_is_due(&self) -> bool {
        let since = position(self.last_applied.as_ref()).0.saturating_sub(self.file.index());
        since >= self.publisher.state().weight() as u64 / ROWS_AN_ENTRY
    }

    fn apply_batch(&mut self, batch: &mut Batch) {
        let Some(last) = batch.last else { return };
        let items = std::mem::take(&mut batch.items);
        let answers = self.publisher.apply(items, *last.leader_id);
        self.last_applied = Some(last);
        // Published first: whoever gets an answer finds its effect.
        for (responder, answer) in batch.responders.drain(..).zip(answers) {
            if let Some(responder) = responder {
                responder.send(Answer(answer));
            }
        }
    }

    fn builder(&self) -> Builder {
        Builder {
            meta: SnapshotMeta {
                last_log_id: self.last_applied,
                last_membership: self.membership.clone(),
            },
            state: self.publisher.state().clone(),
            file: self.file.clone(),
        }
    }
}

#[derive(Default)]
struct Batch {
    items: Vec<Item>,
    responders: Vec<Option<ApplyResponder<TypeConfig>>>,
    last: Option<LogId>,
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Membership), io::Error> {
        Ok((self.last_applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + Send,
    {
        let mut batch = Batch::default();
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let index = entry.log_id.index;
            let item = match entry.payload {
                EntryPayload::Blank => None,
                EntryPayload::Normal(bytes) => Some(bytes.decode().map_err(|e| {
                    let what = format!("log entry {index} is of no version known here: {e}");
                    self.health.fail(RaftError::VersionTooOld { what })
                })?),
                EntryPayload::Membership(members) => {
                    self.membership = Membership::new(Some(entry.log_id), members);
                    None
                }
            };
            batch.items.push(Item { index, entry: item });
            batch.responders.push(responder);
            batch.last = Some(entry.log_id);
            if batch.items.len() == BATCH {
                self.apply_batch(&mut batch);
                tokio::task::yield_now().await;
            }
        }
        self.apply_batch(&mut batch);
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<Builder> {
        let wanted = force || self.file.was_asked() || self.snapshot_is_due();
        wanted.then(|| self.builder())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        self.builder()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotData,
    ) -> Result<(), io::Error> {
        // Checked before the file is touched: what cannot be read must not replace what can.
        let data = snapshot.clone();
        let state = blocking(move || data.decode().map_err(unreadable)).await?;
        let file = self.file.clone();
        let received = Snapshot { meta: meta.clone(), snapshot };
        fail::at("install.begun")
            .map_err(|e| self.health.fail(RaftError::disk(self.file.path(), &e)))?;
        blocking(move || file.keep(received)).await?;
        fail::at("install.kept")
            .map_err(|e| self.health.fail(RaftError::disk(self.file.path(), &e)))?;
        let (index, term) = position(meta.last_log_id.as_ref());
        let before = self.publisher.install(index, term, state);
        // Letting go of a million containers takes a while.
        drop(tokio::task::spawn_blocking(move || drop(before)));
        self.last_applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let file = self.file.clone();
        Ok(blocking(move || file.current()).await?)
    }
}

/// Writes a snapshot of one moment while entries go on being applied.
pub(crate) struct Builder {
    meta: SnapshotMeta,
    state: State,
    file: SnapshotFile,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let (meta, state, file) = (self.meta.clone(), self.state.clone(), self.file.clone());
        Ok(blocking(move || file.build(meta, &state)).await?)
    }
}

fn unreadable(fault: Fault) -> RaftError {
    let what = format!("a snapshot from the leader is of no version known here: {fault}");
    RaftError::VersionTooOld { what }
}

fn position(id: Option<&LogId>) -> (u64, u64) {
    id.map_or((0, 0), |id| (id.index, *id.leader_id))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RaftError> + Send + 'static,
) -> Result<T, RaftError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(RaftError::Stopped))
}
