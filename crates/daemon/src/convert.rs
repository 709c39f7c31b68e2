//! The replicated state as the public API shows it.

use std::collections::BTreeMap;

use holdfast_core::{
    Container, Diverged, Event, Image, Kept, KeptState, Node, NodeLife, NodeRole, Operation,
    OperationState, State,
};
use holdfast_planner::{HeldCopy, Observations};
use holdfast_proto::{LEASE_UNKNOWN, v1};
use holdfast_types::{
    ContainerUid, KeptBy, LeaseSettings, NodeId, OperationId, RunState, SnapshotName, SnapshotUuid,
    TimestampMs, VolumeUid,
};

use crate::seen::Told;

/// The state with what the leader sees besides, at one moment.
pub(crate) struct Picture<'a> {
    pub(crate) state: &'a State,
    /// Nothing on a node that does not lead.
    pub(crate) seen: Option<&'a Observations>,
    pub(crate) leader: Option<NodeId>,
    /// What the leader says of each node; nothing where that is not known.
    pub(crate) told: Option<&'a BTreeMap<NodeId, Told>>,
    /// Milliseconds since the leader answered each node last.
    pub(crate) silent_ms: &'a dyn Fn(NodeId) -> Option<u64>,
    pub(crate) now: TimestampMs,
}

