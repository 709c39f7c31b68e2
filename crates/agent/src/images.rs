//! Images on this node: unpacked here, shipped to nodes that lack them, removed when unused.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use holdfast_runtime::image::{Budget, ImageStats, ROOTFS_DIR, unpack};
use holdfast_storage::{AtRest, Pool, fsys, round_size};
use holdfast_types::{
    ByteSize, ContainerUid, Epoch, ImageUid, ImageView, Report, SnapshotId, SnapshotUuid, VolumeUid,
};
use tracing::{debug, info, warn};

use crate::clock::wall;
use crate::context::Context;
use crate::error::{AgentError, blocking};
use crate::replicate::ship_image;
use crate::report;

/// The role text of an image's volume: one that the cluster no longer knows may go.
const ROLE_IMAGE: &str = "image";
const ROLE_IMPORTING: &str = "importing";

const LOOK_EVERY: Duration = Duration::from_secs(5);
const UNMOUNT_LIMIT: Duration = Duration::from_secs(10);

/// An image has but one epoch.
const IMAGE_EPOCH: Epoch = Epoch(1);

/// An image as it was unpacked.
#[derive(Debug, Clone)]
pub struct ImportedImage {
    /// The snapshot that containers are cloned from.
    pub snapshot: SnapshotId,
    /// Size of its filesystem.
    pub size: ByteSize,
    /// What it holds.
    pub stats: ImageStats,
}

/// Makes an image volume of an archive. Nothing of it stays behind when it is refused.
pub(crate) async fn import(
    context: Arc<Context>,
    uid: ImageUid,
    size: ByteSize,
    archive: Box<dyn std::io::Read + Send>,
) -> Result<ImportedImage, AgentError> {
    let parts = context.parts().ok_or(AgentError::Starting)?;
    let mountpoint = context.config.data_dir.join("mounts").join(uid.to_string());
    blocking(move || {
        let imported = make(&*parts.pool, uid, size, archive, &mountpoint);
        if imported.is_err()
            && let Err(error) = undo(&*parts.pool, uid, &mountpoint)
        {
            warn!(image = %uid, error = %error.line(), "a refused image leaves a volume behind");
        }
        imported
    })
    .await
}

fn make(
    pool: &dyn Pool,
    uid: ImageUid,
    size: ByteSize,
    archive: Box<dyn std::io::Read + Send>,
    mountpoint: &Path,
) -> Result<ImportedImage, AgentError> {
    let volume = VolumeUid::from(uid);
    let size = round_size(size)?;
    pool.create(volume, size, IMAGE_EPOCH)?;
    pool.set_role(volume, ROLE_IMPORTING)?;
    let device = pool.activate(volume, IMAGE_EPOCH)?;
    fsys::mkfs(&device)?;
    fsys::mount(&device, mountpoint)?;
    let rootfs = mountpoint.join(ROOTFS_DIR);
    let io = |source| holdfast_storage::Error::Io { what: "making", path: rootfs.clone(), source };
    std::fs::create_dir(&rootfs).map_err(io)?;
    let stats = unpack(archive, &rootfs, Budget::default())?;
    fsys::sync(mountpoint)?;
    fsys::unmount(mountpoint, UNMOUNT_LIMIT)?;
    remove_dir(mountpoint);
    pool.deactivate(volume)?;
    let state = pool.volume(volume)?.state;
    let missing = || AgentError::Storage(holdfast_storage::Error::NoVolume(volume));
    let id = state.next_snapshot(SnapshotUuid::generate()).ok_or_else(missing)?;
    pool.snapshot(&id, wall(), &mut AtRest)?;
    pool.demote(volume, Some(id.uuid), None)?;
    Ok(ImportedImage { snapshot: id, size, stats })
}

fn undo(pool: &dyn Pool, uid: ImageUid, mountpoint: &Path) -> Result<(), AgentError> {
    fsys::unmount(mountpoint, UNMOUNT_LIMIT)?;
    remove_dir(mountpoint);
    match pool.deactivate(uid.into()) {
        Err(holdfast_storage::Error::NoVolume(_)) => return Ok(()),
        other => other?,
    };
    remove(pool, uid)
}

fn remove_dir(mountpoint: &Path) {
    if let Err(error) = std::fs::remove_dir(mountpoint) {
        debug!(mountpoint = %mountpoint.display(), %error, "a mount point stays behind");
    }
}

