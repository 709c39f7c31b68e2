//! Where a new container goes.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fmt;

use holdfast_core::{Node, State};
use holdfast_types::{ByteSize, Code, ContainerSpec, ImageUid, NodeId, NodeName};

use crate::observe::{Observations, PoolObservation};

/// How far the sizes of thin volumes may exceed the pool, in percent of its size.
const OVERCOMMIT_PERCENT: u128 = 400;

/// Where a container goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// Its primary copy.
    pub node: NodeId,
    /// Its replicas; fewer than asked for when there are not enough nodes.
    pub replicas: BTreeSet<NodeId>,
}

/// Why one node is no place for a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WhyNot {
    /// It is not up, or has no lease.
    Down,
    /// It has not said what its pool holds.
    NoPool,
    /// Its pool is past the admission threshold.
    PoolFull,
    /// The volume is larger than its whole pool.
    LargerThanPool(ByteSize),
    /// Its promises would exceed what is allowed.
    Overcommitted,
    /// It does not hold the image yet.
    NoImage,
}

impl fmt::Display for WhyNot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Down => f.write_str("is down"),
            Self::NoPool => f.write_str("has not reported its pool"),
            Self::PoolFull => f.write_str("has a pool past its admission threshold"),
            Self::LargerThanPool(size) => write!(f, "has a pool of only {size}"),
            Self::Overcommitted => f.write_str("has promised too much already"),
            Self::NoImage => f.write_str("does not hold the image yet"),
        }
    }
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
        let full = self.nodes.iter().any(|(_, why)| *why == WhyNot::PoolFull);
        let size = self.nodes.iter().any(|(_, why)| matches!(why, WhyNot::LargerThanPool(_)));
        match (full, size) {
            (true, _) => Code::PoolFull,
            (false, true) => Code::InvalidSize,
            (false, false) => Code::NoPlacement,
        }
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

/// Chooses the emptiest nodes that pass every filter, the primary on one that holds the image;
/// `only` restricts the primary to one node.
pub fn place(
    state: &State,
    seen: &Observations,
    spec: &ContainerSpec,
    image: ImageUid,
    only: Option<NodeId>,
) -> Result<Placement, PlacementError> {
    let mut fit: Vec<(Score, NodeId)> = Vec::new();
    let mut refused = Vec::new();
    for node in state.nodes.values() {
        match check(state, seen, node, spec.disk) {
            Ok(pool) => fit.push((score(state, pool, node.id), node.id)),
            Err(why) => refused.push((node.name.clone(), why)),
        }
    }
    fit.sort();
    let has_image = |id: &NodeId| state.images.get(&image).is_some_and(|i| i.held_by.contains(id));
    let allowed = |id: &NodeId| only.is_none_or(|wanted| *id == wanted);
    let candidates = fit.iter().map(|(_, id)| *id).filter(|id| allowed(id));
    let Some(node) = candidates.clone().find(|id| has_image(id)) else {
        let name = |id: NodeId| state.nodes.get(&id).map(|n| n.name.clone());
        let lacking = candidates.filter_map(name).map(|name| (name, WhyNot::NoImage));
        let wanted = only.and_then(name);
        let mut nodes: Vec<_> = refused.into_iter().chain(lacking).collect();
        nodes.retain(|(name, _)| wanted.as_ref().is_none_or(|w| w == name));
        return Err(PlacementError { nodes });
    };
    let others = fit.iter().map(|(_, id)| *id).filter(|id| *id != node);
    let replicas = others.take(usize::from(spec.copies.saturating_sub(1))).collect();
    Ok(Placement { node, replicas })
}

/// Nodes that could take one more copy of that size, best first, `exclude`d ones left out.
pub(crate) fn candidates(
    state: &State,
    seen: &Observations,
    size: ByteSize,
    exclude: &BTreeSet<NodeId>,
) -> Vec<NodeId> {
    let nodes = state.nodes.values().filter(|n| !exclude.contains(&n.id));
    let fit = nodes.filter_map(|n| Some((check(state, seen, n, size).ok()?, n.id)));
    let mut scored: Vec<_> = fit.map(|(pool, id)| (score(state, pool, id), id)).collect();
    scored.sort();
    scored.into_iter().map(|(_, id)| id).collect()
}

