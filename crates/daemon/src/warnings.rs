//! What needs a person's attention, one line each.

use std::collections::BTreeMap;

use holdfast_core::{Container, NodeLife, State};
use holdfast_planner::{Brake, Observations, brake, schedule_trouble, vote_trouble};
use holdfast_proto::MAX_VIEW_BYTES;
use holdfast_raft::RaftNode;
use holdfast_types::{NodeId, RunState};

use crate::convert::Picture;
use crate::membership;

/// Past this much physical use, in percent, a pool is worth a line. Admission stops at 90.
const POOL_PERCENT: u128 = 80;

/// From this size on a node's view is worth a line: past the double of it the node is told nothing.
const VIEW_BYTES: usize = MAX_VIEW_BYTES / 2;

/// A voter that has not answered for so long is worth a line.
const VOTER_SILENT_MS: u64 = 5_000;

/// Everything that is not as it should be: by the state, and, where that is known, by what the leader sees.
pub(crate) fn warnings(picture: &Picture<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    match picture.seen.map(|seen| brake(picture.state, seen, picture.now)) {
        None | Some(Brake::Off) => {}
        Some(Brake::Wait { reason }) => lines.push(reason),
        Some(Brake::Hold { reason }) => {
            lines.push(format!("takeovers wait for a person: {reason}"));
        }
    }
    nodes(picture, &mut lines);
    views(picture, VIEW_BYTES, &mut lines);
    if let Some(seen) = picture.seen {
        pools(picture, seen, &mut lines);
    }
    for container in picture.state.containers.values().filter(|c| !c.is_deleting()) {
        if let Some(hold) = &container.hold {
            lines.push(format!("takeover of {} is held: {}", container.name, hold.reason));
        } else if picture.seen.is_some() && lacks_copy(picture, container) {
            lines.push(format!(
                "container {} has no current replica: its last one is older than max-data-loss, or \
                 there is none",
                container.name
            ));
        }
        lines.extend(schedule_trouble(container, picture.now));
    }
    lines
}

fn nodes(picture: &Picture<'_>, lines: &mut Vec<String>) {
    for node in picture.state.nodes.values() {
        if let NodeLife::Lost { evidence, .. } = &node.life {
            lines.push(format!("node {} is lost: {evidence}", node.name));
        }
    }
}

/// Nodes that have to do with so much that they will soon not hear of it any more.
fn views(picture: &Picture<'_>, limit: usize, lines: &mut Vec<String>) {
    for node in picture.state.nodes.values() {
        let view = picture.state.node_view(node.id).ok();
        let bytes = view.and_then(|view| Some(rmp_serde::to_vec_named(&view).ok()?.len()));
        if let Some(bytes) = bytes.filter(|bytes| *bytes >= limit) {
            lines.push(format!(
                "what node {} is told of has {} MiB of at most {} MiB: remove named snapshots or \
                 containers, or spread them over more nodes",
                node.name,
                bytes >> 20,
                MAX_VIEW_BYTES >> 20
            ));
        }
    }
}

fn pools(picture: &Picture<'_>, seen: &Observations, lines: &mut Vec<String>) {
    for (id, node) in &seen.nodes {
        let is_witness = picture.state.nodes.get(id).is_some_and(|n| n.is_witness());
        if node.without_pool && !is_witness {
            let name = picture.name(*id);
            lines.push(format!(
                "node {name} has no pool: holdfast pool create NAME --driver lvm --device DEVICE \
                 --node {name}"
            ));
        }
        let Some(pool) = &node.pool else { continue };
        let percent = pool.used_percent();
        if percent >= POOL_PERCENT {
            lines.push(format!("the pool of {} is {percent} % full", picture.name(*id)));
        }
    }
}

/// Voters that do not answer, or say that they should not lead.
pub(crate) fn voters(state: &State, raft: &RaftNode) -> Vec<String> {
    let metrics = raft.metrics();
    let mut unfit = raft.unfit_peers();
    unfit.extend(raft.unfit().map(|why| (raft.id(), why.to_string())));
    let silent = metrics.lag.iter().filter(|lag| metrics.voters.contains(&lag.node));
    let silent = silent.filter(|lag| lag.silent_ms.is_none_or(|ms| ms >= VOTER_SILENT_MS));
    let silent: BTreeMap<_, _> = silent.map(|lag| (lag.node, lag.silent_ms)).collect();
    let name = |id: NodeId| state.nodes.get(&id).map(|n| n.name.to_string()).unwrap_or_default();
    let mut lines = voter_lines(name, metrics.voters.len(), &silent, &unfit);
    lines.extend(vote_trouble(state, &membership::quorum(raft)));
    lines
}

fn voter_lines(
    name: impl Fn(NodeId) -> String,
    voters: usize,
    silent: &BTreeMap<NodeId, Option<u64>>,
    unfit: &BTreeMap<NodeId, String>,
) -> Vec<String> {
    let left = voters - silent.len().min(voters);
    let mut lines: Vec<String> = silent
        .iter()
        .map(|(node, ms)| {
            let since = ms.map_or("yet".to_owned(), |ms| format!("for {} s", ms / 1000));
            format!(
                "voter {} has not answered {since}, {left} of {voters} do: if its daemon ended, its log \
                 says why (HF-DISK-IO: the disk is full or fails)",
                name(*node)
            )
        })
        .collect();
    let there = unfit.iter().filter(|(node, _)| !silent.contains_key(node));
    lines.extend(there.map(|(node, why)| format!("node {} should not lead: {why}", name(*node))));
    lines
}

