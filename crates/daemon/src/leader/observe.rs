//! What this leader sees, for nodes that answer clients by themselves.

use futures::Stream;
use holdfast_proto::internal::Observed;
use tokio_stream::iter;
use tonic::Status;

use crate::member::Lead;
use crate::seen::Seen;

/// Everything, as of now.
pub(super) fn observe(
    lead: &Lead,
) -> impl Stream<Item = Result<Observed, Status>> + Send + 'static + use<> {
    let state = lead.raft.state();
    iter(Seen::here(&lead.leadership, &lead.raft, &state).parts(&state).into_iter().map(Ok))
}
