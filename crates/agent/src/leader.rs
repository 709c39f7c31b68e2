//! Finding the leader, and asking it.
//!
//! The order of asking: whoever answered last, whom this node's own Raft names, whom a refusal
//! names, then every seed in turn. A silent address costs one attempt, and its connection is dropped; a
//! seed that was silent comes after those that were not, or two of them could use up every asking.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holdfast_proto::internal::leader_service_client::LeaderServiceClient;
use holdfast_proto::{Address, Dialer, MAX_VIEW_BYTES, RemoteError};
use holdfast_types::Code;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tonic::transport::Channel;
use tonic::{Response, Status};

const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// A client of whoever leads.
pub(crate) struct LeaderClient {
    hint: watch::Receiver<Option<String>>,
    dialer: Dialer,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    last_good: Option<String>,
    seeds: BTreeSet<String>,
    /// Those that did not answer when they were last asked.
    silent: BTreeSet<String>,
    channels: BTreeMap<String, Channel>,
}

impl LeaderClient {
    pub(crate) fn new(
        seeds: &[String],
        hint: watch::Receiver<Option<String>>,
        dialer: Dialer,
    ) -> Self {
        let known = Known { seeds: seeds.iter().cloned().collect(), ..Known::default() };
        Self { hint, dialer, known: Mutex::new(known) }
    }

    /// Adds addresses at which a leader may be asked for.
    pub(crate) fn learn(&self, addresses: impl Iterator<Item = String>) {
        self.lock().seeds.extend(addresses);
    }

    /// Asks the leader, each attempt for at most `attempt`, all for at most `limit`. `call` gets the address
    /// too.
    pub(crate) async fn ask<T, F>(
        &self,
        attempt: Duration,
        limit: Duration,
        call: impl Fn(String, LeaderServiceClient<Channel>) -> F,
    ) -> Result<T, RemoteError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let deadline = Instant::now() + limit;
        let mut last = unreachable("no address of a leader is known");
        let mut named: Option<String> = None;
        let mut tried = BTreeSet::new();
        while Instant::now() < deadline {
            let Some(address) = self.choose(named.take(), &tried) else {
                // Everyone was asked once; whoever leads next may not know it yet.
                tried.clear();
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            tried.insert(address.clone());
            let until = deadline.min(Instant::now() + attempt);
            match self.attempt(&address, until, &call).await {
                Ok(answer) => {
                    let mut known = self.lock();
                    known.silent.remove(&address);
                    known.last_good = Some(address);
                    return Ok(answer);
                }
                Err(error) if moves_on(error.code) => {
                    self.forget(&address, error.code);
                    named = error.leader.clone().filter(|leader| !tried.contains(leader));
                    last = error;
                }
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    async fn attempt<T, F>(
        &self,
        address: &str,
        until: Instant,
        call: &impl Fn(String, LeaderServiceClient<Channel>) -> F,
    ) -> Result<T, RemoteError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let channel = self.channel(address)?;
        let client = LeaderServiceClient::new(channel).max_decoding_message_size(MAX_VIEW_BYTES);
        match timeout_at(until, call(address.to_owned(), client)).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(status.into()),
            Err(_) => Err(unreachable(&format!("{address} did not answer in time"))),
        }
    }

    fn choose(&self, named: Option<String>, tried: &BTreeSet<String>) -> Option<String> {
        let hint = self.hint.borrow().clone();
        let known = self.lock();
        let candidates = [named, known.last_good.clone(), hint];
        let first = candidates.into_iter().flatten().find(|a| !tried.contains(a));
        let seeds = || known.seeds.iter().filter(|a| !tried.contains(*a));
        let next = || seeds().find(|a| !known.silent.contains(*a)).or_else(|| seeds().next());
        first.or_else(|| next().cloned())
    }

    fn channel(&self, address: &str) -> Result<Channel, RemoteError> {
        let mut known = self.lock();
        if let Some(channel) = known.channels.get(address) {
            return Ok(channel.clone());
        }
        let parsed: Address = address.parse().map_err(|_| unreachable(address))?;
        let channel = self.dialer.lazy(&parsed, CONNECT_TIMEOUT);
        known.channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }

    fn forget(&self, address: &str, code: Code) {
        let mut known = self.lock();
        if known.last_good.as_deref() == Some(address) {
            known.last_good = None;
        }
        if matches!(code, Code::Unavailable | Code::Timeout | Code::Untrusted) {
            known.channels.remove(address);
            known.silent.insert(address.to_owned());
        } else {
            known.silent.remove(address);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether another node may answer what this one did not.
fn moves_on(code: Code) -> bool {
    matches!(
        code,
        Code::NotLeader
            | Code::Unavailable
            | Code::Timeout
            | Code::NoQuorum
            | Code::NotInitialized
            | Code::Untrusted
    )
}

fn unreachable(why: &str) -> RemoteError {
    RemoteError { code: Code::Unavailable, message: why.to_owned(), leader: None }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::fake_leader::FakeLeader;

    /// Two addresses that take connections and say nothing came first in every asking, whose limit they
    /// used up: whoever leads was never asked.
    #[tokio::test]
    async fn who_is_silent_is_asked_after_those_who_are_not() {
        // By name it comes after them in the order of addresses.
        let (_leader, leads) = FakeLeader::begin().await;
        let leads = leads.replace("127.0.0.1", "localhost");
        let silent =
            [TcpListener::bind("127.0.0.1:0").await, TcpListener::bind("127.0.0.1:0").await];
        let silent = silent.map(|listener| listener.unwrap());
        let seeds = silent.each_ref().map(|l| l.local_addr().unwrap().to_string());
        let client = LeaderClient::new(&seeds, watch::channel(None).1, Dialer::plaintext());
        let attempt = Duration::from_millis(200);
        let ask = async || {
            let call = |_, mut leader: LeaderServiceClient<Channel>| async move {
                leader.heartbeat(tokio_stream::once(Default::default())).await
            };
            client.ask(attempt, attempt, call).await
        };
        ask().await.unwrap_err();
        ask().await.unwrap_err();
        client.learn([leads].into_iter());
        ask().await.unwrap();
    }
}
