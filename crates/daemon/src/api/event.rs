//! `EventService`: what happened, from this node's own copy of the state.
//!
//! ```text
//! after ─▶ events, oldest first ─▶ all sent up to the entry applied here ─▶ progress ─▶ more, if followed
//!              │ some are kept no longer: HF-COMPACTED
//! ```
//!
//! A node applies whole entries, so the events of one never come in part, and whoever goes on at another
//! node after a revision misses nothing: one that is behind waits until it has applied what follows. A
//! node that hears of no leader ends the stream after a while, so that its client goes where there are
//! news.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use holdfast_core::Event;
use holdfast_proto::v1;
use holdfast_proto::v1::event_service_client::EventServiceClient;
use holdfast_proto::v1::event_service_server::EventService;
use holdfast_raft::RaftNode;
use holdfast_types::{Code, ContainerName, Revision};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::convert;
use crate::fault::Fault;
use crate::forward::Call;
use crate::gate::Gate;
use crate::member::Member;
use crate::reading::{Show, ask_other};

/// Events on their way to one client.
const QUEUE: usize = 64;

/// So many events are taken from the state at once.
const BATCH: usize = 256;

/// How often a client is told how far it is, if it wants to be.
const PROGRESS: Duration = Duration::from_secs(1);

/// A node that hears of no leader for so long has no news to tell.
const PATIENCE: Duration = Duration::from_secs(10);

/// The kind of an event that only says how far the stream is complete.
const PROGRESS_KIND: &str = "progress";

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
        let Some(raft) = member.raft.clone() else {
            return Ok(elsewhere(&member, &call, request).await?);
        };
        // Who wants to know what has happened so far wants all of it. Who follows gets it in time.
        if !request.follow && member.reading(&call, Show::State).await?.is_none() {
            return Ok(elsewhere(&member, &call, request).await?);
        }
        let now = call.stale.then(|| member.stale(&raft));
        let stream: Events = Box::pin(local(raft, &call, request)?);
        Ok(match now {
            Some(reading) => reading.respond(stream),
            None => Response::new(stream),
        })
    }
}

/// A worker has no state of its own, and one that no leader has added yet has none to show.
async fn elsewhere(
    member: &Arc<Member>,
    call: &Call,
    request: v1::WatchEventsRequest,
) -> Result<Response<Events>, Fault> {
    let answer = ask_other!(member, call, request, channel, EventServiceClient.watch)?;
    Ok(answer.map(|events| -> Events { Box::pin(events) }))
}

fn local(
    raft: RaftNode,
    call: &Call,
    request: v1::WatchEventsRequest,
) -> Result<impl Stream<Item = Result<v1::Event, Status>> + Send + 'static + use<>, Fault> {
    let only = match request.container.as_str() {
        "" => None,
        name => Some(name.parse::<ContainerName>()?),
    };
    let (out, stream) = mpsc::channel(QUEUE);
    let sender = Sender { raft, request, only, stale: call.stale, out };
    tokio::spawn(async move {
        let last = sender.out.clone();
        if let Err(fault) = sender.run().await {
            // The client may be gone already.
            drop(last.send(Err(fault.into())).await);
        }
    });
    Ok(ReceiverStream::new(stream))
}

/// One client's stream.
struct Sender {
    raft: RaftNode,
    request: v1::WatchEventsRequest,
    only: Option<ContainerName>,
    stale: bool,
    out: mpsc::Sender<Result<v1::Event, Status>>,
}

impl Sender {
    /// Returns when everything is sent that was asked for, or the client is gone.
    async fn run(self) -> Result<(), Fault> {
        let mut applied = self.raft.watch();
        let mut ticks = interval(PROGRESS);
        let (mut told, mut due) = (self.request.after, false);
        let mut heard = Instant::now();
        let mut after = (Revision(self.request.after), u32::MAX);
        loop {
            let (batch, index) = {
                let now = applied.borrow_and_update();
                let batch = now.state.events_after(after).map_err(|kept| compacted(kept.after))?;
                (batch.take(BATCH).cloned().collect::<Vec<Event>>(), now.index)
            };
            for event in &batch {
                after = event.position();
                let about = |name| event.container.as_ref().is_some_and(|(_, n)| n == name);
                let wanted = self.only.as_ref().is_none_or(about);
                if wanted && self.out.send(Ok(convert::event(event))).await.is_err() {
                    return Ok(());
                }
            }
            if batch.len() == BATCH {
                continue;
            }
            // All of the entries up to that index have been looked at.
            after = after.max((Revision(index), u32::MAX));
            if self.request.progress && index > told && (due || !self.request.follow) {
                if self.out.send(Ok(progress(index))).await.is_err() {
                    return Ok(());
                }
                (told, due) = (index, false);
            }
            if !self.request.follow {
                return Ok(());
            }
            tokio::select! {
                changed = applied.changed() => if changed.is_err() {
                    return Err(Fault::new(Code::Unavailable, "this node is stopping"));
                },
                _ = ticks.tick() => {
                    due = true;
                    if self.raft.leadership_now().leader.is_some() {
                        heard = Instant::now();
                    } else if !self.stale && heard.elapsed() > PATIENCE {
                        let message = "this node hears of no leader, and so of no news";
                        return Err(Fault::new(Code::Unavailable, message));
                    }
                }
                () = self.out.closed() => return Ok(()),
            }
        }
    }
}

fn progress(index: u64) -> v1::Event {
    v1::Event { revision: index, kind: PROGRESS_KIND.into(), ..Default::default() }
}

fn compacted(kept_after: Revision) -> Fault {
    let message = format!(
        "events up to revision {kept_after} are kept no longer: look at what there is now, and go on \
         after {kept_after}"
    );
    Fault::new(Code::Compacted, message)
}
