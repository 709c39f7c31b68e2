//! Looks at this node once a second and has it give up leadership that it should not have (`care`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_types::NodeId;
use openraft::async_runtime::WatchReceiver as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use crate::care::{Candidate, Care, CareLimits, Sample, Unfit, may_stand, successor};
use crate::leadership::Leadership;
use crate::metrics;
use crate::store::Pulse;
use crate::types::Raft;

const TICK: Duration = Duration::from_secs(1);
/// Between two attempts to hand over.
const PAUSE: Duration = Duration::from_secs(5);

/// What this node thinks of itself, for whoever asks.
pub(crate) type Fitness = watch::Receiver<Option<Unfit>>;

/// What peers said of themselves with their last answer. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Peers(Arc<Mutex<BTreeMap<NodeId, Said>>>);

/// What one said that should not lead.
#[derive(Clone)]
pub(crate) struct Said {
    /// For people.
    pub(crate) why: String,
    /// Whether it votes as fast as any (`Unfit::votes_late`).
    pub(crate) votes: bool,
}

impl Peers {
    /// Takes note of an answer's word; nothing in it if the peer is fit.
    pub(crate) fn note(&self, node: u64, unfit: &str, votes: bool) {
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if unfit.is_empty() {
            peers.remove(&NodeId(node));
        } else {
            // Bounded, as it came from the network.
            let why = unfit.chars().take(MAX_REASON).collect();
            peers.insert(NodeId(node), Said { why, votes });
        }
    }

    /// Those that are unfit, and why. Who is no member any more is forgotten.
    pub(crate) fn unfit(&self, raft: &Raft) -> BTreeMap<NodeId, Said> {
        let rx = raft.metrics();
        let members = &rx.borrow_watched().membership_config;
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        peers.retain(|node, _| members.get_node(&node.0).is_some());
        peers.clone()
    }
}

const MAX_REASON: usize = 200;

/// The voter that should lead after this node, which thinks that of itself; nothing if it does not lead,
/// or too few others are there.
pub(crate) fn next_leader(raft: &Raft, peers: &Peers, own: Option<Unfit>) -> Option<NodeId> {
    let metrics = metrics::collect(raft, 0);
    let unfit = peers.unfit(raft);
    let voters = metrics.lag.iter().filter(|lag| metrics.voters.contains(&lag.node));
    let candidates = voters.map(|lag| Candidate {
        node: lag.node,
        behind: lag.behind,
        silent_ms: lag.silent_ms,
        unfit: unfit.contains_key(&lag.node),
        votes: unfit.get(&lag.node).is_none_or(|said| said.votes),
    });
    let alone = own.filter(Unfit::votes_late).map(|_| memberships(raft)).unwrap_or_default();
    successor(candidates, &alone, raft.config().heartbeat_interval)
}

/// The voters; during a change, those before and those after it.
fn memberships(raft: &Raft) -> Vec<BTreeSet<NodeId>> {
    let rx = raft.metrics();
    let now = rx.borrow_watched();
    let configs = now.membership_config.membership().get_joint_config().iter();
    configs.map(|voters| voters.iter().copied().map(NodeId).collect()).collect()
}

/// The task.
pub(crate) struct Watchdog {
    pub(crate) raft: Raft,
    pub(crate) dir: PathBuf,
    pub(crate) limits: CareLimits,
    pub(crate) pulse: Pulse,
    pub(crate) peers: Peers,
    pub(crate) leadership: watch::Receiver<Leadership>,
    pub(crate) out: watch::Sender<Option<Unfit>>,
}

