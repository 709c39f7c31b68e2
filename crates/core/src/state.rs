//! The replicated state and its plain queries.

use std::sync::Arc;

use holdfast_types::{
    CidrV4, ClusterId, Code, ContainerName, ContainerUid, Epoch, FeatureLevel, ImageName, ImageUid,
    LeaseSettings, NodeId, NodeName, OperationId, RequestId, Revision, SnapshotUuid, TimestampMs,
};
use serde::{Deserialize, Serialize};

use crate::{
    Addresses, Container, Containers, Event, Image, Lineage, Map, Node, Operations, Queue, Refusal,
    Response, Table, Trust,
};

/// What belongs to the cluster as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Its identity.
    pub id: ClusterId,
    /// The lease constants in force.
    pub lease: LeaseSettings,
    /// The overlay's address range.
    pub overlay: CidrV4,
    /// When it was made.
    pub created: TimestampMs,
}

/// What a lost node had written and never shipped, kept when it came back (I21).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diverged {
    /// Whose data.
    pub uid: ContainerUid,
    /// Its name when the data was kept.
    pub container: ContainerName,
    /// Where it is.
    pub node: NodeId,
    /// The epoch under which it was written.
    pub epoch: Epoch,
    /// Bytes that differ from the last common snapshot.
    pub changed_bytes: u64,
    /// When it was kept.
    pub kept: TimestampMs,
}

/// Everything that the cluster has agreed on. A clone costs nothing, and never changes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// Absent until the founder has spoken.
    pub cluster: Option<Cluster>,
    /// Every node ever admitted and not removed.
    pub nodes: Table<NodeId, Node>,
    /// Every image.
    pub images: Table<ImageUid, Image>,
    /// Every container, those on their way out included.
    pub containers: Containers,
    /// Names of containers that are not on their way out.
    pub names: Map<ContainerName, ContainerUid>,
    /// Overlay addresses in use.
    pub addresses: Addresses,
    /// Work under way, and the latest that ended.
    pub operations: Operations,
    /// Ended operations, oldest first, so that the oldest can be forgotten.
    pub ended_operations: Queue<OperationId>,
    /// Data kept from lost nodes.
    pub diverged: Table<SnapshotUuid, Diverged>,
    /// What happened lately, oldest first.
    pub events: Queue<Arc<Event>>,
    /// The newest entry that events were dropped of.
    pub events_dropped: Revision,
    /// Answers to recent requests (I7).
    pub answered: Map<RequestId, Response>,
    /// The requests of `answered`, oldest first.
    pub answered_order: Queue<RequestId>,
    /// The entries that the newest of them were in, in the same order.
    pub answered_in: Queue<Revision>,
    /// When their entries were proposed, in the same order.
    pub answered_at: Queue<TimestampMs>,
    /// The newest entry whose answer is forgotten.
    pub answers_forgotten: Revision,
    /// The log index of the last entry that changed anything.
    pub revision: Revision,
    /// The feature level in force: what may be said, since every node understands it.
    #[serde(skip_serializing_if = "FeatureLevel::is_first")]
    pub feature_level: FeatureLevel,
    /// What disasters have left.
    #[serde(skip_serializing_if = "Lineage::is_plain")]
    pub lineage: Lineage,
    /// Whom it believes, and whom it lets in.
    #[serde(skip_serializing_if = "Trust::is_empty")]
    pub trust: Trust,
}

impl State {
    /// The hash of the whole state: equal on every node at an equal log index (I4).
    pub fn hash(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        // Writing into a hasher cannot fail, and every type here can be encoded.
        if rmp_serde::encode::write_named(&mut hasher, self).is_err() {
            return blake3::hash(b"state cannot be encoded");
        }
        hasher.finalize()
    }

    /// Has equal texts share their memory, which they do not after decoding. Changes nothing else.
    pub fn share_texts(&mut self) {
        let named = |uid: &ContainerUid| self.containers.get(uid).map(|c| &c.name);
        let shared = self.names.iter().map(|(name, uid)| {
            let text = named(uid).filter(|own| *own == name).unwrap_or(name);
            (text.clone(), *uid)
        });
        self.names = shared.collect();
    }

    /// The cluster, or the refusal that says it is not there yet.
    pub fn cluster(&self) -> Result<&Cluster, Refusal> {
        self.cluster.as_ref().ok_or_else(|| {
            Refusal::new(
                Code::NotInitialized,
                "the cluster is not initialised: holdfast cluster init",
            )
        })
    }

    /// The node with that id.
    pub fn node(&self, id: NodeId) -> Result<&Node, Refusal> {
        let missing = || Refusal::new(Code::NotFound, format!("there is no node with id {id}"));
        self.nodes.get(&id).ok_or_else(missing)
    }

    /// Whether that id was a node's, and is none any more. Ids are log indexes, so whoever has
    /// applied the log up to `applied` knows every node that was admitted before, but those that a
    /// recovery has lost ([`State::lost_in`]).
    pub fn is_removed(&self, id: NodeId, applied: u64) -> bool {
        let known = self.nodes.contains_key(&id) || self.lost_in(id).is_some();
        self.cluster.is_some() && id.0 <= applied && !known
    }

    /// The node with that name.
    pub fn node_named(&self, name: &NodeName) -> Result<&Node, Refusal> {
        let missing = || Refusal::new(Code::NotFound, format!("there is no node {name}"));
        self.nodes.values().find(|n| n.name == *name).ok_or_else(missing)
    }

    /// Whether the node is up and known to hold a snapshot of the container's present epoch.
    pub fn holds_current(&self, container: &Container, id: NodeId) -> bool {
        self.nodes.get(&id).is_some_and(Node::is_up)
            && container.copies.get(&id).is_some_and(|copy| copy.newest.epoch == container.epoch())
    }

    /// The container with that id, deleted ones excluded.
    pub fn container(&self, uid: ContainerUid) -> Result<&Container, Refusal> {
        let missing = || Refusal::new(Code::NotFound, format!("there is no container {uid}"));
        self.containers.get(&uid).ok_or_else(missing)
    }

    /// The container with that name.
    pub fn container_named(&self, name: &ContainerName) -> Result<&Container, Refusal> {
        let missing = || Refusal::new(Code::NotFound, format!("there is no container {name}"));
        self.names.get(name).and_then(|uid| self.containers.get(uid)).ok_or_else(missing)
    }

    /// The image with that name.
    pub fn image_named(&self, name: &ImageName) -> Result<&Image, Refusal> {
        let missing = || Refusal::new(Code::NotFound, format!("there is no image {name}"));
        self.images.values().find(|i| i.name == *name).ok_or_else(missing)
    }
}
