//! What an action does to storage, runtime and network. Everything here may be repeated.

use std::time::Duration;

use holdfast_reconcile::{Observed, ObservedVolume};
use holdfast_runtime::image::ROOTFS_DIR;
use holdfast_runtime::{ContainerNet, StartRequest};
use holdfast_storage::{ExtentKind, Pool, SnapshotInfo, SnapshotKind, Tail, VolumeState, fsys};
use holdfast_types::{
    AssignedView, CidrV4, ContainerUid, Epoch, ImageView, KeptView, SnapshotId, SnapshotUuid,
    VolumeUid,
};
use tracing::warn;

use crate::agent::Parts;
use crate::clock::wall;
use crate::error::AgentError;
use crate::grow;
use crate::mounts;
use crate::places::Places;

/// How long the last user of a mount may take to go.
pub(crate) const UNMOUNT_LIMIT: Duration = Duration::from_secs(10);

/// The role text of a volume whose filesystems have been given their own identity and size.
pub(crate) const ROLE_READY: &str = "ready";

/// The label of what was written and never shipped.
const TAIL_LABEL: &str = "tail: written and never shipped";

/// What is here of a container.
pub(crate) fn observe(
    parts: &Parts,
    uid: ContainerUid,
    places: &Places,
    assigned: Option<&AssignedView>,
    images: &[ImageView],
) -> Result<Observed, AgentError> {
    let volume = match parts.pool.volume(uid.into()) {
        Ok(volume) => Some(volume),
        Err(holdfast_storage::Error::NoVolume(_)) => None,
        Err(error) => return Err(error.into()),
    };
    let device = volume.as_ref().is_some_and(|v| v.device.is_some());
    Ok(Observed {
        running: parts.runtime.status(uid)?.is_running(),
        active: device || !fsys::mounted(places.all())?.is_empty(),
        volume: volume.map(|v| ObservedVolume {
            live: v.state.live.as_ref().map(|live| live.epoch),
            snapshots: v.state.sound().map(|s| s.id).collect(),
            kept: v
                .state
                .snapshots
                .iter()
                .filter(|s| is_kept(&s.kind))
                .map(|s| s.id.uuid)
                .collect(),
            restored: v.state.live.as_ref().and_then(|live| live.restored),
            short: assigned.is_some_and(|view| grow::is_short(&v.state, &view.spec)),
        }),
        image_held: assigned.is_some_and(|view| holds(&*parts.pool, view.image)),
        image_comes: assigned.is_some_and(|view| comes(images, view.image)),
        reported: None,
        failed: None,
        resized_told: false,
        resting: Vec::new(),
    })
}

pub(crate) fn is_kept(kind: &SnapshotKind) -> bool {
    matches!(kind, SnapshotKind::Kept { .. })
}

/// Whether another node is to ship that image's snapshot here, as far as the cluster knows.
fn comes(images: &[ImageView], id: SnapshotId) -> bool {
    images.iter().any(|image| image.snapshot == id && !image.held)
}

/// Whether the pool holds that snapshot, and it is sound.
pub(crate) fn holds(pool: &dyn Pool, id: SnapshotId) -> bool {
    let sound = |state: &VolumeState| state.find(id.uuid).is_some() && !state.is_rotten(id.uuid);
    pool.volume(id.volume).is_ok_and(|volume| sound(&volume.state))
}

/// Whether its filesystem has its own identity and size: it was mounted here, or is of a copy.
pub(crate) fn is_ready(state: &VolumeState, view: &AssignedView) -> bool {
    state.record.role == ROLE_READY || view.chain.branch().is_some()
}

/// What the runtime is to start.
pub(crate) fn start_request(
    view: &AssignedView,
    overlay: CidrV4,
    places: &Places,
    link: &str,
) -> StartRequest {
    StartRequest {
        uid: view.uid,
        hostname: view.name.clone(),
        protection: view.spec.protection,
        rootfs: places.root().join(ROOTFS_DIR),
        mounts: mounts::in_container(&view.spec, places),
        limits: view.spec.limits,
        command: view.spec.command.clone(),
        env: view.spec.env.clone(),
        network: Some(ContainerNet {
            link: link.to_owned(),
            mac: view.mac,
            address: view.address,
            prefix: overlay.prefix(),
            gateway: None,
        }),
    }
}

