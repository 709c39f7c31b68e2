//! The cluster on a lab, through its public API, and the forming of it.

use std::time::Duration;

use holdfast_cli::client::{Session, import_start};
use holdfast_proto::v1::import_request::Part;
use holdfast_proto::{Address, Dialer, LEASE_UNKNOWN, RemoteError, v1};
use holdfast_types::{Code, ImageName};
use tokio::runtime::{Builder, Runtime};
use tokio_stream::StreamExt;

use crate::LabError;
use crate::config::api_address;
use crate::lab::Lab;
use crate::record::{NodeRecord, Role};
use crate::wait::wait_until;

/// How long a call may take before it counts as unanswered.
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// An image travels in messages of this size.
const IMPORT_CHUNK: usize = 1 << 20;
/// How long a fresh cluster may take until all nodes are up.
const FORM_LIMIT: Duration = Duration::from_secs(60);

/// A blocking client of a lab's cluster: for programs that do one thing after another.
#[derive(Debug)]
pub struct Cluster {
    runtime: Runtime,
    session: Session,
}

impl Cluster {
    /// Talks to whichever node answers.
    pub fn of(lab: &Lab) -> Result<Self, LabError> {
        let addresses = lab.sockets()?.into_iter().map(Address::Unix).collect();
        Self::new(addresses, lab.pace().of(CALL_LIMIT))
    }

    /// Talks to this node only.
    pub fn at(lab: &Lab, node: &str) -> Result<Self, LabError> {
        lab.record()?.node(node)?;
        let address = Address::Unix(lab.layout().socket(node));
        Self::new(vec![address], lab.pace().of(CALL_LIMIT))
    }

    fn new(addresses: Vec<Address>, limit: Duration) -> Result<Self, LabError> {
        // With a thread of its own: between two questions a node must find its connection answered,
        // or it drops it, and what is not repeated, as an import, fails on a dead one.
        let runtime =
            Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(
                LabError::io("cannot start", std::path::Path::new("the client's runtime")),
            )?;
        Ok(Self { runtime, session: Session::new(addresses, Dialer::local(), limit) })
    }

    /// Runs something on the session to its end.
    pub fn ask<T>(
        &self,
        question: impl AsyncFnOnce(&Session) -> Result<T, RemoteError>,
    ) -> Result<T, LabError> {
        self.runtime.block_on(question(&self.session)).map_err(LabError::from)
    }

    /// What happened after that revision.
    pub fn events(&self, after: u64) -> Result<Vec<v1::Event>, LabError> {
        self.ask(async |session| events(session, after).await)
    }

    /// Has a node read all its copies, and returns what it found.
    pub fn scrub(&self, node: &str) -> Result<v1::ScrubPoolResponse, LabError> {
        self.ask(async |s| {
            let mut progress = s.scrub_pool(node.to_owned()).await?;
            let mut whole = v1::ScrubPoolResponse::default();
            while let Some(so_far) = progress.message().await.map_err(RemoteError::from)? {
                whole = so_far;
            }
            Ok(whole)
        })
    }

    /// Imports an image from the bytes of an archive.
    pub fn import(&self, name: &ImageName, archive: &[u8]) -> Result<v1::Image, LabError> {
        let data = archive.chunks(IMPORT_CHUNK).map(|data| Part::Data(data.to_vec().into()));
        let end = Part::End(v1::ImportEnd { size_bytes: archive.len() as u64 });
        let parts: Vec<_> = data.chain([end]).collect();
        let parts = parts.into_iter().map(|part| v1::ImportRequest { part: Some(part) });
        let parts = std::iter::once(import_start(name, 0)).chain(parts);
        self.ask(async |s| s.import(tokio_stream::iter(parts)).await)
    }

    /// Asks until the answer satisfies; errors that may pass are waited out too.
    pub fn wait_for<T>(
        &self,
        what: &str,
        limit: Duration,
        mut question: impl AsyncFnMut(&Session) -> Result<Option<T>, RemoteError>,
    ) -> Result<T, LabError> {
        let mut found = None;
        wait_until(what, limit, || {
            match self.runtime.block_on(question(&self.session)) {
                Ok(answer) => found = answer,
                Err(error) if error.code().retryable() => {}
                Err(error) => return Err(error.into()),
            }
            if found.is_none() {
                std::thread::sleep(Duration::from_millis(20));
            }
            Ok(found.is_some())
        })?;
        found.ok_or_else(|| LabError::Deadline { what: what.to_owned(), seconds: limit.as_secs() })
    }
}

