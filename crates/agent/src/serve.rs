//! What the leader and other nodes ask of this one: seals, offers, snapshot streams, stamps.

use std::sync::Arc;
use std::time::Duration;

use holdfast_proto::internal::peer_service_server::PeerService;
use holdfast_proto::internal::{
    Holding, OfferRequest, OfferResponse, ReceiveRequest, ReceiveResponse, ReceiveStart,
    RestampRequest, RestampResponse, SealRequest, SealResponse, Sealed, SyncNowRequest,
    SyncNowResponse, receive_request,
};
use holdfast_proto::{FieldError, required};
use holdfast_storage::{Begin, Offer, Pool, Receiver, SnapshotInfo, SnapshotKind};
use holdfast_types::{
    ByteSize, ClusterId, ContainerUid, Epoch, HeldSnapshot, ImageUid, Report, SnapshotId,
    SnapshotUuid, TimestampMs, VolumeUid,
};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, info, warn};

use crate::agent::Parts;
use crate::clock::{boottime_ms, meant_ms};
use crate::context::Context;
use crate::error::{AgentError, blocking};
use crate::report;

/// A sender that says nothing for so long is gone.
const SENDER_IDLE: Duration = Duration::from_secs(10);

/// Frames between network and disk.
const FRAMES_AHEAD: usize = 4;

/// The node's service for the leader and its peers.
#[derive(Clone)]
pub struct PeerApi {
    context: Arc<Context>,
}

