//! Where a new container goes.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fmt;

use holdfast_core::{Node, State};
use holdfast_types::{Code, ContainerSpec, NodeId, NodeName};

use crate::observe::{Observations, PoolObservation};
use crate::room::{self, WhyNot};

/// Where a container goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// Its primary copy.
    pub node: NodeId,
    /// Its replicas; fewer than asked for when there are not enough nodes.
    pub replicas: BTreeSet<NodeId>,
}

/// No node can take a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacementError {
    /// Each node and why not.
    pub nodes: Vec<(NodeName, WhyNot)>,
}

impl PlacementError {
    /// The stable code: [`Code::PoolFull`] when only full pools stand in the way.
    pub fn code(&self) -> Code {
        code_of(&self.nodes)
    }
}

/// The code of a refusal for these reasons.
pub(crate) fn code_of(nodes: &[(NodeName, WhyNot)]) -> Code {
    let full = nodes.iter().any(|(_, why)| *why == WhyNot::PoolFull);
    let size = nodes.iter().any(|(_, why)| matches!(why, WhyNot::LargerThanPool(_)));
    match (full, size) {
        (true, _) => Code::PoolFull,
        (false, true) => Code::InvalidSize,
        (false, false) => Code::NoPlacement,
    }
}

impl fmt::Display for PlacementError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no node can take it: ")?;
        for (i, (name, why)) in self.nodes.iter().enumerate() {
            let comma = if i > 0 { "; " } else { "" };
            write!(f, "{comma}{name} {why}")?;
        }
        if self.nodes.is_empty() { f.write_str("there is no node") } else { Ok(()) }
    }
}

impl std::error::Error for PlacementError {}

/// Chooses the emptiest nodes that pass every filter, the primary on one that holds what it is made
/// of; `only` restricts the primary to one node.
pub fn place(
    state: &State,
    seen: &Observations,
    spec: &ContainerSpec,
    held_by: &BTreeSet<NodeId>,
    only: Option<NodeId>,
) -> Result<Placement, PlacementError> {
    let mut fit: Vec<(Score, &Node)> = Vec::new();
    let mut refused = Vec::new();
    for node in state.nodes.values() {
        match room::for_copy(state, seen, node, spec.promised()) {
            Ok(pool) => fit.push((score(state, seen, spec, pool, node), node)),
            Err(why) => refused.push((node, why)),
        }
    }
    fit.sort_by_key(|(score, node)| (*score, node.id));
    let mut chosen = None;
    for (_, node) in &fit {
        match room::to_run(state, seen, node, &spec.limits) {
            Err(why) => refused.push((node, why)),
            Ok(()) if !held_by.contains(&node.id) => refused.push((node, WhyNot::NoOrigin)),
            Ok(()) if only.is_none_or(|wanted| node.id == wanted) => {
                chosen.get_or_insert(node.id);
            }
            Ok(()) => {}
        }
    }
    let Some(node) = chosen else {
        refused.retain(|(node, _)| only.is_none_or(|wanted| node.id == wanted));
        refused.sort_by_key(|(node, _)| node.id);
        let nodes = refused.into_iter().map(|(node, why)| (node.name.clone(), why)).collect();
        return Err(PlacementError { nodes });
    };
    let others = fit.iter().map(|(_, other)| other.id).filter(|id| *id != node);
    let replicas = others.take(usize::from(spec.copies.saturating_sub(1))).collect();
    Ok(Placement { node, replicas })
}

/// Nodes that could take one more copy of that container, best first, `exclude`d ones left out.
pub(crate) fn candidates(
    state: &State,
    seen: &Observations,
    spec: &ContainerSpec,
    exclude: &BTreeSet<NodeId>,
) -> Vec<NodeId> {
    let nodes = state.nodes.values().filter(|n| !exclude.contains(&n.id));
    let fit =
        nodes.filter_map(|n| Some((room::for_copy(state, seen, n, spec.promised()).ok()?, n)));
    let mut scored: Vec<_> =
        fit.map(|(pool, n)| (score(state, seen, spec, pool, n), n.id)).collect();
    scored.sort();
    scored.into_iter().map(|(_, id)| id).collect()
}

/// Lower is better: first those that could run it as well, then fewest copies already there, then
/// most free space, then the lowest id.
type Score = (bool, usize, Reverse<u64>);

