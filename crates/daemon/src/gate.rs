//! What every service passes first: is this machine part of a cluster, and ready to say so?
//!
//! ```text
//! Uninitialised ──Init, Join──▶ Starting ──log opened──▶ Member
//!        ▲                         │ failed: the machine is as it was
//!        └─────────────────────────┘
//! ```

use std::convert::Infallible;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};

use futures::future::{BoxFuture, FutureExt, ready};
use holdfast_proto::internal::raft_service_server::RaftServiceServer;
use holdfast_proto::{Sender, status_from};
use holdfast_raft::RaftService;
use holdfast_types::Code;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

use crate::fault::Fault;
use crate::member::Member;

/// How far this machine is.
#[derive(Clone)]
pub(crate) enum Stage {
    Uninitialised,
    Starting,
    Member(Arc<Member>),
}

/// The stage, shared by all services.
#[derive(Clone)]
pub(crate) struct Gate(Arc<RwLock<Stage>>);

impl Gate {
    pub(crate) fn new(stage: Stage) -> Self {
        Self(Arc::new(RwLock::new(stage)))
    }

    pub(crate) fn set(&self, stage: Stage) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = stage;
    }

    pub(crate) fn stage(&self) -> Stage {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The member that this machine is, or why it cannot answer.
    pub(crate) fn member(&self) -> Result<Arc<Member>, Fault> {
        match self.stage() {
            Stage::Member(member) => Ok(member),
            Stage::Starting => Err(Fault::new(Code::Unavailable, "this node is starting")),
            Stage::Uninitialised => Err(Fault::new(
                Code::NotInitialized,
                "this node is in no cluster: holdfast cluster init, or holdfast node join",
            )),
        }
    }
}

/// Consensus behind the gate: the server listens before the log is open.
#[derive(Clone)]
pub(crate) struct RaftGate(pub(crate) Gate);

impl NamedService for RaftGate {
    const NAME: &'static str = <RaftServiceServer<RaftService> as NamedService>::NAME;
}

impl Service<http::Request<Body>> for RaftGate {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        // The guard says who it is of everyone whom it lets through.
        let Some(Sender(_)) = request.extensions().get() else {
            let what = "consensus is for members of the cluster alone";
            return ready(Ok(status_from(Code::Untrusted, what, None).into_http())).boxed();
        };
        let service = self.0.member().and_then(|member| {
            let none = || Fault::new(Code::WrongState, "this node takes no part in consensus");
            member.raft.as_ref().map(|raft| raft.service()).ok_or_else(none)
        });
        match service {
            Ok(mut service) => service.call(request),
            Err(fault) => ready(Ok(Status::from(fault).into_http())).boxed(),
        }
    }
}
