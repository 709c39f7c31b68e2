//! Ports over a plain state, for this crate's tests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use holdfast_core::{
    Command, Container, Evidence, FewMap, Node, NodeLife, NodeRole, Outcome, State,
};
use holdfast_planner::{Quorum, SealedCopy};
use holdfast_types::{
    Chain, Code, ContainerSpec, ContainerUid, DesiredState, Epoch, ImageUid, Incarnation, MacAddr,
    NodeId, Revision, RunState, Seq, SnapshotId, SnapshotUuid, TimestampMs, VolumeUid,
};
use uuid::Uuid;

use crate::ports::{PortError, Ports};

/// What the fake clock says.
pub(crate) const BOOTTIME_MS: u64 = 1_000_000;

pub(crate) struct FakePorts {
    state: Mutex<Arc<State>>,
    pub(crate) answers: BTreeMap<NodeId, Vec<SealedCopy>>,
    /// Volumes whose seal fails there.
    pub(crate) unsealed: BTreeSet<(NodeId, VolumeUid)>,
    /// Whether a committed takeover changes the state.
    pub(crate) applies_takeovers: bool,
    /// How far the clock goes on while a node seals.
    pub(crate) seal_takes_ms: u64,
    pub(crate) quorum: Quorum,
    wall: Mutex<TimestampMs>,
    proposed: Mutex<Vec<Command>>,
}

impl FakePorts {
    pub(crate) fn new(state: State) -> Self {
        Self {
            state: Mutex::new(Arc::new(state)),
            applies_takeovers: false,
            answers: BTreeMap::new(),
            unsealed: BTreeSet::new(),
            seal_takes_ms: 0,
            quorum: Quorum::default(),
            wall: Mutex::new(TimestampMs(2_000)),
            proposed: Mutex::default(),
        }
    }

    pub(crate) fn proposed(&self) -> Vec<Command> {
        self.proposed.lock().unwrap().clone()
    }
}

#[async_trait]
impl Ports for FakePorts {
    fn state(&self) -> Arc<State> {
        self.state.lock().unwrap().clone()
    }

    async fn changed(&self) {}

    async fn propose(&self, command: Command) -> Result<Outcome, PortError> {
        if let Command::TakeOver(taken) = &command
            && self.applies_takeovers
        {
            let mut state = self.state.lock().unwrap();
            let mut container = Arc::make_mut(&mut state).containers.get_mut(&taken.uid).unwrap();
            container.chain.advance(taken.branch);
            container.node = taken.to;
        }
        self.proposed.lock().unwrap().push(command);
        Ok(Outcome::Done)
    }

    async fn seal(
        &self,
        node: &Node,
        items: Vec<(VolumeUid, Epoch)>,
    ) -> Result<BTreeMap<VolumeUid, Vec<SealedCopy>>, PortError> {
        self.wall.lock().unwrap().0 += self.seal_takes_ms;
        let missing = || PortError { code: Code::Unavailable, message: "no answer".into() };
        let answer = self.answers.get(&node.id).ok_or_else(missing)?;
        let of = |volume| answer.iter().filter(|c| c.id.volume == volume).copied().collect();
        let volumes = items.into_iter().map(|(volume, _)| volume);
        let sealed = volumes.filter(|volume| !self.unsealed.contains(&(node.id, *volume)));
        Ok(sealed.map(|volume| (volume, of(volume))).collect())
    }

    fn quorum(&self) -> Quorum {
        self.quorum.clone()
    }

    async fn align_membership(&self) -> Result<bool, PortError> {
        Ok(false)
    }

    fn boottime_ms(&self) -> u64 {
        BOOTTIME_MS
    }

    fn wall(&self) -> TimestampMs {
        *self.wall.lock().unwrap()
    }
}

pub(crate) fn node(id: u64) -> Node {
    Node {
        id: NodeId(id),
        name: format!("n{id}").parse().unwrap(),
        address: format!("n{id}:7443"),
        underlay: "10.88.0.1".parse().unwrap(),
        role: NodeRole::Voter,
        incarnation: Incarnation(1),
        life: NodeLife::Up,
        assignment_revision: Revision(1),
        view_revision: Revision(1),
        labels: Default::default(),
        asked: None,
        revision: Revision(1),
    }
}

pub(crate) fn state_of(nodes: &[u64]) -> State {
    let nodes = nodes.iter().map(|n| (NodeId(*n), node(*n))).collect();
    State { nodes, ..Default::default() }
}

pub(crate) fn lose(state: &mut State, id: u64) {
    let life = NodeLife::Lost { at: TimestampMs(1_000), evidence: Evidence::Relinquished };
    state.nodes.get_mut(&NodeId(id)).unwrap().life = life;
}

pub(crate) fn copy(uid: ContainerUid, node: u64, seq: u64) -> SealedCopy {
    let id = SnapshotId {
        volume: uid.into(),
        epoch: Epoch(1),
        seq: Seq(seq),
        uuid: SnapshotUuid(Uuid::from_u128(u128::from(seq))),
        parent: None,
    };
    SealedCopy { node: NodeId(node), id, age_ms: 100 }
}

pub(crate) fn add_container(state: &mut State, node: u64, replicas: &[u64]) -> ContainerUid {
    add_container_as(state, 1, node, replicas)
}

pub(crate) fn add_container_as(
    state: &mut State,
    number: u128,
    node: u64,
    replicas: &[u64],
) -> ContainerUid {
    let uid = ContainerUid(Uuid::from_u128(number));
    let address = "10.77.0.2".parse().unwrap();
    let replicas: BTreeSet<NodeId> = replicas.iter().map(|n| NodeId(*n)).collect();
    let container = Container {
        uid,
        name: "web".parse().unwrap(),
        spec: ContainerSpec { image: Some("busybox".parse().unwrap()), ..Default::default() },
        image: ImageUid(Uuid::from_u128(9)),
        image_snapshot: copy(uid, node, 1).id,
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
    state.containers.insert(uid, container);
    uid
}
