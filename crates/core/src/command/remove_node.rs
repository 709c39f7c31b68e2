//! A node is let go for good.
//!
//! What is only there is not let go with it (I18, I21): containers whose primary copy it has, and
//! replicas whose primary is on no node that is up, are deleted or taken over first. So is the only
//! replica of one whose primary may be dead this very moment. What else only a lost node has may be
//! given up by a person's word, `force`.

use std::fmt::Display;

use holdfast_types::{Code, NodeId};
use serde::{Deserialize, Serialize};

use crate::apply::Change;
use crate::{Container, KeptState, Node, Outcome, Refusal, Response, State};

/// How many names of a kind a refusal lists.
const NAMED: usize = 5;

/// Removes a node. Its id is never given to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveNode {
    /// Which node.
    pub node: NodeId,
    /// Also if it is lost and has what no other node has, containers excepted.
    pub force: bool,
}

impl RemoveNode {
    pub(crate) fn apply(self, change: &mut Change<'_>) -> Response {
        let node = change.state.node(self.node)?.clone();
        self.check(change.state)?;
        change.state.nodes.remove(&self.node);
        let holds = |c: &&Container| c.holders.contains(&self.node);
        let related = change.state.containers.of_node(self.node);
        let held: Vec<_> = related.filter(holds).cloned().collect();
        for mut container in held {
            container.holders.remove(&self.node);
            container.replicas.remove(&self.node);
            if let Some(hold) = &mut container.hold {
                hold.without.remove(&self.node);
            }
            change.forget_copy(container, self.node);
        }
        change.state.diverged.retain(|_, kept| kept.node != self.node);
        let held = change.state.images.values().filter(|image| image.held_by.contains(&self.node));
        for uid in held.map(|image| image.uid).collect::<Vec<_>>() {
            if let Some(image) = change.state.images.get_mut(&uid) {
                image.held_by.remove(&self.node);
            }
        }
        // It may have made some.
        change.state.trust.close_tokens();
        change.touch_all_views();
        let message =
            format!("node {} was removed; its id {} is not used again", node.name, node.id);
        // The state knows no name for it any more.
        let fields = [("name", node.name.to_string()), ("force", self.force.to_string())];
        change.event("node-removed", None, None, message, fields);
        Ok(Outcome::Done)
    }

    /// Whether the node may be let go now.
    pub fn check(&self, state: &State) -> Result<(), Refusal> {
        let node = state.node(self.node)?;
        let name = &node.name;
        let refuse = |code, message| Err(Refusal::new(code, message));
        if self.force && node.is_up() {
            let message = format!("node {name} is up: --force is for one that is lost");
            return refuse(Code::WrongState, message);
        }
        let others_vote = state.nodes.values().any(|n| n.id != node.id && n.role.votes());
        if node.role.votes() && !others_vote {
            return refuse(Code::WrongState, format!("node {name} is the only one that votes"));
        }
        let living = || state.containers.values().filter(|c| !c.is_deleting());
        let primaries = names(living().filter(|c| c.node == node.id).map(|c| &c.name));
        if let Some(primaries) = primaries {
            let message = format!(
                "node {name} has the primary copy of {primaries}: delete them, or let them be taken \
                 over, first"
            );
            return refuse(Code::InUse, message);
        }
        let up = |id: &NodeId| state.nodes.get(id).is_some_and(Node::is_up);
        let needed = |c: &&Container| c.holders.contains(&node.id) && !up(&c.node);
        if let Some(needed) = names(living().filter(needed).map(|c| &c.name)) {
            let message = format!(
                "node {name} may have the last good copy of {needed}, whose node is lost: wait for \
                 the takeover, or delete them, first"
            );
            return refuse(Code::InUse, message);
        }
        let last = |c: &&Container| is_last_replica(state, c, node.id);
        let last = names(living().filter(last).map(|c| &c.name));
        if let Some(last) = last.filter(|_| !self.force) {
            let way = match node.is_up() {
                true => "stop that node, and remove it once there is another copy, or with --force",
                false => "wait until there is another one, or give it up with --force",
            };
            let message =
                format!("node {name} has the only copy of {last} besides the primary one: {way}");
            return refuse(Code::InUse, message);
        }
        match only_there(state, node.id) {
            Some(what) if !self.force => {
                let way =
                    if node.is_up() { "copy or remove that first" } else { "--force gives it up" };
                refuse(Code::InUse, format!("only node {name} has {what}: {way}"))
            }
            _ => Ok(()),
        }
    }
}

