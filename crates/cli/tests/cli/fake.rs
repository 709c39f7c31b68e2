//! A daemon that is none: it answers the public API on a Unix socket from memory.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use holdfast_proto::v1::cluster_service_server::{ClusterService, ClusterServiceServer};
use holdfast_proto::v1::container_service_server::{ContainerService, ContainerServiceServer};
use holdfast_proto::v1::event_service_server::{EventService, EventServiceServer};
use holdfast_proto::v1::image_service_server::{ImageService, ImageServiceServer};
use holdfast_proto::v1::operation_service_server::{OperationService, OperationServiceServer};
use holdfast_proto::v1::pool_service_server::{PoolService, PoolServiceServer};
use holdfast_proto::{AGE_KEY, APPLIED_KEY, NODE_KEY, READ_KEY, SINCE_KEY, STALE, status_from, v1};
use holdfast_types::Code;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::metadata::MetadataValue;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

/// How the fake behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Well,
    /// As a node in a minority.
    NoQuorum,
    /// The same, and it waits for a leader first, for as long as the daemon does.
    NoQuorumAtLast,
    /// Takes calls and never answers them.
    Silent,
}

/// What the fake remembers.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(crate) containers: BTreeMap<String, v1::Container>,
    pub(crate) request_ids: Vec<Vec<u8>>,
    /// The revisions that came beside them.
    pub(crate) since: Vec<u64>,
    /// The versions that changes were for.
    pub(crate) expected: Vec<Option<u64>>,
    /// Where each watch began.
    pub(crate) watched_after: Vec<u64>,
    /// Of an import that came to a regular end.
    pub(crate) archive: Option<Vec<u8>>,
    pub(crate) watches: u32,
    /// The changes of pools that were asked for.
    pub(crate) pool_changes: Vec<v1::ChangePoolRequest>,
    /// What a check of a pool finds.
    pub(crate) findings: Vec<v1::PoolFinding>,
    /// The file that a backup sends.
    pub(crate) backup: Vec<u8>,
    /// What a restore was sent.
    pub(crate) restored: Option<Vec<u8>>,
}

/// A running fake; its socket goes with it.
pub(crate) struct Fake {
    pub(crate) memory: Arc<Mutex<Memory>>,
    pub(crate) address: String,
    pub(crate) dir: tempfile::TempDir,
}

#[derive(Clone)]
struct Service {
    mood: Mood,
    memory: Arc<Mutex<Memory>>,
}

type Reply<T> = Result<Response<T>, Status>;

impl Fake {
    pub(crate) fn start(mood: Mood) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path: PathBuf = dir.path().join("holdfastd.sock");
        let incoming = UnixListenerStream::new(UnixListener::bind(&path).unwrap());
        let memory = Arc::new(Mutex::new(Memory::default()));
        let service = Service { mood, memory: memory.clone() };
        let server = Server::builder()
            .add_service(ClusterServiceServer::new(service.clone()))
            .add_service(ContainerServiceServer::new(service.clone()))
            .add_service(EventServiceServer::new(service.clone()))
            .add_service(ImageServiceServer::new(service.clone()))
            .add_service(OperationServiceServer::new(service.clone()))
            .add_service(PoolServiceServer::new(service));
        tokio::spawn(server.serve_with_incoming(incoming));
        Self { memory, address: format!("unix:{}", path.display()), dir }
    }
}

impl Service {
    async fn ready(&self) -> Result<(), Status> {
        match self.mood {
            Mood::Well => Ok(()),
            Mood::NoQuorum => Err(status_from(Code::NoQuorum, "no leader has a quorum", None)),
            Mood::NoQuorumAtLast => {
                tokio::time::sleep(Duration::from_millis(3_500)).await;
                Err(status_from(Code::NoQuorum, "no leader has a quorum", None))
            }
            Mood::Silent => std::future::pending().await,
        }
    }

    /// Every changing call ends here: the operation that `name`'s work would be.
    fn changed(&self, kind: &str, name: &str, id: &[u8]) -> v1::Operation {
        self.memory.lock().unwrap().request_ids.push(id.to_vec());
        v1::Operation {
            id: "01900000-0000-7000-8000-000000000001".into(),
            kind: kind.into(),
            container: name.into(),
            state: v1::OperationState::Running.into(),
            message: "under way".into(),
            ..Default::default()
        }
    }

    fn find(&self, name: &str) -> Result<v1::Container, Status> {
        let found = self.memory.lock().unwrap().containers.get(name).cloned();
        found.ok_or_else(|| {
            status_from(Code::NotFound, format!("there is no container named {name}"), None)
        })
    }
}

