//! Getting a call to the leader. Any node answers a client; what only the leader can answer is
//! made again at the leader's address, with the same request id, for as long as an election may
//! take. Without a leader and its quorum the answer is *no quorum*, within 5 s.
//!
//! ```text
//! client ─▶ entry node ──leads──▶ answer
//!              │ ▲ not leader, no quorum, broken connection: again, until the deadline
//!              ▼ │
//!           leader (one hop), or for a worker: any node ─▶ leader (two hops)
//! ```
//!
//! Only the entry node waits and tries again; a node that was asked on behalf of another answers
//! at once.

use std::sync::Arc;
use std::time::Duration;

use holdfast_proto::{READ_KEY, SINCE_KEY, STALE, is_answer};
use holdfast_types::{Code, Revision};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Request, Response, Status};

use crate::channels::There;
use crate::fault::Fault;
use crate::member::{Lead, Member};

/// A client hears *no quorum* within 5 s. This leaves it time to ask two silent nodes before this one
/// (`holdfast_cli::client`'s hedging), and is still longer than an election takes.
const PATIENCE: Duration = Duration::from_millis(3_500);

/// Between two tries.
pub(crate) const PAUSE: Duration = Duration::from_millis(50);

/// Without news of another leader, one try takes no longer.
const TRY_LIMIT: Duration = Duration::from_secs(2);

const MAX_HOPS: u32 = 2;
const HOPS_KEY: &str = "holdfast-hops";

/// How far a call has come, and how long it may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) hops: u32,
    pub(crate) deadline: Instant,
    /// How long the answer may take on purpose.
    wait: Duration,
    /// Answered from what is here, old or not.
    pub(crate) stale: bool,
    /// A revision that the cluster had reached before the client first sent the request.
    pub(crate) since: Option<Revision>,
}

impl Call {
    /// Takes a request apart; `wait` is how long its answer may take on purpose.
    pub(crate) fn open<T>(request: Request<T>, wait: Duration) -> (Self, T) {
        let call = Self::of(request.metadata(), wait);
        (call, request.into_inner())
    }

    /// The call that arrived with this metadata.
    pub(crate) fn of(metadata: &MetadataMap, wait: Duration) -> Self {
        let text = |key| metadata.get(key).and_then(|v| v.to_str().ok());
        let hops = text(HOPS_KEY).and_then(|t| t.parse().ok()).unwrap_or(0);
        let stale = text(READ_KEY) == Some(STALE);
        let since = text(SINCE_KEY).and_then(|t| t.parse().ok()).map(Revision);
        Self { hops, stale, since, ..Self::begin(wait) }
    }

    /// A call that begins here.
    pub(crate) fn begin(wait: Duration) -> Self {
        let deadline = Instant::now() + PATIENCE + wait;
        Self { hops: 0, deadline, wait, stale: false, since: None }
    }

    /// The message once more, for the next node.
    pub(crate) fn onward<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let metadata = request.metadata_mut();
        metadata.insert(HOPS_KEY, (self.hops + 1).into());
        if self.stale {
            metadata.insert(READ_KEY, MetadataValue::from_static(STALE));
        }
        if let Some(since) = self.since {
            metadata.insert(SINCE_KEY, since.0.into());
        }
        request
    }

    /// The part of it in which nothing is waited for on purpose.
    pub(crate) fn prompt(&self) -> Self {
        Self { deadline: self.deadline - self.wait, wait: Duration::ZERO, ..*self }
    }

    pub(crate) fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

/// What one try came to.
enum Try<T> {
    Answer(Result<T, Fault>),
    /// Someone else, or the same node a moment later, may answer otherwise.
    Again(Fault),
}

