//! Sends one snapshot to one node.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use holdfast_proto::internal::{
    self, OfferRequest, ReceiveRequest, ReceiveStart, RestampRequest, receive_request,
};
use holdfast_proto::{FieldError, RemoteError};
use holdfast_storage::{Member, Offer, Pool, SnapshotInfo, stream};
use holdfast_types::{ContainerSpec, SnapshotId, SnapshotUuid};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tracing::info;

use crate::clock::{PeerClock, boottime_ms, wall};
use crate::context::Context;
use crate::counts::End;
use crate::error::{AgentError, blocking};
use crate::replicate::lanes::Due;
use crate::replicate::slots::Slot;
use crate::replicate::target::UNKNOWN;

/// How long a node may take to say what it has. One that is gone is noticed sooner, by the connection.
const OFFER_LIMIT: Duration = Duration::from_secs(20);

/// How long nothing may move.
#[derive(Clone, Copy)]
struct Wait {
    /// Then the receiver is asked whether it is still there: a connection that broke without a word is
    /// noticed by nobody else.
    still: Duration,
    /// One that is there may be making much durable, or a long range zeros. It gets so long.
    patience: Duration,
}

const WAIT: Wait = Wait { still: Duration::from_secs(10), patience: Duration::from_secs(600) };

/// Frames under way between disk and network; each is at most [`stream::FRAME`] bytes.
const FRAMES_AHEAD: usize = 4;

/// A sender that reads says so this often: well within what a receiver waits for one.
const SIGN_EVERY: Duration = Duration::from_secs(2);

/// The snapshots that a delta can be made from, the likeliest first, the image's last.
pub(crate) fn candidates(
    pool: &dyn Pool,
    snapshot: &SnapshotInfo,
    first: [Option<SnapshotUuid>; 2],
    image: Option<SnapshotId>,
) -> Vec<SnapshotUuid> {
    let Ok(volume) = pool.volume(snapshot.id.volume) else { return Vec::new() };
    let mut chain: Vec<_> = volume
        .state
        .snapshots
        .iter()
        .filter(|s| s.kind.on_chain() && s.id.order() < snapshot.id.order())
        .collect();
    chain.sort_by_key(|s| std::cmp::Reverse(s.id.order()));
    let mut bases: Vec<SnapshotUuid> = first
        .into_iter()
        .flatten()
        .filter(|uuid| chain.iter().any(|s| s.id.uuid == *uuid))
        .collect();
    bases.extend(chain.iter().map(|s| s.id.uuid));
    bases.extend(image.filter(|id| crate::act::holds(pool, *id)).map(|id| id.uuid));
    bases
}

/// What a node answered to an offer.
#[derive(Debug)]
pub(crate) struct Offered {
    /// Its clock.
    pub(crate) clock: PeerClock,
    /// It has the snapshot.
    pub(crate) there: bool,
    /// What it wants a delta against; everything if there is none.
    pub(crate) base: Option<SnapshotUuid>,
    /// Where an interrupted transfer goes on.
    pub(crate) resume_at: u64,
    /// Another snapshot of the volume, whose transfer was interrupted.
    pub(crate) under_way: Option<SnapshotUuid>,
}

/// Asks a node what it lacks of a snapshot, given what a delta can be made from.
pub(crate) async fn offer(
    context: &Context,
    address: &str,
    id: SnapshotId,
    bases: &[SnapshotUuid],
) -> Result<Offered, AgentError> {
    let request = OfferRequest {
        cluster_id: context.config.identity.cluster.to_bytes().into(),
        snapshot: Some(id.into()),
        candidates: bases.iter().map(|uuid| uuid.to_bytes().into()).collect(),
    };
    let mut peer = context.peers.at(address)?;
    let answer = tokio::time::timeout(OFFER_LIMIT, peer.offer(request))
        .await
        .map_err(|_| AgentError::NotSynced)?
        .map_err(RemoteError::from)?
        .into_inner();
    let uuid = |bytes: &[u8]| match bytes.is_empty() {
        true => Ok(None),
        false => SnapshotUuid::try_from(bytes).map(Some).map_err(FieldError::from),
    };
    Ok(Offered {
        clock: PeerClock::heard(answer.clock_ms),
        there: answer.already_there,
        base: uuid(&answer.base)?,
        resume_at: answer.resume_at,
        under_way: uuid(&answer.under_way)?,
    })
}

