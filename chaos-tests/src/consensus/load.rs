//! The clients: many at a time, each one call after another, over the network, to whichever node chance
//! has it ask. A call goes about its retries as those of `holdfast` do (`holdfast_cli::client`): the same
//! request id to another node when one is silent or answers that it cannot, until its time is over; then
//! nobody knows what became of it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use holdfast_cli::client::retry::{BACKOFF_FIRST, Failure, HEDGE_AFTER};
use holdfast_proto::v1::cluster_service_client::ClusterServiceClient;
use holdfast_proto::{Address, Dialer, v1};
use holdfast_types::{Code, RequestId};
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::history::{Call, What};
use crate::dice::Dice;
use crate::linear::{ABSENT, Value};

/// After so long a client gives a call up.
const CALL_LIMIT: Duration = Duration::from_secs(8);
/// Labels of each node that are in play.
pub(super) const LABELS: usize = 12;
/// Connections to each node.
const CONNECTIONS: usize = 4;
/// One in so many hundred acknowledged changes is asked for once more, later.
const REPEATED_PERCENT: usize = 3;
/// So much later at most: a message may lie in a paused node for so long.
const REPEATED_WITHIN_MS: u64 = 6_000;

type Client = ClusterServiceClient<Channel>;

/// What all clients share.
#[derive(Debug)]
pub(super) struct Load {
    /// The nodes' names, in the order of their numbers.
    pub(super) nodes: Vec<String>,
    channels: Vec<Vec<Channel>>,
    began: Instant,
    values: AtomicU64,
    /// Calls made so far.
    pub(super) calls: AtomicU64,
    /// When each node last answered a change, in nanoseconds since the run began.
    pub(super) answered: Vec<AtomicU64>,
    notes: Mutex<Notes>,
}

/// What clients noticed besides their calls.
#[derive(Debug, Default, Clone)]
pub(super) struct Notes {
    /// Answers that say nothing of what became of the call, and calls without any, by code.
    pub(super) unknown: BTreeMap<String, u64>,
    /// Acknowledged changes that were asked for again.
    pub(super) repeated: u64,
    /// What must not be.
    pub(super) violations: Vec<String>,
}

/// What a call came to.
enum Outcome<T> {
    Done(T),
    /// It changed nothing, for sure.
    Refused,
    Unknown,
}

impl Load {
    /// Clients for nodes of these names and addresses. To be called where the connections are to be made.
    pub(super) fn new(nodes: &[(String, Address)], dialer: &Dialer) -> Self {
        let connect = |address: &Address| dialer.lazy(address, Duration::from_secs(2));
        let all =
            |(_, address): &(_, Address)| (0..CONNECTIONS).map(|_| connect(address)).collect();
        Self {
            channels: nodes.iter().map(all).collect(),
            nodes: nodes.iter().map(|(name, _)| name.clone()).collect(),
            began: Instant::now(),
            values: AtomicU64::new(1),
            calls: AtomicU64::new(0),
            answered: nodes.iter().map(|_| AtomicU64::new(0)).collect(),
            notes: Mutex::default(),
        }
    }

