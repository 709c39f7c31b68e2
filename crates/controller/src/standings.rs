//! Replacing the cluster's authority, step by step, with the cluster up.
//!
//! ```text
//! old ──rotate-ca──▶ old, new ──▶ new, old ──▶ new
//!                    all learn    all are certified   the old one is believed no more
//!                    the new one  by the new one
//! ```
//! A step is taken once every node has caught up with the one before: a node that was left behind would
//! believe nobody, and nobody it. So a node that is off holds the replacement up, until it is back or
//! removed. Heartbeats tell how far each is, and a new leader hears it anew.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use holdfast_core::{SetAuthorities, State};
use holdfast_types::NodeId;

/// Whom each node believes, as it says.
#[derive(Debug, Default)]
pub struct Standings {
    nodes: Mutex<BTreeMap<NodeId, u64>>,
}

impl Standings {
    /// Takes in what a node says.
    pub fn heard(&self, id: NodeId, standing: u64) {
        self.lock().insert(id, standing);
    }

    /// The nodes that have not caught up, by name.
    pub fn behind(&self, state: &State) -> Vec<String> {
        let (told, wanted) = (self.lock(), state.trust.standing());
        let members = state.nodes.values().filter(|node| !state.lineage.absent.contains(&node.id));
        let behind = members.filter(|node| told.get(&node.id) != Some(&wanted));
        behind.map(|node| node.name.to_string()).collect()
    }

    /// The step that is due, while an authority is being replaced.
    pub(crate) fn step(&self, state: &State) -> Option<SetAuthorities> {
        let [first, second] = &state.trust.authorities[..] else { return None };
        if !self.behind(state).is_empty() {
            return None;
        }
        let before = [first, second].map(|kept| kept.certificate.clone()).to_vec();
        let (authorities, retiring, reason) = match state.trust.retiring {
            false => (
                vec![second.clone(), first.clone()],
                true,
                "every node believes the new authority: it certifies from now on",
            ),
            true => (
                vec![first.clone()],
                false,
                "every node is certified by the new authority: the old one is believed no more",
            ),
        };
        Some(SetAuthorities { before, authorities, retiring, reason: reason.into() })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, u64>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::state_of;
    use holdfast_core::{Hidden, TrustedAuthority};

    fn take(state: &mut State, step: SetAuthorities) -> Vec<u8> {
        let now = state.trust.authorities.iter().map(|kept| kept.certificate.clone());
        assert_eq!(step.before, now.collect::<Vec<_>>());
        state.trust.authorities = step.authorities;
        state.trust.retiring = step.retiring;
        state.trust.authorities.iter().map(|kept| kept.certificate[0]).collect()
    }

    /// I26: no step leaves a node behind that was off, and none is taken twice.
    #[test]
    fn each_step_waits_for_every_node() {
        let mut state = state_of(&[1, 2, 3]);
        let authority = |n: u8| TrustedAuthority { certificate: vec![n], key: Hidden(vec![n]) };
        state.trust.authorities = vec![authority(1), authority(2)];
        let standings = Standings::default();
        for after in [vec![2, 1], vec![2]] {
            let wanted = state.trust.standing();
            for node in [1, 2] {
                assert_eq!(standings.step(&state), None);
                standings.heard(NodeId(node), wanted);
            }
            standings.heard(NodeId(3), wanted ^ 1);
            assert_eq!(standings.step(&state), None);
            assert_eq!(standings.behind(&state), ["n3"]);
            standings.heard(NodeId(3), wanted);
            let step = standings.step(&state).unwrap();
            assert_eq!(take(&mut state, step), after);
        }
        assert_eq!(standings.step(&state), None, "it is done");
    }
}
