//! Making a node's copy of a container rot, on pools of driver xfs.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;

use holdfast_types::ContainerUid;

use crate::{Lab, LabError};

impl Lab {
    /// Changes a few bytes of the newest snapshot that a node holds of a container, behind its pool's
    /// back: every later one that is built on it has them too. Near the end of the filesystem
    /// nothing else is written (its journal lies in the middle).
    pub fn rot(&self, node: &str, uid: ContainerUid) -> Result<(), LabError> {
        let dir = self.pool_dir(node)?.join("volumes").join(uid.to_string());
        let listing = fs::read_dir(&dir).map_err(LabError::io("cannot list", &dir))?;
        let files = listing.filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name().to_string_lossy().starts_with("snap-");
            name.then(|| Some((entry.metadata().ok()?, entry.path()))).flatten()
        });
        // Names change hands while files are looked at; who has gone was not the newest.
        let newest = files.max_by_key(|(meta, _)| meta.modified().ok());
        let (meta, path) = newest.ok_or_else(|| LabError::Corrupt {
            path: dir.clone(),
            why: "there is no snapshot in it".into(),
        })?;
        let file = OpenOptions::new().write(true).open(&path);
        let file = file.map_err(LabError::io("cannot open", &path))?;
        file.write_all_at(b"rot", meta.len() / 8 * 7)
            .map_err(LabError::io("cannot spoil", &path))?;
        file.sync_all().map_err(LabError::io("cannot sync", &path))
    }
}