    /// Nanoseconds since the run began.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    pub(super) fn notes(&self) -> Notes {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, note: impl FnOnce(&mut Notes)) {
        note(&mut self.notes.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Takes the labels of the round before off all nodes.
    pub(super) async fn clear(self: &Arc<Self>, round: u32) {
        let Some(before) = round.checked_sub(1) else { return };
        for node in &self.nodes {
            let request = v1::SetLabelsRequest {
                name: node.clone(),
                remove: (0..LABELS).map(|key| label(before, key)).collect(),
                request_id: RequestId::generate().to_bytes().to_vec().into(),
                ..Default::default()
            };
            // Labels that stay are in nobody's way: the next round has others.
            let _ = self.set(&mut Dice::new(0), request).await;
        }
    }

    /// One client, until it is told to stop: what it did.
    pub(super) async fn client(
        self: Arc<Self>,
        round: u32,
        seed: u64,
        stop: Arc<AtomicBool>,
    ) -> Vec<Call> {
        let mut dice = Dice::new(seed);
        let mut calls = Vec::new();
        let mut repeats = JoinSet::new();
        while !stop.load(Ordering::Relaxed) {
            let at = (round, dice.below(self.nodes.len()), dice.below(LABELS));
            match dice.below(100) {
                0..40 => drop(self.read(&mut dice, (at.0, at.1), &mut calls).await),
                40..75 => {
                    let at = (at.0, self.busy(&mut dice, at.1), at.2);
                    self.change(&mut dice, at, None, &mut calls, &mut repeats).await;
                }
                _ => {
                    let seen = self.read(&mut dice, (at.0, at.1), &mut calls).await;
                    if seen.is_some() {
                        self.change(&mut dice, at, seen, &mut calls, &mut repeats).await;
                    }
                }
            }
        }
        // What has not been sent by now is not worth waiting for.
        repeats.shutdown().await;
        calls
    }

    /// Where to write: mostly not to the last of the nodes, so that there swaps find what they have seen.
    fn busy(&self, dice: &mut Dice, node: usize) -> usize {
        let last = self.nodes.len() - 1;
        if node == last && dice.percent(95) { dice.below(last.max(1)) } else { node }
    }

    /// Reads a node's labels, and its version.
    async fn read(
        &self,
        dice: &mut Dice,
        (round, node): (u32, usize),
        calls: &mut Vec<Call>,
    ) -> Option<(Vec<Value>, u64)> {
        let request = v1::GetNodeRequest { name: self.nodes[node].clone() };
        let call = self.now();
        let ask = |mut client: Client| {
            let request = request.clone();
            async move { client.get_node(request).await }
        };
        let Outcome::Done((_, found)) = self.ask(dice, ask).await else { return None };
        let end = Some(self.now());
        let values: Vec<_> = (0..LABELS).map(|key| value(&found, &label(round, key))).collect();
        let what = What::Read { values: values.clone(), version: found.revision };
        calls.push(Call { node, call, end, what });
        Some((values, found.revision))
    }

    /// Changes one label, if `seen` is given only if the node is as it was seen.
    async fn change(
        self: &Arc<Self>,
        dice: &mut Dice,
        (round, node, key): (u32, usize, usize),
        seen: Option<(Vec<Value>, u64)>,
        calls: &mut Vec<Call>,
        repeats: &mut JoinSet<()>,
    ) {
        let value = self.values.fetch_add(1, Ordering::Relaxed);
        let request = v1::SetLabelsRequest {
            name: self.nodes[node].clone(),
            set: [(label(round, key), value.to_string())].into(),
            remove: Vec::new(),
            expect: seen.as_ref().map(|(_, version)| *version),
            request_id: RequestId::generate().to_bytes().to_vec().into(),
        };
        let call = self.now();
        let outcome = self.set(dice, request.clone()).await;
        let now = self.now();
        let (end, version) = match outcome {
            Outcome::Done((by, version)) => {
                self.answered[by].fetch_max(now, Ordering::Relaxed);
                if dice.percent(REPEATED_PERCENT) {
                    repeats.spawn(self.clone().repeat(dice.clone(), request, version));
                }
                (Some(now), Some(version))
            }
            Outcome::Refused => {
                calls.push(Call { node, call, end: Some(now), what: What::Refused });
                return;
            }
            Outcome::Unknown => (None, None),
        };
        let what = match seen {
            None => What::Write { key, value, version },
            Some((values, at)) => What::Swap { key, expect: values[key], at, value, version },
        };
        calls.push(Call { node, call, end, what });
    }

    /// I7: the same request again, some time after it was answered, gets the same answer. That it did
    /// nothing else is seen by all who read.
    async fn repeat(self: Arc<Self>, mut dice: Dice, request: v1::SetLabelsRequest, version: u64) {
        tokio::time::sleep(Duration::from_millis(dice.roll() % REPEATED_WITHIN_MS)).await;
        let answer = self.set(&mut dice, request).await;
        self.note(|notes| {
            notes.repeated += 1;
            match answer {
                Outcome::Done((_, again)) if again == version => {}
                Outcome::Done((_, again)) => notes.violations.push(format!(
                    "a request that had become version {version} became {again} when it came again"
                )),
                Outcome::Refused => notes.violations.push(format!(
                    "a request that had become version {version} was refused when it came again"
                )),
                Outcome::Unknown => {}
            }
        });
    }

    async fn set(&self, dice: &mut Dice, request: v1::SetLabelsRequest) -> Outcome<(usize, u64)> {
        let ask = |mut client: Client| {
            let request = request.clone();
            async move { client.set_labels(request).await }
        };
        match self.ask(dice, ask).await {
            Outcome::Done((by, answer)) => Outcome::Done((by, answer.revision)),
            Outcome::Refused => Outcome::Refused,
            Outcome::Unknown => Outcome::Unknown,
        }
    }

    /// Asks one node after another, or two at a time, until one gives a useful answer: which, and what.
    async fn ask<T, F, Fut>(&self, dice: &mut Dice, attempt: F) -> Outcome<(usize, T)>
    where
        F: Fn(Client) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let mut next = dice.below(self.nodes.len());
        let connection = dice.below(CONNECTIONS);
        let mut one = |pause: Duration| {
            let node = next;
            next = (next + 1) % self.nodes.len();
            let answer = attempt(Client::new(self.channels[node][connection].clone()));
            async move {
                tokio::time::sleep(pause).await;
                (node, answer.await)
            }
        };
        let deadline = tokio::time::Instant::now() + CALL_LIMIT;
        let mut running = FuturesUnordered::new();
        running.push(one(Duration::ZERO));
        let error = loop {
            tokio::select! {
                Some((node, answer)) = running.next() => match answer {
                    Ok(answer) => return Outcome::Done((node, answer.into_inner())),
                    Err(status) => {
                        let failure = Failure { error: status.into(), reached: true };
                        if failure.error.code == Code::Conflict {
                            return Outcome::Refused;
                        }
                        if !failure.transient() {
                            break failure.error.code.to_string();
                        }
                        running.push(one(BACKOFF_FIRST));
                    }
                },
                () = tokio::time::sleep(HEDGE_AFTER), if running.len() < self.nodes.len() => {
                    running.push(one(Duration::ZERO));
                }
                () = tokio::time::sleep_until(deadline) => break "no answer".to_owned(),
            }
        };
        self.note(|notes| *notes.unknown.entry(error).or_default() += 1);
        Outcome::Unknown
    }
}

fn label(round: u32, key: usize) -> String {
    format!("soak-{round}-{key}")
}

/// What a node has there. A text that no client wrote is a value that no client wrote.
fn value(node: &v1::Node, label: &str) -> Value {
    node.labels.get(label).map_or(ABSENT, |text| text.parse().unwrap_or(Value::MAX))
}