/// Whether the node has a copy of a container that is to have several, and no other node a current
/// one. The primary's does not count: its node may be dead, and not be known for lost yet.
fn is_last_replica(state: &State, container: &Container, node: NodeId) -> bool {
    let others = container.holders.iter().filter(|id| ![node, container.node].contains(id));
    container.spec.copies > 1
        && container.node != node
        && container.copies.get(&node).is_some()
        && !others.into_iter().any(|id| state.holds_current(container, *id))
}

/// What no other node has, besides containers.
fn only_there(state: &State, node: NodeId) -> Option<String> {
    let diverged = state.diverged.values().filter(|kept| kept.node == node);
    let diverged = names(diverged.map(|kept| &kept.container));
    let images = state.images.values();
    let images = images.filter(|i| i.held_by.len() == 1 && i.held_by.contains(&node));
    let images = names(images.map(|image| &image.name));
    let last = |state: &KeptState| match state {
        KeptState::Wanted => false,
        KeptState::Taken(taken) | KeptState::LeftBehind(taken) => {
            taken.holders.len() == 1 && taken.holders.contains(&node)
        }
    };
    let living = state.containers.values().filter(|c| !c.is_deleting());
    let kept = living.flat_map(|c| {
        let kept = c.kept.iter().filter(|(_, kept)| last(&kept.state));
        kept.map(|(name, _)| format!("{}@{name}", c.name))
    });
    let kept = names(kept);
    let parts = [
        diverged.map(|of| format!("what was written and never shipped of {of}")),
        images.map(|images| format!("the images {images}")),
        kept.map(|kept| format!("the snapshots {kept}")),
    ];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(", and "))
}

/// The first names, and how many more there are; nothing if there are none.
fn names(all: impl Iterator<Item = impl Display>) -> Option<String> {
    let all: Vec<_> = all.map(|name| name.to_string()).collect();
    let more = all.len().saturating_sub(NAMED);
    let listed = all[..all.len() - more].join(", ");
    match (all.len(), more) {
        (0, _) => None,
        (_, 0) => Some(listed),
        (_, more) => Some(format!("{listed} and {more} more")),
    }
}

#[cfg(test)]
mod tests {
    use super::RemoveNode;
    use crate::testing::{World, admit, floor, lost, report, take_over};
    use crate::{Command, NodeRole, SetReplicas, SetRoles};
    use holdfast_types::{Code, DesiredState, Epoch, ImageUid, NodeId, Report, SnapshotUuid};
    use uuid::Uuid;

    fn remove(node: u64, force: bool) -> Command {
        Command::RemoveNode(RemoveNode { node: NodeId(node), force })
    }

    fn refusal(world: &mut World, command: Command) -> (Code, String) {
        let refusal = world.try_apply(command).unwrap_err();
        (refusal.code, refusal.message)
    }

    #[test]
    fn a_removed_nodes_name_is_free_and_its_id_is_not() {
        let mut world = World::three_nodes();
        world.ok(remove(3, false));
        assert!(world.state.is_removed(NodeId(3), 100) && !world.state.is_removed(NodeId(2), 100));
        assert!(
            !world.state.is_removed(NodeId(101), 100),
            "it may be a node that is not known yet"
        );
        assert_eq!(world.refused(remove(3, false)), Code::NotFound);
        assert_eq!(world.state.node_view(NodeId(1)).unwrap().peers.len(), 1);
        world.ok(admit("n3"));
        let newest = world.state.nodes.values().last().unwrap();
        assert!(newest.id > NodeId(3), "{}", newest.id);
        let event = world.state.events.iter().find(|e| e.kind == "node-removed").unwrap();
        assert_eq!((event.kind.as_str(), &event.fields["name"][..]), ("node-removed", "n3"));
    }