impl Picture<'_> {
    /// The name of a node.
    pub(crate) fn name(&self, id: NodeId) -> String {
        self.state.nodes.get(&id).map(|n| n.name.to_string()).unwrap_or_default()
    }

    pub(crate) fn node(&self, node: &Node) -> v1::Node {
        let seen = self.seen.map(|seen| seen.nodes.get(&node.id));
        let leased = seen.is_none_or(|seen| seen.is_some_and(|n| n.leased));
        let state = match &node.life {
            NodeLife::Up if leased => v1::NodeState::Up,
            NodeLife::Up | NodeLife::New => v1::NodeState::Suspect,
            NodeLife::Lost { .. } => v1::NodeState::Lost,
        };
        let told = self.told.and_then(|told| told.get(&node.id));
        let here = |c: &&Container| c.node == node.id && !c.is_deleting();
        let containers = self.state.containers.of_node(node.id).filter(here).count();
        v1::Node {
            id: node.id.0,
            name: node.name.to_string(),
            address: node.address.clone(),
            role: role(node.role).into(),
            state: state.into(),
            incarnation: node.incarnation.0,
            leader: self.leader == Some(node.id),
            pool: seen.flatten().and_then(|n| n.pool.as_ref()).map(|pool| v1::Capacity {
                driver: pool.driver.clone(),
                size_bytes: pool.size.bytes(),
                used_bytes: pool.used.bytes(),
                promised_bytes: pool.promised.bytes(),
                admits: pool.admits,
                metadata_used_bytes: pool.metadata.map(|(used, _)| used.bytes()),
                metadata_size_bytes: pool.metadata.map(|(_, size)| size.bytes()),
                name: pool.name.clone(),
            }),
            last_seen_ms: (self.silent_ms)(node.id),
            containers: u32::try_from(containers).unwrap_or(u32::MAX),
            labels: node.labels.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
            revision: node.revision.0,
            asked: node.asked.map_or(v1::NodeRole::Unspecified, role).into(),
            note: match told {
                Some(told) => told.note.clone(),
                None if seen.is_none() && node.is_up() => LEASE_UNKNOWN.to_owned(),
                None => String::new(),
            },
            feature_level: told.and_then(|told| told.version.as_ref()).map(|v| v.level.0),
            version: told
                .and_then(|told| told.version.as_ref())
                .map(|v| v.name.clone())
                .unwrap_or_default(),
        }
    }

    pub(crate) fn container(&self, c: &Container) -> v1::Container {
        let (state, reason) = self.container_state(c);
        v1::Container {
            uid: c.uid.to_string(),
            name: c.name.to_string(),
            spec: Some((&c.spec).into()),
            state: state.into(),
            reason,
            epoch: c.epoch().0,
            node: self.name(c.node),
            replicas: c.replicas.iter().map(|id| self.replica(c, *id)).collect(),
            address: c.address.to_string(),
            mac: c.mac.to_string(),
            created_ms: c.created.0,
            revision: c.revision.0,
        }
    }

    fn container_state(&self, c: &Container) -> (v1::ContainerState, String) {
        if c.is_deleting() {
            return (v1::ContainerState::Deleting, String::new());
        }
        if let Some(hold) = &c.hold {
            return (v1::ContainerState::Held, hold.reason.clone());
        }
        let node = self.state.nodes.get(&c.node);
        if let Some(node) = node.filter(|n| matches!(n.life, NodeLife::Lost { .. })) {
            return (v1::ContainerState::Pending, format!("node {} is lost", node.name));
        }
        match &c.run {
            RunState::Pending => (v1::ContainerState::Pending, String::new()),
            RunState::Starting => (v1::ContainerState::Starting, String::new()),
            RunState::Running => (v1::ContainerState::Running, String::new()),
            RunState::Stopped => (v1::ContainerState::Stopped, String::new()),
            RunState::Failed { reason } => (v1::ContainerState::Failed, reason.clone()),
        }
    }

    pub(crate) fn replica(&self, c: &Container, id: NodeId) -> v1::Replica {
        let copy = self.newest_copy(c, id);
        v1::Replica {
            node: self.name(id),
            epoch: copy.map(|copy| copy.newest.epoch.0),
            seq: copy.map(|copy| copy.newest.seq.0),
            snapshot_uuid: copy.map(|copy| copy.newest.uuid.to_string()).unwrap_or_default(),
            age_ms: copy.map(|copy| self.now.since(copy.as_of)),
        }
    }

    /// The newest copy on the container's chain that the node is known to hold: as it reported
    /// itself, or else as the log has it.
    pub(crate) fn newest_copy(&self, c: &Container, id: NodeId) -> Option<HeldCopy> {
        let node = self.seen.and_then(|seen| seen.nodes.get(&id));
        let reported = node.and_then(|n| n.held.get(&VolumeUid::from(c.uid))).copied();
        let floor =
            c.copies.get(&id).map(|copy| HeldCopy { newest: copy.newest, as_of: copy.as_of });
        let known = [reported, floor].into_iter().flatten().filter(|copy| c.on_chain(&copy.newest));
        known.max_by_key(|copy| (copy.newest.order(), copy.as_of))
    }

    pub(crate) fn image(&self, image: &Image) -> v1::Image {
        v1::Image {
            uid: image.uid.to_string(),
            name: image.name.to_string(),
            size_bytes: image.size.bytes(),
            entries: image.entries,
            content_bytes: image.content.bytes(),
            has_init: image.has_init,
            nodes: image.held_by.iter().map(|id| self.name(*id)).collect(),
            created_ms: image.created.0,
            revision: image.revision.0,
        }
    }

    pub(crate) fn diverged(&self, snapshot: SnapshotUuid, kept: &Diverged) -> v1::Diverged {
        v1::Diverged {
            container: kept.container.to_string(),
            container_uid: kept.uid.to_string(),
            node: self.name(kept.node),
            snapshot_uuid: snapshot.to_string(),
            epoch: kept.epoch.0,
            kept_ms: kept.kept.0,
            changed_bytes: kept.changed_bytes,
        }
    }

    /// A named snapshot, with the nodes that are known to hold it.
    pub(crate) fn snapshot(
        &self,
        container: &Container,
        name: &SnapshotName,
        kept: &Kept,
    ) -> v1::Snapshot {
        let (state, taken) = match &kept.state {
            KeptState::Wanted => (v1::SnapshotState::Wanted, None),
            KeptState::Taken(taken) => (v1::SnapshotState::Taken, Some(taken)),
            KeptState::LeftBehind(taken) => (v1::SnapshotState::LeftBehind, Some(taken)),
        };
        let origin = match kept.by {
            KeptBy::Person => v1::SnapshotOrigin::Person,
            KeptBy::Schedule => v1::SnapshotOrigin::Schedule,
            KeptBy::Restore => v1::SnapshotOrigin::Restore,
        };
        let holders = || taken.iter().flat_map(|taken| &taken.holders);
        let lost = |id: &&NodeId| self.state.nodes.get(id).is_none_or(|node| !node.is_up());
        v1::Snapshot {
            container: container.name.to_string(),
            name: name.to_string(),
            uuid: kept.uuid.to_string(),
            state: state.into(),
            origin: origin.into(),
            created_ms: kept.created.0,
            taken_ms: taken.map(|taken| taken.taken.0),
            size_bytes: taken.map(|taken| taken.size.bytes()),
            nodes: holders().map(|id| self.name(*id)).collect(),
            lost_nodes: holders().filter(lost).map(|id| self.name(*id)).collect(),
        }
    }
}

