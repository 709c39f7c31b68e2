//! A container is made and placed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use holdfast_types::{
    ByteSize, Chain, Code, ContainerName, ContainerSpec, ContainerUid, DesiredState, Epoch,
    ImageUid, MacAddr, NodeId, OperationId, Revision, RunState, SnapshotId, SnapshotName,
};
use serde::{Deserialize, Serialize};

use crate::apply::Change;
use crate::{Container, FewMap, OperationKind, Outcome, Refusal, Response, State};

/// Makes a container on the node that the planner chose, with an address of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateContainer {
    /// Its identity.
    pub uid: ContainerUid,
    /// Its name.
    pub name: ContainerName,
    /// What the user asked for.
    pub spec: ContainerSpec,
    /// What it should be doing once it is there.
    pub desired: DesiredState,
    /// Where its primary copy goes.
    pub node: NodeId,
    /// Where its replicas go.
    pub replicas: BTreeSet<NodeId>,
    /// What the client follows.
    pub operation: OperationId,
    /// The snapshot that it is a clone of, instead of the image.
    #[serde(default)]
    pub origin: Option<Origin>,
}

/// A named snapshot of another container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The other container.
    pub uid: ContainerUid,
    /// The snapshot's name.
    pub snapshot: SnapshotName,
}

/// What a container begins as.
struct Beginning {
    what: String,
    image: ImageUid,
    snapshot: SnapshotId,
    size: ByteSize,
}

impl CreateContainer {
    pub(crate) fn apply(mut self, change: &mut Change<'_>) -> Response {
        self.check(change)?;
        let Beginning { what, image, snapshot, size } = self.beginning(change.state)?;
        if self.spec.disk < size {
            let message = format!("a disk of {} is smaller than {what} ({size})", self.spec.disk);
            return Err(Refusal::new(Code::InvalidSize, message));
        }
        let address = free_address(change)?;
        self.share_texts(change.state, image);
        let members: Vec<NodeId> =
            std::iter::once(self.node).chain(self.replicas.iter().copied()).collect();
        let container = Container {
            uid: self.uid,
            name: self.name.clone(),
            spec: self.spec,
            image,
            image_snapshot: snapshot,
            desired: self.desired,
            resizing: false,
            resize_asked: Revision::default(),
            short: false,
            run: RunState::Pending,
            made: false,
            chain: Chain::begin(Epoch(1)),
            node: self.node,
            replicas: self.replicas.into(),
            holders: members.iter().copied().collect(),
            copies: FewMap::default(),
            hold: None,
            kept: BTreeMap::new(),
            restore: None,
            schedule: None,
            schedule_failed: None,
            address,
            mac: MacAddr::from_ipv4(address),
            created: change.at,
            revision: change.revision,
        };
        let (name, kind) = (self.name.clone(), OperationKind::Create);
        change.begin_operation_as(self.operation, self.uid, name, kind);
        change.touch_assignments([self.node]);
        change.touch_views(members);
        let from = self.origin.is_some().then(|| format!(" as a clone of {what}"));
        let from = from.unwrap_or_default();
        let message = format!("container {} created with address {address}{from}", self.name);
        change.container_event("container-created", &container, Some(self.node), message, []);
        change.state.names.insert(self.name, self.uid);
        change.state.addresses.insert(address, self.uid);
        change.state.containers.insert(self.uid, container);
        Ok(Outcome::Operation { container: self.uid, operation: self.operation })
    }

    fn beginning(&self, state: &State) -> Result<Beginning, Refusal> {
        let Some(origin) = &self.origin else {
            let missing = || Refusal::new(Code::InvalidArgument, "the spec names no image");
            let image = state.image_named(self.spec.image.as_ref().ok_or_else(missing)?)?;
            return Ok(Beginning {
                what: format!("image {}", image.name),
                image: image.uid,
                snapshot: image.snapshot,
                size: image.size,
            });
        };
        let original = state.container(origin.uid)?;
        let taken = original.kept_taken(&origin.snapshot)?;
        // Whoever is no member any more is about to remove what it holds.
        let stays = original.members().any(|member| member == self.node);
        if original.is_deleting() || !taken.holders.contains(&self.node) || !stays {
            let message = format!("snapshot {} went away meanwhile", origin.snapshot);
            return Err(Refusal::new(Code::NoPlacement, message));
        }
        Ok(Beginning {
            what: format!("snapshot {} of {}", origin.snapshot, original.name),
            image: original.image,
            snapshot: taken.id,
            size: taken.size,
        })
    }

    /// A million containers of one image need its name once.
    fn share_texts(&mut self, state: &State, image: ImageUid) {
        let Some(image) = state.images.get(&image) else { return };
        if self.spec.image.as_ref() == Some(&image.name) {
            self.spec.image = Some(image.name.clone());
        }
    }

    fn check(&self, change: &Change<'_>) -> Result<(), Refusal> {
        change.state.cluster()?;
        self.spec.check().map_err(|e| Refusal::new(e.code(), e.to_string()))?;
        if change.state.names.contains_key(&self.name) {
            let message = format!("there is a container {} already", self.name);
            return Err(Refusal::new(Code::AlreadyExists, message));
        }
        if change.state.containers.contains_key(&self.uid) || self.replicas.contains(&self.node) {
            return Err(Refusal::new(Code::InvalidArgument, "the placement contradicts itself"));
        }
        for id in std::iter::once(&self.node).chain(&self.replicas) {
            let node = change.state.node(*id)?;
            if !node.is_up() {
                let message = format!("node {} went away meanwhile", node.name);
                return Err(Refusal::new(Code::NoPlacement, message));
            }
        }
        Ok(())
    }
}

/// The lowest free address; the first of the range is left to the gateway.
fn free_address(change: &mut Change<'_>) -> Result<Ipv4Addr, Refusal> {
    let overlay = change.state.cluster()?.overlay;
    change.state.addresses.lowest_free(overlay).ok_or_else(|| {
        Refusal::new(Code::NoAddress, format!("every address of {overlay} is in use"))
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::{World, create, lost};
    use crate::{Command, CreateContainer};
    use holdfast_types::{ByteSize, Code};

    #[test]
    fn names_and_addresses_are_unique() {
        let mut world = World::three_nodes();
        let web = world.container("web", 1, &[2]);
        let db = world.container("db", 1, &[2]);
        assert_eq!(world.refused(create("web", 1, &[2])), Code::AlreadyExists);
        let address = |uid| world.state.containers[&uid].address;
        assert_ne!(address(web), address(db));
    }

    #[test]
    fn a_placement_on_a_lost_node_is_refused() {
        let mut world = World::three_nodes();
        world.ok(lost(2, 1));
        assert_eq!(world.refused(create("web", 1, &[2])), Code::NoPlacement);
    }

    #[test]
    fn a_disk_smaller_than_the_image_is_refused() {
        let mut world = World::three_nodes();
        let Command::CreateContainer(mut command) = create("web", 1, &[2]) else { unreachable!() };
        command.spec.disk = ByteSize::mib(16);
        let command = Command::CreateContainer(CreateContainer { ..command });
        assert_eq!(world.refused(command), Code::InvalidSize);
    }

    #[test]
    fn addresses_run_out_with_a_clear_refusal() {
        let mut world = World::three_nodes_in("10.9.0.0/30");
        world.container("web", 1, &[2]);
        assert_eq!(world.refused(create("db", 1, &[2])), Code::NoAddress);
    }
}