impl Member {
    /// Answers as the leader with `local`, or makes the leader answer with `remote`.
    pub(crate) async fn at_leader<T, L, LF, R, RF>(
        self: &Arc<Self>,
        call: &Call,
        local: L,
        remote: R,
    ) -> Result<T, Fault>
    where
        L: Fn(Lead) -> LF,
        LF: Future<Output = Result<T, Fault>>,
        R: Fn(There) -> RF,
        RF: Future<Output = Result<Response<T>, Status>>,
    {
        loop {
            let last = match self.one_try(call, &local, &remote).await {
                Try::Answer(answer) => return answer,
                Try::Again(fault) => fault,
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

    async fn one_try<T, L, LF, R, RF>(
        self: &Arc<Self>,
        call: &Call,
        local: &L,
        remote: &R,
    ) -> Try<T>
    where
        L: Fn(Lead) -> LF,
        LF: Future<Output = Result<T, Fault>>,
        R: Fn(There) -> RF,
        RF: Future<Output = Result<Response<T>, Status>>,
    {
        if let Ok(lead) = self.lead(call.deadline) {
            let lead = Lead { since: call.since, ..lead };
            return match timeout_at(call.deadline, Box::pin(local(lead))).await {
                Err(_) => Try::Again(Fault::no_quorum()),
                Ok(Err(fault)) if transient(fault.code) => Try::Again(fault),
                Ok(answer) => Try::Answer(answer),
            };
        }
        let known = self.leader();
        let seed = if known.is_some() { None } else { self.seed() };
        let Some(address) = known.as_ref().or(seed.as_ref()).filter(|_| call.hops < MAX_HOPS)
        else {
            return Try::Again(Fault::not_leader(known));
        };
        let there = match self.channels.there(address) {
            Ok(there) => there,
            Err(fault) => return Try::Again(fault),
        };
        let limit = call.deadline.min(Instant::now() + TRY_LIMIT + call.wait);
        let answer = tokio::select! {
            answer = timeout_at(limit, Box::pin(remote(there))) => answer,
            () = self.leader_other_than(known.as_deref()) => {
                return Try::Again(Fault::not_leader(self.leader()));
            }
        };
        match answer {
            Ok(Ok(response)) => Try::Answer(Ok(response.into_inner())),
            Ok(Err(status)) => {
                let answered = is_answer(&status);
                let fault = Fault::from(status);
                if answered && !transient(fault.code) {
                    return Try::Answer(Err(fault));
                }
                self.next_seed(address);
                Try::Again(fault)
            }
            Err(_) => {
                self.next_seed(address);
                Try::Again(Fault::no_quorum())
            }
        }
    }

    /// Returns when another node than `known` leads. Never, if nobody was known.
    pub(crate) async fn leader_other_than(&self, known: Option<&str>) {
        let (Some(raft), Some(known)) = (&self.raft, known) else {
            return std::future::pending().await;
        };
        let mut leadership = raft.leadership();
        let other =
            leadership.wait_for(|l| l.leader.as_ref().is_some_and(|leader| leader.addr != known));
        if other.await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Whether the answer is about who leads, not about the request.
pub(crate) fn transient(code: Code) -> bool {
    matches!(code, Code::NotLeader | Code::NoQuorum)
}

/// What to say when the time is over.
pub(crate) fn exhausted(last: Fault) -> Fault {
    match last.code {
        // A person can do something about the second.
        Code::NoQuorum | Code::Untrusted => last,
        _ => Fault::no_quorum(),
    }
}

/// Answers a unary call at the leader: `$local` is an `async fn(Lead, Message) -> Result<_, Fault>`.
macro_rules! at_leader {
    ($gate:expr, $request:expr, $client:ident.$method:ident, $local:expr) => {
        at_leader!(@ relay, $gate, $request, std::time::Duration::ZERO, $client.$method, $local)
    };
    ($gate:expr, $request:expr, $wait:expr, $client:ident.$method:ident, $local:expr) => {
        at_leader!(@ channel, $gate, $request, $wait, $client.$method, $local)
    };
    (@ $way:ident, $gate:expr, $request:expr, $wait:expr, $client:ident.$method:ident, $local:expr) => {{
        let member = $gate.member()?;
        let (call, message) = $crate::forward::Call::open($request, $wait);
        let answer = member.at_leader(
            &call,
            |lead| $local(lead, message.clone()),
            |there| {
                let request = call.onward(message.clone());
                async move { $client::new(there.$way).$method(request).await }
            },
        );
        let answer = answer.await?;
        Ok(member.respond(answer))
    }};
}
pub(crate) use at_leader;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_hop_is_counted() {
        let (call, ()) = Call::open(Request::new(()), Duration::ZERO);
        assert_eq!(call.hops, 0);
        let (next, ()) = Call::open(call.onward(()), Duration::ZERO);
        assert_eq!(next.hops, 1);
    }

    #[test]
    fn what_a_client_says_beside_its_message_is_passed_on() {
        let call = Call { stale: true, since: Some(Revision(7)), ..Call::begin(Duration::ZERO) };
        let (next, ()) = Call::open(call.onward(()), Duration::ZERO);
        assert_eq!((next.stale, next.since), (true, Some(Revision(7))));
        let (plain, ()) = Call::open(Request::new(()), Duration::ZERO);
        assert_eq!((plain.stale, plain.since), (false, None));
    }

    #[test]
    fn a_client_is_never_told_of_leaders_it_cannot_reach() {
        assert_eq!(exhausted(Fault::not_leader(None)).code, Code::NoQuorum);
        let gone = Fault::new(Code::Unavailable, "broken pipe");
        assert_eq!(exhausted(gone).code, Code::NoQuorum);
    }
}
