//! A lost majority is given up: the log of one survivor becomes that of the cluster.
//!
//! Offline, on a directory that nobody has open. Nothing of it is changed: a new one is made beside it
//! and put in its place, and the old one is kept.
//!
//! ```text
//! raft                                     survey: what is here, what may be lost
//!  │ read
//!  ▼
//! raft.building ──whole──▶ raft.recovered  from here on the daemon refuses to start
//! raft ──▶ raft.before-recovery-N          the evidence
//! raft.recovered ──▶ raft                  done
//! ```
//! After a crash anywhere it is run again: what is not whole is made anew, what is goes on.
//!
//! Why nothing runs twice (I8). A lease that a dead leader granted began before it died, and the person
//! says that it is dead; the new leader counts from its own start, for every node, before
//! anything is taken over (DESIGN section 5 rule 4), and whoever cannot reach it is stopped by its own guardian
//! meanwhile. No old life of a node can be granted anything, because each has a new number
//! (`holdfast_core::Lineage`). And if the person is wrong, what the others started is stale as soon as they
//! hear of this: see [`generation`].

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use holdfast_core::{Command, Entry, RecoverCluster, State, apply};
use holdfast_types::{NodeId, RequestId, TimestampMs};
use openraft::EntryPayload;
use openraft::storage::{RaftLogReader, RaftLogStorage};

use crate::config::Identity;
use crate::error::RaftError;
use crate::leadership::Peer;
use crate::seed::{INDEX_LEAP, Seed, TERM_LEAP, rename};
use crate::snapshot::SnapshotFile;
use crate::store::{Health, LogStore};
use crate::types::{LogEntry, Membership};
use crate::{dir, generation};

/// Entries read at once.
const BATCH: u64 = 1_024;

/// What a node's log knows.
#[derive(Debug, Clone)]
pub struct Survey {
    /// Whose log it is.
    pub identity: Identity,
    /// How many times its cluster was recovered before.
    pub generation: u64,
    /// The last entry.
    pub log_end: u64,
    /// Its term.
    pub log_term: u64,
    /// The last entry that this node knew to be committed; later ones may be or not.
    pub committed: u64,
    /// The newest term that it took part in.
    pub term: u64,
    /// Every member of consensus, itself included.
    pub members: Vec<Peer>,
    /// Those with a vote.
    pub voters: BTreeSet<NodeId>,
    /// When the last entry was proposed, by the proposer's clock.
    pub last_entry: Option<TimestampMs>,
    /// When something was last made durable here, by this machine's clock.
    pub last_write: Option<SystemTime>,
    /// The state with every entry of the log applied.
    pub state: State,
    /// A recovery was begun and not finished.
    pub unfinished: bool,
}

/// What a person decided.
#[derive(Debug, Clone)]
pub struct Recovery {
    /// Who, for the event.
    pub by: String,
    /// Wall time.
    pub at: TimestampMs,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// The generation that begins.
    pub generation: u64,
    /// The log before, kept for whoever looks for what was lost.
    pub kept: PathBuf,
}

/// Where a log waits to be put in its place. While it does, the node does not start.
pub(crate) fn waiting(dir: &Path) -> PathBuf {
    dir.with_extension("recovered")
}

/// Whether a recovery of the log in `dir` was begun and not finished.
pub(crate) fn is_unfinished(dir: &Path) -> bool {
    waiting(dir).exists()
}

/// Looks at the log in `dir`. The caller keeps others out.
pub async fn survey(dir: &Path) -> Result<Survey, RaftError> {
    let unfinished = is_unfinished(dir);
    // Between the two renames there is only the new one.
    let dir = if unfinished && !dir.exists() { waiting(dir) } else { dir.to_owned() };
    let identity = dir::read_identity(&dir)?.ok_or_else(|| {
        nothing("there is no log here: this machine was never a voter or standby")
    })?;
    if generation::is_superseded(&dir) {
        return Err(RaftError::Superseded);
    }
    let last_write = dir::log_dir(&dir).with_extension("tail");
    let last_write = fs::metadata(last_write).and_then(|m| m.modified()).ok();
    let mut log = LogStore::open(&dir::log_dir(&dir), Health::new())?;
    let mut closed = log.closed();
    let read = Reading::of(&dir, identity, &mut log).await;
    drop(log);
    // An error says that the thread is gone, and its files with it.
    drop(closed.wait_for(|closed| *closed).await);
    let (read, committed, term) = read?;
    let members = read.membership.membership();
    let peer = |(id, node): (&u64, &openraft::BasicNode)| Peer {
        node: NodeId(*id),
        addr: node.addr.clone(),
    };
    Ok(Survey {
        identity,
        generation: generation::read(&dir)?,
        log_end: read.index,
        log_term: read.term,
        committed: committed.max(read.snapshot),
        term,
        members: members.nodes().map(peer).collect(),
        voters: members.voter_ids().map(NodeId).collect(),
        last_entry: read.last_entry,
        last_write,
        state: read.state,
        unfinished,
    })
}

/// Makes this node the only voter of its cluster, from what [`survey`] found; or finishes that. The
/// caller keeps others out of `dir`, and has asked a person.
pub async fn recover(
    dir: &Path,
    survey: Survey,
    recovery: Recovery,
) -> Result<Recovered, RaftError> {
    if !survey.unfinished {
        seed(&survey, recovery)?.plant(&waiting(dir)).await?;
    }
    let generation = generation::read(&waiting(dir))?;
    let kept = set_aside(dir, generation)?;
    rename(&waiting(dir), dir)?;
    Ok(Recovered { generation, kept })
}

