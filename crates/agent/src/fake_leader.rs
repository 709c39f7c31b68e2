//! A leader for tests of what a node tells the cluster: it writes that down, and does nothing else.

use std::pin::Pin;
use std::sync::{Arc, Mutex};

use holdfast_proto::internal::leader_service_server::{LeaderService, LeaderServiceServer};
use holdfast_proto::internal::{
    AddImageRequest, AddImageResponse, AdmitRequest, AdmitResponse, HeartbeatRequest,
    HeartbeatResponse, NodeView, ObserveRequest, Observed, RegisterRequest, RegisterResponse,
    RenewRequest, RenewResponse, ReportRequest, ReportResponse, WatchViewRequest,
};
use holdfast_types::{Incarnation, Report};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use crate::context::Context;

/// What it was told.
#[derive(Clone, Default)]
pub(crate) struct FakeLeader {
    reports: Arc<Mutex<Vec<Report>>>,
    /// Whether its answers to heartbeats, which are of the term that is the asking life's number, wait.
    pub(crate) silent: watch::Sender<bool>,
    /// The life that asked last.
    pub(crate) heard: watch::Sender<u64>,
    /// Whether it answers one heartbeat of a stream, and ends it.
    pub(crate) brief: watch::Sender<bool>,
}

impl FakeLeader {
    /// One that this node knows, and has admitted to its first life.
    pub(crate) async fn of(context: &Context) -> Self {
        let (leader, address) = Self::begin().await;
        context.leader.learn([address].into_iter());
        context.begin_life(Incarnation(1));
        leader
    }

    /// One that nobody knows, and where it answers.
    pub(crate) async fn begin() -> (Self, String) {
        let leader = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let service = LeaderServiceServer::new(leader.clone());
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        (leader, address)
    }

    /// The notices' kinds and words, in their order.
    pub(crate) fn notices(&self) -> Vec<(String, String)> {
        let reports = self.reports.lock().unwrap();
        let notices = reports.iter().filter_map(|report| match report {
            Report::Notice { kind, message, .. } => Some((kind.clone(), message.clone())),
            _ => None,
        });
        notices.collect()
    }

    /// The notices' kinds alone.
    pub(crate) fn kinds(&self) -> Vec<String> {
        self.notices().into_iter().map(|(kind, _)| kind).collect()
    }
}

#[tonic::async_trait]
impl LeaderService for FakeLeader {
    type HeartbeatStream = Pin<Box<dyn Stream<Item = Result<HeartbeatResponse, Status>> + Send>>;
    type ObserveStream = tokio_stream::Empty<Result<Observed, Status>>;
    type WatchViewStream = tokio_stream::Empty<Result<NodeView, Status>>;

    async fn report(
        &self,
        request: Request<ReportRequest>,
    ) -> Result<Response<ReportResponse>, Status> {
        let reports = request.into_inner().reports;
        let reports = reports.iter().map(|report| rmp_serde::from_slice(report).unwrap());
        self.reports.lock().unwrap().extend(reports);
        Ok(Response::new(ReportResponse {}))
    }

    async fn admit(&self, _: Request<AdmitRequest>) -> Result<Response<AdmitResponse>, Status> {
        Err(Status::unimplemented("admit"))
    }

    async fn renew(&self, _: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        Err(Status::unimplemented("renew"))
    }

    async fn register(
        &self,
        _: Request<RegisterRequest>,
    ) -> Result<Response<RegisterResponse>, Status> {
        Err(Status::unimplemented("register"))
    }

    async fn heartbeat(
        &self,
        request: Request<Streaming<HeartbeatRequest>>,
    ) -> Result<Response<Self::HeartbeatStream>, Status> {
        let (silent, heard) = (self.silent.clone(), self.heard.clone());
        let most = if *self.brief.borrow() { 1 } else { usize::MAX };
        let answers = request.into_inner().take(most).then(move |heartbeat| {
            let (mut silent, heard) = (silent.subscribe(), heard.clone());
            async move {
                let term = heartbeat?.incarnation;
                heard.send_replace(term);
                drop(silent.wait_for(|silent| !silent).await);
                Ok(HeartbeatResponse { term, ..Default::default() })
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn observe(
        &self,
        _: Request<ObserveRequest>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        Err(Status::unimplemented("a fake"))
    }

    async fn watch_view(
        &self,
        _: Request<WatchViewRequest>,
    ) -> Result<Response<Self::WatchViewStream>, Status> {
        Err(Status::unimplemented("watch_view"))
    }

    async fn add_image(
        &self,
        _: Request<AddImageRequest>,
    ) -> Result<Response<AddImageResponse>, Status> {
        Err(Status::unimplemented("add_image"))
    }
}