impl PeerApi {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        Self { context }
    }

    fn parts(&self, cluster: &[u8]) -> Result<Arc<Parts>, AgentError> {
        let cluster = ClusterId::try_from(cluster).map_err(FieldError::from)?;
        if cluster != self.context.config.identity.cluster {
            return Err(AgentError::WrongCluster);
        }
        self.context.parts().ok_or(AgentError::Starting)
    }

    async fn seal_all(&self, request: SealRequest) -> Result<SealResponse, AgentError> {
        let parts = self.parts(&request.cluster_id)?;
        let context = self.context.clone();
        blocking(move || {
            let seal = |item: &holdfast_proto::internal::SealItem| {
                let volume = VolumeUid::try_from(&item.volume[..]).map_err(FieldError::from)?;
                let held = seal(&context, &*parts.pool, volume, Epoch(item.epoch))?;
                Ok::<_, AgentError>(Sealed { volume: item.volume.clone(), held })
            };
            let sealed = request.items.iter().map(seal).collect::<Result<_, _>>()?;
            Ok::<_, AgentError>(SealResponse { sealed })
        })
        .await
    }

    async fn answer_offer(&self, request: OfferRequest) -> Result<OfferResponse, AgentError> {
        let parts = self.parts(&request.cluster_id)?;
        let id = SnapshotId::try_from(required(request.snapshot, "snapshot")?)?;
        self.may_receive(&id)?;
        let candidates = request.candidates.iter().map(|c| SnapshotUuid::try_from(&c[..]));
        let candidates: Vec<_> = candidates.collect::<Result<_, _>>().map_err(FieldError::from)?;
        let choose = move || Ok::<_, AgentError>(choose(&*parts.pool, &id, &candidates));
        let chosen = blocking(choose).await?;
        Ok(OfferResponse { clock_ms: boottime_ms(), ..chosen })
    }

    async fn take_in(&self, mut stream: Streaming<ReceiveRequest>) -> Result<(), AgentError> {
        let first = next_part(&mut stream).await?;
        let Some(receive_request::Part::Start(start)) = first else {
            return Err(FieldError::Missing("start").into());
        };
        let arrived_ms = boottime_ms();
        let parts = self.parts(&start.cluster_id)?;
        let offer = offer_of(&start)?;
        self.may_receive(&offer.snapshot)?;
        let as_of_ms = meant_ms(arrived_ms, start.age_ms, start.clock_ms, start.since_ms);
        let pool = parts.pool.clone();
        let begin = blocking(move || pool.begin_receive(&offer)).await?;
        if let Begin::Receive(receiver) = begin {
            if receiver.resume_at() != start.resume_at {
                let text = "the transfer would resume elsewhere: offer it again";
                return Err(AgentError::Epoch(text.to_owned()));
            }
            feed(receiver, &mut stream).await?;
        }
        self.arrived(&parts, offer.snapshot, as_of_ms).await
    }

    /// A verified snapshot is here: stamp it, tell of an image, drop what it supersedes.
    async fn arrived(
        &self,
        parts: &Arc<Parts>,
        id: SnapshotId,
        as_of_ms: u64,
    ) -> Result<(), AgentError> {
        let age_ms = boottime_ms().saturating_sub(as_of_ms);
        self.context.holdings.stamp(id.volume, id.uuid, age_ms);
        info!(volume = %id.volume, epoch = %id.epoch, seq = %id.seq, "received and verified");
        let Some(view) = self.context.view() else { return Ok(()) };
        if view.images.iter().any(|i| i.snapshot.uuid == id.uuid) {
            let report = Report::ImageHeld { uid: ImageUid(id.volume.0) };
            return report::send(&self.context, &report).await;
        }
        let uid = ContainerUid(id.volume.0);
        let Some(replica) = view.replicas.iter().find(|r| r.uid == uid) else { return Ok(()) };
        let (keep, pool) = (replica.keep.clone(), parts.pool.clone());
        if let Err(error) = blocking(move || prune(&*pool, id.volume, &keep)).await {
            warn!(container = %uid, error = %error.line(), "old snapshots stay");
        }
        Ok(())
    }

    /// Whether this node is to hold that snapshot, by its newest view (I11).
    fn may_receive(&self, id: &SnapshotId) -> Result<(), AgentError> {
        let view = self.context.view().ok_or(AgentError::Starting)?;
        let uid = ContainerUid(id.volume.0);
        if let Some(replica) = view.replicas.iter().find(|r| r.uid == uid) {
            let epoch = replica.chain.epoch;
            return match id.epoch == epoch {
                true => Ok(()),
                false => Err(AgentError::Epoch(format!(
                    "the snapshot is of epoch {}, this node knows epoch {epoch}",
                    id.epoch
                ))),
            };
        }
        match view.images.iter().any(|i| i.snapshot == *id) {
            true => Ok(()),
            false => Err(AgentError::NotHere { uid, reason: "has no replica on this node" }),
        }
    }

    fn restamp_all(&self, request: &RestampRequest) -> Result<RestampResponse, AgentError> {
        let arrived_ms = boottime_ms();
        let parts = self.parts(&request.cluster_id)?;
        let mut held = Vec::with_capacity(request.items.len());
        for item in &request.items {
            let volume = VolumeUid::try_from(&item.volume[..]).map_err(FieldError::from)?;
            let uuid = SnapshotUuid::try_from(&item.snapshot[..]).map_err(FieldError::from)?;
            let state = parts.pool.volume(volume).map(|v| v.state);
            let newest = state.ok().filter(|s| s.live.is_none()).and_then(|s| s.newest().cloned());
            let is_it = newest.is_some_and(|s| s.id.uuid == uuid && s.id.epoch.0 == item.epoch);
            if is_it {
                let (clock_ms, since_ms) = (request.clock_ms, request.since_ms);
                let as_of_ms = meant_ms(arrived_ms, item.age_ms, clock_ms, since_ms);
                let age_ms = boottime_ms().saturating_sub(as_of_ms);
                self.context.holdings.stamp(volume, uuid, age_ms);
            }
            held.push(is_it);
        }
        Ok(RestampResponse { held, clock_ms: boottime_ms() })
    }

    async fn sync(&self, request: SyncNowRequest) -> Result<SyncNowResponse, AgentError> {
        let volume = VolumeUid::try_from(&request.volume[..]).map_err(FieldError::from)?;
        let limit = Duration::from_millis(request.timeout_ms.clamp(1, 600_000));
        crate::replicate::sync_now(&self.context, ContainerUid(volume.0), limit).await?;
        let parts = self.context.parts().ok_or(AgentError::Starting)?;
        let newest = parts.pool.volume(volume)?.state.newest().map(|s| s.id.into());
        let node_id = self.context.config.identity.node.0;
        Ok(SyncNowResponse { snapshot: newest, node_id })
    }
}

#[tonic::async_trait]
impl PeerService for PeerApi {
    async fn seal(&self, request: Request<SealRequest>) -> Result<Response<SealResponse>, Status> {
        self.seal_all(request.into_inner()).await.map(Response::new).map_err(|e| e.to_status())
    }

    async fn offer(
        &self,
        request: Request<OfferRequest>,
    ) -> Result<Response<OfferResponse>, Status> {
        self.answer_offer(request.into_inner()).await.map(Response::new).map_err(|e| e.to_status())
    }

    async fn receive(
        &self,
        request: Request<Streaming<ReceiveRequest>>,
    ) -> Result<Response<ReceiveResponse>, Status> {
        match self.take_in(request.into_inner()).await {
            Ok(()) => Ok(Response::new(ReceiveResponse {})),
            Err(error) => {
                debug!(error = %error.line(), "a transfer was refused or broke");
                Err(error.to_status())
            }
        }
    }

