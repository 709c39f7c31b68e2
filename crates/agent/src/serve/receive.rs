//! Receiving a snapshot's stream.

use std::sync::Arc;
use std::time::Duration;

use holdfast_proto::internal::{self, ReceiveRequest, ReceiveStart, receive_request};
use holdfast_proto::{FieldError, required};
use holdfast_storage::{Begin, Member, Offer, Receiver, SnapshotKind};
use holdfast_types::{
    ByteSize, ContainerUid, ImageUid, NodeId, Report, SnapshotId, SnapshotUuid, TimestampMs,
};
use tokio::sync::mpsc;
use tonic::Streaming;
use tracing::{info, warn};

use super::PeerApi;
use super::intake::{Place, Stay};
use super::offer::is_base;
use crate::agent::Parts;
use crate::clock::{boottime_ms, meant_ms};
use crate::counts::End;
use crate::error::{AgentError, blocking};
use crate::replicate::prune_replica;
use crate::report;

/// A sender that says nothing for so long is gone.
const SENDER_IDLE: Duration = Duration::from_secs(10);

/// Frames between network and disk.
const FRAMES_AHEAD: usize = 4;

impl PeerApi {
    pub(super) async fn take_in(
        &self,
        sender: NodeId,
        mut stream: Streaming<ReceiveRequest>,
    ) -> Result<(), AgentError> {
        let first = next_part(&mut stream).await?;
        let Some(receive_request::Part::Start(start)) = first else {
            return Err(FieldError::Missing("start").into());
        };
        let arrived_ms = boottime_ms();
        let parts = self.parts(&start.cluster_id)?;
        let offer = offer_of(&start)?;
        self.may_receive(sender, &offer.snapshot)?;
        if let Some(base) = offer.base {
            let (pool, volume) = (parts.pool.clone(), offer.snapshot.volume);
            let origin = self.origin_of(volume);
            let own = move || Ok::<_, AgentError>(is_base(&*pool, volume, origin, base));
            if !blocking(own).await? {
                return Err(AgentError::NotTheirs { sender, volume });
            }
        }
        let offer = Offer { history: self.name_of(&offer.snapshot).is_some(), ..offer };
        let as_of_ms = meant_ms(arrived_ms, start.age_ms, start.clock_ms, start.since_ms);
        let id = offer.snapshot;
        let volume = parts.pool.volume(id.volume).ok().map(|volume| volume.state);
        let there = volume.is_some_and(|v| v.find(id.uuid).is_some() && !v.is_rotten(id.uuid));
        if !there {
            self.receive(sender, &parts, offer, start.resume_at, &mut stream).await?;
        }
        self.arrived(sender, &parts, id, as_of_ms).await
    }

    /// Makes a snapshot of the stream, which is to begin at `resume_at`.
    async fn receive(
        &self,
        sender: NodeId,
        parts: &Parts,
        offer: Offer,
        resume_at: u64,
        stream: &mut Streaming<ReceiveRequest>,
    ) -> Result<(), AgentError> {
        let received = &self.context.counters.received;
        let id = offer.snapshot;
        let entered = self.context.intake.begin(id.volume, resume_at > 0);
        let (place, stay) = entered.inspect_err(|_| received.refused())?;
        let pool = parts.pool.clone();
        // With its place, which it keeps if nobody waits for it any more.
        let begin = blocking(move || pool.begin_receive(&offer).map(|begin| (begin, place)));
        let (Begin::Receive(receiver), place) = begin.await? else { return Ok(()) };
        if receiver.resume_at() != resume_at {
            let text = "the transfer would resume elsewhere: offer it again";
            return Err(AgentError::Epoch(text.to_owned()));
        }
        let counted = received.begin(resume_at);
        let fed = self.feed((receiver, place), stay, (sender, &id), stream).await;
        counted.ended(End::of(&fed));
        fed
    }

