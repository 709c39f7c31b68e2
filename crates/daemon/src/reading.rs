//! What a node answers reads from: its own state, as of some moment after the call (I6), with what the
//! leader sees besides. Only the index to read at and, now and then, what is seen come from the leader,
//! so that reading grows with the nodes. What is seen is asked for where it is shown, and no answer fails
//! for want of it.
//!
//! ```text
//! client ─▶ entry node ──index?──▶ leader ─▶ round with a quorum
//!                │ ◀──index──────────┘
//!                ▼ that index is applied here
//!              answer
//! ```
//!
//! A worker, or a node that no leader has added yet, has no state and asks another for the whole answer.
//! A *stale* read is answered at once from what is here, with a quorum or without, and says how old that
//! may be.

use std::sync::Arc;
use std::time::Duration;

use holdfast_core::State;
use holdfast_proto::{AGE_KEY, APPLIED_KEY, NODE_KEY};
use holdfast_raft::{Applied, RaftError, RaftNode};
use holdfast_types::NodeId;
use tokio::time::{sleep, timeout, timeout_at};
use tonic::Response;
use tonic::metadata::{MetadataMap, MetadataValue};

use crate::clock;
use crate::convert::Picture;
use crate::fault::Fault;
use crate::forward::{Call, PAUSE, exhausted, transient};
use crate::member::Member;
use crate::seen::Seen;

/// One try of a read, unless the caller has less time.
const TRY_LIMIT: Duration = Duration::from_secs(2);

/// So long, at most, is waited for what the leader sees: less than another node waits for the answer.
const SEEN_LIMIT: Duration = Duration::from_millis(1_500);

/// This much of a call's time is left for its answer.
const RESERVE: Duration = Duration::from_millis(300);

/// What an answer shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Show {
    /// What is in the log.
    State,
    /// Also what only the leader sees, if that is to be had.
    Seen,
}

/// What one read is answered from.
pub(crate) struct Reading {
    pub(crate) raft: RaftNode,
    pub(crate) applied: Applied,
    /// Nothing in a stale read, where it is not shown, and where the leader did not tell in time.
    seen: Option<Arc<Seen>>,
    leader: Option<NodeId>,
    /// The answering node, where the answer may be old.
    stale_at: Option<String>,
}

impl Reading {
    pub(crate) fn state(&self) -> &State {
        &self.applied.state
    }

    pub(crate) fn leader(&self) -> Option<NodeId> {
        self.leader
    }

    pub(crate) fn seen(&self) -> Option<&Seen> {
        self.seen.as_deref()
    }

    /// How old a stale read may be; nothing in any other.
    pub(crate) fn age(&self) -> Option<Option<Duration>> {
        self.stale_at.as_ref().map(|_| self.raft.age())
    }