/// What happened after that revision.
pub(crate) async fn events(session: &Session, after: u64) -> Result<Vec<v1::Event>, RemoteError> {
    let mut stream = session.watch(after, false, None).await?;
    let mut all = Vec::new();
    while let Some(event) = stream.next().await {
        all.push(event?);
    }
    Ok(all)
}

impl From<RemoteError> for LabError {
    fn from(error: RemoteError) -> Self {
        Self::Cluster { code: error.code, message: error.message }
    }
}

impl Lab {
    /// Forms the cluster: the pools are made, the first node founds it, the others join, and all are
    /// up.
    pub fn form_cluster(&self) -> Result<(), LabError> {
        let nodes = self.record()?.nodes;
        nodes.iter().try_for_each(|node| self.make_pool(node))?;
        let Some((first, others)) = nodes.split_first() else { return Ok(()) };
        let lease = self.pace().lease_message();
        // A daemon's socket comes some time after its process.
        let founded = async |session: &Session| match session.init(Some(lease)).await {
            Ok(_) => Ok(Some(())),
            // An attempt whose answer was lost had founded it.
            Err(e) if e.code == Code::WrongState => Ok(Some(())),
            Err(e) => Err(e),
        };
        let limit = self.pace().of(FORM_LIMIT);
        Cluster::at(self, &first.name)?.wait_for("the cluster to be founded", limit, founded)?;
        for node in others {
            self.join(first, node)?;
        }
        let all_up = |status: &v1::StatusResponse| {
            let is_up = |n: &&v1::Node| n.state() == v1::NodeState::Up && n.note != LEASE_UNKNOWN;
            let up = status.nodes.iter().filter(is_up).count();
            !status.leader.is_empty() && up == nodes.len()
        };
        Cluster::of(self)?.wait_for(
            "a cluster with all nodes up",
            self.pace().of(FORM_LIMIT),
            async |session| Ok(session.status().await.ok().filter(all_up)),
        )?;
        Ok(())
    }

    /// Makes a node's pool of its disk, as its owner would.
    fn make_pool(&self, node: &NodeRecord) -> Result<(), LabError> {
        let Some(device) = &node.device else { return Ok(()) };
        let request = v1::CreatePoolRequest {
            name: self.layout().pool(&node.name),
            driver: "lvm".into(),
            devices: vec![device.display().to_string()],
            ..Default::default()
        };
        let what = format!("the pool of {}", node.name);
        let limit = self.pace().of(FORM_LIMIT);
        Cluster::at(self, &node.name)?.wait_for(&what, limit, async |session| {
            let mut progress = session.create_pool(request.clone()).await?;
            while progress.message().await?.is_some() {}
            Ok(Some(()))
        })
    }

    fn join(&self, member: &NodeRecord, node: &NodeRecord) -> Result<(), LabError> {
        let role = match node.role {
            Role::Voter => v1::NodeRole::Voter,
            Role::Standby => v1::NodeRole::Standby,
            Role::Worker => v1::NodeRole::Worker,
        };
        let peers = vec![api_address(member)];
        let limit = self.pace().of(FORM_LIMIT);
        // One for all attempts: whoever comes again with it is known by its key.
        let token = Cluster::at(self, &member.name)?.wait_for(
            &format!("a token for {}", node.name),
            limit,
            async |session| session.join_token(None).await.map(Some),
        )?;
        let token = token.token.to_string();
        let client = Cluster::at(self, &node.name)?;
        client.wait_for(&format!("{} to join", node.name), limit, async |session| {
            match session.join(peers.clone(), role, token.clone()).await {
                Ok(_) => Ok(Some(())),
                // An attempt whose answer was lost had joined already.
                Err(e) if e.code == Code::AlreadyExists => Ok(Some(())),
                Err(e) => Err(e),
            }
        })
    }
}
