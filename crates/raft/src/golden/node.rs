//! A whole data directory, opened as a later version would.

use std::fs;
use std::path::Path;

use futures::stream;
use holdfast_core::{State, apply};
use holdfast_types::NodeId;
use openraft::EntryPayload;
use openraft::storage::{
    IOFlushed, RaftLogReader, RaftLogStorage, RaftSnapshotBuilder, RaftStateMachine,
};
use openraft::type_config::TypeConfigExt;

use super::entries::{entry_differs, id, log};
use super::{NEWEST, may_write, root};
use crate::config::Identity;
use crate::dir::{claim, log_dir, read_identity, snapshot_file};
use crate::machine::Machine;
use crate::published::Hashes;
use crate::snapshot::SnapshotFile;
use crate::store::{Health, LogStore};
use crate::types::{LogEntry, TypeConfig, Vote};

/// What the snapshot covers, and what is purged.
const SNAPSHOT: usize = 20;
const PURGED: usize = 12;

fn whose() -> Identity {
    Identity { cluster: id(0x11), node: NodeId(7) }
}

fn vote() -> Vote {
    Vote::new(9, 3)
}

fn entries() -> Vec<LogEntry> {
    log().into_iter().map(|(_, entry)| entry).collect()
}

/// The state after the entries before `end`.
fn state(end: usize) -> State {
    let mut state = State::default();
    for entry in entries().into_iter().take(end) {
        if let EntryPayload::Normal(bytes) = entry.payload {
            let _answer = apply(&mut state, entry.log_id.index, bytes.decode().unwrap());
        }
    }
    state
}

async fn write(dir: &Path) {
    claim(dir, whose()).unwrap();
    let health = Health::new();
    let file = SnapshotFile::open(snapshot_file(dir), whose().cluster, health.clone()).unwrap().0;
    let mut machine = Machine::new(file, None, Hashes::new(0), health.clone());
    let covered = entries().into_iter().take(SNAPSHOT + 1).map(|entry| Ok((entry, None)));
    machine.apply(stream::iter(covered)).await.unwrap();
    machine.get_snapshot_builder().await.build_snapshot().await.unwrap();

    let mut store = LogStore::open(&log_dir(dir), health).unwrap();
    store.save_vote(&vote()).await.unwrap();
    let (tx, rx) = TypeConfig::oneshot();
    store.append(entries(), IOFlushed::signal(tx)).await.unwrap();
    rx.await.unwrap().unwrap();
    store.save_committed(Some(entries()[SNAPSHOT].log_id)).await.unwrap();
    store.purge(entries()[PURGED].log_id).await.unwrap();
    close(store).await;
}

async fn read(dir: &Path) {
    assert_eq!(read_identity(dir).unwrap(), Some(whose()));
    let health = Health::new();
    let mut store = LogStore::open(&log_dir(dir), health.clone()).unwrap();
    let heads = store.get_log_state().await.unwrap();
    assert_eq!(heads.last_purged_log_id, Some(entries()[PURGED].log_id));
    assert_eq!(heads.last_log_id, entries().last().map(|entry| entry.log_id));
    assert_eq!(store.read_committed().await.unwrap(), Some(entries()[SNAPSHOT].log_id));
    let mut reader = store.get_log_reader().await;
    assert_eq!(reader.read_vote().await.unwrap(), Some(vote()));
    let found = reader.try_get_log_entries(..).await.unwrap();
    assert_eq!(found.len(), entries().len() - PURGED - 1);
    for (found, meant) in found.iter().zip(&entries()[PURGED + 1..]) {
        assert_eq!(entry_differs(found, meant), None);
    }
    drop(reader);
    close(store).await;

    let (file, snapshot) =
        SnapshotFile::open(snapshot_file(dir), whose().cluster, health.clone()).unwrap();
    let meta = &snapshot.as_ref().unwrap().0;
    assert_eq!(meta.last_log_id, Some(entries()[SNAPSHOT].log_id));
    assert_eq!(*meta.last_membership.log_id(), Some(entries()[2].log_id));
    assert!(meta.last_membership.membership().get_joint_config().len() == 2);
    let mut machine = Machine::new(file, snapshot, Hashes::new(0), health);
    // I4 from version to version: the same entries give the same state, to the last event.
    assert_eq!(*machine.subscribe().borrow().state, state(SNAPSHOT + 1));
    let rest = entries().into_iter().skip(SNAPSHOT + 1).map(|entry| Ok((entry, None)));
    machine.apply(stream::iter(rest)).await.unwrap();
    assert_eq!(*machine.subscribe().borrow().state, state(usize::MAX));
}

async fn close(store: LogStore) {
    let mut closed = store.closed();
    drop(store);
    closed.wait_for(|closed| *closed).await.unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_s_files_are_still_read_as_what_they_meant() {
    for level in 1..=NEWEST {
        let kept = root().join(format!("level-{level}/node"));
        if !kept.exists() && may_write() {
            let made = tempfile::tempdir().unwrap();
            write(made.path()).await;
            copy(made.path(), &kept);
        }
        // Opening changes files.
        let dir = tempfile::tempdir().unwrap();
        copy(&kept, dir.path());
        read(dir.path()).await;
    }
}
