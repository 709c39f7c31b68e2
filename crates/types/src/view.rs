//! What one node is told: its share of the replicated state, computed by `core`, acted on by the agent.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::{
    Chain, CidrV4, ClusterId, ContainerName, ContainerSpec, ContainerUid, DesiredState, ImageUid,
    Incarnation, KeptView, LeaseSettings, MacAddr, NodeId, NodeName, RestoreView, Revision,
    SnapshotId, SnapshotUuid,
};

/// Everything that one node needs to know to do its part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeView {
    /// Where in the replicated log this view was taken.
    pub revision: Revision,
    /// The node's last change of assignment. A grant that carries a higher one than the view at
    /// hand starts and thaws nothing (DESIGN section 5 rule 6).
    pub assignment_revision: Revision,
    /// Which cluster this is.
    pub cluster: ClusterId,
    /// The node that the view is for.
    pub node: NodeId,
    /// The life of the node that it is for.
    pub incarnation: Incarnation,
    /// The lease constants in force.
    pub lease: LeaseSettings,
    /// The overlay's address range.
    pub overlay: CidrV4,
    /// Every other node.
    pub peers: Vec<PeerView>,
    /// Containers whose primary copy is here.
    pub assigned: Vec<AssignedView>,
    /// Containers whose replica is, or is to be, here.
    pub replicas: Vec<ReplicaView>,
    /// Containers whose copy here is to be removed.
    pub deleting: Vec<ContainerUid>,
    /// Images, and what this node is to do about each.
    pub images: Vec<ImageView>,
}

/// Another node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerView {
    /// Its id.
    pub node: NodeId,
    /// Its name.
    pub name: NodeName,
    /// Where its API listens, `host:port`.
    pub address: String,
    /// Its address below the overlay.
    pub underlay: Ipv4Addr,
    /// Whether it is up as far as the cluster has agreed.
    pub up: bool,
    /// Whether it has no part in Raft: it never leads.
    #[serde(default)]
    pub worker: bool,
}

/// A container whose primary copy is on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignedView {
    /// Which container.
    pub uid: ContainerUid,
    /// Its name.
    pub name: ContainerName,
    /// What the user asked for.
    pub spec: ContainerSpec,
    /// The epoch of this assignment, and where each before it ended. Its branch is what to promote;
    /// the first epoch starts from the image instead.
    pub chain: Chain,
    /// What it should be doing.
    pub desired: DesiredState,
    /// Somebody waits for its volume to have the size that the spec says.
    #[serde(default)]
    pub resizing: bool,
    /// The entry that asked for that: it is answered once.
    #[serde(default)]
    pub resize_asked: Revision,
    /// Somebody has said that there is data of it: it is not made again of what it comes from.
    #[serde(default)]
    pub made: bool,
    /// The snapshot of its image.
    pub image: SnapshotId,
    /// Its address on the overlay.
    pub address: Ipv4Addr,
    /// Its link address.
    pub mac: MacAddr,
    /// Where its replicas belong, and the newest snapshot that the cluster knows each to have.
    pub replicas: Vec<CopyView>,
    /// Its named snapshots.
    #[serde(default)]
    pub kept: Vec<KeptView>,
    /// It is to begin anew as one of them.
    #[serde(default)]
    pub restore: Option<RestoreView>,
}

/// What is known of one copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyView {
    /// The node that holds, or is to hold, the copy.
    pub node: NodeId,
    /// The newest verified snapshot there as of the last coarse report.
    pub newest: Option<SnapshotUuid>,
}

/// A container whose replica is on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaView {
    /// Which container.
    pub uid: ContainerUid,
    /// Its name.
    pub name: ContainerName,
    /// The epoch in force, and where each before it ended.
    pub chain: Chain,
    /// The node that ships to us.
    pub primary: NodeId,
    /// Snapshots that are the newest known of some other copy: they are kept as bases.
    pub keep: Vec<SnapshotUuid>,
    /// The snapshot that it began as, of an image or of another container: a base of its first copy. No
    /// other volume's content has any business here.
    #[serde(default)]
    pub origin: Option<SnapshotUuid>,
    /// Its named snapshots.
    #[serde(default)]
    pub kept: Vec<KeptView>,
}

/// An image as one node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageView {
    /// Which image.
    pub uid: ImageUid,
    /// The snapshot that containers are cloned from.
    pub snapshot: SnapshotId,
    /// Whether the cluster knows this node to hold it.
    pub held: bool,
    /// Nodes that this node should ship the image to.
    pub ship_to: Vec<NodeId>,
    /// The node that ships it to those that lack it.
    #[serde(default)]
    pub source: Option<NodeId>,
}