/// Unmounts and takes the device away.
pub(crate) fn deactivate(
    parts: &Parts,
    uid: ContainerUid,
    places: &Places,
) -> Result<(), AgentError> {
    for at in places.all().iter().rev() {
        fsys::unmount(at, UNMOUNT_LIMIT)?;
    }
    match parts.pool.deactivate(uid.into()) {
        Ok(_) | Err(holdfast_storage::Error::NoVolume(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Makes the volume a replica at `to`; what was written beyond is kept as one labelled snapshot.
pub(crate) fn demote(
    parts: &Parts,
    uid: ContainerUid,
    to: Option<SnapshotId>,
    chain: &holdfast_types::Chain,
    named: &[KeptView],
) -> Result<(), AgentError> {
    let volume = VolumeUid::from(uid);
    let live = parts.pool.volume(volume)?.state.live.is_some();
    let tail = Tail { uuid: SnapshotUuid::generate(), taken: wall(), label: TAIL_LABEL.to_owned() };
    parts.pool.demote(volume, to.map(|id| id.uuid), live.then_some(&tail))?;
    for snapshot in parts.pool.volume(volume)?.state.snapshots {
        let is_named = named.iter().any(|kept| kept.uuid == snapshot.id.uuid);
        let off_chain = !chain.contains(volume, &snapshot.id) && !is_named;
        if snapshot.kind.on_chain() && off_chain {
            let label = match snapshot.kind {
                SnapshotKind::Kept { label } => label,
                SnapshotKind::Chain | SnapshotKind::Diverged { .. } => TAIL_LABEL.to_owned(),
            };
            let kind = SnapshotKind::Diverged { label };
            parts.pool.label_snapshot(snapshot.id.uuid, kind)?;
        }
    }
    drop_superseded(&*parts.pool, volume, live.then_some(tail.uuid))
}

/// Snapshots on the way to the tail say nothing that the tail does not, but for those that somebody
/// gave a name.
fn drop_superseded(
    pool: &dyn Pool,
    volume: VolumeUid,
    tail: Option<SnapshotUuid>,
) -> Result<(), AgentError> {
    let Some(tail) = tail else { return Ok(()) };
    let state = pool.volume(volume)?.state;
    let Some(kept) = state.find(tail).map(|s| s.id) else { return Ok(()) };
    for snapshot in &state.snapshots {
        let before = snapshot.id.epoch == kept.epoch && snapshot.id.seq < kept.seq;
        let nameless =
            matches!(&snapshot.kind, SnapshotKind::Diverged { label } if label == TAIL_LABEL);
        if nameless && before {
            pool.remove_snapshot(snapshot.id.uuid)?;
        }
    }
    Ok(())
}

/// Each diverged snapshot here, with the number of bytes by which it differs from the newest
/// common snapshot (or from nothing, if there is none).
pub(crate) fn diverged(
    pool: &dyn Pool,
    uid: ContainerUid,
) -> Result<Vec<(SnapshotInfo, u64)>, AgentError> {
    let state = match pool.volume(uid.into()) {
        Ok(volume) => volume.state,
        Err(_) => return Ok(Vec::new()),
    };
    let mut found = Vec::new();
    for snapshot in state.snapshots.iter().filter(|s| !s.kind.on_chain()) {
        let before = |s: &&SnapshotInfo| s.kind.on_chain() && s.id.order() < snapshot.id.order();
        let base = state.snapshots.iter().filter(before).max_by_key(|s| s.id.order());
        let extents = pool.diff(base.map(|s| s.id.uuid), snapshot.id.uuid)?;
        let data = extents.iter().filter(|e| e.kind == ExtentKind::Data);
        found.push((snapshot.clone(), data.map(|e| e.len).sum()));
    }
    Ok(found)
}

/// Removes a deleted container's volume with everything that it has.
pub(crate) fn remove(parts: &Parts, uid: ContainerUid, places: &Places) -> Result<(), AgentError> {
    parts.runtime.forget(uid)?;
    parts.pool.drop_partial(uid.into())?;
    parts.pool.remove_volume(uid.into())?;
    for at in places.all() {
        if let Err(error) = std::fs::remove_dir(at)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            warn!(container = %uid, %error, "a mount point of it stays behind");
        }
    }
    Ok(())
}

/// Makes a container's volume from its image.
pub(crate) fn clone_image(
    pool: &dyn Pool,
    view: &AssignedView,
    image: SnapshotId,
    epoch: Epoch,
) -> Result<(), AgentError> {
    pool.clone_set(image.uuid, view.uid.into(), &mounts::shape(&view.spec), epoch)?;
    Ok(())
}
