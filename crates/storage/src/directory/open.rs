//! Opening: whose pool it is, and what a crash left is finished or undone.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};

use holdfast_types::{ClusterId, VolumeUid};
use uuid::Uuid;

use super::DirectoryPool;
use super::blocks::{Blocks, RESERVE};
use super::reserve::Reserve;
use super::volume::{Volume, remove_dir};
use crate::holds::Holds;
use crate::pool::PoolIdentity;
use crate::{Error, Result, durable};

impl<B: Blocks> DirectoryPool<B> {
    /// Opens what is in `root`, or begins there if it is empty. The caller keeps others out.
    pub(crate) fn load(root: &Path, cluster: ClusterId, blocks: Arc<B>) -> Result<Self> {
        let identity = identity(cluster, root)?;
        let (scratch, volumes_dir) = (root.join("scratch"), root.join("volumes"));
        make_dir(&scratch)?;
        for entry in fs::read_dir(&scratch).map_err(Error::io("listing", &scratch))? {
            let path = entry.map_err(Error::io("listing", &scratch))?.path();
            match path.extension() {
                // A name that was never finished.
                Some(_) => durable::remove_file(&path)?,
                None => blocks.remove(&path)?,
            }
        }
        make_dir(&volumes_dir)?;
        let (mut volumes, mut index) = (BTreeMap::new(), HashMap::new());
        let attached = blocks.attached()?;
        for entry in fs::read_dir(&volumes_dir).map_err(Error::io("listing", &volumes_dir))? {
            let path = entry.map_err(Error::io("listing", &volumes_dir))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with('.') {
                remove_dir(&path)?;
                continue;
            }
            let reason = || Error::Corrupt { path: path.clone(), reason: "it is no volume".into() };
            let uid: VolumeUid = name.parse().map_err(|_| reason())?;
            let volume = Volume::load(&blocks, &path, uid)?;
            volume.adopt(&attached)?;
            index.extend(volume.lock()?.state.snapshots.iter().map(|s| (s.id.uuid, uid)));
            volumes.insert(uid, Arc::new(volume));
        }
        blocks.settle()?;
        Ok(Self {
            identity,
            root: root.to_owned(),
            reserve: Reserve::load(&*blocks, root.join(RESERVE))?,
            blocks,
            holds: Holds::default(),
            index: Arc::new(Mutex::new(index)),
            volumes: RwLock::new(volumes),
            making: Mutex::new(()),
        })
    }

    /// Ends it, leaving devices as they are.
    pub(crate) fn into_blocks(self) -> Arc<B> {
        self.blocks.clone()
    }
}

/// What kind of file says whose the pool is.
pub(super) const KIND: &str = "pool";

pub(super) fn file(root: &Path) -> PathBuf {
    root.join("pool.json")
}

fn identity(cluster: ClusterId, root: &Path) -> Result<PoolIdentity> {
    let path = file(root);
    let Some(identity) = durable::load::<PoolIdentity>(&path, KIND)? else {
        if root.join("volumes").exists() {
            return Err(Error::Corrupt { path, reason: "it is missing".into() });
        }
        let identity = PoolIdentity { cluster, pool: Uuid::now_v7() };
        durable::store(&path, KIND, &identity)?;
        return Ok(identity);
    };
    if identity.cluster == cluster {
        return Ok(identity);
    }
    // One in which nothing was ever made to its end, for a cluster that came to nothing, is anybody's.
    if !is_empty(&root.join("volumes"))? {
        return Err(Error::WrongCluster { path, found: identity.cluster, wanted: cluster });
    }
    let identity = PoolIdentity { cluster, pool: Uuid::now_v7() };
    durable::store(&path, KIND, &identity)?;
    Ok(identity)
}

/// What has a name with a dot was never made, or is not there any more.
fn is_empty(dir: &Path) -> Result<bool> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(true),
        entries => entries.map_err(Error::io("listing", dir))?,
    };
    for entry in entries {
        let name = entry.map_err(Error::io("listing", dir))?.file_name();
        if !name.to_string_lossy().starts_with('.') {
            return Ok(false);
        }
    }
    Ok(true)
}

fn make_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(Error::io("making", path))?;
    durable::sync_dir(path.parent().unwrap_or(path))
}
