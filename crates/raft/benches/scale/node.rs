//! One node on a state that lies there: how soon it is ready, what it takes, and how long anybody
//! waits while it writes a snapshot.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use holdfast_core::{Command, Entry, SetDesired};
use holdfast_proto::Dialer;
use holdfast_raft::{RaftConfig, RaftNode};
use holdfast_types::{DesiredState, RequestId, TimestampMs};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::Measured;
use crate::world::uid;

const CLIENTS: u64 = 16;
/// Of writing without a snapshot, to compare with.
const QUIET: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(300);

pub(crate) fn measure(dir: &Path) -> Result<Measured> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(dir))
}

async fn run(dir: &Path) -> Result<Measured> {
    let mut measured = Measured::new();
    let began = Instant::now();
    let identity = RaftNode::identity(dir)?.context("nobody's directory")?;
    let node = RaftNode::start(RaftConfig::new(dir, identity, Dialer::plaintext())).await?;
    measured.insert("open_s".into(), json!(began.elapsed().as_secs_f64()));
    let mut leadership = node.leadership();
    let ready = leadership.wait_for(|l| l.reign.is_some_and(|reign| reign.ready));
    timeout(PATIENCE, ready).await??;
    measured.insert("restart_s".into(), json!(began.elapsed().as_secs_f64()));
    measured.insert("rss_bytes".into(), json!(memory("VmRSS:")?));
    measured.insert("rss_peak_bytes".into(), json!(memory("VmHWM:")?));

    let began = Instant::now();
    let hash = node.hash_of(&node.applied()).await;
    measured.insert("hash_s".into(), json!(began.elapsed().as_secs_f64()));
    assert_eq!(hash.index, node.applied_index());

    let clients = Clients::start(&node);
    tokio::time::sleep(QUIET).await;
    clients.report(&node, QUIET, "quiet", &mut measured);
    let began = Instant::now();
    node.build_snapshot(PATIENCE).await?;
    let took = began.elapsed();
    clients.report(&node, took, "snapshot", &mut measured);
    clients.stop().await?;
    measured.insert("snapshot_s".into(), json!(took.as_secs_f64()));
    let size = std::fs::metadata(dir.join("snapshot"))?.len();
    measured.insert("snapshot_bytes".into(), json!(size));
    measured.insert("rss_peak_snapshot_bytes".into(), json!(memory("VmHWM:")?));
    node.shutdown().await?;
    Ok(measured)
}

/// Clients that write all the time.
struct Clients {
    tasks: JoinSet<Result<()>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    stopped: AtomicBool,
    written: AtomicU64,
    longest_us: AtomicU64,
}

impl Clients {
    fn start(node: &RaftNode) -> Self {
        let containers = node.state().containers.len() as u64;
        let shared = Arc::new(Shared::default());
        let mut tasks = JoinSet::new();
        for client in 0..CLIENTS {
            let (node, shared) = (node.clone(), shared.clone());
            tasks.spawn(async move { write(node, client, containers, &shared).await });
        }
        Self { tasks, shared }
    }

    fn report(&self, node: &RaftNode, took: Duration, when: &str, measured: &mut Measured) {
        let written = self.shared.written.swap(0, Ordering::SeqCst);
        let longest = self.shared.longest_us.swap(0, Ordering::SeqCst);
        let apply = node.take_longest_apply();
        let mut note = |what: &str, value| measured.insert(format!("{when}_{what}"), value);
        note("apply_longest_ms", json!(apply.as_secs_f64() * 1e3));
        note("write_longest_ms", json!(longest as f64 / 1e3));
        note("writes_per_s", json!(written as f64 / took.as_secs_f64()));
    }

    async fn stop(mut self) -> Result<()> {
        self.shared.stopped.store(true, Ordering::SeqCst);
        while let Some(ended) = self.tasks.join_next().await {
            ended??;
        }
        Ok(())
    }
}

async fn write(node: RaftNode, client: u64, containers: u64, shared: &Shared) -> Result<()> {
    let mut number = client;
    while !shared.stopped.load(Ordering::SeqCst) {
        // All over the state, so that every part of it is copied on its first change.
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(2 * client + 1);
        let uid = uid((number >> 20) % containers);
        let command = Command::SetDesired(SetDesired { uid, desired: DesiredState::Running });
        let entry = Entry { request: RequestId::generate(), at: TimestampMs(0), command };
        let began = Instant::now();
        drop(node.propose_within(entry, PATIENCE).await?);
        let us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        shared.longest_us.fetch_max(us, Ordering::SeqCst);
        shared.written.fetch_add(1, Ordering::SeqCst);
    }
    Ok(())
}

fn memory(field: &str) -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)).context("no such field")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib << 10)
}
