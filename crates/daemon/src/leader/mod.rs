//! `LeaderService`: what nodes ask of the leader. Every node serves it; one that does not lead
//! answers with where the leader is.

mod admit;
pub(crate) mod heartbeat;
pub(crate) mod image;
mod observe;
pub(crate) mod pool_seen;
mod renew;
mod report;
mod rhythm;
mod rotate;
mod token;
mod view;

pub(crate) use image::add as add_image;
pub(crate) use rotate::rotate as rotate_authority;
pub(crate) use token::create as create_token;

use std::pin::Pin;
use std::time::Duration;

use futures::{Stream, stream};
use holdfast_proto::Sender;
use holdfast_proto::internal::leader_service_server::LeaderService;
use holdfast_proto::internal::{
    AddImageRequest, AddImageResponse, AdmitRequest, AdmitResponse, HeartbeatRequest,
    HeartbeatResponse, NodeView, ObserveRequest, Observed, RegisterRequest, RegisterResponse,
    RenewRequest, RenewResponse, ReportRequest, ReportResponse, WatchViewRequest,
};
use holdfast_types::{ClusterId, Code, NodeId, RequestId};
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

use crate::authorize::speaks_for;
use crate::fault::Fault;
use crate::gate::Gate;
use crate::member::Lead;

/// How long a node's call may take. Nodes try again by themselves.
const LIMIT: Duration = Duration::from_millis(4_500);

/// The service.
#[derive(Clone)]
pub(crate) struct LeaderApi {
    pub(crate) gate: Gate,
}

impl LeaderApi {
    /// This process as the leader, or where to find it.
    fn lead(&self) -> Result<Lead, Fault> {
        self.gate.member()?.lead(Instant::now() + LIMIT)
    }

    /// The same, for a caller that must be of this cluster.
    fn lead_for(&self, cluster: &[u8]) -> Result<Lead, Fault> {
        let member = self.gate.member()?;
        check_cluster(cluster, member.cluster())?;
        member.lead(Instant::now() + LIMIT)
    }
}

#[tonic::async_trait]
impl LeaderService for LeaderApi {
    type HeartbeatStream = Pin<Box<dyn Stream<Item = Result<HeartbeatResponse, Status>> + Send>>;
    type ObserveStream = Pin<Box<dyn Stream<Item = Result<Observed, Status>> + Send>>;
    type WatchViewStream = Pin<Box<dyn Stream<Item = Result<NodeView, Status>> + Send>>;

    async fn admit(
        &self,
        request: Request<AdmitRequest>,
    ) -> Result<Response<AdmitResponse>, Status> {
        Ok(Response::new(admit::admit(self.lead()?, request.into_inner()).await?))
    }

    async fn renew(
        &self,
        request: Request<RenewRequest>,
    ) -> Result<Response<RenewResponse>, Status> {
        speaks_for(Sender::of(&request)?, request.get_ref().node_id)?;
        let request = request.into_inner();
        let lead = self.lead_for(&request.cluster_id)?;
        Ok(Response::new(renew::renew(lead, request).await?))
    }

    async fn register(
        &self,
        request: Request<RegisterRequest>,
    ) -> Result<Response<RegisterResponse>, Status> {
        speaks_for(Sender::of(&request)?, request.get_ref().node_id)?;
        let request = request.into_inner();
        let lead = self.lead_for(&request.cluster_id)?;
        Ok(Response::new(admit::register(lead, request).await?))
    }

    async fn heartbeat(
        &self,
        request: Request<Streaming<HeartbeatRequest>>,
    ) -> Result<Response<Self::HeartbeatStream>, Status> {
        let sender = Sender::of(&request)?;
        let begun = (self.clone(), request.into_inner());
        let answers = stream::try_unfold(begun, move |(api, mut heartbeats)| async move {
            let Some(heartbeat) = heartbeats.message().await? else { return Ok(None) };
            speaks_for(sender, heartbeat.node_id)?;
            let lead = api.lead_for(&heartbeat.cluster_id)?;
            Ok(Some((heartbeat::answer(lead, heartbeat).await?, (api, heartbeats))))
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn watch_view(
        &self,
        request: Request<WatchViewRequest>,
    ) -> Result<Response<Self::WatchViewStream>, Status> {
        speaks_for(Sender::of(&request)?, request.get_ref().node_id)?;
        let request = request.into_inner();
        let lead = self.lead_for(&request.cluster_id)?;
        Ok(Response::new(Box::pin(view::watch(lead, request).await?)))
    }

    async fn report(
        &self,
        request: Request<ReportRequest>,
    ) -> Result<Response<ReportResponse>, Status> {
        speaks_for(Sender::of(&request)?, request.get_ref().node_id)?;
        let request = request.into_inner();
        let lead = self.lead_for(&request.cluster_id)?;
        known(&lead, request.node_id)?;
        Ok(Response::new(report::record(lead, request).await?))
    }

    async fn add_image(
        &self,
        request: Request<AddImageRequest>,
    ) -> Result<Response<AddImageResponse>, Status> {
        speaks_for(Sender::of(&request)?, request.get_ref().node_id)?;
        let request = request.into_inner();
        let lead = self.lead_for(&request.cluster_id)?;
        known(&lead, request.node_id)?;
        Ok(Response::new(add_image(lead, request).await?))
    }

    async fn observe(
        &self,
        request: Request<ObserveRequest>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        let lead = self.lead_for(&request.into_inner().cluster_id)?;
        Ok(Response::new(Box::pin(observe::observe(&lead))))
    }
}

fn check_cluster(theirs: &[u8], ours: ClusterId) -> Result<(), Fault> {
    let theirs = ClusterId::try_from(theirs)?;
    if theirs == ours {
        return Ok(());
    }
    let message = format!("this node is of cluster {ours}, not {theirs}");
    Err(Fault::new(Code::WrongCluster, message))
}

/// Refuses a node that the cluster has let go, before anything is written for it. True also when
/// another leads by now: an id that was applied here and is gone does not come back. One that still has
/// a vote is not told so: it would end, and the vote may be needed until it is taken away.
fn known(lead: &Lead, node: u64) -> Result<(), Fault> {
    let (node, applied) = (NodeId(node), lead.raft.applied());
    let cluster = lead.member.cluster();
    let message = if let Some(gap) = applied.state.lost_in(node) {
        format!(
            "node {node} was let in after entry {}, and all that came after was lost when cluster \
             {cluster} was recovered: nobody removed the node, and nobody knows it",
            gap.after
        )
    } else if applied.state.is_removed(node, applied.index) {
        format!("node {node} was removed from cluster {cluster}")
    } else {
        return Ok(());
    };
    match lead.raft.metrics().voters.contains(&node) {
        true => Ok(()),
        false => Err(Fault::new(Code::NodeRemoved, message)),
    }
}

/// A client's request id; one that sent none gets a fresh one, and may not retry.
pub(crate) fn request_id(bytes: &[u8]) -> Result<RequestId, Fault> {
    if bytes.is_empty() { Ok(RequestId::generate()) } else { Ok(RequestId::try_from(bytes)?) }
}
