//! What the daemon needs from the machine under it: the agent with its storage, runtime, network
//! and guardian. A trait, so that a whole control plane runs in a test without any of them.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use holdfast_agent::{Standing, TransferCounts};
use holdfast_proto::internal::peer_service_server::PeerService;
use holdfast_proto::{Dialers, v1};
use holdfast_runtime::{ExecRequest, ExecSession};
use holdfast_storage::lvm::admin::{Change, Finding};
use holdfast_types::{
    ByteSize, ClusterId, Code, ContainerUid, ImageUid, NodeId, PoolName, SnapshotId,
};
use tokio::sync::watch;

use crate::identity::Identity;

/// What the machine could not do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct MachineError {
    /// The stable code.
    pub code: Code,
    /// One line for a person.
    pub message: String,
}

/// An image as it was unpacked and made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unpacked {
    /// What containers are cloned from.
    pub snapshot: SnapshotId,
    /// Size of its filesystem.
    pub size: ByteSize,
    /// Files, directories and links in it.
    pub entries: u64,
    /// Bytes of file content in it.
    pub content: ByteSize,
    /// Whether it has a program to run as init.
    pub has_init: bool,
}

/// The pool that a machine is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPool {
    /// What it is called, and its volume group too, unless one is named.
    pub name: PoolName,
    /// Block devices to make the volume group of.
    pub devices: Vec<PathBuf>,
    /// The volume group, if it is there.
    pub vg: Option<String>,
    /// The thin pool, if it is there.
    pub thin_pool: Option<String>,
    /// Those of the devices that may lose what is on them.
    pub wipe: Vec<PathBuf>,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// What is to be done to a machine's pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolChange {
    /// What.
    pub change: Change,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// How far a change of a pool is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PoolNews {
    /// What will be done, one line for each step; comes first.
    Plan(Vec<String>),
    /// The step at this place of the plan has begun.
    Began(u32),
    /// It is done.
    Done(u32),
    /// How far it is.
    Said(String),
}

/// A machine that can be a node.
pub trait Machine: Send + Sync + 'static {
    /// Whether what a node needs is installed. Quick, and changes nothing.
    fn check(&self) -> Result<(), MachineError>;

    /// Whether it can only vote: by its configuration it stores and runs nothing.
    fn only_votes(&self) -> bool {
        false
    }

    /// The machine's pool as it is now; `None` while there is none. Blocks.
    fn pool(&self) -> Result<Option<v1::Pool>, MachineError>;

    /// Makes the machine's pool, or finishes making it, one caller at a time. Blocks, for long.
    /// Duties begin on it when they are [run](Duties::run) the next time.
    fn create_pool(
        &self,
        asked: &NewPool,
        tell: &mut dyn FnMut(PoolNews),
    ) -> Result<(), MachineError>;

    /// Changes the machine's pool, or finishes a change, one caller at a time. Blocks, for long: what
    /// is on the pool may be used meanwhile, or the change is refused.
    fn change_pool(
        &self,
        asked: &PoolChange,
        tell: &mut dyn FnMut(PoolNews),
    ) -> Result<(), MachineError>;

    /// A pool of that cluster is this node's own from the next opening on: its cluster was restored from a
    /// backup of that one. Other pools are not touched.
    fn inherit_pool(&self, _from: ClusterId) {}

    /// Whether the pool may have been taken over since: it is of no other cluster then.
    fn has_inherited_pool(&self) -> bool {
        false
    }

    /// What is wrong with the machine's pool, open or not. Blocks.
    fn check_pool(&self) -> Result<Vec<Finding>, MachineError>;

    /// Begins the lease side of a node: its first heartbeat leaves within a second of this
    /// process's start (DESIGN section 5 rule 1), so it returns at once. `trust` is what reaches
    /// other nodes and what heartbeats say of it, and `leader` is where the leader was last heard.
    fn begin(
        &self,
        me: &Identity,
        trust: (Dialers, Arc<Standing>),
        leader: watch::Receiver<Option<String>>,
    ) -> Result<Arc<dyn Duties>, MachineError>;
}

/// A node's duties on its machine.
#[async_trait]
pub trait Duties: Send + Sync + 'static {
    /// Opens pool, runtime and network, and begins to reconcile. Does nothing while the machine has
    /// no pool, and nothing more once it has begun.
    async fn run(&self) -> Result<(), MachineError>;

    /// Whether the pool could not be opened, and this node is silent until it is: it asks for no
    /// lease, so what it ran is taken over by others.
    fn is_silent(&self) -> bool {
        false
    }

    /// Whether that node is of the cluster, by what this one was told last; nothing if it was told nothing.
    fn knows(&self, _node: NodeId) -> Option<bool> {
        Some(true)
    }

    /// What other nodes call.
    fn peers(&self) -> Arc<dyn PeerService>;

    /// Unpacks an archive into a new image volume of that size.
    async fn import_image(
        &self,
        uid: ImageUid,
        size: ByteSize,
        archive: Box<dyn Read + Send>,
    ) -> Result<Unpacked, MachineError>;

    /// Removes an image volume that never became an image.
    async fn discard_image(&self, uid: ImageUid) -> Result<(), MachineError>;

    /// Runs a program in a container and hands out its streams.
    async fn exec(
        &self,
        uid: ContainerUid,
        request: ExecRequest,
    ) -> Result<ExecSession, MachineError>;

    /// The last bytes of what a container wrote to its console.
    async fn console_tail(
        &self,
        uid: ContainerUid,
        max_bytes: u64,
    ) -> Result<Vec<u8>, MachineError>;

    /// Reads every copy here and compares it with what it was; says after each how far it is.
    async fn scrub(
        &self,
        tell: Box<dyn FnMut(v1::ScrubPoolResponse) + Send>,
    ) -> Result<(), MachineError>;

    /// Returns once the cluster has let this node go, with its words.
    async fn removed(&self) -> String {
        std::future::pending().await
    }

    /// Whether protected containers may run here now.
    fn is_leased(&self) -> bool;

    /// What has become of transfers of snapshots since the daemon began.
    fn transfers(&self) -> TransferCounts;

    /// Ends the daemon's part; containers run on.
    async fn stop(&self);
}
