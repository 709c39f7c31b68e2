//! Every container, and the ways to those of a node, of an image and of a container, so that no
//! entry and no view has to look at all of them.
//!
//! What is kept besides the rows follows from them; it is neither encoded nor compared.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use holdfast_types::{ContainerUid, ImageUid, NodeId, VolumeUid};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::index::Index;
use crate::{Container, Table};

/// Every container under its uid.
#[derive(Debug, Clone, Default)]
pub struct Containers {
    rows: Table<ContainerUid, Container>,
    /// Of each node what it runs, has a replica of, or may hold data of.
    by_node: Index<NodeId, ContainerUid>,
    by_image: Index<ImageUid, ContainerUid>,
    /// Of a container's volume those that are still to be made of a snapshot of it.
    unmade_clones: Index<VolumeUid, ContainerUid>,
}

impl Containers {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// All in the order of their uids.
    pub fn iter(&self) -> impl Iterator<Item = (&ContainerUid, &Container)> {
        self.rows.iter()
    }

    /// Their uids in order.
    pub fn keys(&self) -> impl Iterator<Item = &ContainerUid> {
        self.rows.keys()
    }

    /// All in the order of their uids.
    pub fn values(&self) -> impl Iterator<Item = &Container> {
        self.rows.values()
    }

    /// The one with that uid.
    pub fn get(&self, uid: &ContainerUid) -> Option<&Container> {
        self.rows.get(uid)
    }

    /// Whether there is one with that uid.
    pub fn contains_key(&self, uid: &ContainerUid) -> bool {
        self.rows.contains_key(uid)
    }

    /// Those that the node runs, has a replica of, or may hold data of, in the order of their uids.
    pub fn of_node(&self, node: NodeId) -> impl Iterator<Item = &Container> {
        self.by_node.of(&node).filter_map(|uid| self.rows.get(uid))
    }

    /// Those that were made of the image, in the order of their uids.
    pub fn of_image(&self, image: ImageUid) -> impl Iterator<Item = &Container> {
        self.by_image.of(&image).filter_map(|uid| self.rows.get(uid))
    }

    /// How many were made of the image.
    pub fn count_of_image(&self, image: ImageUid) -> usize {
        self.by_image.count(&image)
    }

    /// Those that are still to be made of a snapshot of that volume, in the order of their uids.
    pub(crate) fn unmade_clones(&self, volume: VolumeUid) -> impl Iterator<Item = &Container> {
        self.unmade_clones.of(&volume).filter_map(|uid| self.rows.get(uid))
    }

    /// Sets one.
    pub fn insert(&mut self, uid: ContainerUid, container: impl Into<Arc<Container>>) {
        let container = container.into();
        let before = self.rows.shared(&uid);
        self.follow(uid, before.as_deref(), Some(&container));
        drop(before);
        self.rows.insert(uid, container);
    }

    /// Removes one; whether it was there.
    pub fn remove(&mut self, uid: &ContainerUid) -> bool {
        let Some(before) = self.rows.remove(uid) else { return false };
        self.follow(*uid, Some(&before), None);
        true
    }

    /// The one with that uid, to be changed. It is set when the borrow ends.
    pub fn get_mut(&mut self, uid: &ContainerUid) -> Option<ContainerMut<'_>> {
        let container = self.rows.get(uid)?.clone();
        Some(ContainerMut { all: self, uid: *uid, container: Some(container) })
    }

    /// Changes every one.
    pub fn for_each_mut(&mut self, mut change: impl FnMut(&mut Container)) {
        for uid in self.keys().copied().collect::<Vec<_>>() {
            if let Some(mut container) = self.get_mut(&uid) {
                change(&mut container);
            }
        }
    }

    /// Keeps those for which `wanted` holds.
    pub fn retain(&mut self, mut wanted: impl FnMut(&ContainerUid, &Container) -> bool) {
        let gone = self.iter().filter(|(uid, container)| !wanted(uid, container));
        for uid in gone.map(|(uid, _)| *uid).collect::<Vec<_>>() {
            self.remove(&uid);
        }
    }

    /// Has the ways follow a change of one.
    fn follow(&mut self, uid: ContainerUid, old: Option<&Container>, new: Option<&Container>) {
        let same_nodes = |(a, b): (&Container, &Container)| {
            a.node == b.node && a.holders == b.holders && a.replicas == b.replicas
        };
        if !old.zip(new).is_some_and(same_nodes) {
            let (was, is) =
                (old.map(nodes).unwrap_or_default(), new.map(nodes).unwrap_or_default());
            step(&mut self.by_node, uid, &was, &is);
        }
        let image = |c: &Container| c.image;
        step(&mut self.by_image, uid, old.map(image).as_slice(), new.map(image).as_slice());
        let (was, is) = (old.and_then(still_a_clone_of), new.and_then(still_a_clone_of));
        step(&mut self.unmade_clones, uid, was.as_slice(), is.as_slice());
    }
}

