//! The real machine: the agent over its pool, LXC and netlink, under the guardian.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use holdfast_agent::{
    Agent, AgentConfig, AgentError, AgentHandle, AgentIdentity, GuardedEnter, Parts, ScrubPace,
    ScrubSummary, Standing, TransferCounts, TransferLimits,
};
use holdfast_core::NodeRole;
use holdfast_network::LinuxNetwork;
use holdfast_proto::internal::peer_service_server::PeerService;
use holdfast_proto::{Dialers, v1};
use holdfast_runtime::lxc::{self, LxcRuntime};
use holdfast_runtime::{ExecRequest, ExecSession};
use holdfast_storage::lvm::admin::Finding;
use holdfast_types::{ByteSize, ClusterId, Code, ContainerUid, ImageUid, NodeId};
use tokio::sync::watch;
use tracing::warn;

use crate::config::{Config, PoolDriver};
use crate::identity::Identity;
use crate::machine::{Duties, Machine, MachineError, NewPool, PoolChange, PoolNews, Unpacked};
use crate::pools::{OpenPool, Pools};

/// The bridge that containers sit on.
const BRIDGE: &str = "hf0";

/// The programs that are run, where they are looked for, and the Debian package of each.
const TOOLS: [(&str, &str); 5] = [
    ("lxc-start", "lxc"),
    ("lxc-attach", "lxc"),
    ("mkfs.ext4", "e2fsprogs"),
    ("resize2fs", "e2fsprogs"),
    ("unshare", "util-linux"),
];
const XFS_TOOLS: [(&str, &str); 1] = [("mkfs.xfs", "xfsprogs")];
const LVM_TOOLS: [(&str, &str); 4] = [
    ("lvm", "lvm2"),
    ("thin_delta", "thin-provisioning-tools"),
    ("thin_check", "thin-provisioning-tools"),
    ("udevadm", "udev"),
];
const APPARMOR_TOOLS: [(&str, &str); 1] = [("apparmor_parser", "apparmor")];
const PLACES: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// This machine.
#[derive(Clone)]
pub struct Host {
    config: Config,
    pools: Arc<Pools>,
}

impl Host {
    /// The machine as its owner has configured it.
    pub fn new(config: Config) -> Self {
        Self { pools: Arc::new(Pools::new(&config)), config }
    }

    fn agent_config(
        &self,
        me: &Identity,
        (dialers, standing): (Dialers, Arc<Standing>),
    ) -> AgentConfig {
        let config = &self.config;
        AgentConfig {
            identity: AgentIdentity { cluster: me.cluster, node: me.node },
            data_dir: config.data_dir.clone(),
            guardian_socket: config.guardian.socket.clone(),
            guardian_binary: config.guardian.binary.clone(),
            link_group: config.guardian.link_group.get(),
            cgroup_root: config.cgroup_root.clone(),
            freeze_binary: freeze_binary(config),
            underlay: config.network.underlay,
            overlay_gateways: config.network.overlay_gateways.clone(),
            vxlan_id: config.network.vxlan_id,
            vxlan_port: config.network.port,
            scrub: ScrubPace {
                rate: config.pool.scrub_rate,
                every: Duration::from_secs(config.pool.scrub_every_s),
            },
            transfers: TransferLimits {
                rate: config.replication.rate,
                job_rate: config.replication.job_rate,
                sends: config.replication.sends,
                receives: config.replication.receives,
            },
            trim_every: Duration::from_secs(config.pool.trim_every_s),
            witness: self.is_witness(me),
            dialers,
            standing,
            seeds: me.seeds(),
        }
    }

    /// Whether it stores and runs nothing. One that was given up by a recovery is a worker by its part.
    fn is_witness(&self, me: &Identity) -> bool {
        me.role == NodeRole::Witness || self.config.pool.driver == PoolDriver::None
    }
}

/// The programs that a machine with such a pool needs and that are not there, with their packages.
pub(crate) fn missing_tools(
    driver: PoolDriver,
) -> impl Iterator<Item = (&'static str, &'static str)> {
    let of_kernel = if lxc::apparmor_enabled() { &APPARMOR_TOOLS[..] } else { &[] };
    let [of_all, of_pool, of_kernel] = match driver {
        // It votes, and needs no more than itself.
        PoolDriver::None => [&[][..]; 3],
        PoolDriver::Xfs => [&TOOLS[..], &XFS_TOOLS[..], of_kernel],
        PoolDriver::Lvm => [&TOOLS[..], &LVM_TOOLS[..], of_kernel],
    };
    let all = of_all.iter().chain(of_pool).chain(of_kernel).copied();
    all.filter(|(tool, _)| !PLACES.iter().any(|dir| Path::new(dir).join(tool).exists()))
}