pub(crate) fn container(name: &str) -> v1::Container {
    let replica = v1::Replica {
        node: "n2".into(),
        epoch: Some(1),
        seq: Some(7),
        snapshot_uuid: "s".into(),
        age_ms: Some(1_500),
    };
    v1::Container {
        uid: "u".into(),
        name: name.into(),
        state: v1::ContainerState::Running.into(),
        epoch: 1,
        node: "n1".into(),
        address: "10.77.0.2".into(),
        spec: Some(v1::ContainerSpec { image: "busybox".into(), ..Default::default() }),
        replicas: vec![replica],
        ..Default::default()
    }
}

#[tonic::async_trait]
impl ClusterService for Service {
    async fn init(&self, _: Request<v1::InitRequest>) -> Reply<v1::InitResponse> {
        self.ready().await?;
        Ok(Response::new(v1::InitResponse { cluster_id: "c1".into(), node_id: 1 }))
    }

    async fn rotate_authority(
        &self,
        _: Request<v1::RotateAuthorityRequest>,
    ) -> Reply<v1::RotateAuthorityResponse> {
        Ok(Response::new(v1::RotateAuthorityResponse {}))
    }

    async fn create_token(
        &self,
        _: Request<v1::CreateTokenRequest>,
    ) -> Reply<v1::CreateTokenResponse> {
        Ok(Response::new(v1::CreateTokenResponse {
            authority: vec![7; 32].into(),
            expires_ms: 1_700_000_000_000,
            peers: vec!["10.0.0.1:7443".into()],
        }))
    }

    async fn join(&self, request: Request<v1::JoinRequest>) -> Reply<v1::JoinResponse> {
        let request = request.into_inner();
        let role = match request.role() {
            v1::NodeRole::Unspecified => v1::NodeRole::Standby.into(),
            asked => asked.into(),
        };
        let cluster_id = format!("{}{}", request.peers.join("+"), request.token);
        Ok(Response::new(v1::JoinResponse { cluster_id, node_id: 2, role }))
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Reply<v1::StatusResponse> {
        self.ready().await?;
        let warnings = vec!["node n3 is lost".into()];
        let status = v1::StatusResponse { cluster_id: "c1".into(), warnings, ..Default::default() };
        Ok(Response::new(status))
    }

    type BackupStream = BoxStream<'static, Result<v1::BackupPart, Status>>;

    async fn backup(&self, _: Request<v1::BackupRequest>) -> Reply<Self::BackupStream> {
        self.ready().await?;
        let file = self.memory.lock().unwrap().backup.clone();
        let parts: Vec<_> = file
            .chunks(100)
            .map(|data| Ok(v1::BackupPart { data: data.to_vec().into() }))
            .collect();
        Ok(Response::new(stream::iter(parts).boxed()))
    }

    async fn restore(
        &self,
        request: Request<Streaming<v1::RestorePart>>,
    ) -> Reply<v1::RestoreResponse> {
        let (mut parts, mut file) = (request.into_inner(), Vec::new());
        while let Some(part) = parts.message().await? {
            file.extend_from_slice(&part.data);
        }
        self.memory.lock().unwrap().restored = Some(file);
        let absent = vec!["n2".into(), "n3".into()];
        let cluster_id = "c2".into();
        Ok(Response::new(v1::RestoreResponse { cluster_id, node_id: 1, absent, backup: None }))
    }

    async fn list_nodes(&self, _: Request<v1::ListNodesRequest>) -> Reply<v1::ListNodesResponse> {
        self.ready().await?;
        let node = v1::Node {
            id: 1,
            name: "n1".into(),
            role: v1::NodeRole::Voter.into(),
            state: v1::NodeState::Up.into(),
            incarnation: 3,
            ..Default::default()
        };
        Ok(Response::new(v1::ListNodesResponse { nodes: vec![node] }))
    }

    async fn get_node(&self, request: Request<v1::GetNodeRequest>) -> Reply<v1::Node> {
        self.ready().await?;
        let name = request.into_inner().name;
        let labels = [("domain".to_owned(), "rack-a".to_owned())].into();
        Ok(Response::new(v1::Node { id: 1, name, labels, revision: 7, ..Default::default() }))
    }

    async fn remove_node(
        &self,
        request: Request<v1::RemoveNodeRequest>,
    ) -> Reply<v1::RemoveNodeResponse> {
        self.ready().await?;
        let request = request.into_inner();
        if request.name == "n1" && !request.force {
            return Err(status_from(Code::InUse, "only node n1 has the images busybox", None));
        }
        Ok(Response::new(v1::RemoveNodeResponse { successor: "n4".into() }))
    }

    async fn get_revision(
        &self,
        _: Request<v1::GetRevisionRequest>,
    ) -> Reply<v1::GetRevisionResponse> {
        self.ready().await?;
        Ok(Response::new(v1::GetRevisionResponse { revision: 41 }))
    }

    async fn set_labels(
        &self,
        request: Request<v1::SetLabelsRequest>,
    ) -> Reply<v1::SetLabelsResponse> {
        self.ready().await?;
        let request = request.into_inner();
        if request.expect.is_some_and(|expect| expect != 7) {
            return Err(status_from(Code::Conflict, "node n1 is of version 7 now", None));
        }
        let changes = request.set.len() + request.remove.len();
        Ok(Response::new(v1::SetLabelsResponse { revision: 7 + changes as u64 }))
    }
}

#[tonic::async_trait]
impl ContainerService for Service {
    async fn create(&self, request: Request<v1::CreateRequest>) -> Reply<v1::CreateResponse> {
        self.ready().await?;
        let since: Option<u64> =
            request.metadata().get(SINCE_KEY).and_then(|v| v.to_str().ok()?.parse().ok());
        self.memory.lock().unwrap().since.extend(since);
        let request = request.into_inner();
        let operation = self.changed("create", &request.name, &request.request_id);
        let made = v1::Container { spec: request.spec, ..container(&request.name) };
        self.memory.lock().unwrap().containers.insert(request.name, made.clone());
        let answer = v1::CreateResponse { container: Some(made), operation: Some(operation) };
        Ok(Response::new(answer))
    }

