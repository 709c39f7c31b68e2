//! Transfers between two agents over a real connection, interrupted in every way.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use holdfast_proto::RemoteError;
use holdfast_proto::internal::{
    OfferRequest, ReceiveRequest, RestampItem, RestampRequest, receive_request::Part,
};
use holdfast_storage::{AlreadyQuiet, Offer, Pool, SnapshotInfo, SnapshotKind, stream};
use holdfast_types::{ByteSize, Code, ContainerSpec, Epoch, SnapshotUuid, VolumeUid};
use tokio::sync::watch;

use super::lanes::Due;
use super::limits::TransferLimits;
use super::prune::{Acked, Bases, give_up};
use super::resume::resync;
use super::ship::{Offered, offer, send, start_of};
use super::slots::Slots;
use super::source::Latest;
use super::target::Target;
use crate::clock::boottime_ms;
use crate::context::Context;
use crate::error::AgentError;
use crate::pair::{Fault, Pair, RECEIVER, SENDER};
use crate::testing::UID;

const MIB: u64 = 1 << 20;
/// A node that has nothing to do with the volume.
const THIEF: u64 = 9;
/// What an interruption may lose: a message under way, and a record that was not whole.
const LOST: u64 = 2 * MIB;
/// How long ago a copy was last vouched for.
const OLD_MS: u64 = 60_000;

fn due() -> Due {
    Due::of(&ContainerSpec::default(), boottime_ms())
}

/// I26: a node takes in, and believes of its copies' age, only what comes of the node that its view names:
/// not of another, with the right cluster, volume, epoch and snapshot.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_not_the_primary_ships_and_vouches_for_nothing() {
    let pair = Pair::new(ByteSize::mib(2), TransferLimits::default()).await;
    let (snapshot, direct) = (pair.snapshot(), pair.address.to_string());
    let forbidden = |error: AgentError| assert_eq!(error.code(), Code::Forbidden, "{error}");
    let offered = offer(&pair.sender.context, &direct, snapshot.id, &[]).await.unwrap();
    pair.receiver.sender.store(THIEF, Ordering::Relaxed);
    forbidden(offer(&pair.sender.context, &direct, snapshot.id, &[]).await.unwrap_err());
    let slot = pair.sender.context.slots.take(due(), false).await;
    let sent = send(&pair.sender.context, &direct, &snapshot, boottime_ms(), &offered, &slot).await;
    forbidden(sent.unwrap_err());
    drop(slot);
    assert!(pair.receiver.pool.volume(UID.into()).is_err(), "something is there");

    pair.receiver.sender.store(SENDER.0, Ordering::Relaxed);
    ship(&pair.sender.context, &direct, &snapshot).await.unwrap();
    pair.receiver.sender.store(THIEF, Ordering::Relaxed);
    let item = RestampItem {
        volume: snapshot.id.volume.to_bytes().into(),
        epoch: snapshot.id.epoch.0,
        snapshot: snapshot.id.uuid.to_bytes().into(),
        age_ms: 0,
    };
    let request = RestampRequest {
        cluster_id: pair.sender.context.config.identity.cluster.to_bytes().into(),
        items: vec![item],
        ..Default::default()
    };
    let mut peer = pair.sender.context.peers.at(&direct).unwrap();
    let refused = peer.restamp(request).await.map_err(RemoteError::from).unwrap_err();
    assert_eq!(refused.code, Code::Forbidden, "{refused}");
}

