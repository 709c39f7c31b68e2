//! `ClusterService`: making and joining a cluster, its nodes, its health.

use std::sync::Arc;
use std::time::Duration;

use holdfast_core::{Command, Container, Outcome, SetLabels, State};
use holdfast_proto::v1;
use holdfast_proto::v1::cluster_service_client::ClusterServiceClient;
use holdfast_proto::v1::cluster_service_server::ClusterService;
use holdfast_types::{Code, Revision, RunState};
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

use super::identified;
use super::node::remove_node;
use crate::backup::{self, Parts};
use crate::convert::{self, Picture};
use crate::fault::Fault;
use crate::forward::{Call, at_leader};
use crate::gate::{Gate, Stage};
use crate::leader::{create_token, request_id, rotate_authority};
use crate::member::Lead;
use crate::reading::{Reading, Show, ask_other, at_any};
use crate::restore;
use crate::startup::Shell;
use crate::warnings::warnings;

/// A status without a leader is worth more than none, so it does not wait for long.
const STATUS_PATIENCE: Duration = Duration::from_millis(1_500);

/// Where a call came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// On the local socket, which only the machine's owner can open.
    Local,
    /// From another machine, which `authorize` has looked at.
    Remote,
}

/// The service.
#[derive(Clone)]
pub(crate) struct ClusterApi {
    pub(crate) gate: Gate,
    pub(crate) shell: Arc<Shell>,
    pub(crate) origin: Origin,
}

#[tonic::async_trait]
impl ClusterService for ClusterApi {
    async fn init(
        &self,
        request: Request<v1::InitRequest>,
    ) -> Result<Response<v1::InitResponse>, Status> {
        let lease = convert::lease_asked(request.get_ref().lease.as_ref());
        let identity = self.shell.clone().found(lease).await?;
        let cluster_id = identity.cluster.to_string();
        Ok(Response::new(v1::InitResponse { cluster_id, node_id: identity.node.0 }))
    }

    async fn join(
        &self,
        request: Request<v1::JoinRequest>,
    ) -> Result<Response<v1::JoinResponse>, Status> {
        let request = request.into_inner();
        let identity =
            self.shell.clone().join(request.peers.clone(), request.role(), request.token).await?;
        let cluster_id = identity.cluster.to_string();
        let role = convert::role(identity.role).into();
        Ok(Response::new(v1::JoinResponse { cluster_id, node_id: identity.node.0, role }))
    }

    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::CreateTokenResponse>, Status> {
        let request = identified(request, |message| &mut message.request_id);
        at_leader!(self.gate, request, ClusterServiceClient.create_token, create_token)
    }

    async fn rotate_authority(
        &self,
        request: Request<v1::RotateAuthorityRequest>,
    ) -> Result<Response<v1::RotateAuthorityResponse>, Status> {
        let request = identified(request, |message| &mut message.request_id);
        at_leader!(self.gate, request, ClusterServiceClient.rotate_authority, rotate_authority)
    }

    async fn status(
        &self,
        request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        let name = self.shell.name();
        if let (Stage::Uninitialised | Stage::Starting, Origin::Local) =
            (self.gate.stage(), self.origin)
        {
            let warnings = self.gate.member().err().map(|fault| fault.message);
            let warnings = warnings.into_iter().collect();
            return Ok(Response::new(v1::StatusResponse {
                node: name,
                warnings,
                ..Default::default()
            }));
        }
        let member = self.gate.member()?;
        let (mut call, message) = Call::open(request, Duration::ZERO);
        call.deadline = Instant::now() + STATUS_PATIENCE;
        let answer = match member.reading(&call, Show::Seen).await {
            Err(fault) => Err(fault),
            Ok(Some(reading)) => status(&reading).await.map(|answer| reading.respond(answer)),
            Ok(None) => ask_other!(&member, &call, message, relay, ClusterServiceClient.status),
        };
        let mut answer = match answer {
            // What is here is worth more than nothing, and says itself that it may be old.
            Err(fault) if fault.code == Code::NoQuorum => match &member.raft {
                Some(raft) if raft.state().cluster.is_some() => {
                    leaderless(&member.stale(raft), fault).await?
                }
                _ => return Err(fault.into()),
            },
            other => other?,
        };
        answer.get_mut().node = name;
        Ok(answer)
    }

    type BackupStream = Parts;

    async fn backup(
        &self,
        request: Request<v1::BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        let member = self.gate.member()?;
        let (call, message) = Call::open(request, Duration::ZERO);
        let parts = member.at_leader(
            &call,
            |lead| backup::take(lead, message),
            |there| {
                let request = call.onward(message);
                async move {
                    let answer = ClusterServiceClient::new(there.channel).backup(request).await?;
                    Ok::<_, Status>(answer.map(|parts| -> Parts { Box::pin(parts) }))
                }
            },
        );
        Ok(Response::new(parts.await?))
    }

    async fn restore(
        &self,
        request: Request<Streaming<v1::RestorePart>>,
    ) -> Result<Response<v1::RestoreResponse>, Status> {
        if let Stage::Member(member) = self.gate.stage() {
            let message = format!("this node is in cluster {} already", member.cluster());
            return Err(Fault::new(Code::WrongState, message).into());
        }
        let upload = restore::receive(self.shell.data().path(), request.into_inner()).await?;
        let backup = upload.backup.header.clone();
        let identity = self.shell.clone().restore(upload).await?;
        let state = self.gate.member()?.raft.as_ref().map(|raft| raft.state());
        let absent = state.iter().flat_map(|state| {
            let nodes = state.lineage.absent.iter().filter_map(|id| state.nodes.get(id));
            nodes.map(|node| node.name.to_string())
        });
        Ok(Response::new(v1::RestoreResponse {
            cluster_id: identity.cluster.to_string(),
            node_id: identity.node.0,
            backup: Some(backup),
            absent: absent.collect(),
        }))
    }

