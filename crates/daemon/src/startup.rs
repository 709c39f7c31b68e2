//! From a process to a node: at start with the identity on disk, or later by `Init` or `Join`.
//!
//! ```text
//! lock ─▶ identity read ─▶ ports bound, servers up ─┬─ none: Uninitialised ──Init──▶ found ─┐
//!                                                   │                      ──Join──▶ join ──┤
//!                                                   └─▶ agent's lease side begins ◀─────────┘
//!                                                        ─▶ log opened ─▶ Member ─▶ agent runs
//! ```
//! A new node's agent runs before its identity is written, so that a machine that cannot be a node
//! stays what it was.
//!
//! With an identity the agent begins before the log is opened: its first heartbeat leaves within a
//! second of the process's start (DESIGN section 5 rule 1).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_core::NodeRole;
use holdfast_proto::v1;
use holdfast_raft::{RaftConfig, RaftNode, Timing};
use holdfast_storage::lvm::admin::Finding;
use holdfast_trust::{Roster, SecretKey, TrustError};
use holdfast_types::{ClusterId, Code, LeaseSettings};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use crate::config::Config;
use crate::data_dir::DataDir;
use crate::error::DaemonError;
use crate::fault::Fault;
use crate::gate::{Gate, Stage};
use crate::identity::Identity;
use crate::keyring::Keyring;
use crate::machine::{Duties, Machine, MachineError, NewPool, PoolChange, PoolNews};
use crate::member::Member;
use crate::restore::Upload;
use crate::serve::{Listeners, Servers};
use crate::{hints, reign, remember, renew};

/// A running daemon.
pub struct Daemon {
    shell: Arc<Shell>,
    servers: Servers,
    fatal: mpsc::Receiver<DaemonError>,
}

/// What the daemon is around the node that it may become.
pub(crate) struct Shell {
    config: Config,
    machine: Arc<dyn Machine>,
    data: DataDir,
    keyring: Keyring,
    gate: Gate,
    /// One change of what this machine is at a time.
    changing: tokio::sync::Mutex<()>,
    /// The key under which all attempts to join are made, PKCS #8.
    pub(crate) joining_key: Vec<u8>,
    tasks: Mutex<JoinSet<()>>,
    fatal: mpsc::Sender<DaemonError>,
}

/// Opening a pool that is damaged checks its metadata each time.
const REOPEN_EVERY: Duration = Duration::from_secs(30);

/// A stop waits no longer for it.
const HAND_OVER_PATIENCE: Duration = Duration::from_secs(1);

type Hint = watch::Sender<Option<String>>;

impl Daemon {
    /// Starts, as the node that the data directory says, if any.
    pub async fn start(config: Config, machine: Arc<dyn Machine>) -> Result<Self, DaemonError> {
        machine.check()?;
        let data = DataDir::open(&config.data_dir)?;
        let identity = data.identity(&config)?;
        let listeners = Listeners::bind(&config).await?;
        let stage = if identity.is_some() { Stage::Starting } else { Stage::Uninitialised };
        let joining_key = SecretKey::generate().map_err(no_key)?.to_der();
        let (fatal, failures) = mpsc::channel(8);
        let shell = Arc::new(Shell {
            config,
            machine,
            keyring: Keyring::new(data.path()),
            data,
            gate: Gate::new(stage),
            changing: tokio::sync::Mutex::default(),
            joining_key,
            tasks: Mutex::default(),
            fatal,
        });
        let servers = listeners.serve(&shell);
        let daemon = Self { shell: shell.clone(), servers, fatal: failures };
        match identity {
            Some(identity) => {
                if let Err(error) = shell.resume(identity).await {
                    // What it has begun ends before the data directory is anybody's again.
                    drop(shell);
                    daemon.stop().await;
                    return Err(error);
                }
            }
            None => info!(node = %shell.config.name, "in no cluster yet"),
        }
        Ok(daemon)
    }

    /// Returns when the daemon cannot go on, with the reason.
    pub async fn failed(&mut self) -> DaemonError {
        let gone = DaemonError::Ended { task: "the daemon" };
        tokio::select! {
            failure = self.fatal.recv() => failure.unwrap_or(gone),
            task = self.servers.ended() => DaemonError::Ended { task },
        }
    }

