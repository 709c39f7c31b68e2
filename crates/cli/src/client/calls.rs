//! The public API's calls, one method each. Every changing one gets a fresh request id here, and
//! keeps it through all its retries (I7).

use std::collections::BTreeMap;
use std::time::Duration;

use futures::Stream;
use holdfast_proto::v1::cluster_service_client::ClusterServiceClient;
use holdfast_proto::v1::container_service_client::ContainerServiceClient;
use holdfast_proto::v1::event_service_client::EventServiceClient;
use holdfast_proto::v1::image_service_client::ImageServiceClient;
use holdfast_proto::v1::operation_service_client::OperationServiceClient;
use holdfast_proto::v1::pool_service_client::PoolServiceClient;
use holdfast_proto::v1::snapshot_service_client::SnapshotServiceClient;
use holdfast_proto::{RemoteError, required, v1};
use holdfast_trust::{Fingerprint, JoinToken, Secret, TrustError};
use holdfast_types::{
    ByteSize, Code, ContainerName, ContainerSpec, ImageName, KeepRules, LabelKey, LabelValue,
    NodeName, RequestId, Revision, SnapshotName, TimestampMs, VolumeName,
};
use tokio::time::Instant;
use tonic::Streaming;

use super::Session;

/// A join token that was just made.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// The token, a secret.
    pub token: JoinToken,
    /// From when on it lets nobody in.
    pub expires: TimestampMs,
    /// Where members answer, `host:port`.
    pub peers: Vec<String>,
}

fn untrusted(error: TrustError) -> RemoteError {
    RemoteError { code: error.code(), message: error.to_string(), leader: None }
}

const AT_ONCE: Duration = Duration::ZERO;

/// Calls `$client.$method($request)` with retries.
macro_rules! call {
    ($session:expr, $client:ident, $method:ident, $request:expr) => {
        call!($session, AT_ONCE, $client, $method, $request)
    };
    ($session:expr, $wait:expr, $client:ident, $method:ident, $request:expr) => {
        call!($session, Instant::now(), $wait, None, $client, $method, $request)
    };
    ($session:expr, $begun:expr, $wait:expr, $since:expr, $client:ident, $method:ident, $request:expr) => {{
        let (session, since, request) = ($session, $since, $request);
        session.call_from($begun, $wait, move |channel| {
            let request = session.marked(request.clone(), since);
            async move { $client::new(channel).$method(request).await }
        })
    }};
}

/// The same for what changes something: all of its tries carry the request's id and a revision that the
/// cluster had reached before the first, so that it is done once or refused (I7).
macro_rules! change {
    ($session:expr, $client:ident, $method:ident, $request:expr) => {{
        let (session, begun, request) = ($session, Instant::now(), $request);
        let since = session.since().await?;
        call!(session, begun, AT_ONCE, since, $client, $method, request).await
    }};
}

impl Session {
    /// Makes a new cluster with the answering node as its first voter; of the lease's constants
    /// those that are 0 are the defaults. Sent once: it has no id.
    pub async fn init(
        &self,
        lease: Option<v1::LeaseSettings>,
    ) -> Result<v1::InitResponse, RemoteError> {
        let request = v1::InitRequest { lease };
        self.once(async |channel| ClusterServiceClient::new(channel).init(request).await).await
    }

    /// Makes a token that lets one machine in; it is good for an hour if nothing else is said. Its secret
    /// is made here, and told to nobody.
    pub async fn join_token(&self, lifetime: Option<Duration>) -> Result<NewToken, RemoteError> {
        let (id, secret) = (RequestId::generate(), Secret::generate().map_err(untrusted)?);
        let request = v1::CreateTokenRequest {
            lifetime_s: lifetime.map_or(0, |lifetime| lifetime.as_secs().max(1)),
            request_id: id.to_bytes().into(),
            hash: secret.hash().to_vec().into(),
        };
        let made = change!(self, ClusterServiceClient, create_token, request)?;
        let authority = made.authority.as_ref().try_into().map(Fingerprint);
        let authority = authority
            .map_err(|_| untrusted(TrustError::NoToken("the cluster named no authority")))?;
        let token = JoinToken { id: id.0, secret, authority };
        Ok(NewToken { token, expires: TimestampMs(made.expires_ms), peers: made.peers })
    }