    /// Feeds the stream to the pool on a thread that may block. A stream that breaks off, whose epoch
    /// is over, or that makes way leaves a partial receive, never a snapshot (I17).
    async fn feed(
        &self,
        (receiver, place): (Box<dyn Receiver>, Place),
        mut stay: Stay,
        (sender, id): (NodeId, &SnapshotId),
        stream: &mut Streaming<ReceiveRequest>,
    ) -> Result<(), AgentError> {
        let (frames, mut incoming) = mpsc::channel::<Option<bytes::Bytes>>(FRAMES_AHEAD);
        let writing = tokio::task::spawn_blocking(move || {
            // The place is given back when what came is durable.
            let (_place, mut receiver) = (place, receiver);
            while let Some(frame) = incoming.blocking_recv() {
                match frame {
                    Some(bytes) => receiver.feed(&bytes)?,
                    None => return receiver.finish().map(|_| true),
                }
            }
            Ok(false)
        });
        let broken = loop {
            let part = tokio::select! {
                part = next_part(stream) => part,
                why = stay.over() => break Some(why),
            };
            match part {
                Ok(Some(receive_request::Part::Frame(bytes))) => {
                    self.context.counters.received.moved(bytes.len());
                    if let Err(error) = self.may_receive(sender, id) {
                        break Some(error);
                    }
                    if frames.send(Some(bytes)).await.is_err() {
                        // The pool refused; its error follows.
                        break None;
                    }
                }
                Ok(Some(receive_request::Part::Start(_))) => {
                    break Some(FieldError::Range("part").into());
                }
                Ok(None) => {
                    let _ = frames.send(None).await;
                    break None;
                }
                Err(error) => break Some(error),
            }
        };
        drop(frames);
        let written = writing.await.map_err(|_| AgentError::Ended)?;
        match (broken, written) {
            (Some(error), _) => Err(error),
            (None, Ok(true)) => Ok(()),
            (None, Ok(false)) => Err(AgentError::Ended),
            (None, Err(error)) => Err(error.into()),
        }
    }

    /// A verified snapshot is here: stamp it, tell of an image, drop what it supersedes.
    async fn arrived(
        &self,
        sender: NodeId,
        parts: &Arc<Parts>,
        id: SnapshotId,
        as_of_ms: u64,
    ) -> Result<(), AgentError> {
        // A named one is taken in of any epoch. If that is over, nobody knows what was written since:
        // it is as old as it was taken, whatever its sender says.
        let vouched = self.may_vouch(sender, &*parts.pool, id.volume, id.epoch);
        let is_over = vouched.is_err();
        let age_ms = boottime_ms().saturating_sub(as_of_ms);
        let name = self.name_of(&id);
        let pool = parts.pool.clone();
        let named = name.clone();
        let is_newest = blocking(move || {
            if let Some(name) = named {
                let kind = SnapshotKind::Kept { label: name.into() };
                pool.label_snapshot(id.uuid, kind)?;
            }
            let newest = pool.volume(id.volume)?.state.newest().map(|s| s.id.uuid);
            Ok::<_, AgentError>(newest == Some(id.uuid))
        });
        if is_newest.await? && !is_over {
            self.context.holdings.stamp(id.volume, id.uuid, age_ms);
        }
        if name.is_some() {
            self.context.kept_arrived.notify_one();
        }
        info!(volume = %id.volume, epoch = %id.epoch, seq = %id.seq, "received and verified");
        let Some(view) = self.context.view() else { return Ok(()) };
        if view.images.iter().any(|i| i.snapshot.uuid == id.uuid) {
            let report = Report::ImageHeld { uid: ImageUid(id.volume.0) };
            return report::send(&self.context, &report).await;
        }
        let uid = ContainerUid(id.volume.0);
        let Some(replica) = view.replicas.iter().find(|r| r.uid == uid) else { return Ok(()) };
        let (keep, pool) = (replica.keep.clone(), parts.pool.clone());
        if let Err(error) = blocking(move || prune_replica(&*pool, id.volume, &keep)).await {
            warn!(container = %uid, error = %error.line(), "old snapshots stay");
        }
        Ok(())
    }
}

pub(crate) fn offer_of(start: &ReceiveStart) -> Result<Offer, AgentError> {
    let base = match start.base.is_empty() {
        true => None,
        false => Some(SnapshotUuid::try_from(&start.base[..]).map_err(FieldError::from)?),
    };
    let member = |m: &internal::Member| -> Result<Member, AgentError> {
        let name = m.name.parse().map_err(FieldError::from)?;
        Ok(Member::new(name, ByteSize(m.size_bytes)))
    };
    Ok(Offer {
        data: start.data.iter().map(member).collect::<Result<_, _>>()?,
        snapshot: SnapshotId::try_from(required(start.snapshot.clone(), "snapshot")?)?,
        base,
        size: ByteSize(start.size_bytes),
        taken: TimestampMs(start.taken_ms),
        history: false,
    })
}

async fn next_part(
    stream: &mut Streaming<ReceiveRequest>,
) -> Result<Option<receive_request::Part>, AgentError> {
    let message = tokio::time::timeout(SENDER_IDLE, stream.message());
    let message = message.await.map_err(|_| AgentError::NotSynced)?;
    Ok(message.map_err(holdfast_proto::RemoteError::from)?.and_then(|m| m.part))
}
