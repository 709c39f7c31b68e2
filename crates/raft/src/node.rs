//! The handle to this node's part in consensus.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use holdfast_core::State;
use holdfast_proto::internal::raft_service_server::RaftServiceServer;
use holdfast_types::NodeId;
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::care::Unfit;
use crate::comeback;
use crate::config::{Identity, RaftConfig, Timing};
use crate::dir;
use crate::error::RaftError;
use crate::fresh::{self, Fresh};
use crate::generation::{self, Generation};
use crate::leadership::{Leadership, Peer, Watcher};
use crate::level;
use crate::machine::Machine;
use crate::metrics::{self, Metrics};
use crate::net::{Heard, Network, RaftService};
use crate::published::{Applied, Hashes, Pauses, StateHash};
use crate::read::{Reader, Rounds};
use crate::recover;
use crate::retention::{Keeper, Transfers};
use crate::snapshot::SnapshotFile;
use crate::store::{Health, LogStore, Syncs};
use crate::sys::boottime;
use crate::types::Raft;
use crate::watchdog::{Fitness, Peers, Standing, Watchdog, next_leader};

/// A member that has answered none of so many heartbeats is not there.
const LATELY_HEARTBEATS: u64 = 4;

/// How long a shutdown waits for the files to close.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks whether a snapshot is there.
const BUILD_LOOK: Duration = Duration::from_millis(50);

/// This node's part in consensus. Cheap to clone; all clones are one node.
#[derive(Clone)]
pub struct RaftNode {
    shared: Arc<Shared>,
}

struct Shared {
    identity: Identity,
    timing: Timing,
    raft: Raft,
    health: Health,
    applied: watch::Receiver<Applied>,
    leadership: watch::Receiver<Leadership>,
    reads: Reader,
    hashes: Hashes,
    pauses: Pauses,
    files: SnapshotFile,
    /// One snapshot comes at a time, whoever of the callers of [`RaftNode::service`] it comes to.
    receiving: Arc<Semaphore>,
    heard: Heard,
    syncs: Syncs,
    fitness: Fitness,
    peers: Peers,
    closed: watch::Receiver<bool>,
    generation: Generation,
    levels: AbortHandle,
    watcher: AbortHandle,
    /// Those that end with the node.
    tasks: Vec<AbortHandle>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.levels.abort();
        self.watcher.abort();
        self.stop_tasks();
    }
}

