//! A node's heartbeats, on one stream for as long as one leader answers them: a call for each would cost
//! the leader of many nodes several times as much.

use std::sync::{Mutex, PoisonError};

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

use crate::internal::leader_service_client::LeaderServiceClient;
use crate::internal::{HeartbeatRequest, HeartbeatResponse};

/// The stream, if there is one. One heartbeat is on it at a time.
#[derive(Default)]
pub struct Heartbeats(Mutex<Option<Open>>);

struct Open {
    heartbeats: mpsc::Sender<HeartbeatRequest>,
    answers: Streaming<HeartbeatResponse>,
}

impl Heartbeats {
    /// Sends one, and waits for its answer. On the stream that answered the last one, else on one to
    /// `leader`: so another leader is only asked after the one before has failed to answer.
    ///
    /// # Errors
    /// What the leader refused, or that the stream broke. Whatever keeps the answer from coming, the end
    /// of this future included, is the stream's end, so that no answer is taken for another's.
    pub async fn beat(
        &self,
        mut leader: LeaderServiceClient<Channel>,
        heartbeat: HeartbeatRequest,
    ) -> Result<Response<HeartbeatResponse>, Status> {
        let broken = || Status::unavailable("the stream of heartbeats broke");
        let open = self.stream().take();
        let mut open = match open {
            Some(open) => open,
            None => {
                let (heartbeats, sent) = mpsc::channel(1);
                let answers = leader.heartbeat(ReceiverStream::new(sent)).await?.into_inner();
                Open { heartbeats, answers }
            }
        };
        open.heartbeats.send(heartbeat).await.map_err(|_| broken())?;
        let answer = open.answers.message().await?.ok_or_else(broken)?;
        *self.stream() = Some(open);
        Ok(Response::new(answer))
    }

    fn stream(&self) -> std::sync::MutexGuard<'_, Option<Open>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
