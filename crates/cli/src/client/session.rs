//! The shell around [`retry`](super::retry): channels, clocks, and who is asked next.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use holdfast_proto::{Address, RemoteError, connect};
use holdfast_types::Code;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::retry::{Failure, Next, Policy, summary};

/// How long one attempt to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// A conversation with one cluster through any of its nodes. Connects when first needed.
#[derive(Debug)]
pub struct Session {
    addresses: Vec<Address>,
    timeout: Duration,
    channels: Mutex<Vec<Option<Channel>>>,
    /// Index of the address that answered last: asked first next time.
    preferred: AtomicUsize,
}

/// How a round over all addresses ended.
enum Round<T> {
    Answered(Result<T, RemoteError>),
    AllFailed,
    OutOfTime,
}

impl Session {
    /// A session with the cluster whose nodes listen at `addresses`; each call ends within
    /// `timeout`, plus what it was asked to wait.
    pub fn new(addresses: Vec<Address>, timeout: Duration) -> Self {
        let channels = Mutex::new(vec![None; addresses.len()]);
        Self { addresses, timeout, channels, preferred: AtomicUsize::new(0) }
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
        let policy = Policy::new(self.timeout, wait);
        let started = Instant::now();
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
                Ok(response.into_inner())
            }
            Err(status) => Err(Failure { error: self.failed_at(index, status), reached: true }),
        }
    }

    async fn channel(&self, index: usize) -> Result<Channel, RemoteError> {
        if let Some(channel) = self.slot(index, |slot| slot.clone()) {
            return Ok(channel);
        }
        let channel = connect(&self.addresses[index], CONNECT_TIMEOUT.min(self.timeout)).await?;
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
