//! A node's view of the state: at once, and at each change of it while this leadership lasts.

use futures::Stream;
use holdfast_core::State;
use holdfast_proto::internal::{NodeView, WatchViewRequest};
use holdfast_types::{Code, Incarnation, NodeId, Revision};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::fault::Fault;
use crate::member::Lead;

/// Views are whole, so a slow node misses nothing when it skips some.
const QUEUE: usize = 1;

type Sender = mpsc::Sender<Result<NodeView, Status>>;

/// The node's views from now on. The first is at least as new as this call (I6, I13).
pub(super) async fn watch(
    lead: Lead,
    request: WatchViewRequest,
) -> Result<impl Stream<Item = Result<NodeView, Status>> + Send + 'static, Fault> {
    let (id, incarnation) = (NodeId(request.node_id), Incarnation(request.incarnation));
    let state = lead.read().await?;
    super::known(&lead, id.0)?;
    view_revision(&state, id, incarnation)?;
    let (views, stream) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        if let Err(fault) = send_all(&lead, id, incarnation, &views).await {
            // The node may be gone already.
            drop(views.send(Err(fault.into())).await);
        }
    });
    Ok(ReceiverStream::new(stream))
}

/// Returns when the node has gone, fails when it is not to be answered any more.
async fn send_all(
    lead: &Lead,
    id: NodeId,
    incarnation: Incarnation,
    views: &Sender,
) -> Result<(), Fault> {
    let mut applied = lead.raft.watch();
    let mut reign = lead.member.reign.clone();
    let mut sent = None;
    loop {
        let still =
            reign.borrow_and_update().as_ref().is_some_and(|l| l.term == lead.leadership.term);
        if !still {
            return Err(Fault::not_leader(lead.member.leader()));
        }
        let state = applied.borrow_and_update().state.clone();
        let revision = view_revision(&state, id, incarnation)?;
        if sent != Some(revision) {
            let view = encode(&state, id)?;
            drop(state);
            if views.send(Ok(view)).await.is_err() {
                return Ok(());
            }
            sent = Some(revision);
        } else {
            drop(state);
        }
        tokio::select! {
            changed = applied.changed() => if changed.is_err() {
                return Err(Fault::new(Code::Unavailable, "this node is stopping"));
            },
            changed = reign.changed() => if changed.is_err() {
                return Err(Fault::not_leader(None));
            },
            () = views.closed() => return Ok(()),
        }
    }
}

fn view_revision(state: &State, id: NodeId, incarnation: Incarnation) -> Result<Revision, Fault> {
    let node = state.node(id)?;
    if node.incarnation == incarnation {
        return Ok(node.view_revision);
    }
    let message =
        format!("{} has registered anew as {}#{}", node.name, node.name, node.incarnation);
    Err(Fault::new(Code::StaleIncarnation, message))
}

fn encode(state: &State, id: NodeId) -> Result<NodeView, Fault> {
    let view = state.node_view(id)?;
    let bytes = rmp_serde::to_vec_named(&view)
        .map_err(|e| Fault::new(Code::Internal, format!("the view cannot be encoded: {e}")))?;
    Ok(NodeView { revision: view.revision.0, view: bytes.into() })
}