/// Programs of ours that the daemon runs.
pub(crate) fn own_programs(config: &Config) -> impl Iterator<Item = PathBuf> {
    [config.guardian.binary.clone(), freeze_binary(config)].into_iter()
}

/// Installed beside the guardian.
fn freeze_binary(config: &Config) -> PathBuf {
    config.guardian.binary.with_file_name("holdfast-freeze")
}

impl Machine for Host {
    fn check(&self) -> Result<(), MachineError> {
        let missing = |message: String| MachineError { code: Code::MissingTool, message };
        if self.only_votes() {
            return Ok(());
        }
        if let Some((tool, package)) = missing_tools(self.config.pool.driver).next() {
            return Err(missing(format!("{tool} is not installed: apt-get install {package}")));
        }
        match own_programs(&self.config).find(|program| !program.is_file()) {
            Some(program) => Err(missing(format!("there is no program {}", program.display()))),
            None => Ok(()),
        }
    }

    fn only_votes(&self) -> bool {
        self.config.pool.driver == PoolDriver::None
    }

    fn pool(&self) -> Result<Option<v1::Pool>, MachineError> {
        self.pools.show()
    }

    fn create_pool(
        &self,
        asked: &NewPool,
        tell: &mut dyn FnMut(PoolNews),
    ) -> Result<(), MachineError> {
        self.pools.create(asked, tell)
    }

    fn change_pool(
        &self,
        asked: &PoolChange,
        tell: &mut dyn FnMut(PoolNews),
    ) -> Result<(), MachineError> {
        self.pools.change(asked, tell)
    }

    fn inherit_pool(&self, from: ClusterId) {
        self.pools.inherit(from);
    }

    fn has_inherited_pool(&self) -> bool {
        self.pools.has_inherited()
    }

    fn check_pool(&self) -> Result<Vec<Finding>, MachineError> {
        self.pools.check()
    }

    fn begin(
        &self,
        me: &Identity,
        trust: (Dialers, Arc<Standing>),
        leader: watch::Receiver<Option<String>>,
    ) -> Result<Arc<dyn Duties>, MachineError> {
        let config = self.agent_config(me, trust);
        let agent = Agent::start(config.clone(), leader);
        Ok(Arc::new(HostDuties {
            handle: agent.handle(),
            peers: Arc::new(agent.peer_api()),
            agent: Mutex::new(Some(agent)),
            host: self.clone(),
            agent_config: config,
            cluster: me.cluster,
            witness: self.is_witness(me),
            running: tokio::sync::Mutex::new(false),
        }))
    }
}

/// The duties of a node on this machine.
struct HostDuties {
    handle: AgentHandle,
    peers: Arc<dyn PeerService>,
    /// Gone once it was stopped.
    agent: Mutex<Option<Agent>>,
    host: Host,
    agent_config: AgentConfig,
    cluster: ClusterId,
    witness: bool,
    /// Whether the agent has all that it works with.
    running: tokio::sync::Mutex<bool>,
}

impl HostDuties {
    /// Opens everything that the agent works with, if there is a pool. Blocks.
    fn open(
        host: &Host,
        agent: &AgentConfig,
        cluster: ClusterId,
    ) -> Result<Option<Opened>, AgentError> {
        let Some(pool) = host.pools.open(cluster)? else { return Ok(None) };
        let config = &host.config;
        let log_dir = config.data_dir.join("log");
        let lxc = lxc::LxcConfig::new(config.lxc.path.clone(), log_dir, config.cgroup_root.clone());
        let enter = Box::new(GuardedEnter::new(agent));
        Ok(Some(Opened { pool, runtime: Arc::new(LxcRuntime::new(lxc, enter)?) }))
    }

    fn with_agent(&self, what: impl FnOnce(&mut Agent)) {
        if let Some(agent) = &mut *self.agent.lock().unwrap_or_else(PoisonError::into_inner) {
            what(agent);
        }
    }