/// I26: a delta on another volume's snapshot made a copy of that volume under the sender's own name, which
/// was then shipped to the sender.
#[tokio::test(flavor = "multi_thread")]
async fn a_delta_is_made_on_no_other_volumes_snapshot() {
    let pair = Pair::new(ByteSize::mib(2), TransferLimits::default()).await;
    let (snapshot, direct) = (pair.snapshot(), pair.address.to_string());
    let (victim, stolen) = (VolumeUid::generate(), SnapshotUuid::generate());
    let pool = &pair.receiver.pool;
    pool.create(victim, ByteSize::mib(2), Epoch(1)).unwrap();
    let id = pool.volume(victim).unwrap().state.next_snapshot(stolen).unwrap();
    pool.snapshot(&id, crate::clock::wall(), &mut AlreadyQuiet).unwrap();
    let context = &pair.sender.context;
    let request = OfferRequest {
        cluster_id: context.config.identity.cluster.to_bytes().into(),
        snapshot: Some(snapshot.id.into()),
        candidates: vec![stolen.to_bytes().into()],
    };
    let mut peer = context.peers.at(&direct).unwrap();
    let answer = peer.offer(request).await.unwrap().into_inner();
    assert!(answer.base.is_empty(), "it would be the base");
    // And without asking.
    let offered = offer(context, &direct, snapshot.id, &[]).await.unwrap();
    let offered = Offered { base: Some(stolen), ..offered };
    let start = Part::Start(start_of(context, &snapshot, boottime_ms(), &offered));
    let start = tokio_stream::iter([ReceiveRequest { part: Some(start) }]);
    let refused = peer.receive(start).await.map_err(RemoteError::from).unwrap_err();
    assert_eq!(refused.code, Code::Forbidden, "{refused}");
    assert!(pool.volume(UID.into()).is_err(), "something is there");
}

/// Where it began.
async fn ship(context: &Context, way: &str, snapshot: &SnapshotInfo) -> Result<u64, AgentError> {
    let offered = offer(context, way, snapshot.id, &[]).await?;
    let slot = context.slots.take(due(), false).await;
    send(context, way, snapshot, boottime_ms(), &offered, &slot).await?;
    Ok(offered.resume_at)
}

/// Waits for what another task does.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting)
        .await
        .unwrap_or_else(|_| panic!("{what}"));
}

fn sent(pair: &Pair) -> u64 {
    pair.sender.context.counters.read().sent.bytes
}

/// Where the replica's interrupted receive would go on. There is no snapshot (I17).
fn synced(pair: &Pair) -> u64 {
    let Ok(volume) = pair.receiver.pool.volume(UID.into()) else { return 0 };
    assert!(volume.state.snapshots.is_empty() && volume.device.is_none(), "half a copy");
    volume.partial.map_or(0, |partial| partial.synced)
}

/// Nothing holds a snapshot on either side any more.
fn assert_nothing_leaks(pair: &Pair, snapshots: &[SnapshotUuid]) {
    for uuid in snapshots {
        pair.sender.pool.remove_snapshot(*uuid).unwrap();
        pair.receiver.pool.remove_snapshot(*uuid).unwrap();
    }
    pair.receiver.pool.remove_volume(UID.into()).unwrap();
}

struct Shipping {
    target: Target,
    latest: watch::Sender<Option<Latest>>,
    bases: Arc<Bases>,
}

impl Shipping {
    /// The sender's task of the replica, as a fresh agent begins it.
    fn new(pair: &Pair) -> Self {
        let (latest, watched) = watch::channel(None);
        let bases: Arc<Bases> = Arc::default();
        let context = pair.sender.context.clone();
        let target = Target::new(context, UID, RECEIVER, watched, bases.clone());
        Self { target, latest, bases }
    }

    /// A round of the source, and then of the target.
    async fn round(
        &mut self,
        pair: &Pair,
        snapshot: &SnapshotInfo,
        way: &str,
    ) -> Result<(), AgentError> {
        let latest = Latest { snapshot: snapshot.clone(), as_of_ms: boottime_ms() };
        self.latest.send_replace(Some(latest.clone()));
        self.prune(pair);
        self.target.bring(&latest, way).await
    }

    fn prune(&self, pair: &Pair) {
        let copies = [Acked { node: RECEIVER, floor: None }];
        self.bases.prune(&pair.sender.pool, UID.into(), &copies).unwrap();
    }
}