    async fn restamp(
        &self,
        request: Request<RestampRequest>,
    ) -> Result<Response<RestampResponse>, Status> {
        self.restamp_all(request.get_ref()).map(Response::new).map_err(|e| e.to_status())
    }

    async fn sync_now(
        &self,
        request: Request<SyncNowRequest>,
    ) -> Result<Response<SyncNowResponse>, Status> {
        self.sync(request.into_inner()).await.map(Response::new).map_err(|e| e.to_status())
    }
}

/// Refuses the epoch and all before it, durably, and lists what is held. What has no volume here
/// has nothing to refuse for: a receive is refused by the view.
fn seal(
    context: &Context,
    pool: &dyn Pool,
    volume: VolumeUid,
    epoch: Epoch,
) -> Result<Vec<Holding>, AgentError> {
    match pool.seal(volume, epoch) {
        Ok(_) => {}
        Err(holdfast_storage::Error::NoVolume(_)) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    }
    let state = pool.volume(volume)?.state;
    let held =
        |s: &SnapshotInfo| HeldSnapshot { id: s.id, age_ms: context.holdings.age_ms(s) }.into();
    Ok(state.snapshots.iter().filter(|s| s.kind.on_chain()).map(held).collect())
}

/// Which base the sender should use: the one of an interrupted transfer of this very snapshot,
/// else the first candidate that is here.
fn choose(pool: &dyn Pool, id: &SnapshotId, candidates: &[SnapshotUuid]) -> OfferResponse {
    let volume = pool.volume(id.volume).ok();
    if volume.as_ref().is_some_and(|v| v.state.find(id.uuid).is_some()) {
        return OfferResponse { already_there: true, ..Default::default() };
    }
    if let Some(partial) = volume.and_then(|v| v.partial).filter(|p| p.snapshot == id.uuid)
        && partial.base.is_none_or(|base| candidates.contains(&base))
    {
        let base = partial.base.map(|b| b.to_bytes().into()).unwrap_or_default();
        return OfferResponse { base, resume_at: partial.synced, ..Default::default() };
    }
    let here = |uuid: &&SnapshotUuid| pool.hold(**uuid).is_ok();
    let base = candidates.iter().find(here).map(|b| b.to_bytes().into()).unwrap_or_default();
    OfferResponse { base, ..Default::default() }
}

fn offer_of(start: &ReceiveStart) -> Result<Offer, AgentError> {
    let base = match start.base.is_empty() {
        true => None,
        false => Some(SnapshotUuid::try_from(&start.base[..]).map_err(FieldError::from)?),
    };
    Ok(Offer {
        snapshot: SnapshotId::try_from(required(start.snapshot.clone(), "snapshot")?)?,
        base,
        size: ByteSize(start.size_bytes),
        taken: TimestampMs(start.taken_ms),
    })
}

async fn next_part(
    stream: &mut Streaming<ReceiveRequest>,
) -> Result<Option<receive_request::Part>, AgentError> {
    let message = tokio::time::timeout(SENDER_IDLE, stream.message());
    let message = message.await.map_err(|_| AgentError::NotSynced)?;
    Ok(message.map_err(holdfast_proto::RemoteError::from)?.and_then(|m| m.part))
}

/// Feeds the stream to the pool on a thread that may block. A stream that breaks off leaves a
/// partial receive, never a snapshot (I17).
async fn feed(
    mut receiver: Box<dyn Receiver>,
    stream: &mut Streaming<ReceiveRequest>,
) -> Result<(), AgentError> {
    let (frames, mut incoming) = mpsc::channel::<Option<bytes::Bytes>>(FRAMES_AHEAD);
    let writing = tokio::task::spawn_blocking(move || {
        while let Some(frame) = incoming.blocking_recv() {
            match frame {
                Some(bytes) => receiver.feed(&bytes)?,
                None => return receiver.finish().map(|_| true),
            }
        }
        Ok(false)
    });
    let broken = loop {
        match next_part(stream).await {
            Ok(Some(receive_request::Part::Frame(bytes))) => {
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

/// A replica keeps its newest snapshot, and what is another copy's newest.
fn prune(pool: &dyn Pool, volume: VolumeUid, keep: &[SnapshotUuid]) -> Result<(), AgentError> {
    let state = pool.volume(volume)?.state;
    let newest = state.newest().map(|s| s.id.uuid);
    let chain = state.snapshots.iter().filter(|s| s.kind == SnapshotKind::Chain);
    for snapshot in chain.filter(|s| Some(s.id.uuid) != newest && !keep.contains(&s.id.uuid)) {
        match pool.remove_snapshot(snapshot.id.uuid) {
            Ok(_) | Err(holdfast_storage::Error::InUse(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
