//! The [`Runtime`] trait and the values that go in and out of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use holdfast_types::{ContainerName, ContainerUid, Limits, MacAddr, MountPath, Protection};

use crate::{ExecOutput, ExecRequest, ExecSession, RuntimeError};

/// All that is needed to start one container on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartRequest {
    /// Who is started. LXC knows it by this uid too, so a rename never touches a running one.
    pub uid: ContainerUid,
    /// Its host name.
    pub hostname: ContainerName,
    /// Protected ones run below the guardian's ancestor cgroup, in its pid namespace.
    pub protection: Protection,
    /// The directory that becomes `/`: a directory of a mounted volume.
    pub rootfs: PathBuf,
    /// What is mounted in it besides, in this order.
    pub mounts: Vec<ContainerMount>,
    /// Resource limits.
    pub limits: Limits,
    /// Runs as init instead of `/sbin/init`, if not empty.
    pub command: Vec<String>,
    /// Environment of init.
    pub env: BTreeMap<String, String>,
    /// The network interface; `None` leaves only a loopback.
    pub network: Option<ContainerNet>,
}

/// A directory of the host's that a container has at a path of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerMount {
    /// The directory: where a volume is mounted.
    pub source: PathBuf,
    /// Where the container has it; the directory is there already.
    pub path: MountPath,
}

/// The one interface of a container, `eth0` inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerNet {
    /// The host's interface that is moved into the container (one end of a veth pair). When the
    /// container ends it comes back under this name, or is gone with the container's namespace.
    pub link: String,
    /// Its hardware address.
    pub mac: MacAddr,
    /// Its address.
    pub address: Ipv4Addr,
    /// Prefix length of its network, 0 to 32.
    pub prefix: u8,
    /// The default route's next hop.
    pub gateway: Option<Ipv4Addr>,
}

/// What a start did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Started {
    /// Its init was started and runs.
    Started {
        /// Init's process id, as this process sees it.
        init_pid: u32,
    },
    /// It ran already; nothing was changed.
    AlreadyRunning {
        /// Init's process id, as this process sees it.
        init_pid: u32,
    },
}

/// What a stop or kill did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// Its init ended by itself within the grace.
    Clean,
    /// It was killed.
    Killed,
    /// It did not run; at most left-overs were removed.
    NotRunning,
}

/// Whether a verb changed anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// It did.
    Yes,
    /// It was so already.
    No,
}

/// What a container is doing now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// No task of it exists.
    Stopped,
    /// Some task of it exists.
    Running {
        /// Which side it was started on.
        protection: Protection,
        /// No task of it can run: by [`Runtime::freeze`], or because the guardian froze all.
        frozen: bool,
    },
}

impl Status {
    /// Whether some task of the container exists, frozen or not.
    pub fn is_running(self) -> bool {
        matches!(self, Self::Running { .. })
    }
}

/// What a running container uses. `None` where the kernel does not count it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Memory charged to it, page cache included.
    pub memory_bytes: Option<u64>,
    /// CPU time since its start, in microseconds.
    pub cpu_us: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

/// Something that happened to a container by itself. A hint: ask [`Runtime::status`] before
/// acting on it, and ask now and then without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunEvent {
    /// Its first task appeared.
    Running(ContainerUid),
    /// Its last task is gone.
    Exited(ContainerUid),
}

/// Keeps a watch alive; dropping it ends the watch, and no event comes after.
pub trait Watching: Send {}

/// Runs containers on this node. Every method blocks, and every method ends by a deadline.
///
/// Only [`Runtime::start`] starts: a container whose init ends, or that reboots from inside, stays
/// ended until it is started again.
pub trait Runtime: Send + Sync {
    /// Starts a container and waits until its init runs. Fails at once with
    /// [`RuntimeError::Frozen`] while everything of its side is frozen. After a failure nothing of
    /// it runs.
    fn start(&self, request: &StartRequest) -> Result<Started, RuntimeError>;

    /// Asks init to shut down, waits for `grace`, then kills. Afterwards no task of it exists and
    /// its cgroups are gone.
    fn stop(&self, uid: ContainerUid, grace: Duration) -> Result<Stopped, RuntimeError>;

    /// Kills every task of a container, frozen or not. Afterwards its cgroups are gone.
    fn kill(&self, uid: ContainerUid) -> Result<Stopped, RuntimeError>;

    /// What a container is doing. Cheap: a few reads, no program is run.
    fn status(&self, uid: ContainerUid) -> Result<Status, RuntimeError>;

    /// Every container of this node that runs now, whoever started it: how a restarted daemon
    /// finds what it has to adopt. Cheap like [`Runtime::status`].
    fn list(&self) -> Result<BTreeMap<ContainerUid, Status>, RuntimeError>;

    /// The protected containers for which a program of ours runs below the guardian, such as a
    /// start that a freeze holds back; they need not run themselves. [`Runtime::kill`] ends it.
    fn entered(&self) -> Result<BTreeSet<ContainerUid>, RuntimeError>;

    /// What a running container uses now.
    fn usage(&self, uid: ContainerUid) -> Result<Usage, RuntimeError>;

    /// Stops every task of a running container from running, until [`Runtime::unfreeze`].
    fn freeze(&self, uid: ContainerUid) -> Result<Changed, RuntimeError>;

    /// Undoes [`Runtime::freeze`]. What the guardian froze stays frozen.
    fn unfreeze(&self, uid: ContainerUid) -> Result<Changed, RuntimeError>;

    /// Runs a program inside, with an empty standard input, and waits for its end, at most
    /// `deadline`. Of its output the first [`ExecOutput::LIMIT_BYTES`] of each stream are kept.
    fn exec(
        &self,
        uid: ContainerUid,
        request: &ExecRequest,
        deadline: Duration,
    ) -> Result<ExecOutput, RuntimeError>;

    /// Runs a program inside and hands out its streams. The caller reads, writes and waits.
    fn exec_piped(
        &self,
        uid: ContainerUid,
        request: &ExecRequest,
    ) -> Result<ExecSession, RuntimeError>;

    /// The last `max_bytes` of what the container wrote to its console, running or not.
    fn console_tail(&self, uid: ContainerUid, max_bytes: u64) -> Result<Vec<u8>, RuntimeError>;

    /// Removes what is kept about a container that does not run: its configuration, its logs,
    /// left-over cgroups.
    fn forget(&self, uid: ContainerUid) -> Result<Changed, RuntimeError>;

    /// Calls `sink` from a thread of its own with every event from now on. Containers that run
    /// already are watched too.
    fn watch(&self, sink: Box<dyn Fn(RunEvent) + Send>) -> Result<Box<dyn Watching>, RuntimeError>;
}
