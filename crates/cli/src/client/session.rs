//! The shell around [`retry`](super::retry): channels, clocks, and who is asked next.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use holdfast_proto::{
    AGE_KEY, APPLIED_KEY, Address, Dialer, NODE_KEY, READ_KEY, RemoteError, SINCE_KEY, STALE,
};
use holdfast_types::{Code, Revision};
use tokio::time::Instant;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::retry::{Failure, Next, Policy, summary};

/// How long one attempt to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// A revision that was heard of longer ago is asked for anew: too many requests may have been answered
/// since for one that names it.
const HEARD_LATELY: Duration = Duration::from_secs(1);

/// A conversation with one cluster through any of its nodes. Connects when first needed.
#[derive(Debug)]
pub struct Session {
    addresses: Vec<Address>,
    dialer: Dialer,
    timeout: Duration,
    channels: Mutex<Vec<Option<Channel>>>,
    /// Index of the address that answered last: asked first next time.
    preferred: AtomicUsize,
    /// Whether reads are answered by the node that is asked, from what it has.
    stale: bool,
    /// The newest revision that an answer named, and when.
    heard: Mutex<Option<(Revision, Instant)>>,
    /// Of the last stale answer.
    freshness: Mutex<Option<Freshness>>,
}

/// What a stale answer was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freshness {
    /// The node that answered.
    pub node: String,
    /// The last entry that is in it.
    pub applied: u64,
    /// Everything acknowledged longer ago is in it; nothing if the node does not know.
    pub age: Option<Duration>,
}

impl Freshness {
    /// What an answer's metadata says; nothing if it is not stale.
    fn of(metadata: &MetadataMap) -> Option<Self> {
        let text = |key| metadata.get(key).and_then(|value| value.to_str().ok());
        let age = text(AGE_KEY)?.parse().ok().map(Duration::from_millis);
        let applied = text(APPLIED_KEY).and_then(|text| text.parse().ok()).unwrap_or(0);
        Some(Self { node: text(NODE_KEY).unwrap_or_default().to_owned(), applied, age })
    }
}

/// How a round over all addresses ended.
enum Round<T> {
    Answered(Result<T, RemoteError>),
    AllFailed,
    OutOfTime,
}

impl Session {
    /// A session with the cluster whose nodes listen at `addresses`, which are reached by `dialer`; each
    /// call ends within `timeout`, plus what it was asked to wait.
    pub fn new(addresses: Vec<Address>, dialer: Dialer, timeout: Duration) -> Self {
        let channels = Mutex::new(vec![None; addresses.len()]);
        Self {
            addresses,
            dialer,
            timeout,
            channels,
            preferred: AtomicUsize::new(0),
            stale: false,
            heard: Mutex::default(),
            freshness: Mutex::default(),
        }
    }

    /// The same, but what is read is what the node that is asked has, with a quorum or without:
    /// [`freshness`](Self::freshness) says how old that may be.
    pub fn stale(self) -> Self {
        Self { stale: true, ..self }
    }

    /// What the last stale answer was read from.
    pub fn freshness(&self) -> Option<Freshness> {
        // A poisoned lock guards nothing but a note.
        self.freshness.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// How long a call may try to get an answer.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Asks another node first from now on: this one's answers end too soon.
    pub fn turn_away(&self) {
        let next = (self.preferred.load(Ordering::Relaxed) + 1) % self.addresses.len().max(1);
        self.preferred.store(next, Ordering::Relaxed);
    }

    /// The message with what is said beside it.
    pub(super) fn marked<T>(&self, message: T, since: Option<Revision>) -> Request<T> {
        let mut request = Request::new(message);
        if self.stale {
            request.metadata_mut().insert(READ_KEY, MetadataValue::from_static(STALE));
        }
        if let Some(since) = since {
            request.metadata_mut().insert(SINCE_KEY, since.0.into());
        }
        request
    }

    /// The newest revision that an answer named, if that was lately.
    pub(super) fn heard_of(&self) -> Option<Revision> {
        let heard = *self.heard.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        heard.filter(|(_, at)| at.elapsed() < HEARD_LATELY).map(|(revision, _)| revision)
    }

    /// Notes what an answer says of what it was read from.
    fn note(&self, metadata: &MetadataMap) {
        let applied = metadata.get(APPLIED_KEY).and_then(|value| value.to_str().ok());
        if let Some(applied) = applied.and_then(|text| text.parse().ok()).map(Revision) {
            let mut heard = self.heard.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            if heard.is_none_or(|(known, _)| applied >= known) {
                *heard = Some((applied, Instant::now()));
            }
        }
        if let Some(fresh) = Freshness::of(metadata) {
            *self.freshness.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(fresh);
        }
    }

    /// The addresses, in the order in which they were given.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Makes one call: `attempt` is run on a channel to one node after another, perhaps on two at a
    /// time, until one gives a useful answer. It must therefore be safe to repeat: a read, or a
    /// request that carries its request id. `wait` is how long the server may take on purpose.
    pub async fn call<T, F, Fut>(&self, wait: Duration, attempt: F) -> Result<T, RemoteError>
    where
        F: Fn(Channel) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        self.call_from(Instant::now(), wait, attempt).await
    }

