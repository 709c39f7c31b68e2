//! What needs a person's attention, one line each.

use holdfast_core::{Container, NodeLife};
use holdfast_planner::{Brake, Observations, brake};
use holdfast_types::RunState;

use crate::convert::Picture;

/// Past this much physical use, in percent, a pool is worth a line. Admission stops at 90.
const POOL_PERCENT: u128 = 80;

/// Everything that is not as it should be, as the leader sees it.
pub(crate) fn warnings(picture: &Picture<'_>, seen: &Observations) -> Vec<String> {
    let mut lines = Vec::new();
    match brake(picture.state, seen, picture.now) {
        Brake::Off => {}
        Brake::Wait { reason } => lines.push(reason),
        Brake::Hold { reason } => lines.push(format!("takeovers wait for a person: {reason}")),
    }
    nodes(picture, &mut lines);
    pools(picture, seen, &mut lines);
    for container in picture.state.containers.values().filter(|c| !c.is_deleting()) {
        if let Some(hold) = &container.hold {
            lines.push(format!("takeover of {} is held: {}", container.name, hold.reason));
        } else if lacks_copy(picture, container) {
            lines.push(format!(
                "container {} has no current replica: its last one is older than max-data-loss, or \
                 there is none",
                container.name
            ));
        }
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

fn pools(picture: &Picture<'_>, seen: &Observations, lines: &mut Vec<String>) {
    for (id, node) in &seen.nodes {
        if node.without_pool {
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
    use holdfast_core::{Evidence, Node, NodeRole, State};
    use holdfast_planner::{NodeObservation, PoolObservation};
    use holdfast_types::{ByteSize, Incarnation, NodeId, Revision, TimestampMs};

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
            silent_ms: &|_| None,
            now: TimestampMs(1_000_000),
        };
        let lines = warnings(&picture, &seen);
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert!(lines[0].contains("dark"), "{lines:?}");
        assert!(lines[1].starts_with("node n2 is lost"), "{lines:?}");
        assert!(lines[2].starts_with("node n1 has no pool"), "{lines:?}");
        assert!(lines[3].contains("n3 is 85 %"), "{lines:?}");
    }
}
