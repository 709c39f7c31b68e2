//! `PeerService` behind the gate: the agent answers.

use std::sync::Arc;

use holdfast_proto::internal::peer_service_server::PeerService;
use holdfast_proto::internal::{
    OfferRequest, OfferResponse, ReceiveRequest, ReceiveResponse, RestampRequest, RestampResponse,
    SealRequest, SealResponse, SyncNowRequest, SyncNowResponse,
};
use tonic::{Request, Response, Status, Streaming};

use crate::fault::Fault;
use crate::gate::Gate;

/// The service.
#[derive(Clone)]
pub(crate) struct PeerGate(pub(crate) Gate);

impl PeerGate {
    fn agent(&self) -> Result<Arc<dyn PeerService>, Fault> {
        Ok(self.0.member()?.duties.peers())
    }
}

#[tonic::async_trait]
impl PeerService for PeerGate {
    async fn seal(&self, request: Request<SealRequest>) -> Result<Response<SealResponse>, Status> {
        self.agent()?.seal(request).await
    }

    async fn offer(
        &self,
        request: Request<OfferRequest>,
    ) -> Result<Response<OfferResponse>, Status> {
        self.agent()?.offer(request).await
    }

    async fn receive(
        &self,
        request: Request<Streaming<ReceiveRequest>>,
    ) -> Result<Response<ReceiveResponse>, Status> {
        self.agent()?.receive(request).await
    }

    async fn restamp(
        &self,
        request: Request<RestampRequest>,
    ) -> Result<Response<RestampResponse>, Status> {
        self.agent()?.restamp(request).await
    }

    async fn sync_now(
        &self,
        request: Request<SyncNowRequest>,
    ) -> Result<Response<SyncNowResponse>, Status> {
        self.agent()?.sync_now(request).await
    }
}
