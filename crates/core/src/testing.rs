//! A small world for this crate's tests.

use std::collections::BTreeSet;

use holdfast_types::{
    ByteSize, Code, ContainerSpec, ContainerUid, DesiredState, Epoch, ImageUid, Incarnation,
    KeptBy, NodeId, OperationId, Report, RequestId, RunState, Seq, SnapshotId, SnapshotUuid,
    TimestampMs, VolumeUid,
};
use uuid::Uuid;

use crate::{
    AddImage, AdmitNode, Command, CreateContainer, CreateSnapshot, Entry, Evidence, InitCluster,
    Kept, MarkNodeLost, NewNode, NodeRole, Origin, Outcome, RecordFloor, RecordReport,
    RegisterNode, RemoveSnapshot, Response, RestoreSnapshot, SetDesired, State, TakeOver, apply,
};

/// A state, and the log index that it has reached.
#[derive(Clone, Default)]
pub(crate) struct World {
    pub(crate) state: State,
    pub(crate) index: u64,
}

impl World {
    /// Nodes 1, 2 and 3, up in their first life, and an image `busybox` on node 1.
    pub(crate) fn three_nodes() -> Self {
        Self::three_nodes_in("10.77.0.0/16")
    }

    pub(crate) fn three_nodes_in(overlay: &str) -> Self {
        let mut world = Self::default();
        world.ok(init_in(overlay));
        world.ok(admit("n2"));
        world.ok(admit("n3"));
        for n in 1..=3 {
            world.ok(register(n));
        }
        world.ok(image("busybox", 1));
        world
    }

    pub(crate) fn index(&self) -> u64 {
        self.index
    }

    pub(crate) fn apply_as(&mut self, request: RequestId, command: Command) -> Response {
        self.index += 1;
        let at = TimestampMs(1_000_000 + self.index * 1000);
        apply(&mut self.state, self.index, Entry { request, at, command })
    }

    pub(crate) fn try_apply(&mut self, command: Command) -> Response {
        let request = RequestId(Uuid::from_u64_pair(7, self.index + 1));
        self.apply_as(request, command)
    }

    pub(crate) fn ok(&mut self, command: Command) -> Outcome {
        self.try_apply(command).unwrap()
    }

    pub(crate) fn refused(&mut self, command: Command) -> Code {
        self.try_apply(command).unwrap_err().code
    }

    pub(crate) fn container(&mut self, name: &str, node: u64, replicas: &[u64]) -> ContainerUid {
        let uid = ContainerUid(Uuid::from_u64_pair(1, self.index + 1));
        let Command::CreateContainer(command) = create(name, node, replicas) else {
            unreachable!()
        };
        self.ok(Command::CreateContainer(CreateContainer {
            uid,
            operation: OperationId(uid.0),
            ..command
        }));
        uid
    }

    /// The container runs on that node, in its first epoch.
    pub(crate) fn running(&mut self, uid: ContainerUid, node: u64) {
        let run = Report::Run { uid, epoch: Epoch(1), state: RunState::Running };
        self.ok(report(node, 1, run));
    }

    pub(crate) fn kept(&self, uid: ContainerUid, name: &str) -> &Kept {
        &self.state.containers[&uid].kept[&name.parse().unwrap()]
    }

    /// A snapshot that node 1 took in its first epoch.
    pub(crate) fn taken(
        &mut self,
        uid: ContainerUid,
        name: &str,
        number: u64,
        seq: u64,
    ) -> SnapshotUuid {
        self.ok(want(uid, name, number));
        self.taken_as(uid, name, 1, seq)
    }

    /// A wanted snapshot that node 1 took.
    pub(crate) fn taken_as(
        &mut self,
        uid: ContainerUid,
        name: &str,
        epoch: u64,
        seq: u64,
    ) -> SnapshotUuid {
        let uuid = self.kept(uid, name).uuid;
        self.ok(report(1, 1, taken(uid, uuid, epoch, seq)));
        uuid
    }

    pub(crate) fn holders(&self, uid: ContainerUid, name: &str) -> Vec<u64> {
        let taken = self.kept(uid, name).taken().unwrap();
        taken.holders.iter().map(|id| id.0).collect()
    }

    pub(crate) fn desire(&mut self, uid: ContainerUid, desired: DesiredState) {
        self.ok(Command::SetDesired(SetDesired { uid, desired }));
    }
}

pub(crate) fn init() -> Command {
    init_in("10.77.0.0/16")
}

fn init_in(overlay: &str) -> Command {
    Command::InitCluster(InitCluster {
        cluster: holdfast_types::ClusterId(Uuid::from_u128(5)),
        lease: Default::default(),
        overlay: overlay.parse().unwrap(),
        founder: new_node("n1"),
    })
}

pub(crate) fn new_node(name: &str) -> NewNode {
    NewNode {
        name: name.parse().unwrap(),
        address: format!("{name}:7443"),
        underlay: "10.88.0.1".parse().unwrap(),
        role: NodeRole::Voter,
        asked: None,
    }
}

pub(crate) fn admit(name: &str) -> Command {
    Command::AdmitNode(AdmitNode { node: new_node(name) })
}