    /// Begins to replace the cluster's authority.
    pub async fn rotate_authority(&self) -> Result<(), RemoteError> {
        let request = v1::RotateAuthorityRequest { request_id: fresh_id().into() };
        change!(self, ClusterServiceClient, rotate_authority, request).map(drop)
    }

    /// Makes the answering node join the cluster of `peers`, with a token of it. Sent once: it has no id.
    pub async fn join(
        &self,
        peers: Vec<String>,
        role: v1::NodeRole,
        token: String,
    ) -> Result<v1::JoinResponse, RemoteError> {
        let request = v1::JoinRequest { peers, role: role.into(), token };
        self.once(async |channel| ClusterServiceClient::new(channel).join(request).await).await
    }

    /// The cluster's state as the bytes of a backup, in parts.
    pub async fn backup(&self) -> Result<Streaming<v1::BackupPart>, RemoteError> {
        call!(self, ClusterServiceClient, backup, v1::BackupRequest {}).await
    }

    /// Makes a new cluster of a backup, with the answering node as its first voter. Sent once: it has
    /// no id.
    pub async fn restore_cluster(
        &self,
        parts: impl Stream<Item = v1::RestorePart> + Send + 'static,
    ) -> Result<v1::RestoreResponse, RemoteError> {
        self.once(async |channel| ClusterServiceClient::new(channel).restore(parts).await).await
    }

    /// The cluster as the leader sees it.
    pub async fn status(&self) -> Result<v1::StatusResponse, RemoteError> {
        call!(self, ClusterServiceClient, status, v1::StatusRequest {}).await
    }

    /// The nodes.
    pub async fn nodes(&self) -> Result<Vec<v1::Node>, RemoteError> {
        let list = call!(self, ClusterServiceClient, list_nodes, v1::ListNodesRequest {}).await?;
        Ok(list.nodes)
    }

    /// One node.
    pub async fn node(&self, name: &NodeName) -> Result<v1::Node, RemoteError> {
        let request = v1::GetNodeRequest { name: name.to_string() };
        call!(self, ClusterServiceClient, get_node, request).await
    }

    /// Lets a node go for good; `force` also gives up what only it has, if it is lost.
    pub async fn remove_node(
        &self,
        name: &NodeName,
        force: bool,
    ) -> Result<v1::RemoveNodeResponse, RemoteError> {
        let request =
            v1::RemoveNodeRequest { name: name.to_string(), force, request_id: fresh_id().into() };
        call!(self, ClusterServiceClient, remove_node, request).await
    }

    /// Gives a node labels and takes others off it, if it is of the version `expect`. Returns its
    /// version.
    pub async fn set_labels(
        &self,
        name: &NodeName,
        set: &BTreeMap<LabelKey, LabelValue>,
        remove: &[LabelKey],
        expect: Option<Revision>,
    ) -> Result<Revision, RemoteError> {
        let request = v1::SetLabelsRequest {
            name: name.to_string(),
            set: set.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
            remove: remove.iter().map(LabelKey::to_string).collect(),
            expect: number(expect),
            request_id: fresh_id().into(),
        };
        let answer = change!(self, ClusterServiceClient, set_labels, request)?;
        Ok(Revision(answer.revision))
    }

    /// Makes a node's pool: its plan, then each step. Sent once; safe to ask for again.
    pub async fn create_pool(
        &self,
        request: v1::CreatePoolRequest,
    ) -> Result<Streaming<v1::PoolProgress>, RemoteError> {
        self.once(async |channel| PoolServiceClient::new(channel).create(request).await).await
    }

    /// Changes a node's pool: its plan, then each step. Sent once; safe to ask for again.
    pub async fn change_pool(
        &self,
        request: v1::ChangePoolRequest,
    ) -> Result<Streaming<v1::PoolProgress>, RemoteError> {
        self.once(async |channel| PoolServiceClient::new(channel).change(request).await).await
    }

    /// What is wrong with the pool of a node (empty: of the one that answers). Sent once: it reads all
    /// of a pool's metadata, for as long as that takes.
    pub async fn check_pool(&self, node: String) -> Result<Vec<v1::PoolFinding>, RemoteError> {
        let request = v1::CheckPoolRequest { node };
        let check = async |channel| PoolServiceClient::new(channel).check(request).await;
        Ok(self.once(check).await?.findings)
    }

