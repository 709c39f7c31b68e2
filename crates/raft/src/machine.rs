//! The state machine as openraft sees it: `holdfast_core::apply` over a state in memory.
//!
//! Nothing of it is durable but its snapshots; after a start the log is applied again from there.
//! openraft calls it from one task, so the work between two awaits is bounded by [`BATCH`].

use std::io;
use std::path::Path;

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
            health: self.health.clone(),
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
        let wanted = force || self.file.is_asked() || self.snapshot_is_due();
        (wanted && self.file.was_full().is_none()).then(|| self.builder())
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
        let (file, health) = (self.file.clone(), self.health.clone());
        let path = file.path().to_owned();
        let decode = move || data.decode().map_err(|fault| unreadable(&path, fault));
        let state = blocking(&health, decode).await?;
        let received = Snapshot { meta: meta.clone(), snapshot };
        fail::at("install.begun")
            .map_err(|e| self.health.fail(RaftError::disk(self.file.path(), &e)))?;
        blocking(&health, move || file.keep(received)).await?;
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
        Ok(blocking(&self.health, move || file.current()).await?)
    }
}

/// Writes a snapshot of one moment while entries go on being applied.
pub(crate) struct Builder {
    meta: SnapshotMeta,
    state: State,
    file: SnapshotFile,
    health: Health,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let (meta, state, file) = (self.meta.clone(), self.state.clone(), self.file.clone());
        let build = move || match file.build(meta, &state) {
            // The log needs that room more, and has all that this would have.
            Err(error) if error.is_full() => {
                let (code, path) = (error.code(), file.path().display());
                tracing::warn!(%code, file = %path, "there is no room for a snapshot, so the log is \
                    kept and grows: free space on that filesystem");
                file.nothing()
            }
            built => built,
        };
        Ok(blocking(&self.health, build).await?)
    }
}

fn unreadable(path: &Path, fault: Fault) -> RaftError {
    match fault {
        Fault::Disk(e) => RaftError::disk(path, &e),
        Fault::Damaged(_) | Fault::Unknown(_) => {
            let what = format!("a snapshot from the leader is of no version known here: {fault}");
            RaftError::VersionTooOld { what }
        }
    }
}

fn position(id: Option<&LogId>) -> (u64, u64) {
    id.map_or((0, 0), |id| (id.index, *id.leader_id))
}

/// Any failure here ends consensus on this node, so it is the node's, with its reason.
async fn blocking<T: Send + 'static>(
    health: &Health,
    work: impl FnOnce() -> Result<T, RaftError> + Send + 'static,
) -> Result<T, RaftError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| health.fail(error)),
        Err(broken) if broken.is_panic() => {
            let what = "the work on a snapshot panicked".into();
            Err(health.fail(RaftError::Internal { what }))
        }
        // The runtime ends.
        Err(_) => Err(RaftError::Stopped),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use holdfast_types::{ClusterId, Code};

    use super::*;

    /// Consensus ended, and the daemon went on as if nothing had happened.
    #[tokio::test]
    async fn a_snapshot_that_cannot_be_read_ends_the_node_with_its_reason() {
        let dir = tempfile::tempdir().unwrap();
        let (path, health) = (dir.path().join("snapshot"), Health::new());
        let (file, _) = SnapshotFile::open(path, ClusterId::generate(), health.clone()).unwrap();
        let mut part = file.begin(&SnapshotMeta::default()).unwrap();
        part.write_all(&[0xc1]).unwrap();
        let received = part.finish().unwrap();
        let mut machine = Machine::new(file, None, Hashes::new(0), health.clone());
        let installed = machine.install_snapshot(&SnapshotMeta::default(), received).await;
        installed.unwrap_err();
        assert_eq!(health.check().unwrap_err().code(), Code::VersionTooOld);
        assert!(*health.failed().borrow(), "nobody was told");
    }

    #[tokio::test]
    async fn work_on_a_snapshot_that_fails_or_panics_ends_the_node_with_its_reason() {
        let health = Health::new();
        let panics = blocking(&health, || -> Result<(), RaftError> { panic!("on purpose") });
        panics.await.unwrap_err();
        assert_eq!(health.check().unwrap_err().code(), Code::Internal);
        let (health, large) =
            (Health::new(), RaftError::TooLarge { size_bytes: 2, limit_bytes: 1 });
        let failed = large.clone();
        blocking(&health, move || Err::<(), _>(failed)).await.unwrap_err();
        assert_eq!(health.check().unwrap_err(), large);
    }
}
