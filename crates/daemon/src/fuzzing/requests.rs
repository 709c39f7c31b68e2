//! What clients and nodes ask of a node, as far as it is looked at without a cluster, and the file that
//! says who this node is.
//!
//! The first byte of an input says what the rest is.

use holdfast_controller::Sightings;
use holdfast_core::{NodeRole, State};
use holdfast_proto::internal::{
    AddImageRequest, Capacity, HeartbeatRequest, Holding, ObservedLeader, ObservedNode,
    SealResponse, Sealed, SnapshotId, UnpackedImage,
};
use holdfast_proto::v1;
use holdfast_types::{
    ClusterId, ContainerUid, Epoch, Incarnation, NodeId, Report, RunState, TimestampMs, VolumeUid,
};
use prost::Message;

use crate::api::pool;
use crate::convert::lease_asked;
use crate::identity::Identity;
use crate::leader::{heartbeat, image, request_id};
use crate::ports::sealed_copies;
use crate::seen::Seen;

const READERS: [fn(&[u8]); 9] = [
    |body| as_a(body, |asked| drop(pool::asked(asked))),
    |body| as_a(body, |asked| drop(pool::change(asked))),
    |body| as_a(body, init),
    |body| as_a(body, heard),
    |body| as_a(body, |answer| drop(sealed_copies(NodeId(1), &[(volume(), Epoch(1))], answer))),
    |body| as_a(body, observed),
    |body| as_a(body, add_image),
    report,
    identity,
];

/// Reads one of them.
pub fn read(input: &[u8]) {
    let [which, body @ ..] = input else { return };
    READERS[usize::from(*which) % READERS.len()](body);
}

fn as_a<M: Message + Default>(body: &[u8], read: impl FnOnce(M)) {
    if let Ok(message) = M::decode(body) {
        read(message);
    }
}

/// The lease of a new cluster: what passes the check can be counted with.
fn init(asked: v1::InitRequest) {
    let lease = lease_asked(asked.lease.as_ref());
    if lease.check().is_ok() {
        assert!(lease.lost_after_ms() >= lease.lease_ms + 2 * lease.fence_budget_ms);
    }
}

/// A heartbeat's holdings and pool, as the leader keeps and sees them.
fn heard(heartbeat: HeartbeatRequest) {
    let (node, life) = (NodeId(heartbeat.node_id), Incarnation(heartbeat.incarnation));
    let Ok(sighting) = heartbeat::sighting(heartbeat) else { return };
    let sightings = Sightings::default();
    sightings.heard(node, life, sighting, 1_000);
    drop(sightings.observe(2_000, TimestampMs(2_000_000_000_000), |_| true));
}

/// What the leader sees, as another node shows it.
fn observed(node: ObservedNode) {
    let leader = ObservedLeader { wall_ms: 2_000_000_000_000, ..Default::default() };
    let mut seen = Seen::begin(&leader);
    let id = NodeId(node.node_id);
    drop(seen.add(node));
    seen.picture(&State::default(), None, |picture| {
        let _shown = (picture.silent_ms)(id);
    });
}

fn add_image(asked: AddImageRequest) {
    drop(request_id(&asked.request_id).map_err(|fault| fault.to_string()));
    if let (Some(image), Ok(name)) = (asked.image, asked.name.parse()) {
        drop(image::command(image, name, NodeId(asked.node_id)).map_err(|fault| fault.to_string()));
    }
}

fn report(body: &[u8]) {
    let Ok(report) = rmp_serde::from_slice::<Report>(body) else { return };
    let again = rmp_serde::to_vec_named(&report).expect("what was read can be written");
    assert_eq!(rmp_serde::from_slice::<Report>(&again).ok(), Some(report));
}

fn identity(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    let Some(identity) = Identity::parse(text) else { return };
    let text = identity.render();
    assert!(Identity::parse(&text).is_some_and(|again| again.render() == text));
}

/// One of each.
pub fn seeds() -> Vec<Vec<u8>> {
    let id = || vec![7; 16].into();
    let snapshot = || Some(SnapshotId { volume: id(), epoch: 1, seq: 2, uuid: id(), parent: id() });
    let holding = || Holding { volume: id(), newest: snapshot(), age_ms: 3, removed: false };
    let capacity = Capacity {
        name: "fast".into(),
        driver: "lvm".into(),
        size_bytes: 8 << 30,
        metadata_used_bytes: Some(1),
        metadata_size_bytes: Some(2),
        ..Capacity::default()
    };
    let create = v1::CreatePoolRequest {
        name: "fast".into(),
        driver: "lvm".into(),
        devices: vec!["/dev/sdb".into()],
        ..Default::default()
    };
    let split = v1::SplitPool { devices: vec!["/dev/sdb".into()], into: "old".into() };
    let change = v1::ChangePoolRequest {
        change: Some(v1::change_pool_request::Change::Split(split)),
        ..Default::default()
    };
    let lease = v1::LeaseSettings { lease_ms: 3_000, margin_ms: 200, ..Default::default() };
    let init = v1::InitRequest { lease: Some(lease) };
    let heartbeat = HeartbeatRequest {
        node_id: 1,
        incarnation: 2,
        full: true,
        holdings: vec![holding(), Holding { removed: true, ..holding() }],
        pool: Some(capacity.clone()),
        ..Default::default()
    };
    let sealed = SealResponse { sealed: vec![Sealed { volume: id(), held: vec![holding()] }] };
    let observed = ObservedNode {
        node_id: 1,
        held: vec![holding()],
        heard: true,
        pool: Some(capacity),
        feature_level: Some(1),
        silent_ms: Some(4),
        ..Default::default()
    };
    let image =
        UnpackedImage { uid: id(), snapshot: snapshot(), size_bytes: 1, ..Default::default() };
    let add = AddImageRequest {
        request_id: id(),
        name: "debian".into(),
        image: Some(image),
        ..Default::default()
    };
    let uid = ContainerUid(volume().0);
    let state = RunState::Failed { reason: "why".into() };
    let report = rmp_serde::to_vec_named(&Report::Run { uid, epoch: Epoch(1), state });
    let identity = Identity {
        cluster: ClusterId::try_from(&[7; 16][..]).expect("16 bytes"),
        node: NodeId(7),
        name: "n2".parse().expect("a name"),
        role: NodeRole::Standby,
        address: "10.0.0.2:7443".into(),
        peers: vec!["10.0.0.1:7443".into()],
    };
    let bodies = [
        create.encode_to_vec(),
        change.encode_to_vec(),
        init.encode_to_vec(),
        heartbeat.encode_to_vec(),
        sealed.encode_to_vec(),
        observed.encode_to_vec(),
        add.encode_to_vec(),
        report.expect("a report can be written"),
        identity.render().into_bytes(),
    ];
    (0..).zip(bodies).map(|(which, body)| [&[which], &body[..]].concat()).collect()
}

fn volume() -> VolumeUid {
    VolumeUid::try_from(&[7; 16][..]).expect("16 bytes")
}

#[cfg(test)]
mod tests {
    #[test]
    fn spoiled_requests_are_read_or_refused() {
        holdfast_fuzz::spoiled(&super::seeds(), 100_000, super::read);
    }
}