    /// Ends the daemon's part. Containers run on, as long as the lease lasts.
    pub async fn stop(self) {
        self.servers.close();
        let mut tasks = std::mem::take(&mut *self.shell.tasks());
        tasks.shutdown().await;
        if let Stage::Member(member) = self.shell.gate.stage() {
            self.shell.gate.set(Stage::Starting);
            member.duties.stop().await;
            if let Some(raft) = &member.raft {
                hand_over(raft).await;
                if let Err(error) = raft.shutdown().await {
                    warn!(%error, "consensus did not end in order");
                }
            }
        }
        self.servers.closed().await;
        self.shell.keyring.retire();
    }
}

fn no_key(error: TrustError) -> DaemonError {
    DaemonError::Refused { code: error.code(), what: error.to_string() }
}

/// A leader that stops on purpose spares the others the wait for its silence.
async fn hand_over(raft: &RaftNode) {
    if raft.leadership_now().reign.is_none() {
        return;
    }
    let Some(next) = raft.successor() else {
        return info!("no other voter is there and fit to lead: they elect one when this is gone");
    };
    match timeout(HAND_OVER_PATIENCE, raft.transfer_leadership(next)).await {
        Ok(Ok(())) => info!(to = %next, "leadership handed over"),
        Ok(Err(error)) => warn!(%error, "leadership could not be handed over"),
        Err(_) => warn!("leadership could not be handed over in time"),
    }
}

/// Runs duties once their pool can be opened: a disk is back, or a repair has mended it.
async fn try_again(duties: Arc<dyn Duties>) {
    loop {
        tokio::time::sleep(REOPEN_EVERY).await;
        match duties.run().await {
            Ok(()) => return info!("the pool is open, and this node takes part again"),
            Err(error) => debug!(code = %error.code, %error, "the pool can still not be opened"),
        }
    }
}

/// Who is of the cluster, as this member knows it. Who still has a vote is: it may be needed until the
/// vote is taken away.
fn roster(member: &Arc<Member>) -> Roster {
    let member = member.clone();
    Arc::new(move |node| match &member.raft {
        Some(raft) => {
            let applied = raft.applied();
            !applied.state.is_removed(node, applied.index) || raft.metrics().voters.contains(&node)
        }
        None => member.duties.knows(node).unwrap_or(true),
    })
}

