//! Small worlds for this crate's tests.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_core::{Container, Evidence, FewMap, Image, Node, NodeLife, NodeRole, State};
use holdfast_types::{
    ByteSize, Chain, ContainerSpec, ContainerUid, DesiredState, Epoch, ImageUid, Incarnation,
    MacAddr, NodeId, Revision, RunState, Seq, SnapshotId, SnapshotUuid, TimestampMs,
};
use uuid::Uuid;

use crate::observe::{NodeObservation, Observations, PoolObservation};

pub(crate) const IMAGE: ImageUid = ImageUid(Uuid::from_u128(9));

pub(crate) fn nodes(count: u64) -> State {
    let mut state = State::default();
    for n in 1..=count {
        let node = Node {
            id: NodeId(n),
            name: format!("n{n}").parse().unwrap(),
            address: format!("n{n}:7443"),
            underlay: "10.88.0.1".parse().unwrap(),
            role: NodeRole::Voter,
            incarnation: Incarnation(1),
            life: NodeLife::Up,
            assignment_revision: Revision(1),
            view_revision: Revision(1),
            labels: Default::default(),
            asked: None,
            revision: Revision(1),
        };
        state.nodes.insert(node.id, node);
    }
    let image = Image {
        uid: IMAGE,
        name: "busybox".parse().unwrap(),
        size: ByteSize::mib(64),
        snapshot: snapshot(ContainerUid(IMAGE.0), 0, 1),
        entries: 1,
        content: ByteSize::mib(1),
        has_init: true,
        held_by: state.nodes.keys().copied().collect(),
        created: TimestampMs(0),
        revision: Revision(1),
    };
    state.images.insert(IMAGE, image);
    state
}

pub(crate) fn three_nodes() -> State {
    nodes(3)
}

pub(crate) fn observed(leased: &[u64]) -> Observations {
    let node = |n: &u64| {
        let pool = PoolObservation {
            name: "default".into(),
            metadata: None,
            driver: "xfs".into(),
            size: ByteSize::gib(10),
            used: ByteSize::gib(1),
            promised: ByteSize::gib(1),
            admits: true,
        };
        let seen = NodeObservation { leased: true, pool: Some(pool), ..Default::default() };
        (NodeId(*n), seen)
    };
    Observations { nodes: leased.iter().map(node).collect(), ..Default::default() }
}

pub(crate) fn spec() -> ContainerSpec {
    ContainerSpec { image: Some("busybox".parse().unwrap()), ..Default::default() }
}

pub(crate) fn snapshot(uid: ContainerUid, epoch: u64, seq: u64) -> SnapshotId {
    SnapshotId {
        volume: uid.into(),
        epoch: Epoch(epoch),
        seq: Seq(seq),
        uuid: SnapshotUuid(Uuid::from_u64_pair(epoch, seq)),
        parent: None,
    }
}

pub(crate) fn add_container(
    state: &mut State,
    number: u128,
    node: u64,
    replicas: &[u64],
    change: fn(&mut Container),
) -> ContainerUid {
    let uid = ContainerUid(Uuid::from_u128(number));
    let address = std::net::Ipv4Addr::from(0x0a4d_0000 + number as u32);
    let replicas: BTreeSet<NodeId> = replicas.iter().map(|n| NodeId(*n)).collect();
    let mut container = Container {
        uid,
        name: format!("c{number}").parse().unwrap(),
        spec: spec(),
        image: IMAGE,
        image_snapshot: snapshot(ContainerUid(IMAGE.0), 0, 1),
        desired: DesiredState::Running,
        resizing: false,
        resize_asked: Revision::default(),
        short: false,
        run: RunState::Running,
        made: false,
        chain: Chain::begin(Epoch(1)),
        node: NodeId(node),
        holders: replicas.iter().copied().chain([NodeId(node)]).collect(),
        replicas: replicas.into(),
        copies: FewMap::default(),
        hold: None,
        kept: BTreeMap::new(),
        restore: None,
        schedule: None,
        schedule_failed: None,
        address,
        mac: MacAddr::from_ipv4(address),
        created: TimestampMs(0),
        revision: Revision(1),
    };
    change(&mut container);
    state.containers.insert(uid, container);
    uid
}

pub(crate) fn lose(state: &mut State, node: u64) {
    let evidence = Evidence::Silence { silent_ms: 4300, required_ms: 4281 };
    let life = NodeLife::Lost { at: TimestampMs(1_000), evidence };
    state.nodes.get_mut(&NodeId(node)).unwrap().life = life;
}