    /// Also without a quorum, if it may be stale.
    async fn list(
        &self,
        request: Request<v1::ListContainersRequest>,
    ) -> Reply<v1::ListContainersResponse> {
        let stale = request.metadata().get(READ_KEY).is_some_and(|value| value == STALE);
        if !stale {
            self.ready().await?;
        }
        let containers = self.memory.lock().unwrap().containers.values().cloned().collect();
        let mut answer = Response::new(v1::ListContainersResponse { containers });
        if stale {
            let metadata = answer.metadata_mut();
            metadata.insert(APPLIED_KEY, 7.into());
            metadata.insert(AGE_KEY, 61_000.into());
            metadata.insert(NODE_KEY, MetadataValue::from_static("n1"));
        }
        Ok(answer)
    }

    async fn get(
        &self,
        request: Request<v1::GetContainerRequest>,
    ) -> Reply<v1::GetContainerResponse> {
        self.ready().await?;
        let container = Some(self.find(&request.into_inner().name)?);
        Ok(Response::new(v1::GetContainerResponse { container }))
    }

    async fn start(&self, request: Request<v1::StartRequest>) -> Reply<v1::StartResponse> {
        let request = request.into_inner();
        self.find(&request.name)?;
        self.memory.lock().unwrap().expected.push(request.expect);
        let operation = Some(self.changed("start", &request.name, &request.request_id));
        Ok(Response::new(v1::StartResponse { operation }))
    }

    async fn stop(&self, request: Request<v1::StopRequest>) -> Reply<v1::StopResponse> {
        let request = request.into_inner();
        self.find(&request.name)?;
        // The one operation of this fake that fails.
        let operation = v1::Operation {
            state: v1::OperationState::Failed.into(),
            error_code: Code::Runtime.to_string(),
            message: "init does not\nlisten".into(),
            ..self.changed("stop", &request.name, &request.request_id)
        };
        Ok(Response::new(v1::StopResponse { operation: Some(operation) }))
    }

    async fn delete(&self, request: Request<v1::DeleteRequest>) -> Reply<v1::DeleteResponse> {
        let request = request.into_inner();
        self.find(&request.name)?;
        self.memory.lock().unwrap().containers.remove(&request.name);
        let operation = Some(self.changed("delete", &request.name, &request.request_id));
        Ok(Response::new(v1::DeleteResponse { operation }))
    }

    async fn resize(&self, request: Request<v1::ResizeRequest>) -> Reply<v1::ResizeResponse> {
        let request = request.into_inner();
        self.find(&request.name)?;
        let mut memory = self.memory.lock().unwrap();
        let spec = memory.containers.get_mut(&request.name).and_then(|c| c.spec.as_mut());
        spec.unwrap().disk_bytes = request.size_bytes;
        drop(memory);
        let operation = Some(self.changed("resize", &request.name, &request.request_id));
        Ok(Response::new(v1::ResizeResponse { operation }))
    }

