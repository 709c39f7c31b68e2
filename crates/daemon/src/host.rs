//! The real machine: the agent over XFS, LXC and netlink, under the guardian.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use holdfast_agent::{
    Agent, AgentConfig, AgentError, AgentHandle, AgentIdentity, GuardedEnter, Parts, ScrubPace,
};
use holdfast_network::LinuxNetwork;
use holdfast_proto::internal::peer_service_server::PeerService;
use holdfast_runtime::lxc::{self, LxcRuntime};
use holdfast_runtime::{ExecRequest, ExecSession};
use holdfast_storage::xfs::{LoopBacked, XfsOptions, XfsPool};
use holdfast_types::{ByteSize, ClusterId, Code, ContainerUid, ImageUid};
use tokio::sync::watch;

use crate::config::{Config, PoolConfig, PoolDriver};
use crate::identity::Identity;
use crate::machine::{Duties, Machine, MachineError, Unpacked};

/// The bridge that containers sit on.
const BRIDGE: &str = "hf0";

/// A pool stops admitting at so much physical use, in percent (DESIGN section 7).
const THRESHOLD_PERCENT: u8 = 90;

/// After a power cut the kernel takes mounts and loop devices down by itself, some time later.
const POOL_PATIENCE: Duration = Duration::from_secs(60);

/// The programs that are run, where they are looked for, and the Debian package of each.
const TOOLS: [(&str, &str); 6] = [
    ("lxc-start", "lxc"),
    ("lxc-attach", "lxc"),
    ("mkfs.xfs", "xfsprogs"),
    ("mkfs.ext4", "e2fsprogs"),
    ("resize2fs", "e2fsprogs"),
    ("unshare", "util-linux"),
];
const PLACES: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// This machine.
#[derive(Debug, Clone)]
pub struct Host {
    config: Config,
}

impl Host {
    /// The machine as its owner has configured it.
    pub fn new(config: Config) -> Self {
        Self { config }
    }

    fn agent_config(&self, me: &Identity) -> AgentConfig {
        let config = &self.config;
        AgentConfig {
            identity: AgentIdentity { cluster: me.cluster, node: me.node },
            data_dir: config.data_dir.clone(),
            guardian_socket: config.guardian.socket.clone(),
            guardian_binary: config.guardian.binary.clone(),
            link_group: config.guardian.link_group.get(),
            cgroup_root: config.cgroup_root.clone(),
            freeze_binary: self.freeze_binary(),
            underlay: config.network.underlay,
            overlay_gateways: config.network.overlay_gateways.clone(),
            vxlan_id: config.network.vxlan_id,
            vxlan_port: config.network.port,
            scrub: ScrubPace {
                rate: config.pool.scrub_rate,
                every: Duration::from_secs(config.pool.scrub_every_s),
            },
            seeds: me.seeds(),
        }
    }

    /// Installed beside the guardian.
    fn freeze_binary(&self) -> PathBuf {
        self.config.guardian.binary.with_file_name("holdfast-freeze")
    }
}

impl Machine for Host {
    fn check(&self) -> Result<(), MachineError> {
        let missing = |message: String| MachineError { code: Code::MissingTool, message };
        for (tool, package) in TOOLS {
            if !PLACES.iter().any(|dir| Path::new(dir).join(tool).exists()) {
                return Err(missing(format!("{tool} is not installed: apt-get install {package}")));
            }
        }
        for program in [self.config.guardian.binary.clone(), self.freeze_binary()] {
            if !program.is_file() {
                return Err(missing(format!("there is no program {}", program.display())));
            }
        }
        Ok(())
    }

    fn begin(
        &self,
        me: &Identity,
        leader: watch::Receiver<Option<String>>,
    ) -> Result<Arc<dyn Duties>, MachineError> {
        let config = self.agent_config(me);
        let agent = Agent::start(config.clone(), leader);
        Ok(Arc::new(HostDuties {
            handle: agent.handle(),
            peers: Arc::new(agent.peer_api()),
            agent: Mutex::new(Some(agent)),
            host: self.clone(),
            agent_config: config,
            cluster: me.cluster,
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
}

impl HostDuties {
    /// Opens everything that the agent works with. Blocks.
    fn open(
        config: &Config,
        agent: &AgentConfig,
        cluster: ClusterId,
    ) -> Result<Opened, AgentError> {
        let pool = match config.pool.driver {
            PoolDriver::Xfs => Arc::new(XfsPool::open(&xfs_options(&config.pool, cluster)?)?),
        };
        let log_dir = config.data_dir.join("log");
        let lxc = lxc::LxcConfig::new(config.lxc.path.clone(), log_dir, config.cgroup_root.clone());
        let enter = Box::new(GuardedEnter::new(agent));
        Ok(Opened { pool, runtime: Arc::new(LxcRuntime::new(lxc, enter)?) })
    }
}

struct Opened {
    pool: Arc<XfsPool>,
    runtime: Arc<LxcRuntime>,
}

/// In a file of its own where a size is given, or where the directory is on no XFS.
fn xfs_options(pool: &PoolConfig, cluster: ClusterId) -> Result<XfsOptions, AgentError> {
    let io = |source| holdfast_storage::Error::Unusable {
        path: pool.path.clone(),
        reason: std::io::Error::to_string(&source),
    };
    std::fs::create_dir_all(&pool.path).map_err(io)?;
    let on_xfs = rustix::fs::statfs(&pool.path).is_ok_and(|fs| fs.f_type == XFS_MAGIC);
    let made_before = pool.path.join("pool.img").exists();
    let in_file = made_before || pool.size.is_some() || !on_xfs;
    let size = pool.size.unwrap_or(DEFAULT_SIZE);
    Ok(XfsOptions {
        dir: pool.path.clone(),
        cluster,
        threshold_percent: THRESHOLD_PERCENT,
        loop_backed: in_file.then(|| LoopBacked { size, mountpoint: pool.path.join("mounted") }),
        patience: POOL_PATIENCE,
    })
}

/// The size of a pool in a file, if nobody says. The file is sparse.
const DEFAULT_SIZE: ByteSize = ByteSize::gib(16);

/// `XFS_SUPER_MAGIC` (linux/magic.h).
const XFS_MAGIC: i64 = 0x5846_5342;

#[async_trait]
impl Duties for HostDuties {
    async fn run(&self) -> Result<(), MachineError> {
        let (config, agent, cluster) =
            (self.host.config.clone(), self.agent_config.clone(), self.cluster);
        let opening = tokio::task::spawn_blocking(move || Self::open(&config, &agent, cluster));
        let opened = opening.await.map_err(|_| machine_error(&AgentError::Ended))?;
        let Opened { pool, runtime } = opened.map_err(|e| machine_error(&e))?;
        let network = BRIDGE.parse().and_then(LinuxNetwork::open);
        let network = network.map_err(|e| machine_error(&e.into()))?;
        let driver = match self.host.config.pool.driver {
            PoolDriver::Xfs => "xfs",
        };
        let parts = Parts { pool, driver: driver.into(), runtime, network: Arc::new(network) };
        if let Some(agent) = &mut *self.agent.lock().unwrap_or_else(PoisonError::into_inner) {
            agent.run(parts);
        }
        Ok(())
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
        let imported = imported.map_err(|e| machine_error(&e))?;
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

    fn is_leased(&self) -> bool {
        self.handle.is_leased()
    }

    async fn stop(&self) {
        drop(self.agent.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

fn machine_error(error: &AgentError) -> MachineError {
    MachineError { code: error.code(), message: error.line() }
}
