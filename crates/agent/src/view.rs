//! Keeps the view current: a stream from whoever leads.

use std::sync::Arc;
use std::time::Duration;

use holdfast_proto::RemoteError;
use holdfast_proto::internal::WatchViewRequest;
use holdfast_types::{Incarnation, NodeView};
use tracing::{debug, warn};

use crate::context::Context;

const RETRY: Duration = Duration::from_millis(100);

/// Follows the view for ever.
pub(crate) async fn run(context: Arc<Context>) {
    let mut lease = context.watch_lease();
    loop {
        let incarnation = lease.borrow_and_update().incarnation;
        if incarnation == Incarnation(0) {
            // Nothing to ask for before the node is registered.
            if lease.changed().await.is_err() {
                return;
            }
            continue;
        }
        if let Err(error) = follow(&context, incarnation).await {
            debug!(%error, "the view's stream ended");
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn follow(context: &Context, incarnation: Incarnation) -> Result<(), RemoteError> {
    let identity = context.config.identity;
    let request = WatchViewRequest {
        node_id: identity.node.0,
        incarnation: incarnation.0,
        cluster_id: identity.cluster.to_bytes().into(),
    };
    let ask = |_, mut leader: crate::peers::Leader| {
        let request = request.clone();
        async move { leader.watch_view(request).await }
    };
    let mut stale = context.watch_follow();
    let mut stream =
        context.leader.ask(Duration::from_millis(500), Duration::from_secs(2), ask).await?;
    while context.incarnation() == incarnation {
        let message = tokio::select! {
            message = stream.message() => message?,
            // A dead leader's stream says nothing, and its end may not be noticed for long.
            _ = stale.changed() => return Ok(()),
        };
        let Some(message) = message else { return Ok(()) };
        match rmp_serde::from_slice::<NodeView>(&message.view) {
            Ok(view) => context.set_view(view),
            Err(error) => warn!(%error, "a view cannot be read"),
        }
    }
    Ok(())
}