    /// The same, within a time that began earlier.
    pub(super) async fn call_from<T, F, Fut>(
        &self,
        started: Instant,
        wait: Duration,
        attempt: F,
    ) -> Result<T, RemoteError>
    where
        F: Fn(Channel) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let policy = Policy::new(self.timeout, wait);
        let mut failures = Vec::new();
        for round in 0.. {
            match self.round(&policy, started, &mut failures, &attempt).await {
                Round::Answered(answer) => return answer,
                Round::OutOfTime => break,
                Round::AllFailed => {
                    match policy.after_round(round, started.elapsed(), &failures) {
                        Next::Again(pause) => tokio::time::sleep(pause).await,
                        Next::GiveUp(error) => return Err(error),
                    }
                    // What is still true of an address, the next round finds out again.
                    failures.retain(|f| f.error.code == Code::NoQuorum);
                }
            }
        }
        Err(self.out_of_time(started, failures))
    }

    /// Like [`call`](Self::call), but for what may not be sent twice: a connection is made to the
    /// first address that has a listener, then there is one attempt.
    pub async fn once<T, F, Fut>(&self, attempt: F) -> Result<T, RemoteError>
    where
        F: FnOnce(Channel) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let (index, channel) = self
            .call(Duration::ZERO, |channel| std::future::ready(Ok(Response::new(channel))))
            .await
            .map(|channel| (self.preferred.load(Ordering::Relaxed), channel))?;
        let answer = attempt(channel).await;
        answer.map(Response::into_inner).map_err(|status| self.failed_at(index, status))
    }

    async fn round<T, F, Fut>(
        &self,
        policy: &Policy,
        started: Instant,
        failures: &mut Vec<Failure>,
        attempt: &F,
    ) -> Round<T>
    where
        F: Fn(Channel) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let count = self.addresses.len();
        let first = self.preferred.load(Ordering::Relaxed);
        let mut order = (0..count).map(|i| (first + i) % count);
        let mut running = FuturesUnordered::new();
        running.extend(order.next().map(|i| self.attempt(i, attempt)));
        while !running.is_empty() {
            let limit = started + policy.limit(failures);
            tokio::select! {
                Some(outcome) = running.next() => match outcome {
                    Ok(answer) => return Round::Answered(Ok(answer)),
                    Err(failure) if !failure.transient() => {
                        return Round::Answered(Err(failure.error));
                    }
                    Err(failure) => {
                        failures.push(failure);
                        running.extend(order.next().map(|i| self.attempt(i, attempt)));
                    }
                },
                () = tokio::time::sleep(policy.hedge_after), if order.len() > 0 => {
                    running.extend(order.next().map(|i| self.attempt(i, attempt)));
                }
                () = tokio::time::sleep_until(limit) => return Round::OutOfTime,
            }
        }
        Round::AllFailed
    }

    async fn attempt<T, F, Fut>(&self, index: usize, attempt: &F) -> Result<T, Failure>
    where
        F: Fn(Channel) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let channel =
            self.channel(index).await.map_err(|error| Failure { error, reached: false })?;
        match attempt(channel).await {
            Ok(response) => {
                self.preferred.store(index, Ordering::Relaxed);
                self.note(response.metadata());
                Ok(response.into_inner())
            }
            Err(status) => Err(Failure { error: self.failed_at(index, status), reached: true }),
        }
    }

    async fn channel(&self, index: usize) -> Result<Channel, RemoteError> {
        if let Some(channel) = self.slot(index, |slot| slot.clone()) {
            return Ok(channel);
        }
        let limit = CONNECT_TIMEOUT.min(self.timeout);
        let channel = self.dialer.connect(&self.addresses[index], limit).await?;
        self.slot(index, |slot| *slot = Some(channel.clone()));
        Ok(channel)
    }

    /// Turns a status into our error. A transport's failure names the address, and the channel is
    /// forgotten, so that the next attempt finds out whether anybody listens there.
    fn failed_at(&self, index: usize, status: Status) -> RemoteError {
        let cause = std::error::Error::source(&status).map(root_cause);
        let mut error = RemoteError::from(status);
        if error.code == Code::Unavailable {
            self.slot(index, |slot| *slot = None);
            if let Some(cause) = cause {
                error.message =
                    format!("the connection to {} broke: {cause}", self.addresses[index]);
            }
        }
        error
    }

    fn slot<R>(&self, index: usize, use_it: impl FnOnce(&mut Option<Channel>) -> R) -> R {
        // A poisoned lock guards nothing but a cache.
        let mut channels = self.channels.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        use_it(&mut channels[index])
    }

    fn out_of_time(&self, started: Instant, mut failures: Vec<Failure>) -> RemoteError {
        let message = format!(
            "no answer within {:.1} s; whether the request took effect is unknown until asked",
            started.elapsed().as_secs_f64()
        );
        let error = RemoteError { code: Code::Timeout, message, leader: None };
        failures.push(Failure { error, reached: true });
        summary(&failures)
    }
}

fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_answer_says_how_old_it_may_be() {
        let mut metadata = MetadataMap::new();
        metadata.insert(APPLIED_KEY, 7.into());
        assert_eq!(Freshness::of(&metadata), None, "it is not stale");
        metadata.insert(NODE_KEY, MetadataValue::from_static("n2"));
        for (text, age) in [("1500", Some(Duration::from_millis(1_500))), ("unknown", None)] {
            metadata.insert(AGE_KEY, MetadataValue::from_static(text));
            let fresh = Freshness { node: "n2".into(), applied: 7, age };
            assert_eq!(Freshness::of(&metadata), Some(fresh));
        }
    }
}
