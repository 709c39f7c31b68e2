//! The one function that changes the state.

use std::collections::BTreeMap;

use holdfast_types::{ContainerName, ContainerUid, NodeId, OperationId, Revision, TimestampMs};
use uuid::Uuid;

use crate::{
    Command, Container, Entry, Event, KeptState, Operation, OperationKind, OperationState,
    Response, State, operation,
};

/// Applies the entry at log index `index`. A request that was answered before gets the same answer
/// and changes nothing (I7); a refused one changes nothing either.
pub fn apply(state: &mut State, index: u64, entry: Entry) -> Response {
    if let Some(answer) = state.answered.get(&entry.request) {
        return answer.clone();
    }
    let (at, revision) = (entry.at, Revision(index));
    let response = Change { state, at, revision, events: 0 }.run(entry.command);
    state.remember(entry.request, revision, at, &response);
    response
}

/// The state during one entry, with what every command needs besides.
pub(crate) struct Change<'a> {
    pub(crate) state: &'a mut State,
    pub(crate) at: TimestampMs,
    pub(crate) revision: Revision,
    events: u32,
}

impl Change<'_> {
    pub(crate) fn run(&mut self, command: Command) -> Response {
        match command {
            Command::InitCluster(c) => c.apply(self),
            Command::AdmitNode(c) => c.apply(self),
            Command::RegisterNode(c) => c.apply(self),
            Command::SetRole(c) => c.apply(self),
            Command::MarkNodeLost(c) => c.apply(self),
            Command::AddImage(c) => c.apply(self),
            Command::RemoveImage(c) => c.apply(self),
            Command::CreateContainer(c) => c.apply(self),
            Command::SetDesired(c) => c.apply(self),
            Command::Resize(c) => c.apply(self),
            Command::SetReplicas(c) => c.apply(self),
            Command::TakeOver(c) => c.apply(self),
            Command::HoldTakeover(c) => c.apply(self),
            Command::DecideTakeover(c) => c.apply(self),
            Command::RecordReport(c) => c.apply(self),
            Command::RecordFloor(c) => c.apply(self),
            Command::CreateSnapshot(c) => c.apply(self),
            Command::RemoveSnapshot(c) => c.apply(self),
            Command::RestoreSnapshot(c) => c.apply(self),
            Command::SetSchedule(c) => c.apply(self),
            Command::SetLabels(c) => c.apply(self),
            Command::SetRoles(c) => c.apply(self),
            Command::RemoveNode(c) => c.apply(self),
            Command::RaiseLevel(c) => c.apply(self),
            Command::RecoverCluster(c) => c.apply(self),
            Command::RestoreCluster(c) => c.apply(self),
            Command::SetAuthorities(c) => c.apply(self),
            Command::AddToken(c) => c.apply(self),
            Command::LetIn(c) => c.apply(self),
            Command::Guarded(c) => c.apply(self),
        }
    }

    /// Marks the state as changed by this entry.
    pub(crate) fn touch(&mut self) {
        self.state.revision = self.revision;
    }

    /// Marks the views of these nodes as changed.
    pub(crate) fn touch_views(&mut self, nodes: impl IntoIterator<Item = NodeId>) {
        self.touch();
        for id in nodes {
            if let Some(node) = self.state.nodes.get_mut(&id) {
                node.view_revision = self.revision;
            }
        }
    }

    /// Marks every node's view as changed.
    pub(crate) fn touch_all_views(&mut self) {
        self.touch();
        // A few thousand at most, and only when a node or an image comes or goes.
        for id in self.state.nodes.keys().copied().collect::<Vec<_>>() {
            if let Some(node) = self.state.nodes.get_mut(&id) {
                node.view_revision = self.revision;
            }
        }
    }

    /// Marks what is assigned to these nodes as changed (DESIGN section 5 rule 6).
    pub(crate) fn touch_assignments(&mut self, nodes: impl IntoIterator<Item = NodeId>) {
        for id in nodes {
            if let Some(node) = self.state.nodes.get_mut(&id) {
                node.assignment_revision = self.revision;
                node.view_revision = self.revision;
            }
        }
        self.touch();
    }

    /// Records an event about a container.
    pub(crate) fn container_event(
        &mut self,
        kind: &str,
        container: &Container,
        node: Option<NodeId>,
        message: String,
        fields: impl IntoIterator<Item = (&'static str, String)>,
    ) {
        self.event(kind, node, Some((container.uid, container.name.clone())), message, fields);
    }

    /// Records an event about a node.
    pub(crate) fn node_event(
        &mut self,
        kind: &str,
        node: NodeId,
        message: String,
        fields: impl IntoIterator<Item = (&'static str, String)>,
    ) {
        self.event(kind, Some(node), None, message, fields);
    }

    /// Records an event.
    pub(crate) fn event(
        &mut self,
        kind: &str,
        node: Option<NodeId>,
        container: Option<(ContainerUid, ContainerName)>,
        message: String,
        fields: impl IntoIterator<Item = (&'static str, String)>,
    ) {
        let node = node.and_then(|id| self.state.nodes.get(&id)).map(|n| n.name.clone());
        let fields: BTreeMap<_, _> = fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        self.state.add_event(Event {
            revision: self.revision,
            index: self.events,
            at: self.at,
            kind: kind.to_owned(),
            node,
            container,
            message,
            fields,
        });
        self.events += 1;
        self.touch();
    }

    /// Puts the container back without the copy that was on `node`, which its `holders` name no
    /// more. One that was to be deleted is gone with its last copy.
    pub(crate) fn forget_copy(&mut self, mut container: Container, node: NodeId) {
        container.copies.remove(&node);
        for kept in container.kept.values_mut() {
            if let KeptState::Taken(taken) | KeptState::LeftBehind(taken) = &mut kept.state {
                taken.holders.remove(&node);
            }
        }
        container.revision = self.revision;
        let uid = container.uid;
        if !container.is_deleting() || !container.holders.is_empty() {
            self.state.containers.insert(uid, container);
            return;
        }
        let message = format!("container {} is deleted", container.name);
        self.container_event("container-deleted", &container, None, message, []);
        self.state.addresses.remove(&container.address);
        self.state.diverged.retain(|_, diverged| diverged.uid != uid);
        self.state.containers.remove(&uid);
        self.end_operations(uid, |kind| {
            (kind == OperationKind::Delete).then_some(OperationState::Done)
        });
    }

    /// Begins an operation on a container. Its id follows from the log index, so that every node
    /// makes the same one.
    pub(crate) fn begin_operation(
        &mut self,
        uid: ContainerUid,
        container: ContainerName,
        kind: OperationKind,
    ) -> OperationId {
        let id = OperationId(Uuid::from_u64_pair(uid.0.as_u64_pair().0, self.revision.0));
        self.begin_operation_as(id, uid, container, kind);
        id
    }

    /// The same, under an id of the client's.
    pub(crate) fn begin_operation_as(
        &mut self,
        id: OperationId,
        uid: ContainerUid,
        container: ContainerName,
        kind: OperationKind,
    ) {
        let state = OperationState::Running;
        let operation = Operation { id, kind, uid, container, state, started: self.at };
        self.state.operations.insert(operation);
        self.touch();
    }

    /// Ends every running operation on the container for which `outcome` says how.
    pub(crate) fn end_operations(
        &mut self,
        uid: ContainerUid,
        outcome: impl Fn(OperationKind) -> Option<OperationState>,
    ) {
        let running = self.state.operations.running_on(uid);
        let ended = running.filter_map(|op| Some((op.id, outcome(op.kind)?)));
        for (id, state) in ended.collect::<Vec<_>>() {
            self.end_operation(id, state);
        }
    }

    /// Ends that operation, if it is there and runs.
    pub(crate) fn end_operation(&mut self, id: OperationId, outcome: OperationState) {
        if !self.state.operations.end(&id, outcome) {
            return;
        }
        self.state.ended_operations.push_back(id);
        self.touch();
        while self.state.ended_operations.len() > operation::KEPT {
            if let Some(oldest) = self.state.ended_operations.pop_front() {
                self.state.operations.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{World, branch, create, lost, report, restore, take_over, want, want_by};
    use crate::{Command, Outcome, Resize, SetDesired, SetSchedule};
    use holdfast_types::{
        ByteSize, Code, DesiredState, Epoch, KeptBy, Report, RequestId, RunState,
    };

    /// I7: a retried request applies once, and its answer is the first one's.
    #[test]
    fn a_retried_request_applies_once() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2]);
        let request = RequestId(uuid::Uuid::from_u128(99));
        let stop = |desired| Command::SetDesired(SetDesired { uid, desired });
        let first = world.apply_as(request, stop(DesiredState::Stopped));
        world.ok(stop(DesiredState::Running));
        let again = world.apply_as(request, stop(DesiredState::Stopped));
        assert!(matches!(first, Ok(Outcome::Operation { .. })));
        assert_eq!(first, again);
        assert_eq!(world.state.containers[&uid].desired, DesiredState::Running);
    }

    /// A world with something of everything that a container may have.
    fn rich() -> World {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2]);
        world.container("db", 2, &[3]);
        let Command::CreateContainer(mut create) = create("with-volumes", 1, &[2]) else {
            unreachable!()
        };
        create.spec.volumes = vec!["data=2GiB:/srv".parse().unwrap()];
        world.ok(Command::CreateContainer(create));
        let keep = "hourly=24,daily=7".parse().ok();
        world.ok(Command::SetSchedule(SetSchedule { uid, keep }));
        world.running(uid, 1);
        world.taken(uid, "s1", 1, 5);
        world.taken(uid, "s2", 2, 6);
        world.ok(want(uid, "s3", 3));
        let failed = Report::SnapshotFailed {
            uid,
            epoch: Epoch(1),
            snapshot: world.kept(uid, "s3").uuid,
            code: Code::PoolWorn,
            message: "worn".into(),
        };
        world.ok(report(1, 1, failed));
        world.ok(want_by(uid, "auto-1", 4, KeptBy::Schedule));
        world.ok(Command::Resize(Resize { uid, volume: None, size: ByteSize::gib(4) }));
        world.desire(uid, DesiredState::Stopped);
        let stopped = Report::Run { uid, epoch: Epoch(1), state: RunState::Stopped };
        world.ok(report(1, 1, stopped));
        world.ok(restore(uid, "s1", "before"));
        let web = &world.state.containers[&uid];
        assert!(web.restore.is_some() && web.schedule.is_some() && web.kept.len() == 4);
        world
    }

    /// I4: the same entries give the same bytes.
    #[test]
    fn the_same_entries_give_the_same_hash() {
        assert_eq!(rich().state.hash(), rich().state.hash());
    }

    /// I4: what a takeover makes of it is the same everywhere, new identities included.
    #[test]
    fn a_takeover_of_everything_gives_the_same_hash() {
        let build = || {
            let mut world = rich();
            let uid = world.state.names[&"web".parse().unwrap()];
            world.ok(lost(1, 1));
            world.ok(branch(take_over(uid, 1, 1, 2), 5));
            world.state.hash()
        };
        assert_eq!(build(), build());
        assert_ne!(build(), rich().state.hash());
    }

    /// I4 across restarts: encoding and decoding changes nothing.
    #[test]
    fn the_state_survives_its_encoding() {
        let world = rich();
        let bytes = rmp_serde::to_vec_named(&world.state).unwrap();
        let back: crate::State = rmp_serde::from_slice(&bytes).unwrap();
        assert_eq!(back, world.state);
        assert_eq!(back.hash(), world.state.hash());
    }

    /// I4 across versions: states and hashes are what they were before the maps were shared ones.
    #[test]
    fn the_state_is_encoded_as_it_ever_was() {
        let golden = include_bytes!("../golden/state.msgpack");
        let state = rich().state;
        assert_eq!(rmp_serde::from_slice::<crate::State>(golden).unwrap(), state);
        assert!(rmp_serde::to_vec_named(&state).unwrap() == golden);
        assert_eq!(state.hash().to_hex().as_str(), include_str!("../golden/state.blake3"));
    }

    /// What a reader holds never changes, whatever is applied meanwhile (I4).
    #[test]
    fn a_state_that_is_held_never_changes() {
        let mut world = rich();
        let (held, hash) = (world.state.clone(), world.state.hash());
        let uid = world.state.names[&"web".parse().unwrap()];
        world.ok(lost(1, 1));
        world.ok(branch(take_over(uid, 1, 1, 2), 5));
        world.desire(uid, DesiredState::Deleted);
        assert_ne!(world.state.hash(), hash);
        assert_eq!((held.hash(), held), (hash, rich().state));
    }
}
