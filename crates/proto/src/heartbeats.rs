//! A node's heartbeats, on one stream for as long as one leader answers them: a call for each would cost
//! the leader of many nodes several times as much.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

use crate::internal::leader_service_client::LeaderServiceClient;
use crate::internal::{HeartbeatRequest, HeartbeatResponse};
use crate::is_answer;

/// The stream, if there is one. One heartbeat is on it at a time.
#[derive(Default)]
pub struct Heartbeats(Mutex<Option<Open>>);

struct Open {
    to: String,
    heartbeats: mpsc::Sender<HeartbeatRequest>,
    answers: Streaming<HeartbeatResponse>,
}

impl Heartbeats {
    /// Sends one to `leader`, which is at `to`, and waits for its answer. On the stream of the last one,
    /// if that went there too and still carries; else on a new one.
    ///
    /// # Errors
    /// What the leader refused, or that it could not be reached. Whatever keeps the answer from coming,
    /// the end of this future included, is the stream's end, so that no answer is taken for another's.
    pub async fn beat(
        &self,
        to: String,
        mut leader: LeaderServiceClient<Channel>,
        heartbeat: HeartbeatRequest,
    ) -> Result<Response<HeartbeatResponse>, Status> {
        let open = self.stream().take().filter(|open| open.to == to);
        if let Some(mut open) = open {
            match open.beat(heartbeat.clone()).await {
                // It broke since, which says nothing of the leader.
                Err(status) if !is_answer(&status) => {}
                answered => return self.keep(open, answered),
            }
        }
        let (heartbeats, sent) = mpsc::channel(1);
        let answers = leader.heartbeat(ReceiverStream::new(sent)).await?.into_inner();
        let mut open = Open { to, heartbeats, answers };
        let answered = open.beat(heartbeat).await;
        self.keep(open, answered)
    }

    /// Keeps a stream that has answered.
    fn keep(
        &self,
        open: Open,
        answered: Result<HeartbeatResponse, Status>,
    ) -> Result<Response<HeartbeatResponse>, Status> {
        let answer = answered?;
        *self.stream() = Some(open);
        Ok(Response::new(answer))
    }

    fn stream(&self) -> MutexGuard<'_, Option<Open>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    async fn beat(&mut self, heartbeat: HeartbeatRequest) -> Result<HeartbeatResponse, Status> {
        let broken = || Status::unavailable("the stream of heartbeats broke");
        self.heartbeats.send(heartbeat).await.map_err(|_| broken())?;
        self.answers.message().await?.ok_or_else(broken)
    }
}
