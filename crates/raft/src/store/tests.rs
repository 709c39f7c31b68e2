//! The store against openraft's own suite, against damage, and against a failing disk.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use holdfast_types::{ClusterId, Code};
use openraft::StorageError;
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::testing::{blank_ent, log_id};
use openraft::type_config::TypeConfigExt;
use tempfile::TempDir;

use super::*;
use crate::codec::seal;
use crate::machine::Machine;
use crate::published::Hashes;
use crate::snapshot::SnapshotFile;
use crate::sys;
use crate::types::{LogEntry, TypeConfig};

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, Machine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let health = Health::new();
        let store = LogStore::open(&dir.path().join("log"), health.clone()).unwrap();
        let path = dir.path().join("snapshot");
        let (file, _) = SnapshotFile::open(path, ClusterId::generate(), health.clone()).unwrap();
        let machine = Machine::new(file, None, Hashes::new(0), health);
        Ok((dir, store, machine))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openraft_s_suite_passes() {
    Suite::test_all(Builder).await.unwrap();
}

fn entry(term: u64, index: u64) -> LogEntry {
    blank_ent::<TypeConfig>(term, 1, index)
}

fn id(term: u64, index: u64) -> LogId {
    log_id::<TypeConfig>(term, 1, index)
}

/// Appends and waits for the callback.
async fn append(
    store: &mut LogStore,
    entries: impl IntoIterator<Item = LogEntry, IntoIter: Send> + Send,
) -> io::Result<()> {
    let (tx, rx) = TypeConfig::oneshot();
    store.append(entries, IOFlushed::signal(tx)).await?;
    rx.await.unwrap()
}

async fn close(store: LogStore) {
    let mut closed = store.closed();
    drop(store);
    let closed = closed.wait_for(|closed| *closed);
    tokio::time::timeout(Duration::from_secs(5), closed).await.unwrap().unwrap();
}

fn open(dir: &TempDir) -> Result<LogStore, RaftError> {
    LogStore::open(&dir.path().join("log"), Health::new())
}

/// I5: what was acknowledged is there after a restart, the vote and the purge marker too.
#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(&dir).unwrap();
    let vote = Vote::new_committed(3, 1);
    store.save_vote(&vote).await.unwrap();
    append(&mut store, (0..100).map(|i| entry(3, i))).await.unwrap();
    store.truncate_after(Some(id(3, 79))).await.unwrap();
    append(&mut store, (80..90).map(|i| entry(4, i))).await.unwrap();
    store.purge(id(3, 19)).await.unwrap();
    store.save_committed(Some(id(4, 85))).await.unwrap();
    close(store).await;

    let mut store = open(&dir).unwrap();
    let state = store.get_log_state().await.unwrap();
    assert_eq!(state.last_purged_log_id, Some(id(3, 19)));
    assert_eq!(state.last_log_id, Some(id(4, 89)));
    assert_eq!(store.read_committed().await.unwrap(), Some(id(4, 85)));
    let mut reader = store.get_log_reader().await;
    assert_eq!(reader.read_vote().await.unwrap(), Some(vote));
    let read = reader.try_get_log_entries(..).await.unwrap();
    assert_eq!(read.len(), 70);
    assert_eq!(read[60].log_id, id(4, 80));
}

/// One sync covers all that waits, and nothing is acknowledged without one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_share_syncs_and_each_is_covered_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(&dir).unwrap();
    let (syncs, redirected) = (store.syncs(), sys::redirected_calls());
    let mut waiting = Vec::new();
    for i in 0..200 {
        let (tx, rx) = TypeConfig::oneshot();
        store.append([entry(1, i)], IOFlushed::signal(tx)).await.unwrap();
        waiting.push(rx);
    }
    for rx in waiting {
        rx.await.unwrap().unwrap();
        assert!(syncs.count() > 0);
    }
    let shared = syncs.count();
    assert!(shared < 200, "{shared} syncs for 200 appends");
    assert!(sys::redirected_calls() > redirected, "the second belt is not live");

    let before = syncs.count();
    append(&mut store, [entry(1, 200)]).await.unwrap();
    assert_eq!(syncs.count(), before + 1);
    store.save_vote(&Vote::new(2, 1)).await.unwrap();
    assert_eq!(syncs.count(), before + 2);
}