    /// What the agent refused, or rather that there is no pool.
    fn refused(&self, error: AgentError) -> MachineError {
        match error {
            AgentError::Starting if self.host.pools.is_missing() => MachineError {
                code: Code::NoPool,
                message: format!(
                    "node {name} has no pool: holdfast pool create NAME --driver lvm --device DEVICE \
                     --node {name}",
                    name = self.host.config.name
                ),
            },
            other => machine_error(&other),
        }
    }
}

struct Opened {
    pool: OpenPool,
    runtime: Arc<LxcRuntime>,
}

#[async_trait]
impl Duties for HostDuties {
    async fn run(&self) -> Result<(), MachineError> {
        let mut running = self.running.lock().await;
        if *running {
            return Ok(());
        }
        if self.witness {
            self.with_agent(|agent| agent.without_pool());
            return Ok(());
        }
        let (host, agent, cluster) = (self.host.clone(), self.agent_config.clone(), self.cluster);
        let opening = tokio::task::spawn_blocking(move || Self::open(&host, &agent, cluster));
        let opened = opening.await.map_err(|_| machine_error(&AgentError::Ended))?;
        let opened = opened.map_err(|e| {
            if self.host.pools.is_closed() {
                self.with_agent(|agent| agent.be_silent());
            }
            machine_error(&e)
        });
        let Some(Opened { pool, runtime }) = opened? else {
            warn!("there is no pool yet: holdfast pool create");
            self.with_agent(|agent| agent.without_pool());
            return Ok(());
        };
        let OpenPool { pool, name, driver, .. } = pool;
        let network = BRIDGE.parse().and_then(LinuxNetwork::open);
        let network = network.map_err(|e| machine_error(&e.into()))?;
        let network = Arc::new(network);
        let parts = Parts { pool, name, driver: driver.into(), runtime, network };
        self.with_agent(|agent| agent.run(parts));
        *running = true;
        Ok(())
    }

    fn is_silent(&self) -> bool {
        self.host.pools.is_closed()
    }

    fn knows(&self, node: NodeId) -> Option<bool> {
        self.handle.knows(node)
    }

    fn peers(&self) -> Arc<dyn PeerService> {
        self.peers.clone()
    }

    async fn import_image(
        &self,
        uid: ImageUid,
        size: ByteSize,
        archive: Box<dyn Read + Send>,
    ) -> Result<Unpacked, MachineError> {
        let imported = self.handle.import_image(uid, size, archive).await;
        let imported = imported.map_err(|e| self.refused(e))?;
        Ok(Unpacked {
            snapshot: imported.snapshot,
            size: imported.size,
            entries: imported.stats.entries,
            content: ByteSize(imported.stats.bytes),
            has_init: imported.stats.has_init,
        })
    }

    async fn discard_image(&self, uid: ImageUid) -> Result<(), MachineError> {
        self.handle.discard_image(uid).await.map_err(|e| machine_error(&e))
    }

    async fn exec(
        &self,
        uid: ContainerUid,
        request: ExecRequest,
    ) -> Result<ExecSession, MachineError> {
        self.handle.exec(uid, request).await.map_err(|e| machine_error(&e))
    }

    async fn console_tail(
        &self,
        uid: ContainerUid,
        max_bytes: u64,
    ) -> Result<Vec<u8>, MachineError> {
        self.handle.console_tail(uid, max_bytes).await.map_err(|e| machine_error(&e))
    }

    async fn scrub(
        &self,
        mut tell: Box<dyn FnMut(v1::ScrubPoolResponse) + Send>,
    ) -> Result<(), MachineError> {
        let said = |so_far: ScrubSummary| {
            tell(v1::ScrubPoolResponse {
                copies: so_far.copies,
                total: so_far.total,
                read_bytes: so_far.read.bytes(),
                compared_bytes: so_far.compared.bytes(),
                rotten: so_far.rotten,
            });
        };
        self.handle.scrub(said).await.map_err(|e| machine_error(&e))
    }

    async fn removed(&self) -> String {
        self.handle.removed().await
    }

    fn is_leased(&self) -> bool {
        self.handle.is_leased()
    }

    fn transfers(&self) -> TransferCounts {
        self.handle.transfers()
    }

    async fn stop(&self) {
        drop(self.agent.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.host.pools.close();
    }
}

fn machine_error(error: &AgentError) -> MachineError {
    MachineError { code: error.code(), message: error.line() }
}
