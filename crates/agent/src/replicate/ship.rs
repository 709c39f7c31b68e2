//! Sends one snapshot to one node.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use holdfast_proto::RemoteError;
use holdfast_proto::internal::{self, OfferRequest, ReceiveRequest, ReceiveStart, receive_request};
use holdfast_storage::{Member, Offer, Pool, SnapshotInfo, stream};
use holdfast_types::{SnapshotId, SnapshotUuid};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tracing::info;

use crate::clock::{PeerClock, boottime_ms};
use crate::context::Context;
use crate::error::{AgentError, blocking};

/// How long a node may take to say what it has. One that is gone is noticed sooner, by the connection.
const OFFER_LIMIT: Duration = Duration::from_secs(20);

/// A transfer in which nothing moved for so long is given up: a connection that broke without a
/// word is noticed by nobody else. The receiver needs some of it to make the whole durable.
const STALLED: Duration = Duration::from_secs(20);

/// Frames under way between disk and network; each is at most 1 MiB.
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

/// Offers the snapshot, and streams what the node lacks of it. Returns the node's clock.
pub(crate) async fn ship(
    context: &Context,
    address: &str,
    snapshot: &SnapshotInfo,
    as_of_ms: u64,
    bases: Vec<SnapshotUuid>,
) -> Result<PeerClock, AgentError> {
    let parts = context.parts().ok_or(AgentError::Starting)?;
    let mut peer = context.peers.at(address)?;
    let cluster_id: bytes::Bytes = context.config.identity.cluster.to_bytes().into();
    let request = OfferRequest {
        cluster_id: cluster_id.clone(),
        snapshot: Some(snapshot.id.into()),
        candidates: bases.iter().map(|uuid| uuid.to_bytes().into()).collect(),
    };
    let answer = tokio::time::timeout(OFFER_LIMIT, peer.offer(request))
        .await
        .map_err(|_| AgentError::NotSynced)?
        .map_err(RemoteError::from)?
        .into_inner();
    let clock = PeerClock::heard(answer.clock_ms);
    let base = match answer.base.is_empty() {
        true => None,
        false => Some(
            SnapshotUuid::try_from(&answer.base[..]).map_err(holdfast_proto::FieldError::from)?,
        ),
    };
    let member =
        |m: &Member| internal::Member { name: m.name.to_string(), size_bytes: m.size.bytes() };
    let offer = Offer {
        snapshot: snapshot.id,
        base,
        size: snapshot.size,
        data: snapshot.data.clone(),
        taken: snapshot.taken,
        history: false,
    };
    let start = ReceiveStart {
        cluster_id,
        snapshot: Some(snapshot.id.into()),
        base: answer.base,
        resume_at: answer.resume_at,
        age_ms: boottime_ms().saturating_sub(as_of_ms),
        size_bytes: snapshot.size.bytes(),
        taken_ms: snapshot.taken.0,
        clock_ms: clock.clock_ms,
        since_ms: clock.since_ms(),
        data: snapshot.data.iter().map(member).collect(),
    };
    let (frames, requests) = mpsc::channel(FRAMES_AHEAD);
    let first = ReceiveRequest { part: Some(receive_request::Part::Start(start)) };
    frames.send(first).await.map_err(|_| AgentError::Ended)?;
    let done_already = answer.already_there;
    let pool: Arc<dyn Pool> = parts.pool.clone();
    let reading = async move {
        if done_already {
            return Ok(0);
        }
        let from = answer.resume_at;
        with_signs(SIGN_EVERY, frames, move |frames| read(&*pool, &offer, from, frames)).await
    };
    let moved = Arc::new(AtomicU64::new(0));
    let count = moved.clone();
    let requests = ReceiverStream::new(requests).map(move |request| {
        count.fetch_add(1, Ordering::Relaxed);
        request
    });
    let sending = peer.receive(requests);
    let (read, sent) = tokio::select! {
        done = async { tokio::join!(reading, sending) } => done,
        () = stalled(&moved) => return Err(AgentError::NotSynced),
    };
    // The receiver's word counts: its refusal explains why the reader could not go on.
    sent.map_err(RemoteError::from)?;
    let bytes = read?;
    info!(volume = %snapshot.id.volume, seq = %snapshot.id.seq, %address, bytes, delta = base.is_some(), "shipped");
    Ok(clock)
}

/// Returns when nothing has moved for too long.
async fn stalled(moved: &AtomicU64) {
    let mut before = moved.load(Ordering::Relaxed);
    loop {
        tokio::time::sleep(STALLED).await;
        let now = moved.load(Ordering::Relaxed);
        if now == before {
            return;
        }
        before = now;
    }
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

/// Reads, encodes, and hands over frame by frame. Returns the plain bytes sent.
fn read(
    pool: &dyn Pool,
    offer: &Offer,
    from: u64,
    frames: &mpsc::Sender<ReceiveRequest>,
) -> Result<u64, AgentError> {
    let mut encoder = stream::send(pool, offer, from)?;
    for frame in encoder.by_ref() {
        let part = receive_request::Part::Frame(frame?);
        let request = ReceiveRequest { part: Some(part) };
        if frames.blocking_send(request).is_err() {
            return Err(AgentError::Ended);
        }
    }
    Ok(encoder.sent())
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let sign = sent.recv().await.unwrap().part;
            assert_eq!(sign, Some(receive_request::Part::Frame(bytes::Bytes::new())));
        }
        go_on.send(()).unwrap();
        reading.await.unwrap().unwrap();
        while sent.recv().await.is_some() {}
    }
}
