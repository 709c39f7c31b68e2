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
//!
//! A node that does not lead asks the leader for an index, and answers from its own state once that is
//! applied here. Its questions are shared in the same way: one leaves after everyone whom it is for has
//! called, and the leader's round begins after it has come.
//!
//! ```text
//! callers here ─► question ─► leader: round ─► index ─► applied here ─► answered
//! ```

use std::time::Duration;

use futures::future::BoxFuture;
use openraft::ReadPolicy;
use openraft::errors::{LinearizableReadError, RaftError as OpenraftError};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};

use crate::error::RaftError;
use crate::fresh::Fresh;
use crate::leadership::Leadership;
use crate::net::Asker;
use crate::published::Applied;
use crate::store::Health;
use crate::sys::boottime;
use crate::types::Raft;

/// Callers waiting; beyond it they wait to wait.
const QUEUE: usize = 4_096;

/// A leader that takes longer is asked again: another may lead by then.
const QUESTION_LIMIT: Duration = Duration::from_secs(2);

type Round = BoxFuture<'static, Result<u64, RaftError>>;
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
        Self::of(move || Box::pin(round(raft.clone(), health.clone(), limit)))
    }

    /// The same for questions to whoever leads.
    pub(crate) fn of_questions(
        asker: Asker,
        leadership: watch::Receiver<Leadership>,
        limit: Duration,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let limit = limit.min(QUESTION_LIMIT);
        Self::of(move || Box::pin(question(asker.clone(), leadership.clone(), limit)))
    }

    fn of(begin: impl Fn() -> Round + Send) -> (Self, impl Future<Output = ()> + Send) {
        let (waiters, queue) = mpsc::channel(QUEUE);
        (Self { waiters }, run(begin, queue))
    }

    /// An index such that everything acknowledged before the call is at or below it. It has been
    /// applied here when this returns.
    pub(crate) async fn read_index(&self) -> Result<u64, RaftError> {
        let (tx, rx) = oneshot::channel();
        self.waiters.send(tx).await.map_err(|_| RaftError::Stopped)?;
        rx.await.unwrap_or(Err(RaftError::Stopped))
    }
}

/// Reads on any member. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Reader {
    pub(crate) rounds: Rounds,
    pub(crate) questions: Rounds,
    pub(crate) leadership: watch::Receiver<Leadership>,
    pub(crate) applied: watch::Receiver<Applied>,
    pub(crate) fresh: Fresh,
}

impl Reader {
    /// A state that has everything acknowledged before the call (I6).
    pub(crate) async fn read(&self, limit: Duration) -> Result<Applied, RaftError> {
        let (asked, deadline) = (boottime(), Instant::now() + limit);
        let leads = self.leadership.borrow().reign.is_some();
        let indexes = if leads { &self.rounds } else { &self.questions };
        let index = timeout_at(deadline, indexes.read_index()).await;
        let index = index.unwrap_or(Err(RaftError::NoQuorum))?;
        let mut applied = self.applied.clone();
        let read = match timeout_at(deadline, applied.wait_for(|a| a.index >= index)).await {
            Err(_) => Err(RaftError::Timeout),
            Ok(Err(_)) => Err(RaftError::Stopped),
            Ok(Ok(applied)) => Ok(applied.clone()),
        };
        if read.is_ok() {
            self.fresh.note(asked);
        }
        read
    }

    pub(crate) fn fresh(&self) -> &Fresh {
        &self.fresh
    }
}

async fn run(begin: impl Fn() -> Round, mut queue: mpsc::Receiver<Waiter>) {
    let mut waiting = Vec::new();
    while queue.recv_many(&mut waiting, QUEUE).await > 0 {
        // Everyone in `waiting` called before this line, where the round begins.
        let result = begin().await;
        for waiter in waiting.drain(..) {
            // A caller that gave up does not mind.
            drop(waiter.send(result.clone()));
        }
    }
}

async fn round(raft: Raft, health: Health, limit: Duration) -> Result<u64, RaftError> {
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

/// Asks the leader for an index; given up when another leads, or nobody.
async fn question(
    asker: Asker,
    mut leadership: watch::Receiver<Leadership>,
    limit: Duration,
) -> Result<u64, RaftError> {
    let known = leadership.borrow_and_update().clone();
    let none = RaftError::NotLeader { leader: None };
    let Some(leader) = known.leader.filter(|_| known.reign.is_none()) else { return Err(none) };
    tokio::select! {
        answer = asker.read_index(&leader, limit) => answer,
        _ = leadership.wait_for(|now| now.leader.as_ref() != Some(&leader)) => Err(none),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::*;

    /// I6: who calls while a round runs is answered by the next, and the next serves all of them.
    #[tokio::test]
    async fn nobody_joins_a_round_that_has_begun() {
        let (begun_tx, mut begun) = mpsc::unbounded_channel();
        let finish = Arc::new(Semaphore::new(0));
        let gate = finish.clone();
        let number = std::sync::atomic::AtomicU64::new(0);
        let (rounds, serve) = Rounds::of(move || {
            let n = number.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
            begun_tx.send(n).unwrap();
            let gate = gate.clone();
            Box::pin(async move {
                gate.acquire().await.unwrap().forget();
                Ok(n)
            })
        });
        tokio::spawn(serve);
        let call = || {
            let rounds = rounds.clone();
            tokio::spawn(async move { rounds.read_index().await })
        };
        let course = async {
            let early = call();
            assert_eq!(begun.recv().await, Some(1));
            let late: Vec<_> = (0..10).map(|_| call()).collect();
            // All of them are in the queue before the first round ends.
            while rounds.waiters.capacity() > QUEUE - 10 {
                tokio::task::yield_now().await;
            }
            finish.add_permits(1);
            assert_eq!(early.await.unwrap(), Ok(1));
            assert_eq!(begun.recv().await, Some(2));
            finish.add_permits(1);
            for call in late {
                assert_eq!(call.await.unwrap(), Ok(2));
            }
        };
        timeout(Duration::from_secs(10), course).await.expect("a caller waits for ever");
        assert!(begun.try_recv().is_err(), "a third round for ten callers");
    }
}
