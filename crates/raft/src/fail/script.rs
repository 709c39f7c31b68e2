//! A life of a follower, step by step, and what must be on its disk after each.
//!
//! One real node, with two leaders played by the test, does everything that a store is ever asked
//! to: it appends, votes, gives up entries that another leader overrules, makes a snapshot, purges,
//! and installs a snapshot that it receives.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use futures::stream;
use holdfast_core::{Command, Entry, RemoveImage, State};
use holdfast_proto::Dialer;
use holdfast_types::{ClusterId, NodeId, RequestId, TimestampMs};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest};
use openraft::storage::{RaftSnapshotBuilder, RaftStateMachine};
use openraft::testing::{blank_ent, log_id};
use openraft::{EntryPayload, Membership};

use crate::config::{Identity, RaftConfig, Timing};
use crate::error::RaftError;
use crate::machine::Machine;
use crate::node::RaftNode;
use crate::published::Hashes;
use crate::snapshot::SnapshotFile;
use crate::store::Health;
use crate::types::{EntryBytes, LogEntry, LogId, Snapshot, TypeConfig, Vote};

/// The node that follows.
pub(crate) const NODE: NodeId = NodeId(1);
const PATIENCE: Duration = Duration::from_secs(10);

/// One step. Terms stand for their leaders: see [`leader`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The leader of `term` sends entries `from..to`, and says that all before `committed` are
    /// committed.
    Append { term: u64, from: u64, to: u64, committed: u64 },
    /// The node is asked for its vote in `term`.
    Vote { term: u64 },
    /// It makes a snapshot of all that is committed, up to `upto`.
    Build { upto: u64 },
    /// It purges up to and including `upto`.
    Purge { upto: u64 },
    /// The leader of `term` sends a snapshot up to `upto`.
    Install { term: u64, upto: u64 },
}

/// Every step's first term in which an index was written is the one that lasts, except where the
/// second append of term 2 overrules term 1.
pub(crate) const STEPS: &[Step] = &[
    Step::Append { term: 1, from: 0, to: 1, committed: 0 },
    Step::Append { term: 1, from: 1, to: 9, committed: 1 },
    Step::Append { term: 1, from: 9, to: 1500, committed: 9 },
    Step::Append { term: 1, from: 1500, to: 1510, committed: 1500 },
    Step::Vote { term: 2 },
    Step::Append { term: 2, from: 1503, to: 1520, committed: 1503 },
    Step::Append { term: 2, from: 1520, to: 1521, committed: 1521 },
    Step::Build { upto: 1520 },
    Step::Purge { upto: 1400 },
    Step::Append { term: 2, from: 1521, to: 1525, committed: 1522 },
    Step::Install { term: 2, upto: 1600 },
    Step::Append { term: 2, from: 1601, to: 1610, committed: 1610 },
    Step::Vote { term: 3 },
    Step::Append { term: 3, from: 1610, to: 1612, committed: 1612 },
    Step::Build { upto: 1611 },
    Step::Purge { upto: 1605 },
];

/// What must be there after some steps.
#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    /// The term of the vote and whom it is for.
    pub(crate) vote: (u64, u64),
    /// The term of each entry, by index; what a snapshot covers included.
    pub(crate) log: BTreeMap<u64, u64>,
}

impl Model {
    /// After the first `steps`.
    pub(crate) fn after(steps: usize) -> Self {
        let mut model = Self::default();
        for step in STEPS.iter().take(steps) {
            match *step {
                Step::Append { term, from, to, .. } => {
                    model.vote = (term, leader(term));
                    model.log.retain(|index, _| *index < from);
                    model.log.extend((from..to).map(|index| (index, term)));
                }
                Step::Vote { term } => model.vote = (term, leader(term)),
                Step::Install { term, upto } => {
                    let next = model.log.keys().next_back().map_or(0, |last| last + 1);
                    model.log.extend((next..=upto).map(|index| (index, term)));
                }
                Step::Build { .. } | Step::Purge { .. } => {}
            }
        }
        model
    }
}

/// Who leads a term.
fn leader(term: u64) -> u64 {
    2 + term % 2
}

pub(crate) fn id(term: u64, index: u64) -> LogId {
    log_id::<TypeConfig>(term, leader(term), index)
}

/// The one entry that the leader of `term` ever writes at `index`.
pub(crate) fn entry(term: u64, index: u64) -> LogEntry {
    let mut entry = blank_ent::<TypeConfig>(term, leader(term), index);
    entry.payload = if index == 0 {
        EntryPayload::Membership(Membership::new_with_defaults(vec![[1, 2, 3].into()], []))
    } else {
        EntryPayload::Normal(EntryBytes::encode(&content(term, index)).expect("a small entry"))
    };
    entry
}

pub(crate) fn request(term: u64, index: u64) -> RequestId {
    let bytes = [term.to_be_bytes(), index.to_be_bytes()].concat();
    RequestId::try_from(&bytes[..]).expect("16 bytes")
}

fn content(term: u64, index: u64) -> Entry {
    let command = Command::RemoveImage(RemoveImage { name: "none".parse().expect("a name") });
    Entry { request: request(term, index), at: TimestampMs(index), command }
}