/// I16, I17: wherever the connection breaks, what had arrived is not sent again.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_anywhere_is_resumed() {
    let size = ByteSize::mib(8);
    for cut in (0..8 * MIB).step_by((MIB + MIB / 3) as usize).map(|cut| cut + 3_000) {
        let pair = Pair::new(size, TransferLimits::default()).await;
        let snapshot = pair.snapshot();
        let way = pair.way(cut, Fault::Cut).await;
        assert!(ship(&pair.sender.context, &way, &snapshot).await.is_err(), "cut at {cut}");
        pair.receiver.context.intake.end(UID.into()).await.unwrap();
        let (had, before) = (synced(&pair), sent(&pair));
        assert!(had + LOST > cut, "of {cut} bytes {had} were kept");
        ship(&pair.sender.context, &pair.address.to_string(), &snapshot).await.unwrap();
        let again = sent(&pair) - before;
        assert!(again <= size.bytes() - had + MIB / 8, "cut at {cut}: {again} after {had}");
        pair.assert_same(&snapshot);
        let counts = pair.receiver.context.counters.read().received;
        assert_eq!((counts.finished, counts.resumed), (1, u64::from(had > 0)), "cut at {cut}");
        assert_nothing_leaks(&pair, &[snapshot.id.uuid]);
    }
}

/// The primary has written meanwhile, as primaries do: what was interrupted goes on all the same,
/// and only what is newer follows. Its snapshot stays until then, and no longer.
#[tokio::test(flavor = "multi_thread")]
async fn a_newer_snapshot_does_not_begin_the_copy_anew() {
    let pair = Pair::new(ByteSize::mib(8), TransferLimits::default()).await;
    let mut shipping = Shipping::new(&pair);
    goes_on(&pair, &mut shipping, |_| {}).await;
}

/// The same after the sender's daemon was killed: it knows nothing of the transfer.
#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_was_restarted_goes_on() {
    let pair = Pair::new(ByteSize::mib(8), TransferLimits::default()).await;
    let mut shipping = Shipping::new(&pair);
    goes_on(&pair, &mut shipping, |shipping| *shipping = Shipping::new(&pair)).await;
}

async fn goes_on(pair: &Pair, shipping: &mut Shipping, meanwhile: impl FnOnce(&mut Shipping)) {
    let direct = pair.address.to_string();
    let first = pair.snapshot();
    let way = pair.way(6 * MIB, Fault::Cut).await;
    shipping.round(pair, &first, &way).await.unwrap_err();
    meanwhile(shipping);
    pair.write(0, MIB, 2);
    let second = pair.snapshot();
    let before = sent(pair);
    shipping.round(pair, &second, &direct).await.unwrap();
    let again = sent(pair) - before;
    assert!(again <= (8 - 6 + 1) * MIB + LOST + MIB / 8, "{again} of 8 MiB were sent again");
    let counts = pair.sender.context.counters.read().sent;
    assert_eq!((counts.begun, counts.resumed, counts.finished), (3, 1, 2));
    pair.assert_same(&second);
    shipping.prune(pair);
    let left = pair.sender.pool.volume(UID.into()).unwrap().state.snapshots;
    assert_eq!(left.iter().map(|s| s.id.uuid).collect::<Vec<_>>(), [second.id.uuid]);
    assert_nothing_leaks(pair, &[first.id.uuid, second.id.uuid]);
}

/// A full pool needs the room of what was interrupted.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_interrupted_is_let_go_when_room_is_needed() {
    let pair = Pair::new(ByteSize::mib(4), TransferLimits::default()).await;
    let mut shipping = Shipping::new(&pair);
    let first = pair.snapshot();
    let way = pair.way(2 * MIB, Fault::Cut).await;
    shipping.round(&pair, &first, &way).await.unwrap_err();
    let held = || give_up(&pair.sender.pool, UID.into()).unwrap() == 0;
    // The reader of the broken transfer ends by itself.
    shipping.bases.let_go();
    until("the room of an interrupted transfer", || !held()).await;
}

