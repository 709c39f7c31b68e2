//! Containers as the cluster has agreed on them.
//!
//! The assignment is the heart: `node` may run it, under `epoch`, and nobody else. It changes by
//! [`crate::TakeOver`] alone, which raises the epoch (I10).

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use holdfast_types::{
    Chain, ContainerName, ContainerSpec, ContainerUid, DesiredState, Epoch, HeldSnapshot, ImageUid,
    KeepRules, MacAddr, NodeId, Protection, Revision, RunState, SnapshotId, SnapshotName,
    TimestampMs,
};
use serde::{Deserialize, Serialize};

use crate::{FewMap, FewSet, Kept, Restore, ScheduleFailed};

/// The newest verified snapshot that a node was known to hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copy {
    /// Which snapshot.
    pub newest: SnapshotId,
    /// The moment for which it was the primary's whole content.
    pub as_of: TimestampMs,
}

/// What keeps a takeover from going by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HoldCause {
    /// No copy, or none as new as was promised.
    #[default]
    Data,
    /// The newest copy is on a node without room for the container.
    Room,
    /// Too many nodes were lost at once.
    Brake,
    /// Something that only a newer version knows: an approval of it permits nothing here.
    #[serde(other)]
    Unknown,
}

/// A takeover that waits for a person, or for room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Since when.
    pub since: TimestampMs,
    /// What is at stake, in one line.
    pub reason: String,
    /// What stands in the way.
    #[serde(default)]
    pub cause: HoldCause,
    /// A person said to go ahead with what was offered.
    pub approved: bool,
    /// Only a person's word ends it: a better copy alone does not.
    #[serde(default)]
    pub for_person: bool,
    /// The copy that the reason offers, and the age that it states.
    #[serde(default)]
    pub offered: Option<HeldSnapshot>,
    /// The live holders without whose answer it would be decided, as the reason says.
    #[serde(default)]
    pub without: BTreeSet<NodeId>,
    /// A person said to go ahead in spite of the brake. Holds for other causes keep it.
    #[serde(default)]
    pub brake_approved: bool,
}

impl Hold {
    /// Whether a person's word covers that copy: it is as new as what was offered, or newer, so
    /// that no more is lost than that person was told (I22).
    pub fn permits(&self, id: &SnapshotId) -> bool {
        let enough = |offered: &HeldSnapshot| id.order() >= offered.id.order();
        self.approved && self.offered.as_ref().is_some_and(enough)
    }

    /// Whether a person's word covers a decision without the answers of those holders.
    pub fn permits_without(&self, holders: &BTreeSet<NodeId>) -> bool {
        self.approved && holders.is_subset(&self.without)
    }
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
    /// What it is made from, or the container that it is a clone of was.
    pub image: ImageUid,
    /// The snapshot that its volume begins as: the image's, which may be removed, or that of the
    /// container that it is a clone of.
    pub image_snapshot: SnapshotId,
    /// What it should be doing.
    pub desired: DesiredState,
    /// Its node has not said yet that what is there has the sizes of the spec.
    #[serde(default)]
    pub resizing: bool,
    /// The last entry that asked for that.
    #[serde(default)]
    pub resize_asked: Revision,
    /// Its node has said that a filesystem did not grow to the size of the spec.
    #[serde(default)]
    pub short: bool,
    /// What its node last said that it is doing, under the present epoch.
    pub run: RunState,
    /// Its node has run it, or had its volume at rest: it begins as what it comes from no more.
    #[serde(default)]
    pub made: bool,
    /// The epoch in force, and where each before it ended.
    pub chain: Chain,
    /// Where its primary copy is.
    pub node: NodeId,
    /// Where its replicas belong.
    pub replicas: FewSet<NodeId>,
    /// Every node that may hold data of it; emptied only by that node's own word.
    pub holders: FewSet<NodeId>,
    /// The coarse floor: what each holder was known to have. Newer is possible, older is not.
    pub copies: FewMap<NodeId, Copy>,
    /// A takeover that waits for a person.
    pub hold: Option<Box<Hold>>,
    /// Its named snapshots.
    #[serde(default)]
    pub kept: BTreeMap<SnapshotName, Kept>,
    /// It is to begin anew as one of them.
    #[serde(default)]
    pub restore: Option<Restore>,
    /// Snapshots are taken of it by the clock, and so many kept.
    #[serde(default)]
    pub schedule: Option<KeepRules>,
    /// Why the last snapshot that the schedule asked for came to nothing.
    #[serde(default)]
    pub schedule_failed: Option<ScheduleFailed>,
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

    /// The fencing token.
    pub fn epoch(&self) -> Epoch {
        self.chain.epoch
    }

    /// Whether a snapshot is of this container and on its committed chain.
    pub fn on_chain(&self, id: &SnapshotId) -> bool {
        self.chain.contains(self.uid.into(), id)
    }

    /// The node that runs it and those that hold its replicas.
    pub fn members(&self) -> impl Iterator<Item = NodeId> + '_ {
        std::iter::once(self.node).chain(self.replicas.iter().copied())
    }
}
