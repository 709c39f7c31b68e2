//! Containers as the cluster has agreed on them.
//!
//! The assignment is the heart: `node` may run it, under `epoch`, and nobody else. It changes by
//! [`crate::TakeOver`] alone, which raises the epoch (I10).

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use holdfast_types::{
    ContainerName, ContainerSpec, ContainerUid, DesiredState, Epoch, ImageUid, MacAddr, NodeId,
    Protection, Revision, RunState, SnapshotId, TimestampMs,
};
use serde::{Deserialize, Serialize};

/// How many branch points are remembered; older snapshots count as off the chain.
pub(crate) const BRANCHES_KEPT: usize = 64;

/// The newest verified snapshot that a node was known to hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copy {
    /// Which snapshot.
    pub newest: SnapshotId,
    /// The moment for which it was the primary's whole content.
    pub as_of: TimestampMs,
}

/// A takeover that waits for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Since when.
    pub since: TimestampMs,
    /// What is at stake, in one line.
    pub reason: String,
    /// A person said to go ahead with the best copy there is.
    pub approved: bool,
}

/// One container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Its identity.
    pub uid: ContainerUid,
    /// Its name.
    pub name: ContainerName,
    /// What the user asked for.
    pub spec: ContainerSpec,
    /// What it is made from.
    pub image: ImageUid,
    /// That image's snapshot, kept here because the image may be removed.
    pub image_snapshot: SnapshotId,
    /// What it should be doing.
    pub desired: DesiredState,
    /// What its node last said that it is doing, under the present epoch.
    pub run: RunState,
    /// The fencing token.
    pub epoch: Epoch,
    /// Where its primary copy is.
    pub node: NodeId,
    /// The snapshot that each epoch after the first started from, the latest ones.
    pub branches: BTreeMap<Epoch, SnapshotId>,
    /// Where its replicas belong.
    pub replicas: BTreeSet<NodeId>,
    /// Every node that may hold data of it; emptied only by that node's own word.
    pub holders: BTreeSet<NodeId>,
    /// The coarse floor: what each holder was known to have. Newer is possible, older is not.
    pub copies: BTreeMap<NodeId, Copy>,
    /// A takeover that waits for a person.
    pub hold: Option<Hold>,
    /// Its address on the overlay.
    pub address: Ipv4Addr,
    /// Its link address.
    pub mac: MacAddr,
    /// When it was created.
    pub created: TimestampMs,
    /// The last entry that changed it.
    pub revision: Revision,
}

impl Container {
    /// Whether it fails over.
    pub fn is_protected(&self) -> bool {
        self.spec.protection == Protection::Protected
    }

    /// Whether it is on its way out.
    pub fn is_deleting(&self) -> bool {
        self.desired == DesiredState::Deleted
    }

    /// The snapshot that the present epoch starts from; none for the first.
    pub fn branch(&self) -> Option<SnapshotId> {
        self.branches.get(&self.epoch).copied()
    }

    /// Whether a snapshot is on the committed chain: of the present epoch, or not past the point
    /// at which a later epoch branched off. What a lost node wrote beyond that is *diverged*.
    pub fn on_chain(&self, id: &SnapshotId) -> bool {
        if id.volume != self.uid.into() || id.epoch > self.epoch {
            return false;
        }
        let mut tip = (self.epoch, None);
        while tip.0 > id.epoch {
            match self.branches.get(&tip.0) {
                Some(branch) if branch.epoch < tip.0 => tip = (branch.epoch, Some(branch.seq)),
                _ => return false,
            }
        }
        tip.0 == id.epoch && tip.1.is_none_or(|last| id.seq <= last)
    }

    /// The node that runs it and those that hold its replicas.
    pub fn members(&self) -> impl Iterator<Item = NodeId> + '_ {
        std::iter::once(self.node).chain(self.replicas.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{World, lost, register, snapshot, take_over_from};
    use holdfast_types::NodeId;

    /// I15: of an older epoch only what the next one branched from, or older, is on the chain.
    #[test]
    fn the_chain_ends_where_the_next_epoch_branched_off() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2, 3]);
        let snap = |epoch, seq| snapshot(uid.into(), epoch, seq);
        world.ok(lost(1, 1));
        world.ok(take_over_from(uid, 1, 1, 2, snap(1, 10)));
        world.ok(register(1));
        world.ok(lost(2, 1));
        world.ok(take_over_from(uid, 2, 1, 3, snap(2, 3)));
        let web = &world.state.containers[&uid];
        assert_eq!(web.node, NodeId(3));
        for (epoch, seq, on) in [
            (1, 10, true),
            (1, 12, false),
            (2, 3, true),
            (2, 4, false),
            (3, 1, true),
            (4, 1, false),
        ] {
            assert_eq!(web.on_chain(&snap(epoch, seq)), on, "({epoch}, {seq})");
        }
    }
}