/// A receiver that loses its power goes on from what it had synced, and from nothing later.
#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_was_killed_goes_on_from_its_last_sync() {
    let size = ByteSize::mib(72);
    let pair = Pair::new(size, TransferLimits::default()).await;
    let snapshot = pair.snapshot();
    let way = pair.way(70 * MIB, Fault::Silence).await;
    let (context, of) = (pair.sender.context.clone(), snapshot.clone());
    let hanging = tokio::spawn(async move { ship(&context, &way, &of).await });
    until("the first sync", || synced(&pair) >= 64 * MIB).await;
    until("some more", || pair.receiver.context.counters.read().received.bytes > 68 * MIB).await;
    // Where the disk is fast that was later than at 64 MiB: there is a pause between two.
    let had = synced(&pair);
    pair.receiver.pool.cut_power();
    hanging.abort();
    let from = ship(&pair.sender.context, &pair.address.to_string(), &snapshot).await.unwrap();
    assert_eq!(from, had);
    pair.assert_same(&snapshot);
}

/// I11: of two senders the newer epoch's is served at once, though the older one's connection is
/// there still, and hears nothing of it.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_senders_the_epoch_decides() {
    let pair = Pair::new(ByteSize::mib(8), TransferLimits::default()).await;
    let (old, direct) = (pair.snapshot(), pair.address.to_string());
    let way = pair.way(3 * MIB, Fault::Silence).await;
    let (context, of) = (pair.sender.context.clone(), old.clone());
    let stale = tokio::spawn(async move { ship(&context, &way, &of).await });
    let counters = pair.receiver.context.counters.clone();
    until("the older transfer", || counters.read().received.bytes > MIB).await;
    pair.receiver.know(Epoch(2));
    pair.sender.pool.continue_live(UID.into(), Epoch(2)).unwrap();
    pair.write(0, MIB, 2);
    let new = pair.snapshot();
    assert_eq!(new.id.epoch, Epoch(2));
    ship(&pair.sender.context, &direct, &new).await.unwrap();
    pair.assert_same(&new);
    assert!(stale.await.unwrap().is_err());
    let late = ship(&pair.sender.context, &direct, &old).await.unwrap_err();
    assert_eq!(late.code(), Code::StaleEpoch, "{late}");
    let held = pair.receiver.pool.volume(UID.into()).unwrap().state.snapshots;
    assert_eq!(held.iter().map(|s| s.id.uuid).collect::<Vec<_>>(), [new.id.uuid]);
}

/// I11: an older epoch's stream ends with the next frame, not with its end.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_epoch_is_over_ends() {
    let limits = TransferLimits { rate: Some(ByteSize::mib(8)), ..TransferLimits::default() };
    let pair = Pair::new(ByteSize::mib(16), limits).await;
    let (snapshot, direct) = (pair.snapshot(), pair.address.to_string());
    let (context, of) = (pair.sender.context.clone(), snapshot.clone());
    let stale = tokio::spawn(async move { ship(&context, &direct, &of).await });
    let counters = pair.receiver.context.counters.clone();
    until("the transfer", || counters.read().received.bytes > MIB).await;
    pair.receiver.know(Epoch(2));
    let error = stale.await.unwrap().unwrap_err();
    assert_eq!(error.code(), Code::StaleEpoch, "{error}");
    let bytes = counters.read().received.bytes;
    assert!(bytes < 12 * MIB, "{bytes} were taken");
}