    async fn list_nodes(
        &self,
        request: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesResponse>, Status> {
        at_any!(self.gate, request, Seen, ClusterServiceClient.list_nodes, list_nodes)
    }

    async fn get_node(
        &self,
        request: Request<v1::GetNodeRequest>,
    ) -> Result<Response<v1::Node>, Status> {
        at_any!(self.gate, request, Seen, ClusterServiceClient.get_node, get_node)
    }

    async fn get_revision(
        &self,
        request: Request<v1::GetRevisionRequest>,
    ) -> Result<Response<v1::GetRevisionResponse>, Status> {
        at_any!(self.gate, request, State, ClusterServiceClient.get_revision, get_revision)
    }

    async fn set_labels(
        &self,
        request: Request<v1::SetLabelsRequest>,
    ) -> Result<Response<v1::SetLabelsResponse>, Status> {
        at_leader!(self.gate, request, ClusterServiceClient.set_labels, set_labels)
    }

    async fn remove_node(
        &self,
        request: Request<v1::RemoveNodeRequest>,
    ) -> Result<Response<v1::RemoveNodeResponse>, Status> {
        let request = identified(request, |message| &mut message.request_id);
        at_leader!(self.gate, request, ClusterServiceClient.remove_node, remove_node)
    }
}

async fn status(reading: &Reading) -> Result<v1::StatusResponse, Fault> {
    let hash = reading.raft.hash_of(&reading.applied).await.hash;
    let term = match reading.seen() {
        Some(seen) => seen.term,
        None => reading.raft.leadership_now().term,
    };
    reading.picture(|picture| {
        let mut lines = warnings(picture);
        lines.extend(reading.seen().iter().flat_map(|seen| seen.trouble.iter().cloned()));
        if reading.seen().is_none() && reading.age().is_none() {
            let missing = "the leader did not say in time what it sees: leases, pools and newer copies than \
                           the log has are not shown";
            lines.push(missing.into());
        }
        lines.extend(reading.age().map(|age| match age {
            Some(age) => format!("what is shown may be {:.1} s old", age.as_secs_f64()),
            None => "nobody knows how old what is shown may be".to_owned(),
        }));
        Ok(v1::StatusResponse {
            leader: reading.leader().map(|id| picture.name(id)).unwrap_or_default(),
            term,
            applied: reading.applied.index,
            warnings: lines,
            state_hash: hash.iter().map(|byte| format!("{byte:02x}")).collect(),
            ..common(picture)?
        })
    })
}

/// What this node can say by itself when nobody leads.
async fn leaderless(
    reading: &Reading,
    fault: Fault,
) -> Result<Response<v1::StatusResponse>, Fault> {
    let mut answer = status(reading).await?;
    answer.leader.clear();
    answer.nodes.iter_mut().for_each(|node| node.leader = false);
    answer.warnings.insert(0, fault.message);
    Ok(reading.respond(answer))
}

fn common(picture: &Picture<'_>) -> Result<v1::StatusResponse, Fault> {
    let state: &State = picture.state;
    let cluster = state.cluster()?;
    let up = |c: &&Container| state.nodes.get(&c.node).is_some_and(|n| n.is_up());
    let running = state.containers.values().filter(|c| c.run == RunState::Running).filter(up);
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Ok(v1::StatusResponse {
        cluster_id: cluster.id.to_string(),
        nodes: state.nodes.values().map(|n| picture.node(n)).collect(),
        lease: Some(convert::lease(&cluster.lease)),
        containers_running: count(running.count()),
        containers_total: count(state.containers.len()),
        feature_level: state.feature_level.0,
        generation: state.lineage.generation,
        ..Default::default()
    })
}

pub(super) fn list_nodes(
    reading: &Reading,
    _: v1::ListNodesRequest,
) -> Result<v1::ListNodesResponse, Fault> {
    let nodes = reading
        .picture(|picture| reading.state().nodes.values().map(|n| picture.node(n)).collect());
    Ok(v1::ListNodesResponse { nodes })
}

fn get_node(reading: &Reading, request: v1::GetNodeRequest) -> Result<v1::Node, Fault> {
    let node = reading.state().node_named(&request.name.parse()?)?;
    Ok(reading.picture(|picture| picture.node(node)))
}

fn get_revision(
    reading: &Reading,
    _: v1::GetRevisionRequest,
) -> Result<v1::GetRevisionResponse, Fault> {
    Ok(v1::GetRevisionResponse { revision: reading.applied.index })
}

async fn set_labels(
    lead: Lead,
    request: v1::SetLabelsRequest,
) -> Result<v1::SetLabelsResponse, Fault> {
    let id = request_id(&request.request_id)?;
    let name = request.name.parse()?;
    let node = lead.look(|state| Ok(state.node_named(&name)?.id)).await?;
    let label = |(key, value): (String, String)| Ok::<_, Fault>((key.parse()?, value.try_into()?));
    let command = SetLabels {
        node,
        set: request.set.into_iter().map(label).collect::<Result<_, _>>()?,
        remove: request.remove.iter().map(|key| key.parse()).collect::<Result<_, _>>()?,
        expect: request.expect.map(Revision),
    };
    match lead.propose(id, Command::SetLabels(command)).await? {
        Outcome::Version(revision) => Ok(v1::SetLabelsResponse { revision: revision.0 }),
        _ => Err(Fault::new(Code::InvalidArgument, "that request id was for something else")),
    }
}