impl Shared {
    fn stop_tasks(&self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl RaftNode {
    /// Whose the directory is; nothing if no node was ever started in it. Blocks shortly.
    pub fn identity(dir: &Path) -> Result<Option<Identity>, RaftError> {
        finished(dir)?;
        dir::read_identity(dir)
    }

    /// Whether there is a log in the directory. A node that was ever a member of a cluster and has
    /// none must not vote again under its id.
    pub fn has_log(dir: &Path) -> bool {
        dir::log_dir(dir).join("db").exists()
    }

    /// Whether the cluster of the log in `dir` went on without it. Blocks shortly.
    pub fn is_superseded(dir: &Path) -> bool {
        generation::is_superseded(dir)
    }

    /// How many times the cluster was recovered from a lost majority.
    pub fn generation(&self) -> u64 {
        self.shared.generation.number()
    }

    /// Opens the node's files, checks all of them, and takes part. A node that was never
    /// initialised nor added by a leader waits to be.
    pub async fn start(config: RaftConfig) -> Result<Self, RaftError> {
        Self::start_on(config, LogStore::open).await
    }

    async fn start_on(config: RaftConfig, opener: OpenStore) -> Result<Self, RaftError> {
        let health = Health::new();
        let hashes = Hashes::new(config.hash_every);
        let settings = Arc::new(config.openraft()?);
        let (mut store, mut machine, generation) = {
            let (config, health, hashes) = (config.clone(), health.clone(), hashes.clone());
            tokio::task::spawn_blocking(move || open(&config, opener, health, hashes))
                .await
                .map_err(|e| RaftError::Internal { what: e.to_string() })??
        };
        let (applied, syncs, closed) = (machine.subscribe(), store.syncs(), store.closed());
        let (pauses, files) = (machine.pauses(), machine.files());
        let (usage, transfers, limits) = (store.usage(), Transfers::default(), config.limits());
        let pulse = store.pulse();
        let RaftConfig { dir, identity, timing, connector, care, .. } = config;
        level::check(&applied.borrow().state)?;
        let members = comeback::members(&mut store, &mut machine).await?;
        generation.ask(identity, &members, &connector).await?;
        let peers = Peers::default();
        let (sends, seen) = (transfers.clone(), peers.clone());
        let network = Network::new(identity, generation.clone(), connector, sends, seen);
        let asker = network.asker();
        let lifeline = network.lifeline();
        let raft =
            Raft::new(identity.node.0, settings, network, store, machine).await.map_err(|e| {
                health.check().err().unwrap_or(RaftError::Internal { what: e.to_string() })
            })?;

        let heard = Heard::default();
        let (out, leadership) = watch::channel(Leadership::default());
        let watcher = Watcher {
            me: identity.node,
            metrics: raft.metrics(),
            applied: applied.clone(),
            heard: heard.clone(),
            health: health.clone(),
            silence: timing.leader_silence(),
            out,
        };
        let keeper = Keeper { raft: raft.clone(), usage, transfers, limits, files: files.clone() };
        let (told, fitness) = watch::channel(None);
        let watchdog = Watchdog {
            raft: raft.clone(),
            dir,
            limits: care.with_heartbeat(timing.heartbeat_ms),
            pulse,
            peers: peers.clone(),
            leadership: leadership.clone(),
            out: told,
        };
        let standing = Standing {
            raft: raft.clone(),
            fitness: fitness.clone(),
            leadership: leadership.clone(),
            patience: timing.last_resort(),
        };
        let (levels, levels_health) = (applied.clone(), health.clone());
        let (rounds, serve) = Rounds::new(raft.clone(), health.clone(), timing.deadline());
        let (questions, ask) = Rounds::of_questions(asker, leadership.clone(), timing.deadline());
        let reads = Reader {
            rounds,
            questions,
            leadership: leadership.clone(),
            applied: applied.clone(),
            fresh: Fresh::default(),
        };
        let lifeline = lifeline(raft.clone(), leadership.clone(), fitness.clone());
        let tasks = vec![
            tokio::spawn(serve).abort_handle(),
            tokio::spawn(ask).abort_handle(),
            tokio::spawn(fresh::probe(reads.clone())).abort_handle(),
            tokio::spawn(keeper.run()).abort_handle(),
            tokio::spawn(watchdog.run()).abort_handle(),
            tokio::spawn(standing.run()).abort_handle(),
            tokio::spawn(lifeline.run()).abort_handle(),
        ];
        let shared = Shared {
            identity,
            timing,
            raft,
            health,
            applied,
            leadership,
            reads,
            hashes,
            pauses,
            files,
            receiving: Arc::new(Semaphore::new(1)),
            heard,
            syncs,
            fitness,
            peers,
            closed,
            generation,
            levels: tokio::spawn(level::watch(levels, levels_health)).abort_handle(),
            watcher: tokio::spawn(watcher.run()).abort_handle(),
            tasks,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// This node's id.
    pub fn id(&self) -> NodeId {
        self.shared.identity.node
    }

    /// Whose data this is.
    pub fn whose(&self) -> Identity {
        self.shared.identity
    }

    /// The service that peers call, to mount in the daemon's server. Its sockets need
    /// `TCP_NODELAY`, or each entry waits 40 ms for a delayed acknowledgement.
    pub fn service(&self) -> RaftServiceServer<RaftService> {
        let shared = &self.shared;
        let service = RaftService {
            me: shared.identity,
            raft: shared.raft.clone(),
            heard: shared.heard.clone(),
            rounds: shared.reads.rounds.clone(),
            files: shared.files.clone(),
            receiving: shared.receiving.clone(),
            fitness: shared.fitness.clone(),
            applied: shared.applied.clone(),
            generation: shared.generation.clone(),
        };
        service.server()
    }

    /// An index such that everything acknowledged before the call is at or below it, proved by a
    /// quorum round that began after the call (I6). It has been applied here on return. On the
    /// leader only, and never before it is ready.
    pub async fn read_index(&self) -> Result<u64, RaftError> {
        let asked = boottime();
        match self.shared.reads.rounds.read_index().await {
            Err(RaftError::NotLeader { .. }) => Err(self.not_leader()),
            Err(other) => Err(other),
            Ok(index) => {
                self.shared.reads.fresh().note(asked);
                Ok(index)
            }
        }
    }

    /// A state with everything in it that was acknowledged before the call (I6), on any member: one
    /// that does not lead asks the leader for an index only, and answers once it has applied that.
    /// Tries once; after [`RaftError::NotLeader`] and [`RaftError::NoQuorum`] try again, and after
    /// [`RaftError::OldLeader`] ask the leader.
    pub async fn read(&self, limit: Duration) -> Result<Applied, RaftError> {
        self.shared.reads.read(limit).await
    }

    /// How old the state here can be at most: everything acknowledged longer ago is in it. Nothing
    /// if that is unknown. It grows while this node cannot read through a leader.
    pub fn age(&self) -> Option<Duration> {
        self.shared.reads.fresh().age(boottime())
    }

    /// The state as applied here; on a follower, or without a [`read_index`](Self::read_index),
    /// it may be old.
    pub fn state(&self) -> Arc<State> {
        self.shared.applied.borrow().state.clone()
    }

    /// The state with its index.
    pub fn applied(&self) -> Applied {
        self.shared.applied.borrow().clone()
    }

    /// The index of the last entry applied here.
    pub fn applied_index(&self) -> u64 {
        self.shared.applied.borrow().index
    }

    /// Follows what is applied. Steps may be skipped, never reordered.
    pub fn watch(&self) -> watch::Receiver<Applied> {
        self.shared.applied.clone()
    }

    /// Returns the state once the entry at `index` is applied here.
    pub async fn wait_applied(&self, index: u64, limit: Duration) -> Result<Applied, RaftError> {
        let mut applied = self.watch();
        match timeout(limit, applied.wait_for(|a| a.index >= index)).await {
            Err(_) => Err(RaftError::Timeout),
            Ok(Err(_)) => Err(self.stopped()),
            Ok(Ok(applied)) => Ok(applied.clone()),
        }
    }

    /// Follows who leads.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.shared.leadership.clone()
    }

    /// Who leads, now.
    pub fn leadership_now(&self) -> Leadership {
        self.shared.leadership.borrow().clone()
    }

    /// A summary.
    pub fn metrics(&self) -> Metrics {
        metrics::collect(&self.shared.raft, self.shared.syncs.count())
    }

    /// Why this node should not lead, if so. It does not stand for election then, and gives up
    /// leadership to a voter that is fit.
    pub fn unfit(&self) -> Option<Unfit> {
        *self.shared.fitness.borrow()
    }

    /// Members that said with their last answer that they should not lead, and why.
    pub fn unfit_peers(&self) -> BTreeMap<NodeId, String> {
        let unfit = self.shared.peers.unfit(&self.shared.raft);
        unfit.into_iter().map(|(node, said)| (node, said.why)).collect()
    }

    /// The voter that should lead when this node no longer does: there, fit, and furthest. Nothing
    /// if this node does not lead, or there is none that would be elected.
    pub fn successor(&self) -> Option<NodeId> {
        next_leader(&self.shared.raft, &self.shared.peers, self.unfit())
    }

    /// A member that this leader has heard from within so many milliseconds is there: it has missed
    /// no more than a few heartbeats.
    pub fn lately_ms(&self) -> u64 {
        self.timing().heartbeat_ms * LATELY_HEARTBEATS
    }

    /// The state's hash at `index` (I4): remembered for the newest of those that
    /// [`RaftConfig::hash_every`] divides, computed if it is the last applied; else nothing.
    pub async fn state_hash(&self, index: u64) -> Option<StateHash> {
        if let Some(remembered) = self.shared.hashes.at(index).await {
            return Some(remembered);
        }
        let applied = self.applied();
        if applied.index == index { Some(self.hash_of(&applied).await) } else { None }
    }

    /// The hash of a state that was applied here. It looks at all containers, on no task's time and
    /// once for all who ask.
    pub async fn hash_of(&self, applied: &Applied) -> StateHash {
        self.shared.hashes.of(applied).await
    }

    /// The longest that a batch of entries has kept the next waiting, since this was last asked.
    pub fn take_longest_apply(&self) -> Duration {
        self.shared.pauses.take_longest()
    }

    /// Writes a snapshot of everything applied so far, and returns its index once it is durable. One
    /// for which there is no room leaves everything as it is.
    pub async fn build_snapshot(&self, limit: Duration) -> Result<u64, RaftError> {
        let wanted = self.applied_index();
        let files = &self.shared.files;
        files.ask(wanted);
        let built = async {
            loop {
                self.check()?;
                let index = files.index();
                if index >= wanted {
                    return Ok(index);
                }
                if let Some(full) = files.was_full() {
                    return Err(full);
                }
                // One that is under way already may be of an earlier moment.
                self.raft().trigger().snapshot().await.map_err(|_| self.stopped())?;
                tokio::time::sleep(BUILD_LOOK).await;
            }
        };
        timeout(limit, built).await.unwrap_or(Err(RaftError::Timeout))
    }

    /// The newest of those that are remembered: at the same index every node has the same.
    pub fn newest_hash(&self) -> Option<StateHash> {
        self.shared.hashes.newest()
    }

    /// Returns the first failure of the disk, or of a file of ours, when it comes. The node takes
    /// no part any more then, and the process should end.
    pub async fn failed(&self) -> RaftError {
        let mut failed = self.shared.health.failed();
        // The sender lives as long as `self`.
        drop(failed.wait_for(|seen| *seen).await);
        self.stopped()
    }

    /// Stops taking part and returns once no leadership is claimed here and the files are closed.
    pub async fn shutdown(&self) -> Result<(), RaftError> {
        let stopped = self.shared.raft.shutdown().await;
        stopped.map_err(|e| RaftError::Internal { what: e.to_string() })?;
        self.shared.stop_tasks();
        let (mut leadership, mut closed) = (self.leadership(), self.shared.closed.clone());
        let down = async {
            // An error says that the task is gone, or the thread and its files with it.
            drop(leadership.wait_for(|l| l.reign.is_none()).await);
            drop(closed.wait_for(|closed| *closed).await);
        };
        timeout(CLOSE_PATIENCE, down).await.map_err(|_| RaftError::Timeout)
    }

    pub(crate) fn raft(&self) -> &Raft {
        &self.shared.raft
    }

    #[cfg(test)]
    pub(crate) fn files(&self) -> SnapshotFile {
        self.shared.files.clone()
    }

    #[cfg(test)]
    pub(crate) fn may_receive(&self) -> bool {
        self.shared.receiving.available_permits() > 0
    }

    pub(crate) fn timing(&self) -> &Timing {
        &self.shared.timing
    }

    pub(crate) fn check(&self) -> Result<(), RaftError> {
        self.shared.health.check()
    }

    pub(crate) fn stopped(&self) -> RaftError {
        self.shared.health.check().err().unwrap_or(RaftError::Stopped)
    }

    pub(crate) fn not_leader(&self) -> RaftError {
        // Whoever was just refused does not lead, whatever the watch still says.
        RaftError::NotLeader { leader: self.other_leader() }
    }

    pub(crate) fn other_leader(&self) -> Option<Peer> {
        let leader = self.shared.leadership.borrow().leader.clone();
        leader.filter(|peer| peer.node != self.id())
    }
}

type OpenStore = fn(&Path, Health) -> Result<LogStore, RaftError>;

/// Opens and checks every file. Blocks.
fn open(
    config: &RaftConfig,
    open_store: OpenStore,
    health: Health,
    hashes: Hashes,
) -> Result<(LogStore, Machine, Generation), RaftError> {
    finished(&config.dir)?;
    if config.generation > 0 && dir::read_identity(&config.dir)?.is_none() {
        generation::write(&config.dir, config.generation)?;
    }
    dir::claim(&config.dir, config.identity)?;
    let generation = Generation::open(&config.dir, health.clone())?;
    let store = open_store(&dir::log_dir(&config.dir), health.clone())?;
    let path = dir::snapshot_file(&config.dir);
    let cluster = config.identity.cluster;
    let (file, found) = SnapshotFile::open(path.clone(), cluster, health.clone())?;
    let covered = found.as_ref().and_then(|(meta, _)| meta.last_log_id).map(|id| id.index);
    // openraft would take an empty state for one that was never saved.
    if let Some(purged) = store.purged_index()
        && covered.is_none_or(|covered| covered < purged)
    {
        let what = format!("the log begins after entry {purged}, and no snapshot reaches it");
        return Err(RaftError::corrupt(&path, what));
    }
    Ok((store, Machine::new(file, found, hashes, health), generation))
}

/// A log that is about to be replaced must not go on.
fn finished(dir: &Path) -> Result<(), RaftError> {
    match recover::is_unfinished(dir) {
        true => Err(RaftError::RecoveryUnfinished { path: recover::waiting(dir) }),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use holdfast_core::{Command, Entry, RemoveImage};
    use holdfast_proto::Dialer;
    use holdfast_types::{ClusterId, Code, RequestId, TimestampMs};

    use super::*;

    fn entry() -> Entry {
        let command = Command::RemoveImage(RemoveImage { name: "none".parse().unwrap() });
        Entry { request: RequestId::generate(), at: TimestampMs(0), command }
    }

    /// I5: what the disk refused is not acknowledged, and the node takes no part any more.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_failing_disk_stops_the_node() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity { cluster: ClusterId::generate(), node: NodeId(1) };
        let config = RaftConfig::new(dir.path().join("raft"), identity, Dialer::plaintext());
        let node = RaftNode::start_on(config, LogStore::open_failing_after_100).await.unwrap();
        node.initialize("127.0.0.1:1").await.unwrap();
        let mut acked = 0;
        let error = loop {
            match node.propose(entry()).await {
                Ok(_) => acked += 1,
                Err(error) => break error,
            }
            assert!(acked <= 100, "acknowledged on a disk that fails");
        };
        assert_eq!(error.code(), Code::DiskIo, "{error}");
        assert_eq!(node.failed().await, error);
        assert_eq!(node.read_index().await.unwrap_err(), error);
        assert_eq!(node.state().answered.len(), acked);
        let mut leadership = node.leadership();
        let deposed = leadership.wait_for(|l| l.reign.is_none() && l.leader.is_none());
        timeout(Duration::from_secs(5), deposed).await.unwrap().unwrap();
    }

    /// Consensus that breaks is no quiet end: the daemon has to hear of it.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_panic_in_consensus_ends_the_node_with_its_reason() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity { cluster: ClusterId::generate(), node: NodeId(1) };
        let config = RaftConfig::new(dir.path().join("raft"), identity, Dialer::plaintext());
        let node = RaftNode::start(config).await.unwrap();
        node.initialize("127.0.0.1:1").await.unwrap();
        let panics = node.raft().with_state_machine(|_| Box::pin(async { panic!("on purpose") }));
        drop::<Result<(), _>>(panics.await);
        let told = timeout(Duration::from_secs(5), node.failed()).await.unwrap();
        assert_eq!(told.code(), Code::Internal, "{told}");
    }

    /// A node that is gone was unfit for ever, in each of its peers' words.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn only_members_are_unfit_peers() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity { cluster: ClusterId::generate(), node: NodeId(1) };
        let node = RaftNode::start(RaftConfig::new(
            dir.path().join("raft"),
            identity,
            Dialer::plaintext(),
        ))
        .await
        .unwrap();
        node.initialize("127.0.0.1:1").await.unwrap();
        node.add_learner(NodeId(2), "127.0.0.1:2").await.unwrap();
        let peers = &node.shared.peers;
        peers.note(2, "slow", false);
        peers.note(3, "slow", false);
        // Who the members are is seen a moment after a change has returned.
        let become_unfit = async |wanted: &[NodeId]| {
            while !node.unfit_peers().keys().eq(wanted) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let limit = Duration::from_secs(20);
        timeout(limit, become_unfit(&[NodeId(2)])).await.unwrap();
        node.remove_learner(NodeId(2)).await.unwrap();
        timeout(limit, become_unfit(&[])).await.unwrap();
    }

    /// A leader on a slow disk says so of itself; where nobody else is there it leads on.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_slow_disk_makes_unfit_to_lead() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity { cluster: ClusterId::generate(), node: NodeId(1) };
        let mut config = RaftConfig::new(dir.path().join("raft"), identity, Dialer::plaintext());
        config.timing = Timing::with_heartbeat(50);
        config.care.slow_ms = 200;
        let node = RaftNode::start_on(config, LogStore::open_slow).await.unwrap();
        node.initialize("127.0.0.1:1").await.unwrap();
        let mut fitness = node.shared.fitness.clone();
        let noticed = async {
            let why = fitness.wait_for(Option::is_some).await.unwrap();
            why.unwrap()
        };
        let why = tokio::select! {
            why = timeout(Duration::from_secs(20), noticed) => why.unwrap(),
            () = async { while node.propose(entry()).await.is_ok() {} } => panic!("it does not write"),
        };
        assert!(matches!(why, Unfit::SlowDisk { sync_ms } if sync_ms >= 250), "{why}");
        assert!(node.leadership_now().reign.is_some() && node.successor().is_none());
    }
}
