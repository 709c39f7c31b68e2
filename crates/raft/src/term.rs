//! Proposals that belong to one reign.

use std::time::Duration;

use holdfast_core::{Entry, Response};
use openraft::errors::RaftError as OpenraftError;
use openraft::impls::ProgressResponder;
use tokio::time::{Instant, timeout_at};

use crate::error::RaftError;
use crate::node::RaftNode;
use crate::types::EntryBytes;

impl RaftNode {
    /// Proposes an entry as the leader of `term`, and never in another term: what a leader
    /// concludes from its own memory (that a node is lost) must not enter the log under a later
    /// reign, whose leader may know better (DESIGN section 5 rule 4).
    pub async fn propose_in_term(
        &self,
        entry: Entry,
        term: u64,
        limit: Duration,
    ) -> Result<Response, RaftError> {
        let bytes = EntryBytes::encode(&entry)?;
        self.check()?;
        let (responder, answer) = ProgressResponder::complete_only();
        let written = async {
            let write = self.raft().write(bytes).responder(responder).with_leader(term);
            write.await.map_err(|_| self.stopped())?;
            answer.await.map_err(|_| self.stopped())
        };
        match timeout_at(Instant::now() + limit, written).await {
            Err(_) => Err(self.late()),
            Ok(Err(stopped)) => Err(stopped),
            Ok(Ok(Err(e))) => Err(self.refused(OpenraftError::APIError(e))),
            Ok(Ok(Ok(done))) => {
                let none = || RaftError::Internal { what: "an entry without answer".into() };
                done.data.0.ok_or_else(none)
            }
        }
    }
}