/// Offers an image's snapshot, waits for a slot, and streams what the node lacks of it.
pub(crate) async fn ship_image(
    context: &Context,
    address: &str,
    snapshot: &SnapshotInfo,
) -> Result<(), AgentError> {
    let now_ms = boottime_ms();
    let offered = offer(context, address, snapshot.id, &[]).await?;
    let due = Due::of(&ContainerSpec::default(), now_ms);
    let slot = context.slots.take(due, offered.resume_at > 0).await;
    send(context, address, snapshot, now_ms, &offered, &slot).await
}

/// Streams what the node lacks of a snapshot that was offered to it, and has it vouched for as of
/// then.
pub(crate) async fn send(
    context: &Context,
    address: &str,
    snapshot: &SnapshotInfo,
    as_of_ms: u64,
    offered: &Offered,
    slot: &Slot,
) -> Result<(), AgentError> {
    let parts = context.parts().ok_or(AgentError::Starting)?;
    let mut peer = context.peers.at(address)?;
    let offer = Offer::of(snapshot, offered.base);
    let (frames, requests) = mpsc::channel(FRAMES_AHEAD);
    let start = start_of(context, snapshot, as_of_ms, offered);
    let first = ReceiveRequest { part: Some(receive_request::Part::Start(start)) };
    frames.send(first).await.map_err(|_| AgentError::Ended)?;
    let limits = context.limits.job();
    let piece = limits.piece();
    let counters = context.counters.clone();
    let stream = (!offered.there).then(|| counters.sent.begin(offered.resume_at));
    let (pool, from, there) = (parts.pool.clone(), offered.resume_at, offered.there);
    let reading = async move {
        if there {
            return Ok(0);
        }
        let read = move |frames: &_| read(&*pool, &offer, from, piece, frames);
        with_signs(SIGN_EVERY, frames, read).await
    };
    let moved = Arc::new(AtomicU64::new(0));
    let (count, passed) = (moved.clone(), counters.clone());
    let requests = ReceiverStream::new(requests).then(move |request| {
        let (count, passed, limits) = (count.clone(), passed.clone(), limits.clone());
        async move {
            if let Some(receive_request::Part::Frame(bytes)) = &request.part {
                limits.pass(bytes.len()).await;
                passed.sent.moved(bytes.len());
            }
            count.fetch_add(1, Ordering::Relaxed);
            request
        }
    });
    let sending = peer.receive(requests);
    let ended = tokio::select! {
        (read, sent) = async { tokio::join!(reading, sending) } => outcome(read, sent.map(drop)),
        () = stalled(&moved, WAIT, || answers(context, address)) => Err(AgentError::NotSynced),
        () = slot.over() => Err(AgentError::MadeWay),
    };
    if let Some(stream) = stream {
        stream.ended(End::of(&ended));
    }
    let bytes = ended?;
    info!(volume = %snapshot.id.volume, seq = %snapshot.id.seq, %address, bytes, from, delta = offered.base.is_some(), "shipped");
    Ok(())
}

/// The receiver's refusal explains why the reader could not go on, unless it could not read.
fn outcome(
    read: Result<u64, AgentError>,
    sent: Result<(), tonic::Status>,
) -> Result<u64, AgentError> {
    match (read, sent) {
        (Err(error @ AgentError::Storage(_)), _) => Err(error),
        (_, Err(status)) => Err(RemoteError::from(status).into()),
        (read, Ok(())) => read,
    }
}

pub(super) fn start_of(
    context: &Context,
    snapshot: &SnapshotInfo,
    as_of_ms: u64,
    offered: &Offered,
) -> ReceiveStart {
    let member =
        |m: &Member| internal::Member { name: m.name.to_string(), size_bytes: m.size.bytes() };
    ReceiveStart {
        cluster_id: context.config.identity.cluster.to_bytes().into(),
        snapshot: Some(snapshot.id.into()),
        base: offered.base.map(|base| base.to_bytes().into()).unwrap_or_default(),
        resume_at: offered.resume_at,
        age_ms: age_ms(snapshot, as_of_ms),
        size_bytes: snapshot.size.bytes(),
        taken_ms: snapshot.taken.0,
        clock_ms: offered.clock.clock_ms,
        since_ms: offered.clock.since_ms(),
        data: snapshot.data.iter().map(member).collect(),
    }
}

/// One of which nothing is remembered is at least as old as this machine has been up, and as it was
/// taken.
fn age_ms(snapshot: &SnapshotInfo, as_of_ms: u64) -> u64 {
    let remembered = boottime_ms().saturating_sub(as_of_ms);
    match as_of_ms {
        UNKNOWN => remembered.max(wall().since(snapshot.taken)),
        _ => remembered,
    }
}