    async fn sync(&self, request: Request<v1::SyncRequest>) -> Reply<v1::SyncResponse> {
        let found = self.find(&request.into_inner().name)?;
        Ok(Response::new(v1::SyncResponse { replica: found.replicas.first().cloned() }))
    }

    type ExecStream = BoxStream<'static, Result<v1::ExecResponse, Status>>;

    /// Answers with the command on stderr, its input on stdout, and the exit status 7.
    async fn exec(&self, request: Request<Streaming<v1::ExecRequest>>) -> Reply<Self::ExecStream> {
        use v1::exec_request::Part as In;
        use v1::exec_response::Part as Out;
        let mut requests = request.into_inner();
        let Some(In::Start(start)) = requests.message().await?.and_then(|r| r.part) else {
            return Err(status_from(Code::InvalidArgument, "no start", None));
        };
        self.find(&start.name)?;
        let mut parts = vec![Out::Stderr(start.command.join("|").into_bytes().into())];
        while let Some(In::Stdin(data)) = requests.message().await?.and_then(|r| r.part) {
            parts.push(Out::Stdout(data));
        }
        parts.push(Out::ExitStatus(7));
        let answers = parts.into_iter().map(|part| Ok(v1::ExecResponse { part: Some(part) }));
        Ok(Response::new(stream::iter(answers.collect::<Vec<_>>()).boxed()))
    }

    type LogsStream = BoxStream<'static, Result<v1::LogsResponse, Status>>;

    async fn logs(&self, request: Request<v1::LogsRequest>) -> Reply<Self::LogsStream> {
        let request = request.into_inner();
        self.find(&request.name)?;
        let text = "x".repeat(usize::try_from(request.tail_bytes).unwrap());
        let parts = text.as_bytes().chunks(64 << 10);
        let parts = parts.map(|data| Ok(v1::LogsResponse { data: data.to_vec().into() }));
        Ok(Response::new(stream::iter(parts.collect::<Vec<_>>()).boxed()))
    }

    async fn list_diverged(
        &self,
        _: Request<v1::ListDivergedRequest>,
    ) -> Reply<v1::ListDivergedResponse> {
        let tail = v1::Diverged {
            container: "web".into(),
            node: "n1".into(),
            epoch: 1,
            changed_bytes: 4_096,
            kept_ms: 1_700_000_000_000,
            snapshot_uuid: "s".into(),
            ..Default::default()
        };
        Ok(Response::new(v1::ListDivergedResponse { diverged: vec![tail] }))
    }

    async fn decide_takeover(
        &self,
        request: Request<v1::DecideTakeoverRequest>,
    ) -> Reply<v1::DecideTakeoverResponse> {
        let request = request.into_inner();
        let container = self.find(&request.name)?;
        self.changed("decide", &request.name, &request.request_id);
        Ok(Response::new(v1::DecideTakeoverResponse { container: Some(container) }))
    }
}

#[tonic::async_trait]
impl EventService for Service {
    type WatchStream = BoxStream<'static, Result<v1::Event, Status>>;

    /// Two revisions of two events each; the first watch that follows breaks in the middle.
    async fn watch(&self, request: Request<v1::WatchEventsRequest>) -> Reply<Self::WatchStream> {
        self.ready().await?;
        let request = request.into_inner();
        let watches = {
            let mut memory = self.memory.lock().unwrap();
            memory.watches += 1;
            memory.watched_after.push(request.after);
            memory.watches
        };
        let event = |(revision, index)| v1::Event {
            revision,
            index,
            kind: "node-lost".into(),
            node: "n1".into(),
            at_ms: 1_700_000_000_000,
            ..Default::default()
        };
        let all = [(5, 0), (5, 1), (6, 0), (6, 1)].map(event);
        let mut events: Vec<_> =
            all.into_iter().filter(|e| e.revision > request.after).map(Ok).collect();
        if request.follow && watches == 1 {
            events.truncate(3);
            events.push(Err(Status::unavailable("going down")));
        } else if request.follow {
            events.push(Err(status_from(Code::Internal, "the end of the test", None)));
        }
        Ok(Response::new(stream::iter(events).boxed()))
    }
}

#[tonic::async_trait]
impl ImageService for Service {
    async fn import(
        &self,
        request: Request<Streaming<v1::ImportRequest>>,
    ) -> Reply<v1::ImportResponse> {
        use v1::import_request::Part;
        let mut parts = request.into_inner();
        let Some(Part::Start(start)) = parts.message().await?.and_then(|r| r.part) else {
            return Err(status_from(Code::InvalidArgument, "no start", None));
        };
        let mut archive = Vec::new();
        loop {
            let data = match parts.message().await?.and_then(|message| message.part) {
                Some(Part::Data(data)) => data,
                Some(Part::End(end)) => {
                    assert_eq!(end.size_bytes, archive.len() as u64);
                    break;
                }
                _ => return Err(status_from(Code::StreamCorrupt, "it was broken off", None)),
            };
            archive.extend_from_slice(&data);
            if archive.starts_with(b"no tar") {
                return Err(status_from(Code::BadImage, "this is no tar archive", None));
            }
        }
        let content_bytes = archive.len() as u64;
        self.memory.lock().unwrap().archive = Some(archive);
        let image = v1::Image {
            name: start.name,
            size_bytes: start.size_bytes,
            content_bytes,
            has_init: true,
            ..Default::default()
        };
        Ok(Response::new(v1::ImportResponse { image: Some(image) }))
    }

