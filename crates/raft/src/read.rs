//! Linearizable reads: quorum rounds, each for all who wait when it begins (I6).
//!
//! A caller may only be answered by a round that began after it called: the leader may have been
//! deposed between an older round and the call. So whoever comes while a round runs waits for the
//! next one; nobody joins a round under way.
//!
//! ```text
//! callers a b ─► round 1 ───────► a b answered
//!            callers c d e ─ wait ─► round 2 ───► c d e answered
//! ```

use std::time::Duration;

use openraft::ReadPolicy;
use openraft::errors::{LinearizableReadError, RaftError as OpenraftError};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::error::RaftError;
use crate::store::Health;
use crate::types::Raft;

/// Callers waiting; beyond it they wait to wait.
const QUEUE: usize = 4_096;

type Waiter = oneshot::Sender<Result<u64, RaftError>>;

/// The way to ask for a round. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Rounds {
    waiters: mpsc::Sender<Waiter>,
}

impl Rounds {
    /// The handle, and the task to run.
    pub(crate) fn new(
        raft: Raft,
        health: Health,
        limit: Duration,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (waiters, queue) = mpsc::channel(QUEUE);
        (Self { waiters }, run(raft, health, limit, queue))
    }

    /// An index such that everything acknowledged before the call is at or below it. It has been
    /// applied here when this returns.
    pub(crate) async fn read_index(&self) -> Result<u64, RaftError> {
        let (tx, rx) = oneshot::channel();
        self.waiters.send(tx).await.map_err(|_| RaftError::Stopped)?;
        rx.await.unwrap_or(Err(RaftError::Stopped))
    }
}

async fn run(raft: Raft, health: Health, limit: Duration, mut queue: mpsc::Receiver<Waiter>) {
    let mut waiting = Vec::new();
    while queue.recv_many(&mut waiting, QUEUE).await > 0 {
        // Everyone in `waiting` called before this line, where the round begins.
        let result = round(&raft, &health, limit).await;
        for waiter in waiting.drain(..) {
            // A caller that gave up does not mind.
            drop(waiter.send(result.clone()));
        }
    }
}

async fn round(raft: &Raft, health: &Health, limit: Duration) -> Result<u64, RaftError> {
    health.check()?;
    match timeout(limit, raft.ensure_linearizable(ReadPolicy::ReadIndex)).await {
        Err(_) => Err(RaftError::NoQuorum),
        Ok(Ok(read)) => Ok(read.index()),
        Ok(Err(OpenraftError::APIError(LinearizableReadError::ForwardToLeader(_)))) => {
            Err(RaftError::NotLeader { leader: None })
        }
        Ok(Err(OpenraftError::APIError(LinearizableReadError::QuorumNotEnough(_)))) => {
            Err(RaftError::NoQuorum)
        }
        Ok(Err(OpenraftError::Fatal(_))) => Err(health.check().err().unwrap_or(RaftError::Stopped)),
    }
}
