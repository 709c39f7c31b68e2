//! Facts on their way to the cluster.

use std::time::Duration;

use holdfast_proto::internal::ReportRequest;
use holdfast_types::{Incarnation, Report, RequestId};

use crate::context::Context;
use crate::error::AgentError;

/// Sends one fact, and returns once the cluster has recorded it.
pub(crate) async fn send(context: &Context, report: &Report) -> Result<(), AgentError> {
    let incarnation = context.incarnation();
    if incarnation == Incarnation(0) {
        return Err(AgentError::Starting);
    }
    let identity = context.config.identity;
    let encoded = rmp_serde::to_vec_named(report).map_err(|_| AgentError::Ended)?;
    let request = ReportRequest {
        node_id: identity.node.0,
        incarnation: incarnation.0,
        reports: vec![encoded.into()],
        cluster_id: identity.cluster.to_bytes().into(),
        request_id: RequestId::generate().to_bytes().into(),
    };
    let ask = |_, mut leader: crate::peers::Leader| {
        let request = request.clone();
        async move { leader.report(request).await }
    };
    let limit = Duration::from_secs(5);
    context.leader.ask(Duration::from_secs(1), limit, ask).await?;
    Ok(())
}
