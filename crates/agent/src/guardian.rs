//! The agent's side of the guardian: a blocking client, called from threads that may block.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_fence::protocol::{Grant, Status};
use holdfast_fence::{GuardianClient, GuardianError};

use crate::error::{AgentError, blocking};

/// A connection to the guardian that comes back by itself.
#[derive(Clone)]
pub(crate) struct Guardian {
    socket: PathBuf,
    client: Arc<Mutex<Option<GuardianClient>>>,
}

impl Guardian {
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self { socket, client: Arc::default() }
    }

    /// Extends a live lease.
    pub(crate) async fn renew(&self, until: Grant) -> Result<u64, AgentError> {
        self.call(move |client| client.renew(until.sent_ns, until.deadline_ns)).await
    }

    /// Begins a lease; what this node no longer owns was killed before.
    pub(crate) async fn thaw(&self, until: Grant) -> Result<u64, AgentError> {
        self.call(move |client| client.thaw(until.sent_ns, until.deadline_ns)).await
    }

    /// The guardian's account of itself.
    pub(crate) fn status_blocking(&self) -> Result<Status, GuardianError> {
        self.call_blocking(GuardianClient::status)
    }

    async fn call<T: Send + 'static>(
        &self,
        ask: impl FnMut(&mut GuardianClient) -> Result<T, GuardianError> + Send + 'static,
    ) -> Result<T, AgentError> {
        let this = self.clone();
        blocking(move || this.call_blocking(ask)).await
    }

    fn call_blocking<T>(
        &self,
        mut ask: impl FnMut(&mut GuardianClient) -> Result<T, GuardianError>,
    ) -> Result<T, GuardianError> {
        let mut slot = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        let mut client = match slot.take() {
            Some(client) => client,
            None => GuardianClient::connect(&self.socket)?,
        };
        let mut answer = ask(&mut client);
        if let Err(GuardianError::Unreachable { .. }) = &answer {
            // The guardian was restarted: the old connection is dead, a new one may do.
            client = GuardianClient::connect(&self.socket)?;
            answer = ask(&mut client);
        }
        if !matches!(answer, Err(GuardianError::Unreachable { .. })) {
            *slot = Some(client);
        }
        answer
    }
}
