//! A view from the leader, and the next step on a node that has nothing and on one that has everything
//! that the view speaks of.

use std::net::Ipv4Addr;

use holdfast_reconcile::{Duty, Gate, Observed, ObservedVolume, next};
use holdfast_types::{
    AssignedView, Chain, ClusterId, ContainerSpec, ContainerUid, CopyView, DesiredState, Epoch,
    ImageUid, ImageView, Incarnation, KeptView, LeaseSettings, MacAddr, NodeId, NodeView,
    OperationId, PeerView, ReplicaView, RestoreView, Revision, Seq, SnapshotId, SnapshotUuid,
    VolumeUid,
};
use uuid::Uuid;

/// Reads one view.
pub fn read(input: &[u8]) {
    let Ok(view) = rmp_serde::from_slice::<NodeView>(input) else { return };
    let again = rmp_serde::to_vec_named(&view).expect("what was read can be written");
    assert_eq!(rmp_serde::from_slice::<NodeView>(&again).ok().as_ref(), Some(&view));
    drop((view.lease.check(), view.lease.heartbeat_ms(), view.lease.lost_after_ms()));
    view.overlay.hosts().next_back();
    for assigned in &view.assigned {
        let snapshots = assigned.chain.branches.values().copied().chain([assigned.image]);
        steps(Duty::Assigned(assigned), &assigned.chain, snapshots.collect());
        drop((assigned.spec.check(), assigned.spec.promised()));
    }
    for replica in &view.replicas {
        let snapshots = replica.chain.branches.values().copied().collect();
        steps(Duty::Replica(replica), &replica.chain, snapshots);
    }
}

fn steps(duty: Duty<'_>, chain: &Chain, snapshots: Vec<SnapshotId>) {
    let volume = ObservedVolume {
        live: Some(chain.epoch),
        kept: snapshots.iter().map(|id| id.uuid).collect(),
        snapshots,
        ..ObservedVolume::default()
    };
    let full = Observed {
        running: true,
        active: true,
        volume: Some(volume.clone()),
        image_held: true,
        ..Observed::default()
    };
    let stopped = Observed { volume: Some(volume), ..Observed::default() };
    for observed in [Observed::default(), full, stopped] {
        for gate in [Gate::Open, Gate::Closed] {
            let step = next(duty, &observed, gate);
            drop(step.map(|step| (format!("{:?}", step.action), step.why.to_string())));
        }
    }
}

/// A view with everything in it, and one with nothing.
pub fn seeds() -> Vec<Vec<u8>> {
    let full = NodeView {
        peers: vec![PeerView {
            node: NodeId(2),
            name: "n2".parse().expect("a name"),
            address: "10.0.0.2:7443".into(),
            underlay: Ipv4Addr::new(10, 0, 0, 2),
            up: true,
            worker: true,
        }],
        assigned: vec![assigned()],
        replicas: vec![replica()],
        deleting: vec![ContainerUid(uid(3))],
        images: vec![ImageView {
            uid: ImageUid(uid(4)),
            snapshot: snapshot(4, 1),
            held: true,
            ship_to: vec![NodeId(2)],
            source: Some(NodeId(2)),
        }],
        ..empty()
    };
    let views = [full, empty()];
    views.map(|view| rmp_serde::to_vec_named(&view).expect("a view can be written")).to_vec()
}

fn empty() -> NodeView {
    NodeView {
        revision: Revision(9),
        assignment_revision: Revision(7),
        cluster: ClusterId(uid(9)),
        node: NodeId(1),
        incarnation: Incarnation(2),
        lease: LeaseSettings::default(),
        overlay: "10.77.0.0/16".parse().expect("a network"),
        peers: Vec::new(),
        assigned: Vec::new(),
        replicas: Vec::new(),
        deleting: Vec::new(),
        images: Vec::new(),
    }
}

fn assigned() -> AssignedView {
    let address = Ipv4Addr::new(10, 77, 0, 2);
    AssignedView {
        uid: ContainerUid(uid(1)),
        name: "web".parse().expect("a name"),
        spec: ContainerSpec {
            image: "busybox".parse().ok(),
            volumes: "data=2GiB:/srv".parse().into_iter().collect(),
            ..ContainerSpec::default()
        },
        chain: chain(1),
        desired: DesiredState::Running,
        resizing: true,
        resize_asked: Revision(5),
        made: true,
        image: snapshot(4, 1),
        address,
        mac: MacAddr::from_ipv4(address),
        replicas: vec![CopyView { node: NodeId(2), newest: Some(SnapshotUuid(uid(8))) }],
        kept: vec![kept()],
        restore: Some(RestoreView {
            operation: OperationId(uid(7)),
            from: SnapshotUuid(uid(8)),
            before: SnapshotUuid(uid(6)),
        }),
    }
}

fn replica() -> ReplicaView {
    ReplicaView {
        uid: ContainerUid(uid(2)),
        name: "db".parse().expect("a name"),
        chain: chain(2),
        primary: NodeId(2),
        keep: vec![SnapshotUuid(uid(8))],
        origin: Some(SnapshotUuid(uid(9))),
        kept: vec![kept()],
    }
}

fn kept() -> KeptView {
    KeptView {
        name: "before".parse().expect("a name"),
        uuid: SnapshotUuid(uid(8)),
        wanted: true,
        held: false,
        holders: vec![NodeId(2)],
    }
}

/// With a branch, an epoch of the same node, and a leap.
fn chain(volume: u8) -> Chain {
    let mut chain = Chain::begin(Epoch(1));
    chain.advance(snapshot(volume, 1));
    chain.go_on();
    chain.leap();
    chain
}

fn snapshot(volume: u8, epoch: u64) -> SnapshotId {
    SnapshotId {
        volume: VolumeUid(uid(volume)),
        epoch: Epoch(epoch),
        seq: Seq(1),
        uuid: SnapshotUuid(uid(8)),
        parent: None,
    }
}

fn uid(of: u8) -> Uuid {
    Uuid::from_bytes([of; 16])
}

#[cfg(test)]
mod tests {
    #[test]
    fn spoiled_views_are_read_or_refused() {
        holdfast_fuzz::spoiled(&super::seeds(), 20_000, super::read);
    }
}
