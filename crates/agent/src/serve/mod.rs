//! What the leader and other nodes ask of this one: seals, offers, snapshot streams, stamps.

mod intake;
mod offer;
mod receive;
mod restamp;
mod seal;

use std::sync::Arc;
use std::time::Duration;

use holdfast_proto::internal::peer_service_server::PeerService;
use holdfast_proto::internal::{
    OfferRequest, OfferResponse, ReceiveRequest, ReceiveResponse, RestampRequest, RestampResponse,
    SealRequest, SealResponse, SyncNowRequest, SyncNowResponse,
};
use holdfast_proto::{FieldError, Sender};
use holdfast_types::{ClusterId, ContainerUid, VolumeUid};
use tonic::{Request, Response, Status, Streaming};
use tracing::debug;

use crate::agent::Parts;
use crate::context::Context;
use crate::error::AgentError;

pub(crate) use intake::Intake;
#[cfg(any(test, fuzzing))]
pub(crate) use receive::offer_of;

/// The node's service for the leader and its peers.
#[derive(Clone)]
pub struct PeerApi {
    context: Arc<Context>,
}

impl PeerApi {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        Self { context }
    }

    fn parts(&self, cluster: &[u8]) -> Result<Arc<Parts>, AgentError> {
        let cluster = ClusterId::try_from(cluster).map_err(FieldError::from)?;
        if cluster != self.context.config.identity.cluster {
            return Err(AgentError::WrongCluster);
        }
        self.context.parts().ok_or(AgentError::Starting)
    }

    async fn sync(&self, request: SyncNowRequest) -> Result<SyncNowResponse, AgentError> {
        let volume = VolumeUid::try_from(&request.volume[..]).map_err(FieldError::from)?;
        let limit = Duration::from_millis(request.timeout_ms.clamp(1, 600_000));
        crate::replicate::sync_now(&self.context, ContainerUid(volume.0), limit).await?;
        let parts = self.context.parts().ok_or(AgentError::Starting)?;
        let newest = parts.pool.volume(volume)?.state.newest().map(|s| s.id.into());
        let node_id = self.context.config.identity.node.0;
        Ok(SyncNowResponse { snapshot: newest, node_id })
    }
}

#[tonic::async_trait]
impl PeerService for PeerApi {
    async fn seal(&self, request: Request<SealRequest>) -> Result<Response<SealResponse>, Status> {
        self.seal_all(request.into_inner()).await.map(Response::new).map_err(|e| e.to_status())
    }

    async fn offer(
        &self,
        request: Request<OfferRequest>,
    ) -> Result<Response<OfferResponse>, Status> {
        let sender = Sender::of(&request)?;
        self.answer_offer(sender, request.into_inner())
            .await
            .map(Response::new)
            .map_err(|e| e.to_status())
    }

    async fn receive(
        &self,
        request: Request<Streaming<ReceiveRequest>>,
    ) -> Result<Response<ReceiveResponse>, Status> {
        let sender = Sender::of(&request)?;
        match self.take_in(sender, request.into_inner()).await {
            Ok(()) => Ok(Response::new(ReceiveResponse {})),
            Err(error) => {
                debug!(error = %error.line(), "a transfer was refused or broke");
                Err(error.to_status())
            }
        }
    }

    async fn restamp(
        &self,
        request: Request<RestampRequest>,
    ) -> Result<Response<RestampResponse>, Status> {
        let sender = Sender::of(&request)?;
        self.restamp_all(sender, request.get_ref()).map(Response::new).map_err(|e| e.to_status())
    }

    async fn sync_now(
        &self,
        request: Request<SyncNowRequest>,
    ) -> Result<Response<SyncNowResponse>, Status> {
        self.sync(request.into_inner()).await.map(Response::new).map_err(|e| e.to_status())
    }
}