    /// The pools of all nodes, as the leader sees them.
    pub async fn pools(&self) -> Result<Vec<v1::Pool>, RemoteError> {
        Ok(call!(self, PoolServiceClient, list, v1::ListPoolsRequest {}).await?.pools)
    }

    /// The pool of a node (empty: of the one that answers), as it is now.
    pub async fn pool(&self, node: String) -> Result<Option<v1::Pool>, RemoteError> {
        let request = v1::ShowPoolRequest { node };
        Ok(call!(self, PoolServiceClient, show, request).await?.pool)
    }

    /// Has every copy of a node (empty: of the one that answers) read and compared.
    pub async fn scrub_pool(
        &self,
        node: String,
    ) -> Result<Streaming<v1::ScrubPoolResponse>, RemoteError> {
        let request = v1::ScrubPoolRequest { node };
        self.once(async |channel| PoolServiceClient::new(channel).scrub(request).await).await
    }

    /// Creates a container; `node` only if it must be placed there.
    pub async fn create(
        &self,
        name: &ContainerName,
        spec: &ContainerSpec,
        stopped: bool,
        node: Option<&NodeName>,
    ) -> Result<(v1::Container, Option<v1::Operation>), RemoteError> {
        let request = v1::CreateRequest {
            name: name.to_string(),
            spec: Some(spec.into()),
            stopped,
            node: node.map(ToString::to_string).unwrap_or_default(),
            request_id: fresh_id().into(),
        };
        let answer = change!(self, ContainerServiceClient, create, request)?;
        Ok((there(answer.container, "container")?, answer.operation))
    }

    /// The containers.
    pub async fn containers(&self) -> Result<Vec<v1::Container>, RemoteError> {
        let request = v1::ListContainersRequest {};
        Ok(call!(self, ContainerServiceClient, list, request).await?.containers)
    }

    /// One container.
    pub async fn container(&self, name: &ContainerName) -> Result<v1::Container, RemoteError> {
        let request = v1::GetContainerRequest { name: name.to_string() };
        there(call!(self, ContainerServiceClient, get, request).await?.container, "container")
    }

    /// Asks for a container to run.
    pub async fn start(
        &self,
        name: &ContainerName,
        expect: Option<Revision>,
    ) -> Result<Option<v1::Operation>, RemoteError> {
        let (name, expect) = (name.to_string(), number(expect));
        let request = v1::StartRequest { name, request_id: fresh_id().into(), expect };
        Ok(change!(self, ContainerServiceClient, start, request)?.operation)
    }

    /// Asks for a container to stop.
    pub async fn stop(
        &self,
        name: &ContainerName,
        expect: Option<Revision>,
    ) -> Result<Option<v1::Operation>, RemoteError> {
        let (name, expect) = (name.to_string(), number(expect));
        let request = v1::StopRequest { name, request_id: fresh_id().into(), expect };
        Ok(change!(self, ContainerServiceClient, stop, request)?.operation)
    }

    /// Asks for a container to be gone, with every copy; `force` also when it runs.
    pub async fn delete(
        &self,
        name: &ContainerName,
        force: bool,
        expect: Option<Revision>,
    ) -> Result<Option<v1::Operation>, RemoteError> {
        let (name, expect) = (name.to_string(), number(expect));
        let request = v1::DeleteRequest { name, force, request_id: fresh_id().into(), expect };
        Ok(change!(self, ContainerServiceClient, delete, request)?.operation)
    }

    /// Asks for a container's disk, or one of its data volumes, to be larger.
    pub async fn resize(
        &self,
        name: &ContainerName,
        volume: Option<&VolumeName>,
        size: ByteSize,
        expect: Option<Revision>,
    ) -> Result<Option<v1::Operation>, RemoteError> {
        let request = v1::ResizeRequest {
            name: name.to_string(),
            size_bytes: size.bytes(),
            request_id: fresh_id().into(),
            volume: volume.map(ToString::to_string).unwrap_or_default(),
            expect: number(expect),
        };
        Ok(change!(self, ContainerServiceClient, resize, request)?.operation)
    }