/// An operation by its id. One that was already forgotten ended long ago.
pub(crate) fn operation(state: &State, id: OperationId) -> Option<v1::Operation> {
    state.operations.get(&id).map(one_operation)
}

fn one_operation(op: &Operation) -> v1::Operation {
    let (state, code, message) = match &op.state {
        OperationState::Running => (v1::OperationState::Running, String::new(), String::new()),
        OperationState::Done => (v1::OperationState::Done, String::new(), String::new()),
        OperationState::Failed { code, message } => {
            (v1::OperationState::Failed, code.to_string(), message.clone())
        }
    };
    v1::Operation {
        id: op.id.to_string(),
        kind: op.kind.as_str().to_owned(),
        container: op.container.to_string(),
        state: state.into(),
        error_code: code,
        message,
        started_ms: op.started.0,
    }
}

pub(crate) fn event(event: &Event) -> v1::Event {
    let (uid, container) = match &event.container {
        Some((uid, name)) => (ContainerUid::to_string(uid), name.to_string()),
        None => Default::default(),
    };
    v1::Event {
        revision: event.revision.0,
        index: event.index,
        at_ms: event.at.0,
        kind: event.kind.clone(),
        node: event.node.as_ref().map(ToString::to_string).unwrap_or_default(),
        container,
        container_uid: uid,
        message: event.message.clone(),
        fields: event.fields.clone(),
    }
}

pub(crate) fn lease(lease: &LeaseSettings) -> v1::LeaseSettings {
    v1::LeaseSettings {
        lease_ms: lease.lease_ms,
        fence_budget_ms: lease.fence_budget_ms,
        margin_ms: lease.margin_ms,
        drift_ppm: lease.drift_ppm,
        lost_after_ms: lease.lost_after_ms(),
    }
}

/// The constants that were asked for; what is 0 is the default.
pub(crate) fn lease_asked(asked: Option<&v1::LeaseSettings>) -> LeaseSettings {
    let asked = asked.copied().unwrap_or_default();
    let default = LeaseSettings::default();
    let or = |asked: u64, default: u64| if asked == 0 { default } else { asked };
    LeaseSettings {
        lease_ms: or(asked.lease_ms, default.lease_ms),
        fence_budget_ms: or(asked.fence_budget_ms, default.fence_budget_ms),
        margin_ms: or(asked.margin_ms, default.margin_ms),
        drift_ppm: or(asked.drift_ppm, default.drift_ppm),
    }
}

pub(crate) fn role(role: NodeRole) -> v1::NodeRole {
    match role {
        NodeRole::Voter => v1::NodeRole::Voter,
        NodeRole::Standby => v1::NodeRole::Standby,
        NodeRole::Worker => v1::NodeRole::Worker,
        NodeRole::Witness => v1::NodeRole::Witness,
    }
}

/// A role as a plain number, as internal messages carry it.
pub(crate) fn role_number(of: NodeRole) -> u32 {
    u32::try_from(i32::from(role(of))).unwrap_or(0)
}

/// What was asked for; nothing leaves it to the leader.
pub(crate) fn node_role(role: v1::NodeRole) -> Option<NodeRole> {
    match role {
        v1::NodeRole::Unspecified => None,
        v1::NodeRole::Voter => Some(NodeRole::Voter),
        v1::NodeRole::Standby => Some(NodeRole::Standby),
        v1::NodeRole::Worker => Some(NodeRole::Worker),
        v1::NodeRole::Witness => Some(NodeRole::Witness),
    }
}
