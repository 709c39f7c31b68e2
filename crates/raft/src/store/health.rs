//! The first failure of the disk, for good: after it nothing in this process is acknowledged.

use std::sync::{Arc, OnceLock};

use tokio::sync::watch;

use crate::error::RaftError;

/// Shared by everything that reads or writes the node's files.
#[derive(Clone)]
pub(crate) struct Health {
    first: Arc<OnceLock<RaftError>>,
    seen: watch::Sender<bool>,
}

impl Health {
    pub(crate) fn new() -> Self {
        Self { first: Arc::default(), seen: watch::Sender::new(false) }
    }

    /// Records a failure and returns the first one ever recorded.
    pub(crate) fn fail(&self, error: RaftError) -> RaftError {
        let mut is_first = false;
        let first = self.first.get_or_init(|| {
            is_first = true;
            error
        });
        if is_first {
            tracing::error!(code = %first.code(), error = %first, "consensus stops on this node");
            self.seen.send_replace(true);
        }
        first.clone()
    }

    /// The failure, if there was one.
    pub(crate) fn check(&self) -> Result<(), RaftError> {
        self.first.get().map_or(Ok(()), |error| Err(error.clone()))
    }

    /// Becomes true at the first failure.
    pub(crate) fn failed(&self) -> watch::Receiver<bool> {
        self.seen.subscribe()
    }
}
