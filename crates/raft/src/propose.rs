//! Proposing entries: on the leader, within a deadline, with an answer that says what to do next.

use std::time::Duration;

use holdfast_core::{Entry, Response};
use openraft::Instant as _;
use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::RaftError as OpenraftError;
use openraft::impls::ProgressResponder;
use openraft::raft::ClientWriteResponse;
use tokio::time::{Instant, timeout_at};

use crate::error::RaftError;
use crate::level;
use crate::node::RaftNode;
use crate::types::{EntryBytes, TypeConfig};

/// A refusal may be fresher than what the node knows of leaders, so that gets a moment to catch up.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

impl RaftNode {
    /// Proposes an entry and returns what applying it gave, with the default deadline.
    pub async fn propose(&self, entry: Entry) -> Result<Response, RaftError> {
        self.propose_within(entry, self.timing().deadline()).await
    }

    /// Proposes an entry and returns what applying it gave. On the leader only; where no leader is
    /// known it waits for one. After any error but [`RaftError::TooLarge`] and
    /// [`RaftError::FeatureLevel`] the entry may still commit: retry it with the same request id (I7).
    pub async fn propose_within(
        &self,
        entry: Entry,
        limit: Duration,
    ) -> Result<Response, RaftError> {
        level::allows(&self.state(), &entry)?;
        let bytes = EntryBytes::encode(&entry)?;
        let deadline = Instant::now() + limit;
        let mut pause = RETRY_PAUSE;
        loop {
            self.check()?;
            let write = self.raft().client_write(bytes.clone());
            let error = match timeout_at(deadline, write).await {
                Err(_) => return Err(self.late()),
                Ok(Ok(done)) => return answer(done),
                Ok(Err(e)) => self.refused(e),
            };
            if error != (RaftError::NotLeader { leader: None }) {
                return Err(error);
            }
            self.some_leader(deadline, pause).await?;
            // A leader whose lease is out gets it back with a heartbeat's answers, not before.
            pause = (pause * 2).min(Duration::from_millis(self.timing().heartbeat_ms));
        }
    }

    /// Proposes an entry as the leader of `term`, and never in another term: what a leader
    /// concludes from its own memory (that a node is lost) must not enter the log under a later
    /// reign, whose leader may know better (DESIGN section 5 rule 4).
    pub async fn propose_in_term(
        &self,
        entry: Entry,
        term: u64,
        limit: Duration,
    ) -> Result<Response, RaftError> {
        level::allows(&self.state(), &entry)?;
        let bytes = EntryBytes::encode(&entry)?;
        self.check()?;
        let (responder, done) = ProgressResponder::complete_only();
        let written = async {
            let write = self.raft().write(bytes).responder(responder).with_leader(term);
            write.await.map_err(|_| self.stopped())?;
            done.await.map_err(|_| self.stopped())
        };
        match timeout_at(Instant::now() + limit, written).await {
            Err(_) => Err(self.late()),
            Ok(Err(stopped)) => Err(stopped),
            Ok(Ok(Err(e))) => Err(self.refused(OpenraftError::APIError(e))),
            Ok(Ok(Ok(done))) => answer(done),
        }
    }

    /// What a missed deadline means: a leader whose quorum answers was slow, another has none.
    pub(crate) fn late(&self) -> RaftError {
        let rx = self.raft().metrics();
        let metrics = rx.borrow_watched();
        let alone = metrics.membership_config.voter_ids().count() <= 1;
        let fresh = Duration::from_millis(self.timing().election_max_ms);
        let heard = metrics.last_quorum_acked.as_ref().is_some_and(|at| at.elapsed() < fresh);
        if alone || heard { RaftError::Timeout } else { RaftError::NoQuorum }
    }

    /// Waits until some node is known to lead; says so if it is another.
    async fn some_leader(&self, deadline: Instant, pause: Duration) -> Result<(), RaftError> {
        tokio::time::sleep_until(deadline.min(Instant::now() + pause)).await;
        let mut leadership = self.leadership();
        match timeout_at(deadline, leadership.wait_for(|l| l.leader.is_some())).await {
            Err(_) => return Err(RaftError::NoQuorum),
            Ok(Err(_)) => return Err(self.stopped()),
            Ok(Ok(_)) => {}
        }
        match self.other_leader() {
            Some(leader) => Err(RaftError::NotLeader { leader: Some(leader) }),
            None => Ok(()),
        }
    }
}

fn answer(done: ClientWriteResponse<TypeConfig>) -> Result<Response, RaftError> {
    let none = || RaftError::Internal { what: "an entry without answer".into() };
    done.data.0.ok_or_else(none)
}