fn score(
    state: &State,
    seen: &Observations,
    spec: &ContainerSpec,
    pool: &PoolObservation,
    node: &Node,
) -> Score {
    let cramped = room::to_run(state, seen, node, &spec.limits).is_err();
    let on_it = state.containers.of_node(node.id);
    let copies = on_it.filter(|c| c.members().any(|m| m == node.id)).count();
    (cramped, copies, Reverse(pool.size.bytes().saturating_sub(pool.used.bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{add_container, observed, spec, three_nodes};
    use holdfast_types::{ByteSize, Limits};

    fn everywhere() -> BTreeSet<NodeId> {
        [1, 2, 3].map(NodeId).into()
    }

    #[test]
    fn the_emptiest_node_wins_and_replicas_are_elsewhere() {
        let mut seen = observed(&[1, 2, 3]);
        seen.nodes.get_mut(&NodeId(2)).unwrap().pool.as_mut().unwrap().used = ByteSize::mib(1);
        seen.nodes.get_mut(&NodeId(1)).unwrap().pool.as_mut().unwrap().used = ByteSize::gib(1);
        seen.nodes.get_mut(&NodeId(3)).unwrap().pool.as_mut().unwrap().used = ByteSize::mib(9);
        let placed = place(&three_nodes(), &seen, &spec(), &everywhere(), None).unwrap();
        assert_eq!(placed, Placement { node: NodeId(2), replicas: [NodeId(3)].into() });
    }

    /// I23: a full pool, a node without a lease and an oversized disk are never chosen.
    #[test]
    fn hard_constraints_hold_and_are_named() {
        let mut seen = observed(&[1, 2]);
        seen.nodes.get_mut(&NodeId(1)).unwrap().pool.as_mut().unwrap().admits = false;
        seen.nodes.get_mut(&NodeId(2)).unwrap().leased = false;
        let error = place(&three_nodes(), &seen, &spec(), &everywhere(), None).unwrap_err();
        assert_eq!(error.code(), Code::PoolFull);
        assert_eq!(
            error.to_string(),
            "no node can take it: n1 has a pool past its admission threshold; n2 is down; n3 is down"
        );
        let huge = ContainerSpec { disk: ByteSize::gib(100), ..spec() };
        let error = place(&three_nodes(), &observed(&[1]), &huge, &everywhere(), None).unwrap_err();
        assert_eq!(error.code(), Code::InvalidSize);
    }

    /// I20, I23: what a container keeps beside its root needs room as well.
    #[test]
    fn data_volumes_count() {
        let volumes = vec!["data=8GiB:/srv".parse().unwrap()];
        let large = ContainerSpec { volumes, disk: ByteSize::gib(4), ..spec() };
        let error =
            place(&three_nodes(), &observed(&[1, 2]), &large, &everywhere(), None).unwrap_err();
        assert_eq!(error.code(), Code::InvalidSize);
    }

    /// A clone begins where its origin's snapshot is; its replicas may be anywhere.
    #[test]
    fn a_primary_goes_where_what_it_is_made_of_is() {
        let seen = observed(&[1, 2, 3]);
        let held_by = [NodeId(3)].into();
        let placed = place(&three_nodes(), &seen, &spec(), &held_by, None).unwrap();
        assert_eq!(placed, Placement { node: NodeId(3), replicas: [NodeId(1)].into() });
        let error = place(&three_nodes(), &seen, &spec(), &held_by, Some(NodeId(1))).unwrap_err();
        assert_eq!(error.nodes, [("n1".parse().unwrap(), WhyNot::NoOrigin)]);
    }

    #[test]
    fn a_wanted_node_is_the_only_one_considered() {
        let placed =
            place(&three_nodes(), &observed(&[1, 2, 3]), &spec(), &everywhere(), Some(NodeId(3)));
        assert_eq!(placed.unwrap().node, NodeId(3));
        let error =
            place(&three_nodes(), &observed(&[1, 2]), &spec(), &everywhere(), Some(NodeId(3)));
        assert_eq!(error.unwrap_err().nodes.len(), 1);
    }

    /// I23: memory that is promised is not promised again. A copy may go where the container could
    /// not run, if it must, and not while there is a better place.
    #[test]
    fn a_node_without_memory_is_no_place_and_holds_a_copy_last() {
        let mut state = three_nodes();
        let mut seen = observed(&[1, 2, 3]);
        seen.nodes.values_mut().for_each(|n| n.memory = Some(ByteSize::gib(1)));
        let most =
            |c: &mut holdfast_core::Container| c.spec.limits.memory = Some(ByteSize::mib(600));
        add_container(&mut state, 1, 1, &[], most);
        let memory = Some(ByteSize::mib(600));
        let big = ContainerSpec { limits: Limits { memory, ..Limits::default() }, ..spec() };
        let placed = place(&state, &seen, &big, &everywhere(), None).unwrap();
        assert_eq!(placed, Placement { node: NodeId(2), replicas: [NodeId(3)].into() });
        let error = place(&state, &seen, &big, &everywhere(), Some(NodeId(1))).unwrap_err();
        assert_eq!(error.code(), Code::NoPlacement);
        assert!(error.to_string().contains("n1 has "), "{error}");
        assert!(error.to_string().contains("600MiB are needed"), "{error}");
        add_container(&mut state, 2, 3, &[], most);
        let placed = place(&state, &seen, &big, &everywhere(), None).unwrap();
        assert_eq!(placed, Placement { node: NodeId(2), replicas: [NodeId(1)].into() });
    }
}
