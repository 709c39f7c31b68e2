//! A cluster with many containers, as entries make it: each protected and running, with two replicas
//! and a copy on each of its three nodes.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use holdfast_core::{
    AddImage, AdmitNode, Command, CreateContainer, Entry, InitCluster, NewNode, NodeRole, Outcome,
    RecordFloor, RecordReport, RegisterNode, State, apply,
};
use holdfast_types::{
    ByteSize, ClusterId, ContainerSpec, ContainerUid, DesiredState, Epoch, ImageUid, Incarnation,
    NodeId, OperationId, Report, RequestId, RunState, Seq, SnapshotId, SnapshotUuid, TimestampMs,
    VolumeUid,
};
use uuid::Uuid;

const NODES: u64 = 50;
/// Copies in one entry.
const FLOOR: u64 = 64;

/// Such a state, and the index of its last entry.
pub(crate) fn of(containers: u64) -> Result<(State, u64)> {
    let mut world = World { state: State::default(), index: 0, nodes: Vec::new() };
    world.begin()?;
    for number in 0..containers {
        world.create(number)?;
        if (number + 1) % FLOOR == 0 {
            world.raise_floor(number + 1 - FLOOR, number + 1)?;
        }
    }
    world.raise_floor(containers / FLOOR * FLOOR, containers)?;
    Ok((world.state, world.index))
}

/// The container with that number.
pub(crate) fn uid(number: u64) -> ContainerUid {
    ContainerUid(Uuid::from_u64_pair(0x019d_0000_0000_7000 + (number >> 16), 1 << 63 | number))
}

struct World {
    state: State,
    index: u64,
    nodes: Vec<NodeId>,
}

impl World {
    fn apply(&mut self, command: Command) -> Result<Outcome> {
        self.index += 1;
        let at = TimestampMs(1_795_000_000_000 + self.index);
        let request = RequestId(Uuid::from_u64_pair(0x019d_0000_0000_7001, self.index));
        Ok(apply(&mut self.state, self.index, Entry { request, at, command })?)
    }

    fn begin(&mut self) -> Result<()> {
        let node = |number: u64| -> Result<NewNode> {
            Ok(NewNode {
                name: format!("node-{number}").parse()?,
                address: format!("node-{number}.example:7443"),
                underlay: "192.0.2.1".parse()?,
                role: NodeRole::Voter,
                asked: None,
            })
        };
        let cluster = ClusterId(Uuid::from_u128(1));
        let (overlay, founder) = ("10.0.0.0/8".parse()?, node(0)?);
        let init = InitCluster { cluster, lease: Default::default(), overlay, founder };
        let mut admitted = vec![self.apply(Command::InitCluster(init))?];
        for number in 1..NODES {
            admitted.push(self.apply(Command::AdmitNode(AdmitNode { node: node(number)? }))?);
        }
        for outcome in admitted {
            let Outcome::Node(node) = outcome else { continue };
            self.apply(Command::RegisterNode(RegisterNode { node }))?;
            self.nodes.push(node);
        }
        let uid = ImageUid(Uuid::from_u128(2));
        self.apply(Command::AddImage(AddImage {
            uid,
            name: "debian-12".parse()?,
            size: ByteSize::mib(512),
            snapshot: snapshot(uid.into(), 0),
            entries: 10_000,
            content: ByteSize::mib(200),
            has_init: true,
            node: self.nodes[0],
        }))?;
        Ok(())
    }

    /// Whoever runs it, and its two replicas.
    fn places(&self, number: u64) -> [NodeId; 3] {
        [0, 1, 2].map(|place| self.nodes[((number * 7 + place * 13) % NODES) as usize])
    }

    fn create(&mut self, number: u64) -> Result<()> {
        let [node, first, second] = self.places(number);
        let uid = uid(number);
        self.apply(Command::CreateContainer(CreateContainer {
            uid,
            name: format!("service-{number:07}").parse()?,
            spec: ContainerSpec { image: Some("debian-12".parse()?), ..Default::default() },
            desired: DesiredState::Running,
            node,
            replicas: BTreeSet::from([first, second]),
            operation: OperationId(uid.0),
            origin: None,
        }))
        .with_context(|| format!("container {number}"))?;
        let report = Report::Run { uid, epoch: Epoch(1), state: RunState::Running };
        let incarnation = Incarnation(1);
        self.apply(Command::RecordReport(RecordReport { node, incarnation, report }))?;
        Ok(())
    }

    fn raise_floor(&mut self, from: u64, to: u64) -> Result<()> {
        let copies = (from..to).flat_map(|number| {
            let id = snapshot(uid(number).into(), number + 2);
            self.places(number).map(|node| (uid(number), node, id, TimestampMs(1_795_000_000_000)))
        });
        let copies = copies.collect();
        self.apply(Command::RecordFloor(RecordFloor { copies }))?;
        Ok(())
    }
}

fn snapshot(volume: VolumeUid, seq: u64) -> SnapshotId {
    let uuid = |low| SnapshotUuid(Uuid::from_u64_pair(volume.0.as_u64_pair().1, low));
    let parent = (seq > 0).then(|| uuid(seq - 1));
    SnapshotId { volume, epoch: Epoch(u64::from(seq > 1)), seq: Seq(seq), uuid: uuid(seq), parent }
}