/// Returns when nothing has moved for too long, or for a while and the receiver does not answer.
async fn stalled<F: Future<Output = bool>>(moved: &AtomicU64, wait: Wait, answers: impl Fn() -> F) {
    let mut before = moved.load(Ordering::Relaxed);
    let mut since = Instant::now();
    loop {
        tokio::time::sleep(wait.still).await;
        let now = moved.load(Ordering::Relaxed);
        if now != before {
            (before, since) = (now, Instant::now());
        } else if since.elapsed() >= wait.patience || !answers().await {
            return;
        }
    }
}

/// Whether a node answers at all: nothing is vouched for.
async fn answers(context: &Context, address: &str) -> bool {
    let Ok(mut peer) = context.peers.at(address) else { return false };
    let cluster_id = context.config.identity.cluster.to_bytes().into();
    let asked = peer.restamp(RestampRequest { cluster_id, ..Default::default() });
    matches!(tokio::time::timeout(WAIT.still, asked).await, Ok(Ok(_)))
}

/// Reads on a thread that may block, and sends an empty frame now and then while it has nothing to
/// send: comparing a large volume, or reading its zeros, takes longer than anybody waits for a sender
/// that says nothing, and would be begun again for ever.
async fn with_signs<T: Send + 'static>(
    every: Duration,
    frames: mpsc::Sender<ReceiveRequest>,
    read: impl FnOnce(&mpsc::Sender<ReceiveRequest>) -> Result<T, AgentError> + Send + 'static,
) -> Result<T, AgentError> {
    let sign = frames.clone();
    let reading = blocking(move || read(&frames));
    tokio::pin!(reading);
    loop {
        match tokio::time::timeout(every, &mut reading).await {
            Ok(read) => return read,
            // What is full of frames needs no sign.
            Err(_) => {
                let part = Some(receive_request::Part::Frame(bytes::Bytes::new()));
                let _ = sign.try_send(ReceiveRequest { part });
            }
        }
    }
}

/// Reads, encodes, and hands over in pieces of so many bytes at most. Returns the plain bytes sent.
fn read(
    pool: &dyn Pool,
    offer: &Offer,
    from: u64,
    piece: usize,
    frames: &mpsc::Sender<ReceiveRequest>,
) -> Result<u64, AgentError> {
    let mut encoder = stream::send(pool, offer, from)?;
    for frame in encoder.by_ref() {
        let mut frame = frame?;
        while !frame.is_empty() {
            let part = receive_request::Part::Frame(frame.split_to(piece.min(frame.len())));
            let request = ReceiveRequest { part: Some(part) };
            if frames.blocking_send(request).is_err() {
                return Err(AgentError::Ended);
            }
        }
    }
    Ok(encoder.sent())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A receiver that made much durable, or a long range zeros, was cut off each time.
    #[tokio::test]
    async fn a_receiver_that_is_busy_for_long_is_not_taken_for_a_dead_one() {
        let (moved, asked) = (AtomicU64::new(0), AtomicU64::new(0));
        let wait = Wait { still: Duration::from_millis(1), patience: Duration::from_secs(600) };
        // It answers four times, and then no more.
        stalled(&moved, wait, || async { asked.fetch_add(1, Ordering::Relaxed) < 4 }).await;
        assert_eq!(asked.into_inner(), 5);
        let wait = Wait { patience: Duration::from_millis(20), ..wait };
        stalled(&moved, wait, || async { true }).await;
    }

    /// A comparison that took longer than the receiver waits for a sender was cut each time, and the
    /// replica never became current.
    #[tokio::test]
    async fn a_sender_that_compares_for_long_is_not_taken_for_a_dead_one() {
        let (frames, mut sent) = mpsc::channel(FRAMES_AHEAD);
        let (go_on, wait) = std::sync::mpsc::channel::<()>();
        let read =
            move |_: &mpsc::Sender<ReceiveRequest>| wait.recv().map_err(|_| AgentError::Ended);
        let reading = tokio::spawn(with_signs(Duration::from_millis(1), frames, read));
        for _ in 0..3 {
            let sign = tokio::time::timeout(Duration::from_secs(10), sent.recv()).await;
            let sign = sign.expect("it says nothing").unwrap().part;
            assert_eq!(sign, Some(receive_request::Part::Frame(bytes::Bytes::new())));
        }
        go_on.send(()).unwrap();
        reading.await.unwrap().unwrap();
        while sent.recv().await.is_some() {}
    }
}
