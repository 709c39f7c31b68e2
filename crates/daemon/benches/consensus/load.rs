//! Load: so many clients, each of which asks, waits for the answer, and asks again.
//!
//! Both clusters get the same: a client's questions go to the three nodes in turn, over connections
//! that ten clients share, as in etcd's own benchmark.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::transport::Channel;

use crate::cluster::{Cluster, NODES, OBJECTS, connect, value};

/// Connections are made and caches filled before it counts.
const WARM: Duration = Duration::from_millis(700);

/// Clients that share the connections to the nodes.
const SHARE: usize = 10;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Question {
    Write,
    Read,
}

/// What came of it.
pub(crate) struct Load {
    /// Answers a second.
    pub(crate) rate: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// Answers, those before it counted included.
    pub(crate) answers: u64,
    /// Questions that failed.
    pub(crate) errors: u64,
}

/// Numbers every value that is ever written, so that each changes its object.
static WRITTEN: AtomicU64 = AtomicU64::new(0);

/// Loads the cluster for so long.
pub(crate) async fn run<C: Cluster>(
    cluster: &C,
    question: Question,
    clients: usize,
    span: Duration,
) -> Result<Load> {
    let sets = clients.div_ceil(SHARE);
    let set = |_| {
        cluster.addresses().iter().map(|a| connect(cluster.dialer(), a)).collect::<Result<Vec<_>>>()
    };
    let sets = (0..sets).map(set).collect::<Result<Vec<_>>>()?;
    let from = Instant::now() + WARM;
    let window = Window { from, to: from + span };
    let mut tasks = JoinSet::new();
    for client in 0..clients {
        let channels = Arc::new(sets[client % sets.len()].clone());
        tasks.spawn(one_client::<C>(channels, question, client, window));
    }
    let (mut took_us, mut answers, mut errors) = (Vec::new(), 0, 0);
    while let Some(one) = tasks.join_next().await {
        let one = one?;
        took_us.extend(one.took_us);
        answers += one.answers;
        errors += one.errors;
    }
    took_us.sort_unstable();
    let quantile = |p: f64| {
        let rank = (p * took_us.len() as f64).ceil() as usize;
        took_us.get(rank.saturating_sub(1)).map_or(f64::NAN, |us| f64::from(*us) / 1e3)
    };
    Ok(Load {
        rate: took_us.len() as f64 / span.as_secs_f64(),
        p50_ms: quantile(0.5),
        p99_ms: quantile(0.99),
        answers,
        errors,
    })
}

/// When it counts.
#[derive(Clone, Copy)]
struct Window {
    from: Instant,
    to: Instant,
}

#[derive(Default)]
struct Client {
    took_us: Vec<u32>,
    answers: u64,
    errors: u64,
}

async fn one_client<C: Cluster>(
    channels: Arc<Vec<Channel>>,
    question: Question,
    number: usize,
    window: Window,
) -> Client {
    let mut client = Client::default();
    for turn in number.. {
        let asked = Instant::now();
        if asked >= window.to {
            break;
        }
        let channel = channels[turn % NODES].clone();
        let object = (number as u64 * 31 + turn as u64) % OBJECTS;
        let answer = match question {
            Question::Write => {
                let value = value(WRITTEN.fetch_add(1, Ordering::Relaxed));
                C::write(channel, object, value).await
            }
            Question::Read => C::read(channel, object).await,
        };
        let now = Instant::now();
        match answer {
            Ok(()) => {
                client.answers += 1;
                if asked >= window.from && now <= window.to {
                    let us = now.duration_since(asked).as_micros();
                    client.took_us.push(u32::try_from(us).unwrap_or(u32::MAX));
                }
            }
            Err(status) => {
                if client.errors == 0 && number == 0 {
                    crate::say(&format!("{}: {status}", C::NAME));
                }
                client.errors += 1;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
    client
}