/// I16, I17: a chunk that was altered on the way is refused and counted, nothing of it is kept, and
/// it is sent again.
#[tokio::test(flavor = "multi_thread")]
async fn a_corrupted_chunk_is_refused_counted_and_resent() {
    let pair = Pair::new(ByteSize::mib(4), TransferLimits::default()).await;
    let (snapshot, direct) = (pair.snapshot(), pair.address.to_string());
    let context = &pair.sender.context;
    let offered = offer(context, &direct, snapshot.id, &[]).await.unwrap();
    let what = Offer::of(&snapshot, None);
    let frames = stream::send(&pair.sender.pool, &what, 0).unwrap();
    let mut parts = vec![Part::Start(start_of(context, &snapshot, 0, &offered))];
    for (n, frame) in frames.enumerate() {
        let mut frame = frame.unwrap().to_vec();
        if n == 2 {
            let middle = frame.len() / 2;
            frame[middle] ^= 1;
        }
        parts.push(Part::Frame(frame.into()));
    }
    let requests = parts.into_iter().map(|part| ReceiveRequest { part: Some(part) });
    let mut peer = context.peers.at(&direct).unwrap();
    let status = peer.receive(tokio_stream::iter(requests)).await.unwrap_err();
    let error = RemoteError::from(status);
    let code = error.code;
    assert_eq!((code, code.retryable()), (Code::StreamCorrupt, true), "{error}");
    assert_eq!(synced(&pair), 0, "what a stream that errs brought is not built upon");
    assert_eq!(pair.receiver.context.counters.read().received.corrupt, 1);
    ship(context, &direct, &snapshot).await.unwrap();
    pair.assert_same(&snapshot);
    let counts = pair.receiver.context.counters.read().received;
    assert_eq!((counts.begun, counts.finished, counts.corrupt), (2, 1, 1));
}

/// A base that is gone: everything is shipped again, and operators are told how.
#[tokio::test(flavor = "multi_thread")]
async fn a_base_that_is_gone_is_a_full_resync_and_said() {
    let pair = Pair::new(ByteSize::mib(4), TransferLimits::default()).await;
    let (mut shipping, direct) = (Shipping::new(&pair), pair.address.to_string());
    let first = pair.snapshot();
    shipping.round(&pair, &first, &direct).await.unwrap();
    pair.write(0, MIB, 2);
    pair.sender.pool.remove_snapshot(first.id.uuid).unwrap();
    let second = pair.snapshot();
    let context = &pair.sender.context;
    let offered = offer(context, &direct, second.id, &[]).await.unwrap();
    let state = pair.sender.pool.volume(UID.into()).unwrap().state;
    assert_eq!(resync(&state, true, &offered), Some("whole"));
    assert_eq!(resync(&state, false, &offered), None, "a first copy is none");
    let before = sent(&pair);
    shipping.round(&pair, &second, &direct).await.unwrap();
    assert!(sent(&pair) - before > 4 * MIB);
    pair.assert_same(&second);
    let third = pair.snapshot();
    let offered = offer(context, &direct, third.id, &[second.id.uuid]).await.unwrap();
    let state = pair.sender.pool.volume(UID.into()).unwrap().state;
    assert_eq!(resync(&state, true, &offered), None, "a delta is none");
}

/// The bytes on the wire keep to the node's limit.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_ships_no_faster_than_it_may() {
    for job_only in [false, true] {
        let rate = Some(ByteSize::mib(8));
        let limits = match job_only {
            true => TransferLimits { job_rate: rate, ..TransferLimits::default() },
            false => TransferLimits { rate, ..TransferLimits::default() },
        };
        let pair = Pair::new(ByteSize::mib(6), limits).await;
        let snapshot = pair.snapshot();
        let begun_ms = boottime_ms();
        ship(&pair.sender.context, &pair.address.to_string(), &snapshot).await.unwrap();
        let took_ms = boottime_ms() - begun_ms;
        // 2 MiB at once after the silence, and the last piece leaves when it may.
        assert!(took_ms >= (6 - 2 - 1) * 1_000 / 8, "{took_ms} ms");
        pair.assert_same(&snapshot);
    }
}

