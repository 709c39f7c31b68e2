//! Following an operation to its end.

use std::time::Duration;

use holdfast_proto::{RemoteError, v1};
use holdfast_types::Code;
use tokio::time::Instant;

use super::Session;

/// How long one question waits for the operation to end.
const POLL: Duration = Duration::from_secs(2);

/// The shortest time between two questions, whatever the server makes of the wait.
const PACE: Duration = Duration::from_millis(50);

impl Session {
    /// Waits until `operation` is done, calling `seen` with each state on the way. Fails with the
    /// operation's own code if it failed, with [`Code::Timeout`] if it goes on after `limit`.
    pub async fn follow(
        &self,
        operation: v1::Operation,
        limit: Duration,
        mut seen: impl FnMut(&v1::Operation),
    ) -> Result<v1::Operation, RemoteError> {
        let started = Instant::now();
        let mut now = operation;
        loop {
            seen(&now);
            match now.state() {
                v1::OperationState::Done => return Ok(now),
                v1::OperationState::Failed => return Err(failed(&now)),
                v1::OperationState::Running | v1::OperationState::Unspecified => {}
            }
            let left = limit.saturating_sub(started.elapsed());
            if left.is_zero() {
                return Err(still_running(&now, limit));
            }
            let asked = Instant::now();
            now = self.operation(&now.id, POLL.min(left)).await?;
            if now.state() == v1::OperationState::Running {
                tokio::time::sleep_until(asked + PACE).await;
            }
        }
    }
}

/// The error of a failed operation. A code of a newer server that we do not know is kept as text.
fn failed(operation: &v1::Operation) -> RemoteError {
    let message = operation.message.clone();
    match operation.error_code.parse() {
        Ok(code) => RemoteError { code, message, leader: None },
        Err(()) => RemoteError {
            code: Code::Internal,
            message: format!("{}: {message}", operation.error_code),
            leader: None,
        },
    }
}

fn still_running(operation: &v1::Operation, limit: Duration) -> RemoteError {
    RemoteError {
        code: Code::Timeout,
        message: format!(
            "{} of {} still runs after {} s; follow it with: holdfast operation show {}",
            operation.kind,
            operation.container,
            limit.as_secs(),
            operation.id
        ),
        leader: None,
    }
}
