//! A lost node's container moves to a copy. The one way in which an assignment changes unplanned.

use holdfast_types::{
    Code, ContainerUid, Epoch, Incarnation, NodeId, RunState, SnapshotId, TimestampMs,
};
use serde::{Deserialize, Serialize};

use crate::apply::Change;
use crate::{Container, NodeLife, Outcome, Refusal, Response};

/// Moves a container from a lost life of its node to the holder of the newest verified copy, after
/// every live holder has sealed the old epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeOver {
    /// Which container.
    pub uid: ContainerUid,
    /// The assignment that ends.
    pub from_epoch: Epoch,
    /// The life that was declared lost.
    pub from_incarnation: Incarnation,
    /// Who runs it next.
    pub to: NodeId,
    /// The snapshot that the new epoch starts from, as the target itself named it under the seal.
    pub branch: SnapshotId,
    /// The moment for which that snapshot was the whole content: what was written after it is lost,
    /// or kept on the lost node.
    pub data_as_of: TimestampMs,
}

impl TakeOver {
    pub(crate) fn apply(self, change: &mut Change<'_>) -> Response {
        let mut container = change.state.container(self.uid)?.clone();
        let evidence = self.check(change, &container)?;
        let from = container.node;
        container.chain.advance(self.branch);
        container.node = self.to;
        container.run = RunState::Pending;
        container.hold = None;
        container.replicas.remove(&self.to);
        container.replicas.insert(from);
        container.holders.insert(self.to);
        self.branch_kept(change, &mut container);
        container.revision = change.revision;
        change.touch_assignments([from, self.to]);
        change.touch_views(container.holders.iter().copied().collect::<Vec<_>>());
        self.tell(change, &container, from, evidence);
        change.state.containers.insert(self.uid, container);
        Ok(Outcome::Done)
    }

    /// Says which named snapshots are not on the chain any more, and which the new node lacks.
    fn branch_kept(&self, change: &mut Change<'_>, container: &mut Container) {
        let left_behind = container.branch_kept(&self.branch, change.revision);
        if !left_behind.is_empty() {
            let names: Vec<_> = left_behind.iter().map(ToString::to_string).collect();
            let message = format!(
                "snapshots of {} that no other node has yet are left behind: {}",
                container.name,
                names.join(", ")
            );
            change.container_event("snapshots-left-behind", container, Some(self.to), message, []);
        }
        let from = container.restore.as_ref().map(|restore| restore.from.clone());
        let missed = container.miss_kept();
        change.tell_missed(container, &missed);
        let gone = |name| left_behind.contains(name) || missed.iter().any(|(n, _)| n == name);
        if from.as_ref().is_some_and(gone) {
            let message = "its node was lost, and the next one has no copy of it".to_owned();
            container.fail_restore(change, Code::WrongState, message);
        }
    }

    /// The evidence, if every condition of DESIGN section 5 holds at this point of the log.
    fn check(&self, change: &Change<'_>, container: &Container) -> Result<String, Refusal> {
        let refuse = |code, message: String| Err(Refusal::new(code, message));
        if container.epoch() != self.from_epoch {
            let message = format!("{} is in epoch {}", container.name, container.epoch());
            return refuse(Code::StaleEpoch, message);
        }
        if !container.is_protected() || container.is_deleting() {
            return refuse(Code::WrongState, format!("{} does not fail over", container.name));
        }
        let from = change.state.node(container.node)?;
        let NodeLife::Lost { evidence, .. } = &from.life else {
            return refuse(Code::WrongState, format!("node {} is not lost", from.name));
        };
        if from.incarnation != self.from_incarnation {
            return refuse(Code::StaleIncarnation, format!("node {} registered anew", from.name));
        }
        let to = change.state.node(self.to)?;
        if !to.is_up() || self.to == container.node {
            return refuse(Code::NoPlacement, format!("node {} cannot take over", to.name));
        }
        if !container.on_chain(&self.branch) {
            let message = "the snapshot is not on the container's chain".to_owned();
            return refuse(Code::WrongBase, message);
        }
        Ok(evidence.to_string())
    }

    fn tell(&self, change: &mut Change<'_>, container: &Container, from: NodeId, evidence: String) {
        let name = |id| change.state.nodes.get(&id).map(|n| n.name.to_string()).unwrap_or_default();
        let (from_name, to_name) = (name(from), name(self.to));
        let age_ms = change.at.since(self.data_as_of);
        let message = format!(
            "container {} moves from {from_name} to {to_name} with data {age_ms} ms old; {from_name} is {evidence}",
            container.name
        );
        let fields = [
            ("from", from_name),
            ("to", to_name),
            ("epoch", container.epoch().to_string()),
            ("snapshot_uuid", self.branch.uuid.to_string()),
            ("snapshot_epoch", self.branch.epoch.to_string()),
            ("snapshot_seq", self.branch.seq.to_string()),
            ("data_as_of_ms", self.data_as_of.to_string()),
            ("evidence", evidence),
            ("from_incarnation", self.from_incarnation.to_string()),
        ];
        change.container_event("takeover", container, Some(self.to), message, fields);
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{World, lost, register, take_over};
    use holdfast_types::{Code, Epoch, NodeId};

    /// I10, I8: the epoch rises, and only from a life that the log has declared lost.
    #[test]
    fn a_takeover_needs_the_loss_in_the_log() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2]);
        assert_eq!(world.refused(take_over(uid, 1, 1, 2)), Code::WrongState);
        world.ok(lost(1, 1));
        world.ok(take_over(uid, 1, 1, 2));
        let web = &world.state.containers[&uid];
        assert_eq!((web.epoch(), web.node), (Epoch(2), NodeId(2)));
        assert!(web.replicas.contains(&NodeId(1)));
    }

    /// I8: the node registered anew before the takeover applied, so it keeps what it owns.
    #[test]
    fn a_node_that_returned_first_keeps_its_containers() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2]);
        world.ok(lost(1, 1));
        world.ok(register(1));
        assert_eq!(world.refused(take_over(uid, 1, 1, 2)), Code::StaleEpoch);
        assert_eq!(world.refused(take_over(uid, 2, 1, 2)), Code::WrongState);
        world.ok(lost(1, 2));
        assert_eq!(world.refused(take_over(uid, 2, 1, 2)), Code::StaleIncarnation);
    }

    /// I10, I11: a second takeover of the same epoch is refused.
    #[test]
    fn an_epoch_is_taken_over_once() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2, 3]);
        world.ok(lost(1, 1));
        world.ok(take_over(uid, 1, 1, 2));
        assert_eq!(world.refused(take_over(uid, 1, 1, 3)), Code::StaleEpoch);
    }

    #[test]
    fn a_lost_node_cannot_take_over() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2]);
        world.ok(lost(1, 1));
        world.ok(lost(2, 1));
        assert_eq!(world.refused(take_over(uid, 1, 1, 2)), Code::NoPlacement);
    }

    /// DESIGN section 5 rule 6: both nodes' assignment revisions rise with the takeover.
    #[test]
    fn assignment_revisions_rise() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2]);
        let before = world.state.nodes[&NodeId(2)].assignment_revision;
        world.ok(lost(1, 1));
        world.ok(take_over(uid, 1, 1, 2));
        for n in [1, 2] {
            assert!(world.state.nodes[&NodeId(n)].assignment_revision > before);
        }
    }
}