    /// I18: a primary copy is never let go with its node, lost or not, forced or not.
    #[test]
    fn containers_are_deleted_or_taken_over_first() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 2, &[3]);
        let (code, message) = refusal(&mut world, remove(2, false));
        assert_eq!(code, Code::InUse);
        assert!(message.contains("primary copy of web"), "{message}");
        world.ok(lost(2, 1));
        assert_eq!(world.refused(remove(2, true)), Code::InUse);
        let (_, message) = refusal(&mut world, remove(3, false));
        assert!(message.contains("last good copy of web"), "{message}");
        world.ok(take_over(uid, 1, 1, 3));
        world.ok(remove(2, false));
        let web = &world.state.containers[&uid];
        assert_eq!((web.node, web.replicas.len()), (NodeId(3), 0));
        assert_eq!(web.holders, std::collections::BTreeSet::from([NodeId(3)]));
    }

    /// I18: the only replica went at once, also while its primary was dead and not yet lost.
    #[test]
    fn the_only_replica_was_let_go_beside_a_dead_primary() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 2, &[3]);
        world.ok(floor(uid, 3, 1, 5));
        let (code, message) = refusal(&mut world, remove(3, false));
        assert_eq!(code, Code::InUse);
        assert!(message.contains("only copy of web besides the primary"), "{message}");
        world.ok(lost(3, 1));
        let (_, message) = refusal(&mut world, remove(3, false));
        assert!(message.contains("wait until there is another one"), "{message}");
        // One that is to come is none yet.
        let replicas = [NodeId(1), NodeId(3)].into();
        world.ok(Command::SetReplicas(SetReplicas { uid, epoch: Epoch(1), replicas }));
        assert_eq!(world.refused(remove(3, false)), Code::InUse);
        let mut forced = world.clone();
        forced.ok(remove(3, true));
        world.ok(floor(uid, 1, 1, 6));
        world.ok(remove(3, false));
        assert_eq!(world.refused(remove(1, false)), Code::InUse, "now it is the only one");
    }

    /// L4: the deletion waited for the word of a node that never comes back.
    #[test]
    fn a_deletion_does_not_wait_for_a_removed_node() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 2, &[3]);
        world.ok(lost(2, 1));
        world.desire(uid, DesiredState::Deleted);
        world.ok(report(3, 1, Report::CopyRemoved { uid }));
        assert!(world.state.containers.contains_key(&uid));
        world.ok(remove(2, false));
        assert!(!world.state.containers.contains_key(&uid));
        assert!(world.state.addresses.is_empty());
    }

    /// I21: what only a lost node has is given up by a person's word alone.
    #[test]
    fn what_only_a_lost_node_has_needs_force() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[3]);
        let kept = Report::DivergedKept {
            uid,
            epoch: Epoch(1),
            snapshot: SnapshotUuid(Uuid::from_u128(9)),
            changed_bytes: 1,
        };
        world.ok(report(3, 1, kept));
        assert_eq!(world.refused(remove(3, true)), Code::WrongState, "it is up");
        let (code, message) = refusal(&mut world, remove(3, false));
        assert_eq!(code, Code::InUse);
        assert!(message.contains("never shipped of web"), "{message}");
        world.ok(lost(3, 1));
        let (_, message) = refusal(&mut world, remove(3, false));
        assert!(message.contains("--force gives it up"), "{message}");
        world.ok(remove(3, true));
        assert!(world.state.diverged.is_empty());
    }

    #[test]
    fn the_last_holder_of_an_image_is_named() {
        let mut world = World::three_nodes();
        let (code, message) = refusal(&mut world, remove(1, false));
        assert_eq!(code, Code::InUse);
        assert!(message.contains("the images busybox"), "{message}");
        let uid = ImageUid(Uuid::from_u128("busybox".len() as u128));
        world.ok(report(2, 1, Report::ImageHeld { uid }));
        world.ok(remove(1, false));
        assert_eq!(world.state.images[&uid].held_by, [NodeId(2)].into());
    }

    #[test]
    fn the_only_voter_stays() {
        let mut world = World::three_nodes();
        let roles = [2, 3].map(|id| (NodeId(id), NodeRole::Standby)).into();
        world.ok(Command::SetRoles(SetRoles { roles, reason: String::new() }));
        assert_eq!(world.refused(remove(1, false)), Code::WrongState);
        world.ok(remove(2, false));
    }
}