    /// Returns when a replica holds everything written before the call, or fails after `limit`.
    pub async fn sync(
        &self,
        name: &ContainerName,
        limit: Duration,
    ) -> Result<v1::Replica, RemoteError> {
        let request = v1::SyncRequest { name: name.to_string(), timeout_ms: millis(limit) };
        let answer = call!(self, limit, ContainerServiceClient, sync, request).await?;
        there(answer.replica, "replica")
    }

    /// Runs a command in a container. Sent once: what it reads from `input` cannot be read again.
    pub async fn exec(
        &self,
        input: impl Stream<Item = v1::ExecRequest> + Send + 'static,
    ) -> Result<Streaming<v1::ExecResponse>, RemoteError> {
        self.once(async |channel| ContainerServiceClient::new(channel).exec(input).await).await
    }

    /// The end of a container's console log; `tail_bytes` 0 means 64 KiB.
    pub async fn logs(
        &self,
        name: &ContainerName,
        tail_bytes: u64,
    ) -> Result<Streaming<v1::LogsResponse>, RemoteError> {
        let request = v1::LogsRequest { name: name.to_string(), tail_bytes };
        call!(self, ContainerServiceClient, logs, request).await
    }

    /// What lost nodes wrote and never shipped, kept when they came back (I21).
    pub async fn diverged(&self) -> Result<Vec<v1::Diverged>, RemoteError> {
        let request = v1::ListDivergedRequest {};
        Ok(call!(self, ContainerServiceClient, list_diverged, request).await?.diverged)
    }

    /// Decides a held takeover.
    pub async fn decide_takeover(
        &self,
        name: &ContainerName,
        approve: bool,
        expect: Option<Revision>,
    ) -> Result<v1::Container, RemoteError> {
        let request = v1::DecideTakeoverRequest {
            name: name.to_string(),
            approve,
            request_id: fresh_id().into(),
            expect: number(expect),
        };
        let answer = change!(self, ContainerServiceClient, decide_takeover, request)?;
        there(answer.container, "container")
    }

    /// Has a named snapshot taken.
    pub async fn create_snapshot(
        &self,
        container: &ContainerName,
        name: &SnapshotName,
        expect: Option<Revision>,
    ) -> Result<Option<v1::Operation>, RemoteError> {
        let request = v1::CreateSnapshotRequest {
            container: container.to_string(),
            name: name.to_string(),
            request_id: fresh_id().into(),
            expect: number(expect),
        };
        Ok(change!(self, SnapshotServiceClient, create, request)?.operation)
    }

    /// The named snapshots and schedules of one container, or of all.
    pub async fn snapshots(
        &self,
        container: Option<&ContainerName>,
    ) -> Result<v1::ListSnapshotsResponse, RemoteError> {
        let container = container.map(ToString::to_string).unwrap_or_default();
        let request = v1::ListSnapshotsRequest { container };
        call!(self, SnapshotServiceClient, list, request).await
    }

    /// Lets a stopped container begin anew as a snapshot; also says under which name what it was is
    /// kept.
    pub async fn restore(
        &self,
        container: &ContainerName,
        name: &SnapshotName,
        expect: Option<Revision>,
    ) -> Result<(Option<v1::Operation>, String), RemoteError> {
        let request = v1::RestoreSnapshotRequest {
            container: container.to_string(),
            name: name.to_string(),
            request_id: fresh_id().into(),
            expect: number(expect),
        };
        let answer = change!(self, SnapshotServiceClient, restore, request)?;
        Ok((answer.operation, answer.before))
    }

    /// Removes a named snapshot.
    pub async fn remove_snapshot(
        &self,
        container: &ContainerName,
        name: &SnapshotName,
        expect: Option<Revision>,
    ) -> Result<(), RemoteError> {
        let request = v1::RemoveSnapshotRequest {
            container: container.to_string(),
            name: name.to_string(),
            request_id: fresh_id().into(),
            expect: number(expect),
        };
        change!(self, SnapshotServiceClient, remove, request).map(drop)
    }

    /// Makes a container `name` that begins as a snapshot of another; `node` only if it must be
    /// placed there.
    pub async fn clone_container(
        &self,
        (container, snapshot): (&ContainerName, &SnapshotName),
        name: &ContainerName,
        stopped: bool,
        node: Option<&NodeName>,
        expect: Option<Revision>,
    ) -> Result<(v1::Container, Option<v1::Operation>), RemoteError> {
        let request = v1::CloneRequest {
            container: container.to_string(),
            snapshot: snapshot.to_string(),
            name: name.to_string(),
            stopped,
            node: node.map(ToString::to_string).unwrap_or_default(),
            request_id: fresh_id().into(),
            expect: number(expect),
        };
        let answer = change!(self, SnapshotServiceClient, clone_container, request)?;
        Ok((there(answer.container, "container")?, answer.operation))
    }