/// Removes an image's volume.
pub(crate) fn remove(pool: &dyn Pool, uid: ImageUid) -> Result<(), AgentError> {
    match pool.remove_volume(uid.into()) {
        Ok(_) | Err(holdfast_storage::Error::NoVolume(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Looks after this node's images for ever.
pub(crate) async fn run(context: Arc<Context>) {
    if let Err(error) = clear_interrupted(&context).await {
        warn!(error = %error.line(), "an interrupted import stays behind");
    }
    let mut views = context.watch_view();
    loop {
        views.mark_unchanged();
        if let Some(view) = context.view() {
            for image in &view.images {
                if let Err(error) = look_after(&context, image).await {
                    debug!(image = %image.uid, error = %error.line(), "not everywhere yet");
                }
            }
            if view.incarnation == context.incarnation()
                && let Err(error) = clear_removed(&context, &view.images).await
            {
                warn!(error = %error.line(), "a removed image stays behind");
            }
        }
        // Whichever comes first; both lead to another look.
        let _ = tokio::time::timeout(LOOK_EVERY, views.changed()).await;
    }
}

async fn look_after(context: &Arc<Context>, image: &ImageView) -> Result<(), AgentError> {
    let parts = context.parts().ok_or(AgentError::Starting)?;
    let (pool, id) = (parts.pool.clone(), image.snapshot);
    // Whoever says that a container's volume is an image: it is none here.
    let is_container = context.view().is_some_and(|view| {
        let uid = |uid: ContainerUid| uid.0 == id.volume.0;
        view.assigned.iter().any(|c| uid(c.uid)) || view.replicas.iter().any(|c| uid(c.uid))
    });
    let found = blocking(move || {
        let state = match pool.volume(id.volume) {
            Ok(volume) => volume.state,
            Err(holdfast_storage::Error::NoVolume(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if !is_container && state.find(id.uuid).is_some() && state.record.role != ROLE_IMAGE {
            pool.set_role(id.volume, ROLE_IMAGE)?;
        }
        Ok::<_, AgentError>(state.find(id.uuid).map(|s| (s.clone(), state.is_rotten(id.uuid))))
    });
    let found = found.await?;
    if is_lost(image, found.as_ref().map(|(_, rotten)| *rotten)) {
        // Others ship it anew to a node that does not hold it.
        return report::send(context, &Report::ImageLost { uid: image.uid }).await;
    }
    let Some((snapshot, false)) = found else { return Ok(()) };
    if !image.held {
        let report = Report::ImageHeld { uid: image.uid };
        return report::send(context, &report).await;
    }
    for node in &image.ship_to {
        let Some(peer) = context.peer(*node) else { continue };
        // One that cannot be reached does not keep the image from the others.
        match ship_image(context, &peer.address, &snapshot).await {
            Ok(()) => info!(image = %image.uid, node = %peer.name, "image shipped"),
            Err(error) => {
                debug!(image = %image.uid, node = %peer.name, error = %error.line(), "not shipped yet");
            }
        }
    }
    Ok(())
}

/// Whether the cluster takes this node for a holder of what has rotted, or is not here: the pool may
/// be another than the one that held it.
fn is_lost(image: &ImageView, rotten: Option<bool>) -> bool {
    image.held && rotten.unwrap_or(true)
}

/// An import that a crash interrupted never became an image.
async fn clear_interrupted(context: &Arc<Context>) -> Result<(), AgentError> {
    let mounts: PathBuf = context.config.data_dir.join("mounts");
    for uid in with_role(context, ROLE_IMPORTING).await? {
        let parts = context.parts().ok_or(AgentError::Starting)?;
        let mountpoint = mounts.join(uid.to_string());
        let known = context.view().is_some_and(|v| v.images.iter().any(|i| i.uid == uid));
        if !known {
            blocking(move || match parts.pool.volume(uid.into())?.state.live {
                Some(_) => undo(&*parts.pool, uid, &mountpoint),
                None => Ok(()),
            })
            .await?;
        }
    }
    Ok(())
}

/// An image that the cluster has removed.
async fn clear_removed(context: &Arc<Context>, known: &[ImageView]) -> Result<(), AgentError> {
    for uid in with_role(context, ROLE_IMAGE).await? {
        if known.iter().all(|image| image.uid != uid) {
            let parts = context.parts().ok_or(AgentError::Starting)?;
            blocking(move || remove(&*parts.pool, uid)).await?;
            info!(image = %uid, "removed image cleared");
        }
    }
    Ok(())
}

async fn with_role(
    context: &Arc<Context>,
    role: &'static str,
) -> Result<Vec<ImageUid>, AgentError> {
    let parts = context.parts().ok_or(AgentError::Starting)?;
    blocking(move || {
        let volumes = parts.pool.volumes().into_iter();
        let of_role = volumes.filter(|v| v.state.record.role == role);
        Ok::<_, AgentError>(of_role.map(|v| ImageUid(v.state.uid.0)).collect())
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    /// Its node's pool was replaced: the cluster went on placing containers there that waited for
    /// what nobody shipped.
    #[test]
    fn an_image_that_is_gone_was_still_counted_as_held() {
        let snapshot = SnapshotId {
            volume: VolumeUid(Uuid::from_u128(1)),
            epoch: IMAGE_EPOCH,
            seq: holdfast_types::Seq(1),
            uuid: SnapshotUuid(Uuid::from_u128(2)),
            parent: None,
        };
        let image = |held| {
            let uid = ImageUid(Uuid::from_u128(1));
            ImageView { uid, snapshot, held, ship_to: Vec::new(), source: None }
        };
        assert!(is_lost(&image(true), None));
        assert!(is_lost(&image(true), Some(true)), "it has rotted");
        assert!(!is_lost(&image(true), Some(false)));
        assert!(!is_lost(&image(false), None), "it is on its way");
        assert!(!is_lost(&image(false), Some(true)));
    }
}
