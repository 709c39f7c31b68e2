//! Which feature level every node understands, and when the cluster's may rise.
//!
//! Heartbeats tell, and it lives in the leader's memory like all that they tell: an entry would be one
//! that older versions apply otherwise (I4). So a new leader waits until it has heard every node.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use holdfast_core::{RaiseLevel, State};
use holdfast_types::{FeatureLevel, NodeId};

/// What nodes say of their versions.
#[derive(Debug, Default)]
pub struct Levels {
    nodes: Mutex<BTreeMap<NodeId, Version>>,
}

/// A node's version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// What it understands.
    pub level: FeatureLevel,
    /// What it is called; empty for one from before there were levels.
    pub name: String,
}

impl Levels {
    /// Takes in what a node says.
    pub fn heard(&self, id: NodeId, version: Version) {
        self.lock().insert(id, version);
    }

    /// What that node said last.
    pub fn of(&self, id: NodeId) -> Option<Version> {
        self.lock().get(&id).cloned()
    }

    /// The raise that is due: every node of the cluster, the lost ones included, has said that it
    /// understands more than is in force.
    pub(crate) fn raise(&self, state: &State) -> Option<RaiseLevel> {
        state.cluster.as_ref()?;
        let told = self.lock();
        let members = state.nodes.keys().filter(|id| !state.lineage.absent.contains(id));
        let least = members.map(|id| told.get(id).map(|version| version.level)).min()??;
        let to = least.min(FeatureLevel::OURS);
        (to > state.feature_level).then_some(RaiseLevel { to })
    }

    /// The nodes that keep the cluster below that level, by name and version.
    pub fn behind(&self, state: &State, needs: FeatureLevel) -> Vec<String> {
        let told = self.lock();
        let members = state.nodes.values().filter(|node| !state.lineage.absent.contains(&node.id));
        let behind = members.filter_map(|node| match told.get(&node.id) {
            None => Some(format!("{} (not heard of)", node.name)),
            Some(version) if version.level >= needs => None,
            Some(version) if version.name.is_empty() => Some(node.name.to_string()),
            Some(version) => Some(format!("{} (holdfast {})", node.name, version.name)),
        });
        behind.collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Version>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::state_of;
    use holdfast_core::Cluster;
    use holdfast_types::{ClusterId, TimestampMs};

    fn version(level: u32) -> Version {
        Version { level: FeatureLevel(level), name: "0.2.0".into() }
    }

    #[test]
    fn the_level_rises_when_the_last_node_has_said_so() {
        let mut state = state_of(&[1, 2, 3]);
        state.cluster.get_or_insert(Cluster {
            id: ClusterId::generate(),
            lease: Default::default(),
            overlay: "10.77.0.0/16".parse().unwrap(),
            created: TimestampMs(0),
        });
        let levels = Levels::default();
        levels.heard(NodeId(1), version(1));
        levels.heard(NodeId(2), version(99));
        assert_eq!(levels.raise(&state), None, "node 3 was not heard of");
        levels.heard(NodeId(3), version(0));
        assert_eq!(levels.raise(&state), None, "node 3 is older");
        let behind = levels.behind(&state, FeatureLevel::DISASTERS);
        assert_eq!(behind, ["n3 (holdfast 0.2.0)"]);
        levels.heard(NodeId(3), version(1));
        assert_eq!(levels.raise(&state), Some(RaiseLevel { to: FeatureLevel::DISASTERS }));
        state.feature_level = FeatureLevel::DISASTERS;
        assert_eq!(levels.raise(&state), None);
        assert!(levels.behind(&state, FeatureLevel::DISASTERS).is_empty());
        // Who is known from a backup alone is asked when it joins.
        state.feature_level = FeatureLevel::FIRST;
        levels.heard(NodeId(2), version(0));
        state.lineage.absent.insert(NodeId(2));
        assert!(levels.raise(&state).is_some());
    }
}
