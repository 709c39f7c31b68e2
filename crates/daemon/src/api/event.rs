//! `EventService`: what happened, from this node's own copy of the state.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use holdfast_core::{Event, State};
use holdfast_proto::v1;
use holdfast_proto::v1::event_service_client::EventServiceClient;
use holdfast_proto::v1::event_service_server::EventService;
use holdfast_raft::RaftNode;
use holdfast_types::ContainerName;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::convert;
use crate::fault::Fault;
use crate::forward::Call;
use crate::gate::Gate;
use crate::member::Member;

/// Events on their way to one client.
const QUEUE: usize = 64;

/// So many events are taken from the state at once.
const BATCH: usize = 256;

/// The service.
#[derive(Clone)]
pub(crate) struct EventApi {
    pub(crate) gate: Gate,
}

type Events = Pin<Box<dyn Stream<Item = Result<v1::Event, Status>> + Send>>;

#[tonic::async_trait]
impl EventService for EventApi {
    type WatchStream = Events;

    async fn watch(
        &self,
        request: Request<v1::WatchEventsRequest>,
    ) -> Result<Response<Events>, Status> {
        let member = self.gate.member()?;
        let (call, request) = Call::open(request, Default::default());
        let stream = match &member.raft {
            Some(raft) => Box::pin(local(raft.clone(), request)?),
            None => elsewhere(&member, &call, request).await?,
        };
        Ok(Response::new(stream))
    }
}

/// A worker has no state of its own.
async fn elsewhere(
    member: &Member,
    call: &Call,
    request: v1::WatchEventsRequest,
) -> Result<Events, Fault> {
    let address = member.seed().filter(|_| call.hops == 0).ok_or_else(Fault::no_quorum)?;
    let mut client = EventServiceClient::new(member.channels.to(&address)?);
    match client.watch(call.onward(request)).await {
        Ok(answer) => Ok(Box::pin(answer.into_inner())),
        Err(status) => {
            member.next_seed(&address);
            Err(status.into())
        }
    }
}

fn local(
    raft: RaftNode,
    request: v1::WatchEventsRequest,
) -> Result<impl Stream<Item = Result<v1::Event, Status>> + Send + 'static, Fault> {
    let name = match request.container.as_str() {
        "" => None,
        name => Some(name.parse::<ContainerName>()?),
    };
    let (events, stream) = mpsc::channel(QUEUE);
    tokio::spawn(send_all(raft, request, name, events));
    Ok(ReceiverStream::new(stream))
}

async fn send_all(
    raft: RaftNode,
    request: v1::WatchEventsRequest,
    name: Option<ContainerName>,
    out: mpsc::Sender<Result<v1::Event, Status>>,
) {
    let mut applied = raft.watch();
    drop(raft);
    let mut seen = (request.after, u32::MAX);
    loop {
        let batch = after(&applied.borrow_and_update().state, seen);
        for event in &batch {
            seen = position(event);
            let about = |name| event.container.as_ref().is_some_and(|(_, n)| n == name);
            if name.as_ref().is_none_or(about) && out.send(Ok(convert::event(event))).await.is_err()
            {
                return;
            }
        }
        if batch.len() == BATCH {
            continue;
        }
        if !request.follow {
            return;
        }
        tokio::select! {
            changed = applied.changed() => if changed.is_err() { return },
            () = out.closed() => return,
        }
    }
}

fn position(event: &Event) -> (u64, u32) {
    (event.revision.0, event.index)
}

/// The next events, oldest first.
fn after(state: &State, seen: (u64, u32)) -> Vec<Arc<Event>> {
    let first = state.events.partition_point(|event| position(event) <= seen);
    state.events.range(first..).take(BATCH).cloned().collect()
}