    async fn list(&self, _: Request<v1::ListImagesRequest>) -> Reply<v1::ListImagesResponse> {
        Ok(Response::new(v1::ListImagesResponse { images: vec![] }))
    }

    async fn delete(&self, _: Request<v1::DeleteImageRequest>) -> Reply<v1::DeleteImageResponse> {
        Err(status_from(Code::InUse, "web is made from it", None))
    }
}

#[tonic::async_trait]
impl OperationService for Service {
    async fn get(
        &self,
        request: Request<v1::GetOperationRequest>,
    ) -> Reply<v1::GetOperationResponse> {
        let request = request.into_inner();
        tokio::time::sleep(Duration::from_millis(request.wait_ms.min(50))).await;
        let state = v1::OperationState::Done.into();
        let operation = v1::Operation { id: request.id, state, ..Default::default() };
        Ok(Response::new(v1::GetOperationResponse { operation: Some(operation) }))
    }
}

#[tonic::async_trait]
impl PoolService for Service {
    type CreateStream = BoxStream<'static, Result<v1::PoolProgress, Status>>;
    type ChangeStream = BoxStream<'static, Result<v1::PoolProgress, Status>>;
    type ScrubStream = BoxStream<'static, Result<v1::ScrubPoolResponse, Status>>;

    async fn create(&self, _: Request<v1::CreatePoolRequest>) -> Reply<Self::CreateStream> {
        Ok(Response::new(stream::empty().boxed()))
    }

    /// Two steps, the second one half done; to merge is refused, and there is nothing to repair.
    async fn change(&self, request: Request<v1::ChangePoolRequest>) -> Reply<Self::ChangeStream> {
        use v1::change_pool_request::Change;
        use v1::pool_progress::Part;
        let request = request.into_inner();
        let mut steps = vec!["do this".to_owned(), "do that".to_owned()];
        match &request.change {
            Some(Change::Merge(_)) => {
                let refused = status_from(Code::PoolUnusable, "its extents have 1MiB", None);
                return Ok(Response::new(stream::iter([Err(refused)]).boxed()));
            }
            Some(Change::Repair(_)) => steps.clear(),
            _ => {}
        }
        let begun = [Part::Began(0), Part::Done(0), Part::Began(1), Part::Said("50 %".into())];
        let begun = begun.into_iter().filter(|_| !request.dry_run && !steps.is_empty());
        let mut parts: Vec<_> = begun.collect();
        parts.insert(0, Part::Plan(v1::PoolPlan { steps }));
        self.memory.lock().unwrap().pool_changes.push(request);
        let parts = parts.into_iter().map(|part| Ok(v1::PoolProgress { part: Some(part) }));
        Ok(Response::new(stream::iter(parts.collect::<Vec<_>>()).boxed()))
    }

    async fn check(&self, _: Request<v1::CheckPoolRequest>) -> Reply<v1::CheckPoolResponse> {
        let findings = self.memory.lock().unwrap().findings.clone();
        Ok(Response::new(v1::CheckPoolResponse { findings }))
    }

    async fn list(&self, _: Request<v1::ListPoolsRequest>) -> Reply<v1::ListPoolsResponse> {
        Ok(Response::new(v1::ListPoolsResponse { pools: vec![] }))
    }

    async fn show(&self, request: Request<v1::ShowPoolRequest>) -> Reply<v1::ShowPoolResponse> {
        let node = request.into_inner().node;
        let pool =
            v1::Pool { node, name: "fast".into(), driver: "lvm".into(), ..Default::default() };
        Ok(Response::new(v1::ShowPoolResponse { pool: Some(pool) }))
    }

    async fn scrub(&self, _: Request<v1::ScrubPoolRequest>) -> Reply<Self::ScrubStream> {
        Ok(Response::new(stream::empty().boxed()))
    }
}
