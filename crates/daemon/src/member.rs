//! This machine as a member of its cluster: everything that its services share.

use std::sync::{Arc, Mutex, PoisonError};

use holdfast_controller::Leadership;
use holdfast_core::{Command, Entry, Guarded, Outcome, State, Trust, TrustedAuthority};
use holdfast_planner::Observations;
use holdfast_proto::{APPLIED_KEY, Dialers};
use holdfast_raft::{RaftError, RaftNode};
use holdfast_types::{ClusterId, NodeId, RequestId, Revision};
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Response;

use crate::channels::Channels;
use crate::clock;
use crate::fault::Fault;
use crate::identity::Identity;
use crate::machine::Duties;
use crate::seen::LastSeen;

/// A member of a cluster.
pub(crate) struct Member {
    pub(crate) identity: Identity,
    /// Nothing on a worker.
    pub(crate) raft: Option<RaftNode>,
    pub(crate) duties: Arc<dyn Duties>,
    pub(crate) channels: Channels,
    /// This process's leadership while it leads and is ready.
    pub(crate) reign: watch::Receiver<Option<Arc<Leadership>>>,
    /// Where other nodes answer, the one that did last first.
    seeds: Mutex<Vec<String>>,
    /// What the leader sees, where that is another node.
    pub(crate) last_seen: LastSeen,
    standing: Mutex<(Vec<TrustedAuthority>, u64)>,
}

/// This process as the leader, for one call.
#[derive(Clone)]
pub(crate) struct Lead {
    pub(crate) member: Arc<Member>,
    pub(crate) raft: RaftNode,
    pub(crate) leadership: Arc<Leadership>,
    /// When the caller stops waiting.
    pub(crate) deadline: Instant,
    /// A revision that the cluster had reached before the client first sent the request.
    pub(crate) since: Option<Revision>,
    /// The version that the object must have for anything to change.
    pub(crate) expect: Option<Revision>,
}

impl Member {
    pub(crate) fn new(
        identity: Identity,
        raft: Option<RaftNode>,
        duties: Arc<dyn Duties>,
        reign: watch::Receiver<Option<Arc<Leadership>>>,
        dialers: Dialers,
    ) -> Self {
        let seeds = Mutex::new(identity.peers.clone());
        let (channels, last_seen) = (Channels::new(dialers), LastSeen::default());
        let standing = Mutex::default();
        Self { identity, raft, duties, channels, reign, seeds, last_seen, standing }
    }

    pub(crate) fn cluster(&self) -> ClusterId {
        self.identity.cluster
    }

    pub(crate) fn node(&self) -> NodeId {
        self.identity.node
    }

    /// What each node's standing should be. Asked for with each heartbeat, and worked out once.
    pub(crate) fn standing(&self, trust: &Trust) -> u64 {
        let mut known = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        if known.0 != trust.authorities {
            *known = (trust.authorities.clone(), trust.standing());
        }
        known.1
    }

    /// This process as the leader, or where to find it.
    pub(crate) fn lead(self: &Arc<Self>, deadline: Instant) -> Result<Lead, Fault> {
        let leadership = self.reign.borrow().clone();
        match (leadership, &self.raft) {
            (Some(leadership), Some(raft)) => {
                let (member, raft) = (self.clone(), raft.clone());
                Ok(Lead { member, raft, leadership, deadline, since: None, expect: None })
            }
            _ => Err(Fault::not_leader(self.leader())),
        }
    }

    /// The address of the leader, if another node is known to lead.
    pub(crate) fn leader(&self) -> Option<String> {
        let leader = self.raft.as_ref()?.leadership_now().leader?;
        (leader.node != self.node() && !leader.addr.is_empty()).then_some(leader.addr)
    }

    /// Whom to ask in place of a leader that this node cannot know: it is a worker, or no leader
    /// has added it yet.
    pub(crate) fn seed(&self) -> Option<String> {
        let outside = self.raft.as_ref().is_none_or(|raft| raft.metrics().voters.is_empty());
        outside.then(|| self.seeds().first().cloned()).flatten()
    }

    /// The seed did not help: next time another one.
    pub(crate) fn next_seed(&self, failed: &str) {
        let mut seeds = self.seeds();
        if seeds.first().is_some_and(|first| first == failed) {
            seeds.rotate_left(1);
        }
    }

    pub(crate) fn set_seeds(&self, addresses: Vec<String>) {
        *self.seeds() = addresses;
    }

    /// An answer, and an entry that the cluster has reached.
    pub(crate) fn respond<T>(&self, answer: T) -> Response<T> {
        let mut response = Response::new(answer);
        if let Some(raft) = &self.raft {
            response.metadata_mut().insert(APPLIED_KEY, raft.applied_index().into());
        }
        response
    }

    fn seeds(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.seeds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lead {
    /// The state as of some moment after the call (I6).
    pub(crate) async fn read(&self) -> Result<Arc<State>, Fault> {
        self.raft.read_index().await?;
        Ok(self.raft.state())
    }

    /// The same, for a client that changes nothing but what has that version.
    pub(crate) fn expecting(self, version: Option<u64>) -> Self {
        Self { expect: version.map(Revision), ..self }
    }

    /// What the state says to somebody who is about to propose, and whose command is checked again
    /// where it applies. What it finds may be as old as the reign of a leader that does not know yet
    /// that it was deposed, and then it cannot commit anything; but a refusal is an answer, so it
    /// is as of some moment after the call (I6).
    pub(crate) async fn look<T>(
        &self,
        find: impl Fn(&State) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        match find(&self.raft.state()) {
            Ok(found) => Ok(found),
            Err(_) => find(&*self.read().await?),
        }
    }

    /// Commits a client's command; the same request id commits once (I7).
    pub(crate) async fn propose(
        &self,
        request: RequestId,
        command: Command,
    ) -> Result<Outcome, Fault> {
        let command = match (self.since, self.expect) {
            (None, None) => command,
            (since, expect) => {
                Command::Guarded(Guarded { since, expect, command: Box::new(command) })
            }
        };
        let entry = Entry { request, at: clock::wall(), command };
        let limit = self.deadline.saturating_duration_since(Instant::now());
        match self.raft.propose_within(entry, limit).await {
            Err(error @ RaftError::FeatureLevel { needs, .. }) => {
                let behind = self.leadership.levels.behind(&self.raft.state(), needs);
                let message = format!("{error}: {}", behind.join(", "));
                Err(Fault::new(error.code(), message))
            }
            proposed => Ok(proposed??),
        }
    }

    /// What the planner is to see.
    pub(crate) fn observe(&self, state: &State) -> Observations {
        self.leadership.observe(state, clock::boottime_ms(), clock::wall())
    }
}