/// A disk that answers so often, then fails.
struct Failing(AtomicU64);

impl Durable for Failing {
    fn sync(&self) -> io::Result<()> {
        let left = |n: u64| n.checked_sub(1);
        match self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left) {
            Ok(_) => Ok(()),
            Err(_) => Err(io::Error::other("EIO")),
        }
    }
}

impl LogStore {
    pub(crate) fn open_failing_after_100(dir: &Path, health: Health) -> Result<Self, RaftError> {
        Self::open_with(dir, health, |_| Box::new(Failing(100.into())))
    }
}

/// A disk that takes its time.
struct Slow;

impl Durable for Slow {
    fn sync(&self) -> io::Result<()> {
        std::thread::sleep(Duration::from_millis(250));
        Ok(())
    }
}

impl LogStore {
    pub(crate) fn open_slow(dir: &Path, health: Health) -> Result<Self, RaftError> {
        Self::open_with(dir, health, |_| Box::new(Slow))
    }
}

/// A failed sync is never followed by trust: the kernel may have dropped the dirty pages.
#[tokio::test]
async fn after_a_failed_sync_nothing_is_acknowledged_again() {
    let dir = tempfile::tempdir().unwrap();
    let health = Health::new();
    let path = dir.path().join("log");
    let mut store =
        LogStore::open_with(&path, health.clone(), |_| Box::new(Failing(1.into()))).unwrap();
    append(&mut store, [entry(1, 0)]).await.unwrap();
    append(&mut store, [entry(1, 1)]).await.unwrap_err();
    append(&mut store, [entry(1, 2)]).await.unwrap_err();
    store.save_vote(&Vote::new(9, 1)).await.unwrap_err();
    assert_eq!(health.check().unwrap_err().code(), Code::DiskIo);
    assert!(*health.failed().borrow());
}

async fn filled() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(&dir).unwrap();
    store.save_vote(&Vote::new(1, 1)).await.unwrap();
    append(&mut store, (0..20).map(|i| entry(1, i))).await.unwrap();
    close(store).await;
    dir
}

/// Changes sled's content below the store, as damage would.
fn damage(dir: &TempDir, how: impl FnOnce(&sled::Tree, &sled::Tree)) {
    let opened = open::open(&dir.path().join("log")).unwrap();
    how(&opened.log, &opened.meta);
    opened.db.flush().unwrap();
}

#[track_caller]
fn refused(dir: &TempDir, why: &str) {
    let error = open(dir).err().expect("a damaged log opened");
    assert_eq!(error.code(), Code::Corrupt, "{error}");
    let text = error.to_string();
    assert!(text.contains("log/db") && text.contains(why), "{text}");
}

#[tokio::test]
async fn a_damaged_entry_is_refused_and_the_file_named() {
    let dir = filled().await;
    damage(&dir, |log, _| {
        let mut value = log.get(key(7)).unwrap().unwrap().to_vec();
        *value.last_mut().unwrap() ^= 1;
        log.insert(key(7), value).unwrap();
    });
    refused(&dir, "log entry 7");
}

#[tokio::test]
async fn a_damaged_vote_is_refused() {
    let dir = filled().await;
    damage(&dir, |_, meta| {
        meta.insert(VOTE, &[1, 2, 3, 4, 5]).unwrap();
    });
    refused(&dir, "the vote");
}

#[tokio::test]
async fn holes_and_swaps_are_refused() {
    let dir = filled().await;
    damage(&dir, |log, _| {
        log.remove(key(7)).unwrap();
    });
    refused(&dir, "log entry 8: entries before it are missing");

    let dir = filled().await;
    damage(&dir, |log, _| {
        log.insert(key(7), seal(&entry(1, 6)).unwrap()).unwrap();
    });
    refused(&dir, "log entry 7: it carries another index");

    let dir = filled().await;
    damage(&dir, |log, _| {
        log.remove(key(0)).unwrap();
    });
    refused(&dir, "log entry 1");
}