/// Whether a takeover now would be held for want of a copy.
fn lacks_copy(picture: &Picture<'_>, c: &Container) -> bool {
    let current = |id: &holdfast_types::NodeId| {
        let up = picture.state.nodes.get(id).is_some_and(|n| n.is_up());
        let copy = picture.newest_copy(c, *id);
        up && copy.is_some_and(|copy| picture.now.since(copy.as_of) <= c.spec.max_data_loss_ms)
    };
    c.is_protected()
        && c.spec.copies > 1
        && c.run == RunState::Running
        && !c.replicas.iter().any(current)
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_core::{Cluster, Evidence, Node, NodeRole, State};
    use holdfast_planner::{NodeObservation, PoolObservation};
    use holdfast_types::{
        ByteSize, ClusterId, Incarnation, LeaseSettings, NodeId, Revision, TimestampMs,
    };

    #[test]
    fn lost_nodes_and_full_pools_are_told() {
        let mut state = State::default();
        for n in 1..=3 {
            let life = match n {
                2 => NodeLife::Lost { at: TimestampMs(0), evidence: Evidence::Relinquished },
                _ => NodeLife::Up,
            };
            let node = Node {
                id: NodeId(n),
                name: format!("n{n}").parse().unwrap(),
                address: format!("n{n}:7443"),
                underlay: "10.88.0.1".parse().unwrap(),
                role: NodeRole::Voter,
                incarnation: Incarnation(1),
                life,
                assignment_revision: Revision(1),
                view_revision: Revision(1),
                labels: Default::default(),
                asked: None,
                revision: Revision(1),
            };
            state.nodes.insert(node.id, node);
        }
        let pool = PoolObservation {
            name: "default".into(),
            metadata: None,
            driver: "xfs".into(),
            size: ByteSize(100),
            used: ByteSize(85),
            promised: ByteSize(0),
            admits: true,
        };
        let full = NodeObservation { leased: true, pool: Some(pool), ..Default::default() };
        let bare = NodeObservation { without_pool: true, ..Default::default() };
        let nodes = [(NodeId(1), bare), (NodeId(3), full)].into();
        let seen = Observations { nodes, leading_ms: 1, cold_start: true };
        let picture = Picture {
            state: &state,
            seen: Some(&seen),
            leader: Some(NodeId(1)),
            told: None,
            silent_ms: &|_| None,
            now: TimestampMs(1_000_000),
        };
        let lines = warnings(&picture);
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert!(lines[0].contains("dark"), "{lines:?}");
        assert!(lines[1].starts_with("node n2 is lost"), "{lines:?}");
        assert!(lines[2].starts_with("node n1 has no pool"), "{lines:?}");
        assert!(lines[3].contains("n3 is 85 %"), "{lines:?}");
        let told = |id: u64, picture: &Picture<'_>| picture.node(&state.nodes[&NodeId(id)]).note;
        assert_eq!(told(1, &picture), "");

        // Where nobody leads, nothing was said of the node that is lost.
        let picture = Picture { seen: None, ..picture };
        assert_eq!(warnings(&picture), lines[1..2]);
        assert_eq!([told(1, &picture), told(2, &picture)], [holdfast_proto::LEASE_UNKNOWN, ""]);
    }

    #[test]
    fn a_voter_that_is_gone_or_should_not_lead_is_named() {
        let name = |node: NodeId| format!("n{node}");
        assert!(voter_lines(name, 3, &BTreeMap::new(), &BTreeMap::new()).is_empty());
        let silent = [(NodeId(2), Some(61_500)), (NodeId(3), None)].into();
        let unfit = [NodeId(1), NodeId(2)].map(|node| (node, "its disk is slow".to_owned())).into();
        let lines = voter_lines(name, 5, &silent, &unfit);
        assert!(lines[0].starts_with("voter n2 has not answered for 61 s, 3 of 5 do"), "{lines:?}");
        assert!(lines[1].starts_with("voter n3 has not answered yet"), "{lines:?}");
        assert_eq!(lines[2..], ["node n1 should not lead: its disk is slow"], "{lines:?}");
    }

    /// Its views had grown past what is sent, and the node was told nothing from then on.
    #[test]
    fn a_node_was_cut_off_by_its_view_without_a_word() {
        let cluster = Some(Cluster {
            id: ClusterId::generate(),
            lease: LeaseSettings::default(),
            overlay: "10.77.0.0/16".parse().unwrap(),
            created: TimestampMs(0),
        });
        let mut state = State { cluster, ..State::default() };
        let node = Node {
            id: NodeId(1),
            name: "n1".parse().unwrap(),
            address: "n1:7443".into(),
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
        let picture = Picture {
            state: &state,
            seen: None,
            leader: None,
            told: None,
            silent_ms: &|_| None,
            now: TimestampMs(0),
        };
        let mut lines = Vec::new();
        views(&picture, VIEW_BYTES, &mut lines);
        assert!(lines.is_empty(), "{lines:?}");
        views(&picture, 100, &mut lines);
        assert!(lines[0].contains("node n1 is told of"), "{lines:?}");
    }
}
