//! A node's labels change.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_types::{Code, LabelKey, LabelValue, MAX_LABELS, NodeId, Revision};
use serde::{Deserialize, Serialize};

use crate::apply::Change;
use crate::{Outcome, Refusal, Response};

/// Gives a node labels, and takes others off it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetLabels {
    /// Which node.
    pub node: NodeId,
    /// Labels that it gets, or that get another value.
    pub set: BTreeMap<LabelKey, LabelValue>,
    /// Labels that it has no longer. One that is in `set` too is set.
    pub remove: BTreeSet<LabelKey>,
    /// Only if this is the node's version.
    #[serde(default)]
    pub expect: Option<Revision>,
}

impl SetLabels {
    pub(crate) fn apply(self, change: &mut Change<'_>) -> Response {
        let mut node = change.state.node(self.node)?.clone();
        expect(self.expect, node.revision, || format!("node {}", node.name))?;
        let before = node.labels.clone();
        node.labels.retain(|key, _| !self.remove.contains(key));
        node.labels.extend(self.set);
        if node.labels == before {
            return Ok(Outcome::Version(node.revision));
        }
        if node.labels.len() > MAX_LABELS {
            let message = format!("a node carries at most {MAX_LABELS} labels");
            return Err(Refusal::new(Code::TooLarge, message));
        }
        node.revision = change.revision;
        let message = format!("the labels of node {} changed", node.name);
        change.state.nodes.insert(self.node, node);
        change.node_event("node-labels", self.node, message, []);
        Ok(Outcome::Version(change.revision))
    }
}

/// Refuses what was asked of another version than the present one.
pub(crate) fn expect(
    asked: Option<Revision>,
    now: Revision,
    what: impl FnOnce() -> String,
) -> Result<(), Refusal> {
    match asked {
        Some(asked) if asked != now => {
            let message = format!("{} is of version {now} now, not {asked}", what());
            Err(Refusal::new(Code::Conflict, message))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Command;
    use crate::testing::World;

    fn labels(set: &[(&str, &str)], remove: &[&str], expect: Option<Revision>) -> Command {
        Command::SetLabels(SetLabels {
            node: NodeId(2),
            set: set.iter().map(|(k, v)| (k.parse().unwrap(), v.parse().unwrap())).collect(),
            remove: remove.iter().map(|k| k.parse().unwrap()).collect(),
            expect,
        })
    }

    fn version(outcome: Outcome) -> Revision {
        let Outcome::Version(version) = outcome else { panic!("{outcome:?}") };
        version
    }

    #[test]
    fn labels_are_set_changed_and_removed() {
        let mut world = World::three_nodes();
        let one = version(world.ok(labels(&[("domain", "a"), ("disk", "ssd")], &[], None)));
        let same = version(world.ok(labels(&[("domain", "a")], &["none"], None)));
        assert_eq!(same, one, "nothing has changed");
        let two = version(world.ok(labels(&[("domain", "b")], &["disk"], None)));
        assert!(two > one);
        let node = &world.state.nodes[&NodeId(2)];
        assert_eq!(node.labels, [("domain".parse().unwrap(), "b".parse().unwrap())].into());
        assert_eq!(node.revision, two);
    }

    /// Who has not seen the last change overwrites nothing.
    #[test]
    fn another_version_than_the_expected_is_refused() {
        let mut world = World::three_nodes();
        let one = version(world.ok(labels(&[("domain", "a")], &[], None)));
        let two = version(world.ok(labels(&[("domain", "b")], &[], Some(one))));
        assert_eq!(world.refused(labels(&[("domain", "c")], &[], Some(one))), Code::Conflict);
        world.ok(labels(&[("domain", "c")], &[], Some(two)));
    }

    #[test]
    fn labels_are_bounded() {
        let mut world = World::three_nodes();
        let keys: Vec<String> = (0..=MAX_LABELS).map(|n| format!("k{n}")).collect();
        let all: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), "")).collect();
        assert_eq!(world.refused(labels(&all, &[], None)), Code::TooLarge);
        world.ok(labels(&all[1..], &[], None));
    }
}