/// The marker is durable before anything is deleted; what a crash left behind goes at the start.
#[tokio::test]
async fn a_purge_that_a_crash_cut_short_is_finished() {
    let dir = filled().await;
    damage(&dir, |log, meta| {
        meta.insert(PURGED, seal(&id(1, 9)).unwrap()).unwrap();
        log.remove(key(0)).unwrap();
        log.remove(key(4)).unwrap();
    });
    let mut store = open(&dir).unwrap();
    let mut reader = store.get_log_reader().await;
    let read = reader.try_get_log_entries(..).await.unwrap();
    assert_eq!((read[0].log_id, read.len()), (id(1, 10), 10));
}

/// sled refuses to open beside such a file, which a crash leaves behind.
#[tokio::test]
async fn a_half_made_sled_snapshot_is_removed() {
    let dir = filled().await;
    let left = dir.path().join("log/snap.0000000000ABCDEF.generating");
    std::fs::write(&left, b"half").unwrap();
    let mut store = open(&dir).unwrap();
    assert!(!left.exists());
    assert_eq!(store.get_log_state().await.unwrap().last_log_id, Some(id(1, 19)));
}

/// sled's snapshot is a cache of its log; without it all is still there.
#[tokio::test]
async fn a_damaged_sled_snapshot_is_set_aside() {
    let dir = filled().await;
    let bad = dir.path().join("log/snap.0000000000ABCDEF");
    std::fs::write(&bad, b"no snapshot at all, but long enough to be read as one").unwrap();
    let mut store = open(&dir).unwrap();
    assert_eq!(store.get_log_state().await.unwrap().last_log_id, Some(id(1, 19)));
    assert!(!bad.exists());
    assert!(dir.path().join("log.aside-1/snap.0000000000ABCDEF").exists());
}

#[tokio::test]
async fn a_directory_in_use_is_refused() {
    let dir = filled().await;
    let _store = open(&dir).unwrap();
    assert_eq!(open(&dir).err().unwrap().code(), Code::InUse);
}

/// sled drops everything after a damaged byte and says nothing: entries and votes that were
/// acknowledged would be gone, and a vote could be given twice (I1, I5).
#[tokio::test]
async fn a_tail_that_sled_drops_is_missed_wherever_the_damage_is() {
    let good = tempfile::tempdir().unwrap();
    let mut store = open(&good).unwrap();
    store.save_vote(&Vote::new(1, 1)).await.unwrap();
    for round in 0..10u64 {
        let entries = round * 100..(round + 1) * 100;
        append(&mut store, entries.map(|i| entry(1, i))).await.unwrap();
    }
    store.save_vote(&Vote::new(7, 1)).await.unwrap();
    close(store).await;
    let db = std::fs::read(good.path().join("log/db")).unwrap();
    for step in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        copy_dir(&good.path().join("log"), &dir.path().join("log"));
        std::fs::copy(good.path().join("log.tail"), dir.path().join("log.tail")).unwrap();
        let mut bad = db.clone();
        bad[db.len() * step / 20 + 17] ^= 0xff;
        std::fs::write(dir.path().join("log/db"), bad).unwrap();
        refused(&dir, "was acknowledged");
    }
}

#[tokio::test]
async fn a_missing_file_is_no_fresh_start() {
    let dir = filled().await;
    std::fs::remove_dir_all(dir.path().join("log")).unwrap();
    refused(&dir, "was acknowledged");

    let dir = filled().await;
    std::fs::remove_file(dir.path().join("log.tail")).unwrap();
    let error = open(&dir).err().unwrap();
    assert!(error.code() == Code::Corrupt && error.to_string().contains("log.tail"), "{error}");
}

/// The record of the tail goes back before entries do.
#[tokio::test]
async fn a_truncated_log_opens_again() {
    let dir = filled().await;
    let mut store = open(&dir).unwrap();
    store.truncate_after(Some(id(1, 4))).await.unwrap();
    close(store).await;
    let mut store = open(&dir).unwrap();
    assert_eq!(store.get_log_state().await.unwrap().last_log_id, Some(id(1, 4)));
    append(&mut store, [entry(2, 5)]).await.unwrap();
    store.truncate_after(None).await.unwrap();
    close(store).await;
    assert_eq!(open(&dir).unwrap().get_log_state().await.unwrap().last_log_id, None);
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}