impl Shell {
    pub(crate) fn gate(&self) -> &Gate {
        &self.gate
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn data(&self) -> &DataDir {
        &self.data
    }

    pub(crate) fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// Removes what is left of a cluster that was not made.
    pub(crate) fn discard(&self) {
        if let Err(error) = self.data.discard_raft() {
            warn!(%error, "what is left of a cluster that was not made");
        }
        self.forget_keys();
    }

    /// This machine has not become a node.
    pub(crate) fn forget_keys(&self) {
        if let Err(error) = self.keyring.discard() {
            warn!(%error, "keys that are of no use stay behind");
        }
    }

    /// Whether this machine can be no more than a witness.
    pub(crate) fn only_votes(&self) -> bool {
        self.machine.only_votes()
    }

    pub(crate) fn name(&self) -> String {
        self.config.name.to_string()
    }

    /// Makes a new cluster of this node.
    pub(crate) async fn found(self: Arc<Self>, lease: LeaseSettings) -> Result<Identity, Fault> {
        self.change(move |shell| async move { crate::found::found(&shell, lease).await }).await
    }

    /// Joins the cluster of these nodes.
    pub(crate) async fn join(
        self: Arc<Self>,
        peers: Vec<String>,
        role: v1::NodeRole,
        token: String,
    ) -> Result<Identity, Fault> {
        let join = move |shell: Arc<Self>| async move {
            crate::join::join(&shell, peers, role, &token).await
        };
        self.change(join).await
    }

    /// Makes a new cluster of a backup.
    pub(crate) async fn restore(self: Arc<Self>, upload: Upload) -> Result<Identity, Fault> {
        self.change(move |shell| async move { crate::restore::restore(&shell, upload).await }).await
    }

    /// Lets the machine's pool be taken over from that cluster, if it is of it.
    pub(crate) fn inherit_pool(&self, from: ClusterId) {
        self.machine.inherit_pool(from);
    }

    /// Whether it may have been taken over since.
    pub(crate) fn has_inherited_pool(&self) -> bool {
        self.machine.has_inherited_pool()
    }

    /// The machine's pool as it is now.
    pub(crate) async fn pool(&self) -> Result<Option<v1::Pool>, Fault> {
        let machine = self.machine.clone();
        let looking = tokio::task::spawn_blocking(move || machine.pool());
        let broken = |e| Fault::new(Code::Internal, format!("nobody looked at the pool: {e}"));
        let pool = looking.await.map_err(broken)??;
        Ok(pool.map(|pool| v1::Pool { node: self.name(), ..pool }))
    }

    /// Makes the machine's pool. A member begins on it at once; who becomes one later, then.
    pub(crate) async fn create_pool(
        &self,
        asked: NewPool,
        mut tell: impl FnMut(PoolNews) + Send + 'static,
    ) -> Result<(), Fault> {
        if let Stage::Member(member) = self.gate.stage()
            && member.identity.role == NodeRole::Witness
        {
            return Err(Fault::new(Code::WrongState, "this node is a witness and stores nothing"));
        }
        let dry_run = asked.dry_run;
        let make = move |machine: &dyn Machine| machine.create_pool(&asked, &mut |news| tell(news));
        self.with_pool(dry_run, make).await
    }

    /// Changes the machine's pool. One that could not be opened before is opened afterwards.
    pub(crate) async fn change_pool(
        &self,
        asked: PoolChange,
        mut tell: impl FnMut(PoolNews) + Send + 'static,
    ) -> Result<(), Fault> {
        let dry_run = asked.dry_run;
        let make = move |machine: &dyn Machine| machine.change_pool(&asked, &mut |news| tell(news));
        self.with_pool(dry_run, make).await
    }

    /// What is wrong with the machine's pool.
    pub(crate) async fn check_pool(&self) -> Result<Vec<Finding>, Fault> {
        let machine = self.machine.clone();
        let checking = tokio::task::spawn_blocking(move || machine.check_pool());
        let broken = |e| Fault::new(Code::Internal, format!("the check was cut short: {e}"));
        Ok(checking.await.map_err(broken)??)
    }

    async fn with_pool(
        &self,
        dry_run: bool,
        work: impl FnOnce(&dyn Machine) -> Result<(), MachineError> + Send + 'static,
    ) -> Result<(), Fault> {
        let machine = self.machine.clone();
        let working = tokio::task::spawn_blocking(move || work(&*machine));
        let broken = |e| Fault::new(Code::Internal, format!("the change was cut short: {e}"));
        working.await.map_err(broken)??;
        if dry_run {
            return Ok(());
        }
        let _changing = self.changing.lock().await;
        match self.gate.stage() {
            Stage::Member(member) => Ok(member.duties.run().await?),
            Stage::Uninitialised | Stage::Starting => Ok(()),
        }
    }

    /// Lets a machine become a node. In a task of its own: a client that hangs up must not leave
    /// it half done.
    async fn change<F, Fut>(self: Arc<Self>, to: F) -> Result<Identity, Fault>
    where
        F: FnOnce(Arc<Self>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Identity, Fault>> + Send,
    {
        let changing = tokio::spawn(async move {
            let _changing = self.changing.lock().await;
            if let Stage::Member(member) = self.gate.stage() {
                let message = format!("this node is in cluster {} already", member.cluster());
                return Err(Fault::new(Code::WrongState, message));
            }
            self.gate.set(Stage::Starting);
            let made = to(self.clone()).await;
            if made.is_err() && !matches!(self.gate.stage(), Stage::Member(_)) {
                self.gate.set(Stage::Uninitialised);
            }
            made
        });
        let broken = |e| Fault::new(Code::Internal, format!("becoming a node was cut short: {e}"));
        changing.await.map_err(broken)?
    }

    async fn resume(self: &Arc<Self>, identity: Identity) -> Result<(), DaemonError> {
        info!(node = %identity.name, id = %identity.node, cluster = %identity.cluster, "starting");
        match self.keyring.read(&identity) {
            // It has the authority's key in its state, and makes itself another.
            Err(error) if identity.role.has_log() && error.code() == Code::Corrupt => {
                warn!(%error, "this member's keys are lost: it makes itself new ones");
            }
            read => read?,
        }
        let (duties, hint) = self.begin(&identity)?;
        let raft = match identity.role.has_log() {
            true => Some(self.open_raft(&identity).await?),
            false => None,
        };
        // A restore may have been cut short before it had the pool.
        let heir_of = raft.as_ref().and_then(|raft| raft.state().heir_of(identity.node));
        if let Some(from) = heir_of {
            self.inherit_pool(from);
        }
        self.enter(identity, raft, duties.clone(), hint);
        match duties.run().await {
            Err(error) if duties.is_silent() => {
                warn!(code = %error.code, %error, "the pool cannot be opened, and this node is silent \
                    until it is: holdfast pool check");
                self.spawn(try_again(duties));
                Ok(())
            }
            ended => Ok(ended?),
        }
    }

    /// Begins the agent's lease side.
    pub(crate) fn begin(
        &self,
        identity: &Identity,
    ) -> Result<(Arc<dyn Duties>, Hint), DaemonError> {
        let (hint, leader) = watch::channel(None);
        Ok((
            {
                let trust = (self.keyring.dialers(), self.keyring.standing());
                self.machine.begin(identity, trust, leader)?
            },
            hint,
        ))
    }

    /// Opens the log and takes part.
    pub(crate) async fn open_raft(&self, identity: &Identity) -> Result<RaftNode, DaemonError> {
        self.open_raft_of(identity, 0).await
    }

    /// The same; where there is no log yet, it is of that generation of the cluster.
    pub(crate) async fn open_raft_of(
        &self,
        identity: &Identity,
        generation: u64,
    ) -> Result<RaftNode, DaemonError> {
        let who = holdfast_raft::Identity { cluster: identity.cluster, node: identity.node };
        let timing = Timing::with_heartbeat(self.config.consensus.heartbeat_ms);
        let config = RaftConfig {
            timing,
            generation,
            ..RaftConfig::new(self.data.raft(), who, self.keyring.dialers().members)
        };
        Ok(RaftNode::start(config).await?)
    }

    /// Becomes a member: everything answers from here on.
    pub(crate) fn enter(
        self: &Arc<Self>,
        identity: Identity,
        raft: Option<RaftNode>,
        duties: Arc<dyn Duties>,
        hint: Hint,
    ) {
        let (reigns, reign) = watch::channel(None);
        self.watch_removal(duties.clone());
        let member = Arc::new(Member::new(identity, raft, duties, reign, self.keyring.dialers()));
        self.keyring.know(roster(&member));
        self.spawn(renew::follow(member.clone(), self.keyring.clone()));
        self.spawn(remember::follow(member.clone(), self.data.path().to_owned()));
        match member.raft.clone() {
            None => self.spawn(async move {
                // A worker's agent finds the leader by itself.
                hint.closed().await;
            }),
            Some(raft) => {
                self.spawn(hints::follow(raft.clone(), hint));
                self.watch(raft.clone());
                let channels = member.channels.clone();
                let (shell, cluster) = (self.clone(), member.cluster());
                self.spawn(async move {
                    if let Err(error) = reign::follow(raft, cluster, channels, reigns).await {
                        shell.fail(error).await;
                    }
                });
            }
        }
        self.gate.set(Stage::Member(member));
    }

    /// A node whose disk has failed takes no part any more, and its process ends.
    fn watch(self: &Arc<Self>, raft: RaftNode) {
        let shell = self.clone();
        self.spawn(async move {
            let error = raft.failed().await;
            shell.fail(error.into()).await;
        });
    }

    /// Ends this node's part once the cluster has let it go. Noted first, so that it is none after a
    /// restart either.
    fn watch_removal(self: &Arc<Self>, duties: Arc<dyn Duties>) {
        let shell = self.clone();
        self.spawn(async move {
            let why = duties.removed().await;
            let noting = {
                let (shell, why) = (shell.clone(), why.clone());
                tokio::task::spawn_blocking(move || shell.data.note_removed(&why))
            };
            let error = match noting.await {
                Ok(Err(error)) => error,
                Ok(Ok(())) | Err(_) => {
                    DaemonError::Removed { file: shell.data.path().join("removed"), why }
                }
            };
            shell.fail(error).await;
        });
    }

    /// Ends the daemon.
    pub(crate) async fn fail(&self, error: DaemonError) {
        // Nobody listens when the daemon is ending anyway.
        drop(self.fatal.send(error).await);
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks().spawn(task);
    }

    fn tasks(&self) -> std::sync::MutexGuard<'_, JoinSet<()>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