/// Gives the log before a name that nothing has yet, and returns that; it may have one already.
fn set_aside(dir: &Path, generation: u64) -> Result<PathBuf, RaftError> {
    let name = |n| match n {
        0 | 1 => dir.with_extension(format!("before-recovery-{generation}")),
        _ => dir.with_extension(format!("before-recovery-{generation}-{n}")),
    };
    let taken = (1..).take_while(|n| name(*n).exists()).count();
    if !dir.exists() {
        return Ok(name(taken));
    }
    let kept = name(taken + 1);
    rename(dir, &kept)?;
    Ok(kept)
}

/// The state after the recovery, and what the new log begins with.
fn seed(survey: &Survey, recovery: Recovery) -> Result<Seed, RaftError> {
    let me = survey.identity.node;
    check(survey)?;
    let mut state = survey.state.clone();
    let index = survey.log_end.saturating_add(INDEX_LEAP);
    let generation = survey.generation.max(state.lineage.generation) + 1;
    let command = RecoverCluster {
        generation,
        survivor: me,
        members: survey.members.iter().map(|peer| peer.node).collect(),
        by: recovery.by,
        log_end: survey.log_end,
        committed: survey.committed,
    };
    let entry = Entry {
        request: RequestId::generate(),
        at: recovery.at,
        command: Command::RecoverCluster(command),
    };
    apply(&mut state, index, entry).map_err(|refusal| nothing(&refusal.message))?;
    let address = state.node(me).map_err(|refusal| nothing(&refusal.message))?.address.clone();
    let term = survey.term.max(survey.log_term).saturating_add(TERM_LEAP);
    Ok(Seed { identity: survey.identity, generation, address, index, term, state })
}

/// Whether there is anything to recover from, and for.
fn check(survey: &Survey) -> Result<(), RaftError> {
    let me = survey.identity.node;
    if survey.state.cluster.is_none() {
        return Err(nothing("the log here does not know its cluster yet"));
    }
    if !survey.members.iter().any(|peer| peer.node == me) {
        return Err(nothing("this node is no member of consensus by its own log"));
    }
    if survey.voters == BTreeSet::from([me]) {
        return Err(nothing("this node is the only voter already: start it"));
    }
    Ok(())
}

fn nothing(what: &str) -> RaftError {
    RaftError::NothingToRecover { what: what.to_owned() }
}

/// The log as it is read: its entries on top of the snapshot.
struct Reading {
    snapshot: u64,
    index: u64,
    term: u64,
    state: State,
    membership: Membership,
    last_entry: Option<TimestampMs>,
}

impl Reading {
    /// Reads all of it; with the last entry known to be committed, and the newest term.
    async fn of(
        dir: &Path,
        identity: Identity,
        log: &mut LogStore,
    ) -> Result<(Self, u64, u64), RaftError> {
        let disk = |e: std::io::Error| RaftError::disk(dir, &e);
        let path = dir::snapshot_file(dir);
        let (_, snapshot) = SnapshotFile::open(path.clone(), identity.cluster, Health::new())?;
        let mut read = Self {
            snapshot: 0,
            index: 0,
            term: 0,
            state: State::default(),
            membership: Membership::default(),
            last_entry: None,
        };
        if let Some(snapshot) = snapshot {
            let (meta, state) = snapshot;
            read.state = state;
            if let Some(id) = meta.last_log_id {
                (read.snapshot, read.index, read.term) = (id.index, id.index, *id.leader_id);
            }
            read.membership = meta.last_membership;
        }
        let heads = log.get_log_state().await.map_err(disk)?;
        if let Some(purged) = heads.last_purged_log_id.filter(|id| id.index > read.index) {
            let what = format!("the log begins after entry {}, and it ends before", purged.index);
            return Err(RaftError::corrupt(&path, what));
        }
        let covers = read.membership.log_id().is_some() || read.index > 0;
        let end = heads.last_log_id.map_or(0, |id| id.index + 1);
        let mut from = if covers { read.index + 1 } else { 0 };
        let mut reader = log.get_log_reader().await;
        while from < end {
            let upto = end.min(from + BATCH);
            for entry in reader.try_get_log_entries(from..upto).await.map_err(disk)? {
                read.take(entry)?;
            }
            from = upto;
        }
        let committed = log.read_committed().await.map_err(disk)?.map_or(0, |id| id.index);
        let term = reader.read_vote().await.map_err(disk)?.map_or(0, |vote| vote.leader_id.term);
        Ok((read, committed, term))
    }

    fn take(&mut self, entry: LogEntry) -> Result<(), RaftError> {
        (self.index, self.term) = (entry.log_id.index, *entry.log_id.leader_id);
        match entry.payload {
            EntryPayload::Blank => {}
            EntryPayload::Membership(members) => {
                self.membership = Membership::new(Some(entry.log_id), members);
            }
            EntryPayload::Normal(bytes) => {
                let what = |e| RaftError::VersionTooOld {
                    what: format!("log entry {} is of a newer one: {e}", self.index),
                };
                let entry = bytes.decode().map_err(what)?;
                self.last_entry = Some(entry.at);
                // Its answer went to whoever asked, long ago.
                let _answer = apply(&mut self.state, self.index, entry);
            }
        }
        Ok(())
    }
}