fn step<A: Ord + Clone>(
    index: &mut Index<A, ContainerUid>,
    uid: ContainerUid,
    was: &[A],
    is: &[A],
) {
    for gone in was.iter().filter(|one| !is.contains(one)) {
        index.remove(gone, &uid);
    }
    for new in is.iter().filter(|one| !was.contains(one)) {
        index.add(new, uid);
    }
}

fn nodes(container: &Container) -> Vec<NodeId> {
    let mut all: Vec<_> = container.members().chain(container.holders.iter().copied()).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn still_a_clone_of(container: &Container) -> Option<VolumeUid> {
    let volume = container.image_snapshot.volume;
    let of_another = volume != VolumeUid::from(container.image);
    (of_another && container.is_unmade() && !container.is_deleting()).then_some(volume)
}

/// One container while it is changed.
pub struct ContainerMut<'a> {
    all: &'a mut Containers,
    uid: ContainerUid,
    /// Always there, until it is set.
    container: Option<Container>,
}

impl Deref for ContainerMut<'_> {
    type Target = Container;

    fn deref(&self) -> &Container {
        self.container.as_ref().expect("it is there until the drop")
    }
}

impl DerefMut for ContainerMut<'_> {
    fn deref_mut(&mut self) -> &mut Container {
        self.container.as_mut().expect("it is there until the drop")
    }
}

impl Drop for ContainerMut<'_> {
    fn drop(&mut self) {
        if let Some(container) = self.container.take() {
            self.all.insert(self.uid, container);
        }
    }
}

impl PartialEq for Containers {
    fn eq(&self, other: &Self) -> bool {
        self.rows == other.rows
    }
}

impl Eq for Containers {}

impl std::ops::Index<&ContainerUid> for Containers {
    type Output = Container;

    /// # Panics
    /// If there is none with that uid.
    fn index(&self, uid: &ContainerUid) -> &Container {
        &self.rows[uid]
    }
}

impl Serialize for Containers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.rows.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Containers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let rows = Table::<ContainerUid, Container>::deserialize(deserializer)?;
        let mut all = Self::default();
        for uid in rows.keys() {
            if let Some(container) = rows.shared(uid) {
                all.insert(*uid, container);
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, clone, lost, report, take_over};
    use holdfast_types::{DesiredState, Epoch, Report, RunState};

    /// The ways as one finds them by looking at all rows.
    fn check(world: &World) {
        let all = &world.state.containers;
        let uids = |found: Vec<&Container>| found.iter().map(|c| c.uid).collect::<Vec<_>>();
        for node in (0..6).map(NodeId) {
            let on_it = all.values().filter(|c| nodes(c).contains(&node));
            assert_eq!(uids(all.of_node(node).collect()), uids(on_it.collect()));
        }
        for original in all.values() {
            let volume = VolumeUid::from(original.uid);
            let of_it = all.values().filter(|c| still_a_clone_of(c) == Some(volume));
            assert_eq!(uids(all.unmade_clones(volume).collect()), uids(of_it.collect()));
            let alike = all.values().filter(|c| c.image == original.image);
            assert_eq!(all.count_of_image(original.image), alike.count());
        }
    }

    #[test]
    fn the_ways_follow_every_change() {
        let mut world = World::three_nodes();
        let uid = world.container("web", 1, &[2]);
        world.container("db", 2, &[3]);
        check(&world);
        world.taken(uid, "s1", 1, 5);
        let made = world.ok(clone(uid, "s1", "web-2", 1));
        check(&world);
        assert_eq!(world.state.containers.unmade_clones(uid.into()).count(), 1, "{made:?}");
        world.ok(lost(1, 1));
        world.ok(take_over(uid, 1, 1, 2));
        check(&world);
        world.desire(uid, DesiredState::Stopped);
        let run = Report::Run { uid, epoch: Epoch(2), state: RunState::Running };
        world.ok(report(2, 1, run));
        check(&world);
        // Decoded it has the same ways.
        let bytes = rmp_serde::to_vec_named(&world.state).unwrap();
        world.state = rmp_serde::from_slice(&bytes).unwrap();
        check(&world);
        if let Some(mut web) = world.state.containers.get_mut(&uid) {
            web.holders.clear();
            web.replicas.clear();
        }
        check(&world);
        world.state.containers.retain(|other, _| *other != uid);
        check(&world);
    }
}