    /// Shows the state to `paint`.
    pub(crate) fn picture<T>(&self, paint: impl FnOnce(&Picture<'_>) -> T) -> T {
        match &self.seen {
            Some(seen) => seen.picture(self.state(), self.leader, paint),
            None => paint(&Picture {
                state: self.state(),
                seen: None,
                leader: self.leader,
                told: None,
                silent_ms: &|_| None,
                now: clock::wall(),
            }),
        }
    }

    /// The answer, and how far what it was read from is.
    pub(crate) fn respond<T>(&self, answer: T) -> Response<T> {
        let mut response = Response::new(answer);
        let metadata = response.metadata_mut();
        metadata.insert(APPLIED_KEY, self.applied.index.into());
        if let Some(node) = &self.stale_at {
            let age = self.raft.age().map_or_else(
                || MetadataValue::from_static("unknown"),
                |age| MetadataValue::from(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            );
            metadata.insert(AGE_KEY, age);
            // A node's name is always a valid value.
            if let Ok(node) = MetadataValue::try_from(node) {
                metadata.insert(NODE_KEY, node);
            }
        }
        response
    }
}

impl Member {
    /// What this node answers a read from; nothing if another has to answer it.
    pub(crate) async fn reading(
        self: &Arc<Self>,
        call: &Call,
        show: Show,
    ) -> Result<Option<Reading>, Fault> {
        let is_inside = |raft: &&RaftNode| {
            raft.leadership_now().leader.is_some() || !raft.metrics().voters.is_empty()
        };
        let Some(raft) = self.raft.as_ref().filter(is_inside) else { return Ok(None) };
        if call.stale {
            return Ok(Some(self.stale(raft)));
        }
        loop {
            let read = Box::pin(self.read_once(raft, call, show));
            let last = match timeout_at(call.deadline, read).await {
                Err(_) => Fault::no_quorum(),
                Ok(Err(fault)) if transient(fault.code) => fault,
                Ok(other) => return other,
            };
            if call.hops > 0 {
                return Err(last);
            }
            if call.left() < PAUSE {
                return Err(exhausted(last));
            }
            sleep(PAUSE).await;
        }
    }

    /// What is here, as it is.
    pub(crate) fn stale(&self, raft: &RaftNode) -> Reading {
        Reading {
            raft: raft.clone(),
            applied: raft.applied(),
            seen: None,
            leader: raft.leadership_now().leader.map(|leader| leader.node),
            stale_at: Some(self.identity.name.to_string()),
        }
    }

    async fn read_once(
        self: &Arc<Self>,
        raft: &RaftNode,
        call: &Call,
        show: Show,
    ) -> Result<Option<Reading>, Fault> {
        let limit = call.left().min(TRY_LIMIT);
        // Whether this node can answer. The state is taken at the end: none is held while others answer.
        let read = async {
            match raft.read(limit).await {
                Err(RaftError::OldLeader) => Ok(false),
                Err(RaftError::Timeout) => Err(Fault::no_quorum()),
                other => Ok(other.map(|_| true)?),
            }
        };
        let (answers, seen) = match show {
            Show::State => (read.await?, None),
            Show::Seen => {
                let limit = SEEN_LIMIT.min(call.left().saturating_sub(RESERVE));
                beside(read, limit, self.look(raft, call)).await?
            }
        };
        if !answers {
            return Ok(None);
        }
        let (leader, seen) = match seen {
            Some((leader, seen)) => (Some(leader), Some(seen)),
            None => (raft.leadership_now().leader.map(|leader| leader.node), None),
        };
        let (raft, applied) = (raft.clone(), raft.applied());
        Ok(Some(Reading { raft, applied, seen, leader, stale_at: None }))
    }

    /// What the leader sees, and who that is; waits until somebody leads and says it.
    async fn look(self: &Arc<Self>, raft: &RaftNode, call: &Call) -> (NodeId, Arc<Seen>) {
        loop {
            let seen = match self.lead(call.deadline) {
                Ok(lead) => {
                    let look = async { Ok(Seen::here(&lead.leadership, raft, &raft.state())) };
                    let seen = self.last_seen.of(lead.leadership.term, look).await;
                    seen.map(|seen| (self.node(), seen))
                }
                Err(_) => self.seen_elsewhere(raft).await,
            };
            match seen {
                Ok(seen) => return seen,
                Err(_) => sleep(PAUSE).await,
            }
        }
    }

    async fn seen_elsewhere(&self, raft: &RaftNode) -> Result<(NodeId, Arc<Seen>), Fault> {
        let now = raft.leadership_now();
        let other = now.leader.filter(|leader| leader.node != self.node());
        let leader = other.ok_or_else(|| Fault::not_leader(None))?;
        let ask = async {
            let channel = self.channels.to(&leader.addr)?;
            let cluster = self.cluster().to_bytes().to_vec();
            tokio::select! {
                seen = Seen::there(channel, cluster) => seen,
                () = self.leader_other_than(Some(&leader.addr)) => Err(Fault::not_leader(None)),
            }
        };
        Ok((leader.node, self.last_seen.of(now.term, ask).await?))
    }
}

/// What `read` says, and what is seen if that comes within the limit. Nothing is waited for once the
/// read has failed.
async fn beside<A, T>(
    read: impl Future<Output = Result<A, Fault>>,
    limit: Duration,
    look: impl Future<Output = T>,
) -> Result<(A, Option<T>), Fault> {
    tokio::try_join!(read, async { Ok(timeout(limit, look).await.ok()) })
}

/// What of an answer's metadata is for the client.
pub(crate) fn told(metadata: &MetadataMap) -> MetadataMap {
    let mut told = MetadataMap::new();
    for key in [APPLIED_KEY, AGE_KEY, NODE_KEY] {
        if let Some(value) = metadata.get(key) {
            told.insert(key, value.clone());
        }
    }
    told
}

/// The answer of another node, with what that told of it.
pub(crate) fn passed_on<T>((metadata, answer): (MetadataMap, T)) -> Response<T> {
    let mut response = Response::new(answer);
    *response.metadata_mut() = metadata;
    response
}

/// Answers a read on the node that was asked: `$local` is a `fn(&Reading, Message) -> Result<_, Fault>`.
macro_rules! at_any {
    ($gate:expr, $request:expr, $show:ident, $client:ident.$method:ident, $local:expr) => {{
        let member = $gate.member()?;
        let (call, message) = $crate::forward::Call::open($request, std::time::Duration::ZERO);
        let answer =
            $crate::reading::ask_any!(member, &call, message, $show, $client.$method, $local);
        Ok(answer?)
    }};
}
pub(crate) use at_any;

/// The same for a caller that has a [`Call`] already.
macro_rules! ask_any {
    ($member:expr, $call:expr, $message:expr, $show:ident, $client:ident.$method:ident, $local:expr) => {{
        let (member, call, message) = (&$member, $call, $message);
        match member.reading(call, $crate::reading::Show::$show).await {
            Err(fault) => Err(fault),
            Ok(Some(reading)) => $local(&reading, message).map(|answer| reading.respond(answer)),
            Ok(None) => $crate::reading::ask_other!(member, call, message, relay, $client.$method),
        }
    }};
}

/// Has another node answer, for one that has no state: over the `relay`, or the `channel` if the answer
/// is a stream.
macro_rules! ask_other {
    ($member:expr, $call:expr, $message:expr, $way:ident, $client:ident.$method:ident) => {{
        let (member, call, message) = ($member, $call, $message);
        let there = |there: $crate::channels::There| {
            let request = call.onward(message.clone());
            async move {
                let answer = $client::new(there.$way).$method(request).await?;
                let told = $crate::reading::told(answer.metadata());
                Ok(tonic::Response::new((told, answer.into_inner())))
            }
        };
        let nobody = |_| async { Err($crate::fault::Fault::not_leader(None)) };
        let answer = member.at_leader(call, nobody, there).await;
        answer.map($crate::reading::passed_on)
    }};
}
pub(crate) use ask_any;
pub(crate) use ask_other;

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    const SOON: Duration = Duration::from_millis(20);
    const LATE: Duration = Duration::from_secs(3_600);

    /// A leader with thousands of copies to tell of made every read at a follower *no quorum*.
    #[tokio::test]
    async fn a_read_whose_index_came_is_answered_without_what_the_leader_does_not_say() {
        let read = || ready(Ok::<_, Fault>(true));
        assert_eq!(beside(read(), SOON, pending::<u8>()).await, Ok((true, None)));
        assert_eq!(beside(read(), LATE, ready(7)).await, Ok((true, Some(7))));
        let failed = ready(Err::<bool, _>(Fault::no_quorum()));
        let failed = beside(failed, LATE, pending::<u8>()).await;
        assert_eq!(failed, Err(Fault::no_quorum()), "and at once");
    }
}
