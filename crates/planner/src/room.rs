//! Whether a node has room: for one more copy's data, to run a container, to promote a copy that it
//! holds. Placement, replicas and takeovers all ask here (I23).
//!
//! Memory is promised: the limits of everything assigned to a node are kept free for it, running or
//! not, because a start asks nobody. A container without a limit is promised none. CPU time is
//! shared and not counted: too little of it slows a container and never stops one.

use std::fmt;

use holdfast_core::{Container, Node, State};
use holdfast_types::{ByteSize, DesiredState, Limits};

use crate::observe::{NodeObservation, Observations, PoolObservation};

/// How far the sizes of thin volumes may exceed the pool, in percent of its size.
const OVERCOMMIT_PERCENT: u128 = 400;

/// How much of a node's memory may be promised to containers, in percent. The rest is for the
/// kernel, the daemon and the guardian.
const MEMORY_PERCENT: u64 = 90;

/// Past so much physical use, in percent, the first writes of a promoted copy would fail. The
/// admission threshold does not matter there: the data is already in the pool, and a reflink needs
/// next to nothing.
const BRIM_PERCENT: u128 = 98;

/// Why one node is no place for a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WhyNot {
    /// It is not up, or has no lease.
    Down,
    /// It only votes.
    Witness,
    /// It has not said what its pool holds.
    NoPool,
    /// Its pool is past the admission threshold.
    PoolFull,
    /// Its pool is so full that not even a copy that is there could be written to.
    PoolBrimful,
    /// The volume is larger than its whole pool.
    LargerThanPool(ByteSize),
    /// Its promises would exceed what is allowed.
    Overcommitted,
    /// What is assigned to it leaves too little memory.
    Memory {
        /// What is left.
        left: ByteSize,
        /// The container's limit.
        needed: ByteSize,
    },
    /// It has no copy of the image or snapshot that the container begins as.
    NoOrigin,
}

impl fmt::Display for WhyNot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Down => f.write_str("is down"),
            Self::Witness => f.write_str("is a witness"),
            Self::NoPool => f.write_str("has not reported its pool"),
            Self::PoolFull => f.write_str("has a pool past its admission threshold"),
            Self::PoolBrimful => f.write_str("has no free space in its pool"),
            Self::LargerThanPool(size) => write!(f, "has a pool of only {size}"),
            Self::Overcommitted => f.write_str("has promised too much already"),
            Self::Memory { left, needed } => {
                write!(f, "has {left} of memory left and {needed} are needed")
            }
            Self::NoOrigin => f.write_str("does not hold what it is made of yet"),
        }
    }
}

/// Room for one more copy of that size.
pub(crate) fn for_copy<'a>(
    state: &State,
    seen: &'a Observations,
    node: &Node,
    size: ByteSize,
) -> Result<&'a PoolObservation, WhyNot> {
    of_size(state, seen, node, size, size)
}

/// Room for `more` of a copy that is there and will then have that size.
pub(crate) fn to_grow(
    state: &State,
    seen: &Observations,
    node: &Node,
    size: ByteSize,
    more: ByteSize,
) -> Result<(), WhyNot> {
    of_size(state, seen, node, size, more).map(drop)
}

fn of_size<'a>(
    state: &State,
    seen: &'a Observations,
    node: &Node,
    size: ByteSize,
    more: ByteSize,
) -> Result<&'a PoolObservation, WhyNot> {
    let pool = alive(seen, node)?.pool.as_ref().ok_or(WhyNot::NoPool)?;
    if size > pool.size {
        return Err(WhyNot::LargerThanPool(pool.size));
    }
    if !pool.admits {
        return Err(WhyNot::PoolFull);
    }
    // What the log has placed there counts even before the node has made it.
    let placed = state.containers.of_node(node.id).filter(|c| c.members().any(|m| m == node.id));
    let placed: u64 = placed.map(|c| c.spec.promised().bytes()).sum();
    let promised = u128::from(placed.max(pool.promised.bytes())) + u128::from(more.bytes());
    if promised * 100 > u128::from(pool.size.bytes()) * OVERCOMMIT_PERCENT {
        return Err(WhyNot::Overcommitted);
    }
    Ok(pool)
}

/// Room to run a container of these limits beside everything that is assigned to the node.
pub(crate) fn to_run(
    state: &State,
    seen: &Observations,
    node: &Node,
    limits: &Limits,
) -> Result<(), WhyNot> {
    let seen = alive(seen, node)?;
    // A node of a version that does not tell its memory yet is taken to have enough.
    let (Some(needed), Some(memory)) = (limits.memory, seen.memory) else { return Ok(()) };
    let assigned = state.containers.of_node(node.id).filter(|c| c.node == node.id);
    let assigned: u64 = assigned.filter_map(|c| c.spec.limits.memory).map(ByteSize::bytes).sum();
    let left = ByteSize((memory.bytes() / 100 * MEMORY_PERCENT).saturating_sub(assigned));
    if needed <= left { Ok(()) } else { Err(WhyNot::Memory { left, needed }) }
}

