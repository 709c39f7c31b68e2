//! The agent's handle.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use holdfast_network::Network;
use holdfast_runtime::{ExecRequest, ExecSession, Runtime};
use holdfast_storage::Pool;
use holdfast_types::{ByteSize, ContainerUid, ImageUid, NodeId, NodeView, Protection};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::AgentConfig;
use crate::context::Context;
use crate::counts::TransferCounts;
use crate::error::{AgentError, blocking};
use crate::images::{self, ImportedImage};
use crate::scrub::{self, ScrubSummary};
use crate::serve::PeerApi;
use crate::{lease, overlay, pool_watch, reconciler, rotten, view};

/// What the agent works with.
pub struct Parts {
    /// The node's storage.
    pub pool: Arc<dyn Pool>,
    /// The pool's name, for people.
    pub name: String,
    /// The storage driver's name, for people.
    pub driver: String,
    /// Runs containers.
    pub runtime: Arc<dyn Runtime>,
    /// Links and the overlay.
    pub network: Arc<dyn Network>,
}

/// One node's agent. Dropping it ends its tasks; what it runs goes on until the lease ends.
pub struct Agent {
    context: Arc<Context>,
    tasks: JoinSet<()>,
}

impl Agent {
    /// Starts asking for the lease at once. Storage may follow later, by [`Agent::run`].
    pub fn start(config: AgentConfig, leader: watch::Receiver<Option<String>>) -> Self {
        let context = Arc::new(Context::new(config, leader));
        let mut tasks = JoinSet::new();
        tasks.spawn(lease::run(context.clone()));
        tasks.spawn(view::run(context.clone()));
        Self { context, tasks }
    }

    /// Lets the leader know that there is no pool on this node yet. Until [`Agent::run`] it keeps its
    /// place in the cluster, and runs and stores nothing.
    pub fn without_pool(&self) {
        self.context.without_pool.store(true, Ordering::Relaxed);
    }

    /// Asks for no lease until [`Agent::run`]: a pool is there and cannot be opened, and what is on it
    /// must be taken over from other nodes' copies, as if this node were lost.
    pub fn be_silent(&self) {
        self.context.silent.store(true, Ordering::Relaxed);
    }

    /// Begins to do what the view says.
    pub fn run(&mut self, parts: Parts) {
        if self.context.set_parts(parts) {
            self.tasks.spawn(reconciler::run(self.context.clone()));
            self.tasks.spawn(overlay::run(self.context.clone()));
            self.tasks.spawn(pool_watch::run(self.context.clone()));
            self.tasks.spawn(images::run(self.context.clone()));
            self.tasks.spawn(scrub::run(self.context.clone()));
            self.tasks.spawn(rotten::run(self.context.clone()));
        }
    }

    /// The service that the leader and other nodes call.
    pub fn peer_api(&self) -> PeerApi {
        PeerApi::new(self.context.clone())
    }

    /// A handle for the daemon's API.
    pub fn handle(&self) -> AgentHandle {
        AgentHandle { context: self.context.clone() }
    }
}

/// What the daemon's API asks of the agent. Cheap to clone.
#[derive(Clone)]
pub struct AgentHandle {
    context: Arc<Context>,
}

impl AgentHandle {
    /// Whether the guardian holds a live lease.
    pub fn is_leased(&self) -> bool {
        self.context.is_leased()
    }

    /// Whether that node is of the cluster, by the newest view; nothing before the first.
    pub fn knows(&self, node: NodeId) -> Option<bool> {
        let view = self.context.view()?;
        Some(view.node == node || view.peers.iter().any(|peer| peer.node == node))
    }

    /// Returns once the cluster has let this node go, with its words. It asks for no lease any more
    /// then, and what is protected stays fenced.
    pub async fn removed(&self) -> String {
        let mut removed = self.context.removed.subscribe();
        // The sender lives as long as `self`.
        let said = removed.wait_for(Option::is_some).await;
        said.ok().and_then(|why| why.clone()).unwrap_or_default()
    }

    /// What has become of transfers since the agent began.
    pub fn transfers(&self) -> TransferCounts {
        self.context.counters.read()
    }

    /// Unpacks an archive into a new image volume on this node.
    pub async fn import_image(
        &self,
        uid: ImageUid,
        size: ByteSize,
        archive: Box<dyn std::io::Read + Send>,
    ) -> Result<ImportedImage, AgentError> {
        images::import(self.context.clone(), uid, size, archive).await
    }

    /// Removes an image volume that never became an image.
    pub async fn discard_image(&self, uid: ImageUid) -> Result<(), AgentError> {
        let parts = self.context.parts().ok_or(AgentError::Starting)?;
        blocking(move || images::remove(&*parts.pool, uid)).await
    }

    /// Runs a program in a container of this node.
    pub async fn exec(
        &self,
        uid: ContainerUid,
        request: ExecRequest,
    ) -> Result<ExecSession, AgentError> {
        let parts = self.context.parts().ok_or(AgentError::Starting)?;
        // Below a frozen ancestor a program would neither run nor end.
        if !self.is_leased() && self.is_protected(uid) {
            return Err(AgentError::NoLease);
        }
        blocking(move || parts.runtime.exec_piped(uid, &request)).await
    }

    /// Looks at every copy of this node now, to its end; says after each how far it is.
    pub async fn scrub(&self, said: impl FnMut(ScrubSummary)) -> Result<(), AgentError> {
        scrub::all(&self.context, said).await
    }

    fn is_protected(&self, uid: ContainerUid) -> bool {
        let mine = |view: &NodeView| view.assigned.iter().find(|a| a.uid == uid).cloned();
        let mine = self.context.view().and_then(|view| mine(&view));
        mine.is_some_and(|mine| mine.spec.protection == Protection::Protected)
    }

    /// The end of what a container of this node wrote to its console.
    pub async fn console_tail(
        &self,
        uid: ContainerUid,
        max_bytes: u64,
    ) -> Result<Vec<u8>, AgentError> {
        let parts = self.context.parts().ok_or(AgentError::Starting)?;
        blocking(move || parts.runtime.console_tail(uid, max_bytes)).await
    }
}