/// A full copy is interrupted for a small delta, and goes on where it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_transfer_makes_way_and_goes_on() {
    let limits = TransferLimits { rate: Some(ByteSize::mib(4)), ..TransferLimits::default() };
    let pair = Pair::new(ByteSize::mib(8), limits).await;
    let (snapshot, direct) = (pair.snapshot(), pair.address.to_string());
    // Whatever runs here is long at once.
    let slots = Slots::new(2, 0);
    let other = slots.take(due(), false).await;
    let slot = slots.take(due(), false).await;
    let context = &pair.sender.context;
    let offered = offer(context, &direct, snapshot.id, &[]).await.unwrap();
    let delta = async {
        let counters = &pair.receiver.context.counters;
        until("the transfer", || counters.read().received.bytes > MIB).await;
        slots.take(due(), false).await
    };
    let full = async {
        let sent = send(context, &direct, &snapshot, 0, &offered, &slot).await;
        drop(slot);
        sent
    };
    let (sent, delta) = tokio::join!(full, delta);
    assert!(matches!(sent, Err(AgentError::MadeWay)), "{sent:?}");
    assert_eq!(context.counters.read().sent.made_way, 1);
    drop((other, delta));
    let offered = offer(context, &direct, snapshot.id, &[]).await.unwrap();
    assert!(offered.resume_at > 0);
    let slot = slots.take(due(), true).await;
    send(context, &direct, &snapshot, 0, &offered, &slot).await.unwrap();
    pair.assert_same(&snapshot);
}

/// A node takes so many transfers at a time; the next is refused, and may come again.
#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_refuses_one_too_many() {
    let limits = TransferLimits { receives: 2, ..TransferLimits::default() };
    let pair = Pair::new(ByteSize::mib(4), limits).await;
    let (snapshot, direct) = (pair.snapshot(), pair.address.to_string());
    let intake = &pair.receiver.context.intake;
    let busy = [1, 2].map(|_| intake.begin(VolumeUid::generate(), false).unwrap());
    let error = ship(&pair.sender.context, &direct, &snapshot).await.unwrap_err();
    assert_eq!((error.code(), error.code().retryable()), (Code::Busy, true));
    assert_eq!(pair.receiver.context.counters.read().received.made_way, 1);
    drop(busy);
    ship(&pair.sender.context, &direct, &snapshot).await.unwrap();
    pair.assert_same(&snapshot);
}

/// That an idle volume's copy is current is said at once, however many transfers wait.
#[tokio::test(flavor = "multi_thread")]
async fn a_stamp_waits_for_no_transfer() {
    let limits = TransferLimits { sends: 2, ..TransferLimits::default() };
    let pair = Pair::new(ByteSize::mib(4), limits).await;
    let (mut shipping, direct) = (Shipping::new(&pair), pair.address.to_string());
    let snapshot = pair.snapshot();
    shipping.round(&pair, &snapshot, &direct).await.unwrap();
    let slots = &pair.sender.context.slots;
    let _all = [slots.take(due(), false).await, slots.take(due(), false).await];
    let stamp = shipping.round(&pair, &snapshot, &direct);
    tokio::time::timeout(Duration::from_secs(30), stamp).await.unwrap().unwrap();
    pair.write(0, MIB, 2);
    let newer = pair.snapshot();
    let waits = shipping.round(&pair, &newer, &direct);
    assert!(
        tokio::time::timeout(Duration::from_millis(300), waits).await.is_err(),
        "it has no slot"
    );
}

