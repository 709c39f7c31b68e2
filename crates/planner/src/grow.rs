//! Whether the copies of a container have room to grow.

use std::fmt;

use holdfast_core::{Container, State};
use holdfast_types::{ByteSize, Code, NodeName};

use crate::observe::Observations;
use crate::place::code_of;
use crate::room::{self, WhyNot};

/// A copy of a container has no room to grow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrowthError {
    /// Each node whose copy cannot grow, and why not.
    pub nodes: Vec<(NodeName, WhyNot)>,
}

impl GrowthError {
    /// The stable code: [`Code::PoolFull`] when a full pool stands in the way.
    pub fn code(&self) -> Code {
        code_of(&self.nodes)
    }
}

impl fmt::Display for GrowthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not every copy has room to grow: ")?;
        for (i, (name, why)) in self.nodes.iter().enumerate() {
            let comma = if i > 0 { "; " } else { "" };
            write!(f, "{comma}{name} {why}")?;
        }
        Ok(())
    }
}

impl std::error::Error for GrowthError {}

/// Whether every copy may grow by `more` to `size`. A replica on a node that is down is not asked:
/// it is about to be made anew elsewhere, at the new size, if the node stays away.
pub fn may_grow(
    state: &State,
    seen: &Observations,
    container: &Container,
    size: ByteSize,
    more: ByteSize,
) -> Result<(), GrowthError> {
    if more.bytes() == 0 {
        return Ok(());
    }
    let nodes = container.members().filter_map(|id| state.nodes.get(&id));
    let cramped = nodes.filter_map(|node| {
        let why = room::to_grow(state, seen, node, size, more).err()?;
        let absent = why == WhyNot::Down && node.id != container.node;
        (!absent).then(|| (node.name.clone(), why))
    });
    let nodes: Vec<_> = cramped.collect();
    if nodes.is_empty() { Ok(()) } else { Err(GrowthError { nodes }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{add_container, observed, three_nodes};
    use holdfast_types::NodeId;

    fn ask(seen: &Observations, gib: u64, more: u64) -> Result<(), GrowthError> {
        let mut state = three_nodes();
        let uid = add_container(&mut state, 1, 1, &[2], |_| {});
        let container = state.containers[&uid].clone();
        may_grow(&state, seen, &container, ByteSize::gib(gib), ByteSize::gib(more))
    }

    /// I20, I23: the copy with the least room decides, the replica's as well as the primary's.
    #[test]
    fn every_copy_must_have_room() {
        let mut seen = observed(&[1, 2, 3]);
        assert_eq!(ask(&seen, 9, 8), Ok(()));
        assert_eq!(ask(&seen, 11, 10).unwrap_err().code(), Code::InvalidSize);
        assert_eq!(ask(&seen, 9, 40).unwrap_err().code(), Code::NoPlacement);
        seen.nodes.get_mut(&NodeId(3)).unwrap().pool.as_mut().unwrap().admits = false;
        assert_eq!(ask(&seen, 9, 8), Ok(()), "there is no copy");
        seen.nodes.get_mut(&NodeId(2)).unwrap().pool.as_mut().unwrap().admits = false;
        let error = ask(&seen, 9, 8).unwrap_err();
        assert_eq!(error.code(), Code::PoolFull);
        assert!(
            error.to_string().ends_with("n2 has a pool past its admission threshold"),
            "{error}"
        );
        assert_eq!(ask(&seen, 1, 0), Ok(()), "nothing more is asked for");
    }

    /// A lost replica must not keep a disk that runs full from growing.
    #[test]
    fn a_replica_that_is_down_is_not_asked_and_a_primary_is() {
        assert_eq!(ask(&observed(&[1]), 9, 8), Ok(()));
        assert_eq!(ask(&observed(&[2]), 9, 8).unwrap_err().nodes.len(), 1);
    }
}