pub(crate) fn register(node: u64) -> Command {
    Command::RegisterNode(RegisterNode { node: NodeId(node) })
}

pub(crate) fn lost(node: u64, incarnation: u64) -> Command {
    Command::MarkNodeLost(MarkNodeLost {
        node: NodeId(node),
        incarnation: Incarnation(incarnation),
        evidence: Evidence::Silence { silent_ms: 4300, required_ms: 4281 },
    })
}

pub(crate) fn snapshot(volume: VolumeUid, epoch: u64, seq: u64) -> SnapshotId {
    SnapshotId {
        volume,
        epoch: Epoch(epoch),
        seq: Seq(seq),
        uuid: SnapshotUuid(Uuid::from_u64_pair(epoch, seq)),
        parent: None,
    }
}

pub(crate) fn image(name: &str, node: u64) -> Command {
    let uid = ImageUid(Uuid::from_u128(name.len() as u128));
    Command::AddImage(AddImage {
        uid,
        name: name.parse().unwrap(),
        size: ByteSize::mib(64),
        snapshot: snapshot(uid.into(), 0, 1),
        entries: 10,
        content: ByteSize::mib(2),
        has_init: true,
        node: NodeId(node),
    })
}

pub(crate) fn create(name: &str, node: u64, replicas: &[u64]) -> Command {
    Command::CreateContainer(CreateContainer {
        uid: ContainerUid(Uuid::from_u64_pair(2, name.len() as u64)),
        name: name.parse().unwrap(),
        spec: ContainerSpec { image: Some("busybox".parse().unwrap()), ..Default::default() },
        desired: DesiredState::Running,
        node: NodeId(node),
        replicas: replicas.iter().map(|n| NodeId(*n)).collect::<BTreeSet<_>>(),
        operation: OperationId(Uuid::from_u128(77)),
        origin: None,
    })
}

pub(crate) fn take_over(uid: ContainerUid, epoch: u64, incarnation: u64, to: u64) -> Command {
    Command::TakeOver(TakeOver {
        uid,
        from_epoch: Epoch(epoch),
        from_incarnation: Incarnation(incarnation),
        to: NodeId(to),
        branch: snapshot(uid.into(), epoch, 1),
        data_as_of: TimestampMs(1_000_000),
    })
}

pub(crate) fn floor(uid: ContainerUid, node: u64, epoch: u64, seq: u64) -> Command {
    let newest = snapshot(uid.into(), epoch, seq);
    Command::RecordFloor(RecordFloor {
        copies: vec![(uid, NodeId(node), newest, TimestampMs(1_000_000))],
    })
}

pub(crate) fn report(node: u64, incarnation: u64, report: Report) -> Command {
    Command::RecordReport(RecordReport {
        node: NodeId(node),
        incarnation: Incarnation(incarnation),
        report,
    })
}

pub(crate) fn want(uid: ContainerUid, name: &str, number: u64) -> Command {
    want_by(uid, name, number, KeptBy::Person)
}

pub(crate) fn want_by(uid: ContainerUid, name: &str, number: u64, by: KeptBy) -> Command {
    Command::CreateSnapshot(CreateSnapshot {
        uid,
        name: name.parse().unwrap(),
        uuid: SnapshotUuid(Uuid::from_u64_pair(40, 1 << 40 | number)),
        by,
        operation: Some(OperationId(Uuid::from_u64_pair(41, number))),
    })
}

pub(crate) fn taken(uid: ContainerUid, uuid: SnapshotUuid, epoch: u64, seq: u64) -> Report {
    let id = SnapshotId { uuid, ..snapshot(uid.into(), epoch, seq) };
    Report::SnapshotTaken { epoch: Epoch(epoch), id, taken: TimestampMs(5), size: ByteSize::gib(1) }
}

pub(crate) fn remove(uid: ContainerUid, name: &str) -> Command {
    Command::RemoveSnapshot(RemoveSnapshot { uid, name: name.parse().unwrap(), only: None })
}

pub(crate) fn restore(uid: ContainerUid, from: &str, before: &str) -> Command {
    Command::RestoreSnapshot(RestoreSnapshot {
        uid,
        from: from.parse().unwrap(),
        before: before.parse().unwrap(),
        before_uuid: SnapshotUuid(Uuid::from_u64_pair(42, 1 << 40)),
        operation: OperationId(Uuid::from_u128(43)),
    })
}

pub(crate) fn clone(uid: ContainerUid, snapshot: &str, name: &str, node: u64) -> Command {
    let Command::CreateContainer(command) = create(name, node, &[]) else { unreachable!() };
    let origin = Some(Origin { uid, snapshot: snapshot.parse().unwrap() });
    Command::CreateContainer(CreateContainer { origin, ..command })
}

/// The takeover, from that snapshot of the epoch.
pub(crate) fn branch(command: Command, seq: u64) -> Command {
    let Command::TakeOver(mut take_over) = command else { unreachable!() };
    take_over.branch = snapshot(take_over.uid.into(), take_over.from_epoch.0, seq);
    Command::TakeOver(take_over)
}
