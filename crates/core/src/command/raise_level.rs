//! Every node understands more than the cluster has used so far.

use holdfast_types::FeatureLevel;
use serde::{Deserialize, Serialize};

use crate::apply::Change;
use crate::{Outcome, Response};

/// Raises the cluster's feature level. It never sinks: a node that understands less has no place in
/// the cluster from here on. The leader proposes it once every node has said that it understands it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaiseLevel {
    /// The level from now on.
    pub to: FeatureLevel,
}

impl RaiseLevel {
    pub(crate) fn apply(self, change: &mut Change<'_>) -> Response {
        change.state.cluster()?;
        let from = change.state.feature_level;
        if self.to <= from {
            return Ok(Outcome::Unchanged);
        }
        change.state.feature_level = self.to;
        let message =
            format!("every node understands feature level {}, which is in force", self.to);
        let fields = [("from", from.to_string()), ("to", self.to.to_string())];
        change.event("feature-level", None, None, message, fields);
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Command;
    use crate::testing::World;

    /// I4: until it is raised, the state has not a byte of it that an older version lacks.
    #[test]
    fn the_level_rises_and_never_sinks() {
        let mut world = World::three_nodes();
        let keys = |world: &World| {
            let bytes = rmp_serde::to_vec_named(&world.state).unwrap();
            [&b"feature_level"[..], b"lineage"]
                .map(|key| bytes.windows(key.len()).any(|window| window == key))
        };
        assert_eq!(keys(&world), [false, false]);
        let raise = |to| Command::RaiseLevel(RaiseLevel { to: FeatureLevel(to) });
        assert_eq!(world.ok(raise(2)), Outcome::Done);
        assert_eq!(world.ok(raise(1)), Outcome::Unchanged);
        assert_eq!(world.state.feature_level, FeatureLevel(2));
        assert_eq!(keys(&world), [true, false]);
        assert_eq!(world.state.events.back().unwrap().kind, "feature-level");
    }
}