/// Room to make the copy that the node holds the primary one, and to run it if it should run: what
/// is stopped is better there without memory than on no node that is up.
pub(crate) fn to_promote(
    state: &State,
    seen: &Observations,
    node: &Node,
    container: &Container,
) -> Result<(), WhyNot> {
    match container.desired {
        DesiredState::Running => to_run(state, seen, node, &container.spec.limits)?,
        DesiredState::Stopped | DesiredState::Deleted => {}
    }
    match &alive(seen, node)?.pool {
        Some(pool) if pool.used_percent() >= BRIM_PERCENT => Err(WhyNot::PoolBrimful),
        // It has just sealed the copy, so its pool is open, whether it was measured or not.
        Some(_) | None => Ok(()),
    }
}

fn alive<'a>(seen: &'a Observations, node: &Node) -> Result<&'a NodeObservation, WhyNot> {
    if node.is_witness() {
        return Err(WhyNot::Witness);
    }
    seen.nodes.get(&node.id).filter(|o| o.leased && node.is_up()).ok_or(WhyNot::Down)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{add_container, lose, observed, three_nodes};
    use holdfast_types::NodeId;

    fn limits(memory: Option<ByteSize>) -> Limits {
        Limits { memory, ..Limits::default() }
    }

    /// I23: what is assigned to a node counts, running or not; what others run does not.
    #[test]
    fn memory_is_counted_beside_what_is_assigned() {
        let mut state = three_nodes();
        let mut seen = observed(&[1, 2]);
        seen.nodes.get_mut(&NodeId(1)).unwrap().memory = Some(ByteSize::mib(1000));
        let half = |c: &mut Container| c.spec.limits.memory = Some(ByteSize::mib(450));
        add_container(&mut state, 1, 1, &[], half);
        add_container(&mut state, 2, 2, &[1], half);
        add_container(&mut state, 3, 1, &[], |_| {});
        let ask = |mib: Option<u64>| {
            to_run(&state, &seen, &state.nodes[&NodeId(1)], &limits(mib.map(ByteSize::mib)))
        };
        assert_eq!(ask(Some(449)), Ok(()));
        let (left, needed) = (ByteSize::mib(1000), ByteSize::mib(451));
        let left = ByteSize(left.bytes() / 100 * 90 - ByteSize::mib(450).bytes());
        assert_eq!(ask(Some(451)), Err(WhyNot::Memory { left, needed }));
        assert_eq!(ask(None), Ok(()), "no limit is no promise");
        let unknown = to_run(&state, &seen, &state.nodes[&NodeId(2)], &limits(Some(needed)));
        assert_eq!(unknown, Ok(()), "it has not said how much it has");
    }

    /// I23: a witness has nothing to store or run with, whatever it says of itself.
    #[test]
    fn a_witness_is_no_place_for_anything() {
        let mut state = three_nodes();
        let uid = add_container(&mut state, 1, 1, &[2], |_| {});
        state.nodes.get_mut(&NodeId(2)).unwrap().asked = Some(holdfast_core::NodeRole::Witness);
        let seen = observed(&[1, 2, 3]);
        let (node, web) = (&state.nodes[&NodeId(2)], &state.containers[&uid]);
        assert_eq!(for_copy(&state, &seen, node, ByteSize(1)), Err(WhyNot::Witness));
        assert_eq!(to_run(&state, &seen, node, &limits(None)), Err(WhyNot::Witness));
        assert_eq!(to_promote(&state, &seen, node, web), Err(WhyNot::Witness));
        let plan = crate::plan_replicas(&state, &seen, holdfast_types::TimestampMs(0));
        assert!(plan.iter().all(|change| !change.replicas.contains(&NodeId(2))), "{plan:?}");
    }

    /// I20, I23: past the threshold nothing new comes, and what is there may still be promoted,
    /// unless not a block is left to write to.
    #[test]
    fn a_full_pool_can_promote_what_it_holds_and_a_brimful_one_cannot() {
        let mut state = three_nodes();
        let uid = add_container(&mut state, 1, 1, &[2], |_| {});
        lose(&mut state, 1);
        let mut seen = observed(&[2]);
        for (used, expected) in [(950, Ok(())), (980, Err(WhyNot::PoolBrimful))] {
            let pool = seen.nodes.get_mut(&NodeId(2)).unwrap().pool.as_mut().unwrap();
            (pool.size, pool.used, pool.admits) = (ByteSize(1000), ByteSize(used), false);
            let (node, web) = (&state.nodes[&NodeId(2)], &state.containers[&uid]);
            assert_eq!(to_promote(&state, &seen, node, web), expected);
            assert_eq!(for_copy(&state, &seen, node, ByteSize(1)), Err(WhyNot::PoolFull));
        }
        let gone = &state.nodes[&NodeId(3)];
        let web = &state.containers[&uid];
        assert_eq!(to_promote(&state, &seen, gone, web), Err(WhyNot::Down), "it has no lease");
    }
}