    /// Has snapshots of a container taken by the clock, or no more.
    pub async fn set_schedule(
        &self,
        container: &ContainerName,
        keep: Option<&KeepRules>,
        expect: Option<Revision>,
    ) -> Result<Option<v1::Schedule>, RemoteError> {
        let request = v1::SetScheduleRequest {
            container: container.to_string(),
            keep: keep.map(ToString::to_string).unwrap_or_default(),
            request_id: fresh_id().into(),
            expect: number(expect),
        };
        Ok(change!(self, SnapshotServiceClient, set_schedule, request)?.schedule)
    }

    /// Imports an image from the parts of an archive. Sent once: the parts cannot be had again.
    pub async fn import(
        &self,
        parts: impl Stream<Item = v1::ImportRequest> + Send + 'static,
    ) -> Result<v1::Image, RemoteError> {
        let answer =
            self.once(async |channel| ImageServiceClient::new(channel).import(parts).await).await?;
        there(answer.image, "image")
    }

    /// The images.
    pub async fn images(&self) -> Result<Vec<v1::Image>, RemoteError> {
        Ok(call!(self, ImageServiceClient, list, v1::ListImagesRequest {}).await?.images)
    }

    /// Removes an image.
    pub async fn delete_image(
        &self,
        name: &ImageName,
        expect: Option<Revision>,
    ) -> Result<(), RemoteError> {
        let (name, expect) = (name.to_string(), number(expect));
        let request = v1::DeleteImageRequest { name, request_id: fresh_id().into(), expect };
        change!(self, ImageServiceClient, delete, request).map(drop)
    }

    /// Events after revision `after`; with `follow` the stream stays open, and says now and then by an
    /// event of kind `progress` how far it is complete.
    pub async fn watch(
        &self,
        after: u64,
        follow: bool,
        container: Option<&ContainerName>,
    ) -> Result<Streaming<v1::Event>, RemoteError> {
        let container = container.map(ToString::to_string).unwrap_or_default();
        let request = v1::WatchEventsRequest { after, follow, container, progress: follow };
        call!(self, EventServiceClient, watch, request).await
    }

    /// A revision that the cluster has reached: the newest that this session has heard of, or else that
    /// of now. Nothing where the cluster is of a version that does not tell.
    async fn since(&self) -> Result<Option<Revision>, RemoteError> {
        if let Some(known) = self.heard_of() {
            return Ok(Some(known));
        }
        let request = v1::GetRevisionRequest {};
        match call!(self, ClusterServiceClient, get_revision, request).await {
            Ok(answer) => Ok(Some(Revision(answer.revision))),
            // Told so by a server that does not know the call.
            Err(error) if error.code == Code::WrongState => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// An operation's state, at once or after at most `wait` when it ends.
    pub async fn operation(&self, id: &str, wait: Duration) -> Result<v1::Operation, RemoteError> {
        let request = v1::GetOperationRequest { id: id.to_owned(), wait_ms: millis(wait) };
        let answer = call!(self, wait, OperationServiceClient, get, request).await?;
        there(answer.operation, "operation")
    }
}

/// The first part of an [`import`](Session::import).
pub fn import_start(name: &ImageName, size_bytes: u64) -> v1::ImportRequest {
    let start =
        v1::ImportStart { name: name.to_string(), size_bytes, request_id: fresh_id().into() };
    v1::ImportRequest { part: Some(v1::import_request::Part::Start(start)) }
}

fn fresh_id() -> Vec<u8> {
    RequestId::generate().to_bytes()
}

fn number(version: Option<Revision>) -> Option<u64> {
    version.map(|version| version.0)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The part of an answer that a server of this API always fills in.
fn there<T>(field: Option<T>, name: &'static str) -> Result<T, RemoteError> {
    required(field, name).map_err(|e| RemoteError {
        code: Code::Internal,
        message: format!("the server's answer is incomplete: {e}"),
        leader: None,
    })
}