/// A replica that had everything looked old while a named snapshot of the past was on its way to it,
/// or waited for its turn: for hours, at a low rate.
#[tokio::test(flavor = "multi_thread")]
async fn a_current_replica_looked_old_while_it_was_given_history() {
    let limits = TransferLimits { sends: 2, ..TransferLimits::default() };
    let pair = Pair::new(ByteSize::mib(4), limits).await;
    let (Shipping { mut target, latest, .. }, direct) =
        (Shipping::new(&pair), pair.address.to_string());
    let named = pair.snapshot();
    pair.write(0, MIB, 2);
    let newest = pair.snapshot();
    let as_of = |as_of_ms| Latest { snapshot: newest.clone(), as_of_ms };
    let (before, now) = (as_of(boottime_ms().saturating_sub(OLD_MS)), as_of(boottime_ms()));
    latest.send_replace(Some(before.clone()));
    target.bring(&before, &direct).await.unwrap();
    let age_ms = || pair.receiver.context.holdings.age_ms(&newest);
    assert!(age_ms() >= OLD_MS);
    let kind = SnapshotKind::Kept { label: "named".into() };
    pair.sender.pool.label_snapshot(named.id.uuid, kind).unwrap();
    pair.receiver.keeps(&named);
    let slots = &pair.sender.context.slots;
    let all = [slots.take(due(), false).await, slots.take(due(), false).await];
    let stamped = async {
        // The volume's next round: nothing was written.
        latest.send_replace(Some(now.clone()));
        until("a stamp", || age_ms() < OLD_MS / 2).await;
    };
    tokio::select! {
        given = target.bring(&before, &direct) => panic!("it had no place: {given:?}"),
        () = stamped => {}
    }
    // Something was written, and six rounds were missed.
    pair.write(0, MIB, 3);
    let newer = Latest { snapshot: pair.snapshot(), as_of_ms: boottime_ms() };
    latest.send_replace(Some(newer.clone()));
    let overdue = as_of(boottime_ms().saturating_sub(OLD_MS * 3 / 4));
    let waits = tokio::time::timeout(Duration::from_secs(60), target.bring(&overdue, &direct));
    let made_way = waits.await.expect("it keeps the newest back");
    assert!(matches!(made_way, Err(AgentError::MadeWay)), "{made_way:?}");
    assert_eq!(target.waits_since_ms, Some(before.as_of_ms), "its turn would never come");
    drop(all);
    let has_it = || {
        let held = pair.receiver.pool.volume(UID.into()).unwrap().state;
        held.find(named.id.uuid).is_some()
    };
    assert!(!has_it());
    target.bring(&newer, &direct).await.unwrap();
    assert!(has_it() && target.waits_since_ms.is_none());
    pair.assert_same(&named);
    pair.assert_same(&newer.snapshot);
}

/// I22: a fenced primary with an old view went on vouching for a copy that its successor did not
/// reach. When that was lost too, the copy was taken over to as if nothing were missing.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_whose_epoch_was_over_made_a_copy_look_current() {
    for (sealed, named) in [(false, false), (false, true), (true, false)] {
        let pair = Pair::new(ByteSize::mib(4), TransferLimits::default()).await;
        let (mut shipping, direct) = (Shipping::new(&pair), pair.address.to_string());
        let snapshot = pair.snapshot();
        let as_of_ms = boottime_ms().saturating_sub(OLD_MS);
        let before = Latest { snapshot: snapshot.clone(), as_of_ms };
        shipping.latest.send_replace(Some(before.clone()));
        shipping.target.bring(&before, &direct).await.unwrap();
        let receiver = &pair.receiver;
        if sealed {
            receiver.pool.seal(UID.into(), Epoch(1)).unwrap();
        } else {
            receiver.know(Epoch(2));
        }
        if named {
            receiver.keeps(&snapshot);
        }
        let refused = shipping.round(&pair, &snapshot, &direct).await.unwrap_err();
        assert_eq!(refused.code(), Code::StaleEpoch, "{refused}");
        // A daemon that was started anew does not know that it is there already.
        let again = Shipping::new(&pair).round(&pair, &snapshot, &direct).await;
        assert_eq!(again.is_ok(), sealed || named, "{again:?}");
        let age_ms = receiver.context.holdings.age_ms(&snapshot);
        assert!(age_ms >= OLD_MS, "{age_ms} ms old: sealed {sealed}, named {named}");
    }
}
