//! What each node is told of the state.

use std::collections::BTreeSet;

use holdfast_types::{
    AssignedView, CopyView, ImageView, NodeId, NodeView, PeerView, ReplicaView, SnapshotUuid,
};

use crate::{Container, Image, Refusal, State};

impl State {
    /// The view of one node. Everything in it is as of `self.revision`.
    pub fn node_view(&self, id: NodeId) -> Result<NodeView, Refusal> {
        let cluster = self.cluster()?;
        let node = self.node(id)?;
        let mine = |c: &&Container| c.node == id && !c.is_deleting();
        let replica = |c: &&Container| c.node != id && c.replicas.contains(&id) && !c.is_deleting();
        let going = |c: &&Container| {
            c.holders.contains(&id) && (c.is_deleting() || !c.members().any(|m| m == id))
        };
        let all = || self.containers.of_node(id);
        Ok(NodeView {
            revision: self.revision,
            assignment_revision: node.assignment_revision,
            cluster: cluster.id,
            node: id,
            incarnation: node.incarnation,
            lease: cluster.lease,
            overlay: cluster.overlay,
            peers: self.peers_of(id),
            assigned: all().filter(mine).map(assigned_view).collect(),
            replicas: all().filter(replica).map(|c| replica_view(c, id)).collect(),
            deleting: all().filter(going).map(|c| c.uid).collect(),
            images: self.images.values().map(|i| self.image_view(i, id)).collect(),
        })
    }

    fn peers_of(&self, id: NodeId) -> Vec<PeerView> {
        let others = self.nodes.values().filter(|n| n.id != id);
        others
            .map(|n| PeerView {
                node: n.id,
                name: n.name.clone(),
                address: n.address.clone(),
                underlay: n.underlay,
                up: n.is_up(),
                worker: !n.role.has_log(),
            })
            .collect()
    }

    /// The first live holder ships an image to every live node that lacks it.
    fn image_view(&self, image: &Image, id: NodeId) -> ImageView {
        let up = |n: &NodeId| self.nodes.get(n).is_some_and(|n| n.is_up());
        let source = image.held_by.iter().copied().find(|n| up(n));
        let stores = |n: &NodeId| self.nodes.get(n).is_some_and(|n| n.is_up() && !n.is_witness());
        let lacking =
            || self.nodes.keys().copied().filter(|n| stores(n) && !image.held_by.contains(n));
        ImageView {
            uid: image.uid,
            snapshot: image.snapshot,
            held: image.held_by.contains(&id),
            ship_to: if source == Some(id) { lacking().collect() } else { Vec::new() },
            source,
        }
    }
}

fn assigned_view(c: &Container) -> AssignedView {
    let copy = |&node: &NodeId| CopyView {
        node,
        newest: c.copies.get(&node).map(|copy| copy.newest.uuid),
    };
    AssignedView {
        uid: c.uid,
        name: c.name.clone(),
        spec: c.spec.clone(),
        chain: c.chain.clone(),
        desired: c.desired,
        resizing: c.resizing,
        resize_asked: c.resize_asked,
        made: c.was_made(),
        image: c.image_snapshot,
        address: c.address,
        mac: c.mac,
        replicas: c.replicas.iter().map(copy).collect(),
        kept: c.kept_views(c.node),
        restore: c.restore_view(),
    }
}

fn replica_view(c: &Container, id: NodeId) -> ReplicaView {
    let others = c.copies.iter().filter(|(node, _)| **node != id);
    let keep: BTreeSet<SnapshotUuid> = others.map(|(_, copy)| copy.newest.uuid).collect();
    ReplicaView {
        uid: c.uid,
        name: c.name.clone(),
        chain: c.chain.clone(),
        primary: c.node,
        keep: keep.into_iter().collect(),
        origin: Some(c.image_snapshot.uuid),
        kept: c.kept_views(id),
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::World;
    use holdfast_types::{DesiredState, NodeId};

    #[test]
    fn each_node_sees_its_own_share() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2]);
        let view = |n: u64| world.state.node_view(NodeId(n)).unwrap();
        assert_eq!(view(1).assigned[0].uid, uid);
        assert_eq!(view(2).replicas[0].primary, NodeId(1));
        assert!(view(3).assigned.is_empty() && view(3).replicas.is_empty());
        assert_eq!(view(3).peers.len(), 2);
    }

    /// I14: a copy that is to go is named to its holder until the holder says that it is gone.
    #[test]
    fn a_deleted_container_is_named_to_its_holders() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2]);
        world.desire(uid, DesiredState::Deleted);
        assert_eq!(world.state.node_view(NodeId(1)).unwrap().deleting, [uid]);
        assert_eq!(world.state.node_view(NodeId(2)).unwrap().deleting, [uid]);
        assert!(world.state.node_view(NodeId(1)).unwrap().assigned.is_empty());
    }
}
