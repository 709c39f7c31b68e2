//! Keeps the overlay as the view says, and mends it when someone wiped it by hand.

use std::sync::Arc;
use std::time::Duration;

use holdfast_network::{Outcome, OverlaySpec};
use tracing::{debug, warn};

use crate::context::Context;

const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Keeps the overlay for ever.
pub(crate) async fn run(context: Arc<Context>) {
    let mut views = context.watch_view();
    let mut quiet = false;
    loop {
        match ensure(&context).await {
            Ok(Some(Outcome::Changed)) => debug!("the overlay was made or mended"),
            Ok(_) => quiet = false,
            Err(error) if !quiet => {
                warn!(error = %error.line(), "the overlay cannot be made");
                quiet = true;
            }
            Err(_) => {}
        }
        views.mark_unchanged();
        // Whichever comes first; both lead to another look.
        let _ = tokio::time::timeout(LOOK_EVERY, views.changed()).await;
    }
}

async fn ensure(context: &Context) -> Result<Option<Outcome>, crate::AgentError> {
    let (Some(parts), Some(view)) = (context.parts(), context.view()) else { return Ok(None) };
    let config = &context.config;
    let gateways = config.overlay_gateways.iter().copied();
    let spec = OverlaySpec {
        vxlan_id: config.vxlan_id,
        port: config.vxlan_port,
        local: config.underlay,
        peers: view.peers.iter().map(|peer| peer.underlay).chain(gateways).collect(),
        mtu: None,
        address: None,
    };
    Ok(Some(parts.network.ensure_overlay(&spec).await?))
}