impl Watchdog {
    /// Runs until consensus stops.
    pub(crate) async fn run(self) {
        let mut care = Care::new(self.limits);
        let mut space = Space::new(self.dir.clone());
        let mut tried: Option<Instant> = None;
        loop {
            let due = Instant::now() + TICK;
            sleep_until(due).await;
            let Some(answered_ms) = self.loop_ms().await else { return };
            let late_ms = ms(due.elapsed());
            let sample = Sample {
                sync_ms: ms(self.pulse.worst()),
                stall_ms: late_ms.max(answered_ms),
                free_bytes: space.free().await,
            };
            let unfit = care.step(&sample);
            self.tell(unfit);
            let leads = self.leadership.borrow().reign.is_some();
            let rested = tried.is_none_or(|at| at.elapsed() >= PAUSE);
            if let Some(why) = unfit.filter(|_| leads && rested) {
                tried = Some(Instant::now());
                if !self.hand_over(why).await {
                    return;
                }
            }
        }
    }

    /// How long consensus takes to answer; nothing once it has ended.
    async fn loop_ms(&self) -> Option<u64> {
        let asked = Instant::now();
        match timeout(self.limits.loop_patience(), self.raft.with_raft_state(|_| ())).await {
            Ok(Err(_)) => None,
            Ok(Ok(())) | Err(_) => Some(ms(asked.elapsed())),
        }
    }

    fn tell(&self, unfit: Option<Unfit>) {
        self.out.send_if_modified(|before| {
            match (before.as_ref(), &unfit) {
                (None, Some(why)) => tracing::warn!(%why, "this node should not lead"),
                (Some(_), None) => tracing::info!("this node may lead again"),
                _ => {}
            }
            let changed = *before != unfit;
            *before = unfit;
            changed
        });
    }

    /// Gives leadership to a voter that is fit and can be elected, if there is one. Whether consensus
    /// goes on here.
    async fn hand_over(&self, why: Unfit) -> bool {
        let Some(to) = next_leader(&self.raft, &self.peers, Some(why)) else {
            tracing::warn!(%why, "this node should not lead, and too few others are there and fit");
            return true;
        };
        tracing::warn!(%to, %why, "leadership is handed over");
        self.raft.trigger().transfer_leader(to.0).await.is_ok()
    }
}

/// The task that decides whether this node stands for election when its leader is silent.
pub(crate) struct Standing {
    pub(crate) raft: Raft,
    pub(crate) fitness: Fitness,
    pub(crate) leadership: watch::Receiver<Leadership>,
    /// How long an unfit node leaves it to others.
    pub(crate) patience: Duration,
}

impl Standing {
    /// Runs until the node stops.
    pub(crate) async fn run(mut self) {
        let mut leaderless: Option<Instant> = None;
        loop {
            let unfit = self.fitness.borrow_and_update().is_some();
            let led = self.leadership.borrow_and_update().leader.is_some();
            leaderless = if led { None } else { leaderless.or_else(|| Some(Instant::now())) };
            let waited = leaderless.map_or(Duration::ZERO, |since| since.elapsed());
            let stands = may_stand(unfit, waited, self.patience);
            self.raft.runtime_config().elect(stands);
            let due = leaderless.filter(|_| !stands).map(|since| since + self.patience);
            let alive = tokio::select! {
                changed = self.fitness.changed() => changed.is_ok(),
                changed = self.leadership.changed() => changed.is_ok(),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => true,
            };
            if !alive {
                return;
            }
        }
    }
}

/// The free space, asked for in a thread: a disk that is gone may never answer.
struct Space {
    dir: PathBuf,
    asked: Option<JoinHandle<Option<u64>>>,
    free: Option<u64>,
}

impl Space {
    fn new(dir: PathBuf) -> Self {
        Self { dir, asked: None, free: None }
    }

    /// What the last answer was.
    async fn free(&mut self) -> Option<u64> {
        if let Some(asked) = self.asked.take_if(|asked| asked.is_finished()) {
            self.free = asked.await.ok().flatten();
        }
        let dir = &self.dir;
        self.asked.get_or_insert_with(|| {
            let dir = dir.clone();
            tokio::task::spawn_blocking(move || {
                let stat = rustix::fs::statvfs(&dir).ok()?;
                // Some filesystems do not know.
                (stat.f_blocks > 0).then(|| stat.f_bavail.saturating_mul(stat.f_frsize))
            })
        });
        self.free
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