/// A node that neither stands nor makes a snapshot unless it is told to.
pub(crate) async fn start(dir: &Path, cluster: ClusterId) -> Result<RaftNode, RaftError> {
    let mut config = RaftConfig::new(dir, Identity { cluster, node: NODE }, Dialer::plaintext());
    config.timing = Timing { election_min_ms: 500_000, election_max_ms: 600_000, ..config.timing };
    config.snapshot_every = 1_000_000;
    config.keep_entries = 1_000_000;
    RaftNode::start(config).await
}

/// The node, and the snapshot that it will receive.
pub(crate) struct Follower {
    pub(crate) node: RaftNode,
    pub(crate) received: Snapshot,
}

impl Follower {
    /// Takes a step and returns once the node has acknowledged it.
    pub(crate) async fn take(&self, step: Step) -> Result<(), RaftError> {
        let stopped = |_| self.node.stopped();
        let raft = self.node.raft();
        match step {
            Step::Append { term, from, to, committed } => {
                let model = Model::after(
                    STEPS.iter().position(|s| *s == step).expect("a step of the script"),
                );
                let named = |index: u64| Some(id(*model.log.get(&index)?, index));
                let before = from.checked_sub(1).and_then(named);
                let leader_commit = committed
                    .checked_sub(1)
                    .and_then(|c| if c < from { named(c) } else { Some(id(term, c)) });
                let entries: Vec<_> = (from..to).map(|index| entry(term, index)).collect();
                let answer = append(&self.node, term, before, entries, leader_commit).await?;
                assert!(answer.is_success(), "{step:?}: {answer:?}");
                Ok(())
            }
            Step::Vote { term } => {
                let mut request =
                    VoteRequest::new(Vote::new(term, leader(term)), Some(id(term, 1 << 40)));
                // Otherwise it waits until it has not heard from a leader for long.
                request.leadership_transfer = true;
                let answer = raft.vote(request).await.map_err(|_| self.node.stopped())?;
                assert!(answer.vote_granted, "{step:?}: {answer:?}");
                Ok(())
            }
            Step::Build { upto } => {
                self.until(|node| node.applied_index() >= upto).await?;
                let files = self.node.files();
                // However little there is that the last one has not.
                files.ask(upto);
                raft.trigger().snapshot().await.map_err(stopped)?;
                let built = |node: &RaftNode| node.metrics().snapshot == upto;
                self.until(|node| built(node) || files.was_full().is_some()).await?;
                // The disk was full for a moment. Another is made once openraft has heard of that.
                let began = Instant::now();
                while !built(&self.node) && began.elapsed() < PATIENCE {
                    files.has_room_again();
                    raft.trigger().snapshot().await.map_err(stopped)?;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                self.until(built).await
            }
            Step::Purge { upto } => {
                raft.trigger().purge_log(upto).await.map_err(stopped)?;
                self.until(|node| node.metrics().purged == upto).await
            }
            Step::Install { term, upto } => {
                let vote = Vote::new_committed(term, leader(term));
                let installed = raft.install_full_snapshot(vote, self.received.clone());
                installed.await.map_err(|_| self.node.stopped())?;
                self.until(|node| node.metrics().purged == upto && node.metrics().snapshot == upto)
                    .await
            }
        }
    }

    async fn until(&self, done: impl Fn(&RaftNode) -> bool) -> Result<(), RaftError> {
        let waited = async {
            while !done(&self.node) {
                self.node.check()?;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            Ok(())
        };
        tokio::time::timeout(PATIENCE, waited).await.unwrap_or(Err(RaftError::Timeout))
    }
}

/// Sends entries as the leader of `term`.
pub(crate) async fn append(
    node: &RaftNode,
    term: u64,
    prev_log_id: Option<LogId>,
    entries: Vec<LogEntry>,
    leader_commit: Option<LogId>,
) -> Result<AppendEntriesResponse<TypeConfig>, RaftError> {
    let vote = Vote::new_committed(term, leader(term));
    let rpc = AppendEntriesRequest { vote, prev_log_id, entries, leader_commit };
    node.raft().append_entries(rpc).await.map_err(|_| node.stopped())
}

/// The state of a snapshot file, with the index that it reaches; nothing if there is no file.
pub(crate) fn open_snapshot(
    path: &Path,
    cluster: ClusterId,
) -> Result<Option<(LogId, State)>, RaftError> {
    let health = Health::new();
    let (_, found) = SnapshotFile::open(path.to_owned(), cluster, health)?;
    Ok(found.and_then(|(meta, state)| Some((meta.last_log_id?, state))))
}

/// What the leader of term 2 will send: the script's entries up to the one that it installs.
pub(crate) async fn donated(dir: &Path, cluster: ClusterId) -> Snapshot {
    let install = STEPS.iter().position(|step| matches!(step, Step::Install { .. }));
    let model = Model::after(install.expect("an install") + 1);
    let health = Health::new();
    let (file, _) =
        SnapshotFile::open(dir.join("donated"), cluster, health.clone()).expect("no file yet");
    let mut machine = Machine::new(file, None, Hashes::new(0), health);
    let entries = model.log.iter().map(|(index, term)| Ok((entry(*term, *index), None)));
    machine.apply(stream::iter(entries)).await.expect("applied");
    machine.get_snapshot_builder().await.build_snapshot().await.expect("built")
}