/// Lower is better: fewest copies already there, then most free space, then the lowest id.
type Score = (usize, Reverse<u64>);

fn score(state: &State, pool: &PoolObservation, id: NodeId) -> Score {
    let copies = state.containers.values().filter(|c| c.members().any(|m| m == id)).count();
    (copies, Reverse(pool.size.bytes().saturating_sub(pool.used.bytes())))
}

fn check<'a>(
    state: &State,
    seen: &'a Observations,
    node: &Node,
    size: ByteSize,
) -> Result<&'a PoolObservation, WhyNot> {
    let observed = seen.nodes.get(&node.id).filter(|o| o.leased && node.is_up());
    let pool = observed.ok_or(WhyNot::Down)?.pool.as_ref().ok_or(WhyNot::NoPool)?;
    if size > pool.size {
        return Err(WhyNot::LargerThanPool(pool.size));
    }
    if !pool.admits {
        return Err(WhyNot::PoolFull);
    }
    // What the log has placed there counts even before the node has made it.
    let placed = state.containers.values().filter(|c| c.members().any(|m| m == node.id));
    let placed: u64 = placed.map(|c| c.spec.disk.bytes()).sum();
    let promised = u128::from(placed.max(pool.promised.bytes())) + u128::from(size.bytes());
    if promised * 100 > u128::from(pool.size.bytes()) * OVERCOMMIT_PERCENT {
        return Err(WhyNot::Overcommitted);
    }
    Ok(pool)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{IMAGE, observed, spec, three_nodes};

    #[test]
    fn the_emptiest_node_wins_and_replicas_are_elsewhere() {
        let mut seen = observed(&[1, 2, 3]);
        seen.nodes.get_mut(&NodeId(2)).unwrap().pool.as_mut().unwrap().used = ByteSize::mib(1);
        seen.nodes.get_mut(&NodeId(1)).unwrap().pool.as_mut().unwrap().used = ByteSize::gib(1);
        seen.nodes.get_mut(&NodeId(3)).unwrap().pool.as_mut().unwrap().used = ByteSize::mib(9);
        let placed = place(&three_nodes(), &seen, &spec(), IMAGE, None).unwrap();
        assert_eq!(placed, Placement { node: NodeId(2), replicas: [NodeId(3)].into() });
    }

    /// I23: a full pool, a node without a lease and an oversized disk are never chosen.
    #[test]
    fn hard_constraints_hold_and_are_named() {
        let mut seen = observed(&[1, 2]);
        seen.nodes.get_mut(&NodeId(1)).unwrap().pool.as_mut().unwrap().admits = false;
        seen.nodes.get_mut(&NodeId(2)).unwrap().leased = false;
        let error = place(&three_nodes(), &seen, &spec(), IMAGE, None).unwrap_err();
        assert_eq!(error.code(), Code::PoolFull);
        assert_eq!(
            error.to_string(),
            "no node can take it: n1 has a pool past its admission threshold; n2 is down; n3 is down"
        );
        let huge = ContainerSpec { disk: ByteSize::gib(100), ..spec() };
        let error = place(&three_nodes(), &observed(&[1]), &huge, IMAGE, None).unwrap_err();
        assert_eq!(error.code(), Code::InvalidSize);
    }

    #[test]
    fn a_wanted_node_is_the_only_one_considered() {
        let placed = place(&three_nodes(), &observed(&[1, 2, 3]), &spec(), IMAGE, Some(NodeId(3)));
        assert_eq!(placed.unwrap().node, NodeId(3));
        let error = place(&three_nodes(), &observed(&[1, 2]), &spec(), IMAGE, Some(NodeId(3)));
        assert_eq!(error.unwrap_err().nodes.len(), 1);
    }
}
