//! Snapshots of the state: one plain file, whole or absent, checked before it is believed.
//!
//! ```text
//! "HFSNAP1\n" | header length u32 LE | header (named MessagePack) | state | blake3 of all before
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use holdfast_types::ClusterId;
use serde::{Deserialize, Serialize};

use crate::codec::{decode, encode};
use crate::dir::replace_file;
use crate::error::RaftError;
use crate::store::Health;
use crate::types::{Snapshot, SnapshotMeta};

/// What a node accepts from a peer or a file.
pub(crate) const MAX_SNAPSHOT_BYTES: usize = 256 << 20;

const MAGIC: &[u8; 8] = b"HFSNAP1\n";
const LEN_BYTES: usize = 4;

#[derive(Serialize, Deserialize)]
struct Header {
    cluster: ClusterId,
    meta: SnapshotMeta,
}

/// The node's one snapshot file. Cheap to clone.
#[derive(Clone)]
pub(crate) struct SnapshotFile {
    path: PathBuf,
    cluster: ClusterId,
    health: Health,
    /// Held while the file is replaced: a slow build must not undo a newer install.
    newest: Arc<Mutex<Option<SnapshotMeta>>>,
}

impl SnapshotFile {
    /// Checks the file if there is one.
    pub(crate) fn open(
        path: PathBuf,
        cluster: ClusterId,
        health: Health,
    ) -> Result<(Self, Option<Snapshot>), RaftError> {
        let file = Self { path, cluster, health, newest: Arc::default() };
        let found = file.read()?;
        *file.newest.lock().unwrap_or_else(PoisonError::into_inner) =
            found.as_ref().map(|s| s.meta.clone());
        Ok((file, found))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The snapshot on disk, verified. Blocks.
    pub(crate) fn read(&self) -> Result<Option<Snapshot>, RaftError> {
        let content = match fs::read(&self.path) {
            Ok(content) => Bytes::from(content),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(self.health.fail(RaftError::disk(&self.path, &e))),
        };
        match parse(&content) {
            Ok((header, _)) if header.cluster != self.cluster => Err(RaftError::WrongCluster {
                file: self.path.clone(),
                expected: self.cluster,
                found: header.cluster,
            }),
            Ok((header, snapshot)) => Ok(Some(Snapshot { meta: header.meta, snapshot })),
            Err(what) => Err(self.health.fail(RaftError::corrupt(&self.path, what))),
        }
    }

    /// Makes `snapshot` the current one, durably, unless a newer one is there already; returns
    /// the one that is current then. Blocks.
    pub(crate) fn keep(&self, snapshot: Snapshot) -> Result<Snapshot, RaftError> {
        self.health.check()?;
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if newest.as_ref().is_some_and(|n| n.last_log_id > snapshot.meta.last_log_id)
            && let Some(current) = self.read()?
        {
            return Ok(current);
        }
        let content = self.render(&snapshot)?;
        replace_file(&self.path, &content).map_err(|e| self.health.fail(e))?;
        *newest = Some(snapshot.meta.clone());
        Ok(snapshot)
    }

    fn render(&self, snapshot: &Snapshot) -> Result<Vec<u8>, RaftError> {
        let header = Header { cluster: self.cluster, meta: snapshot.meta.clone() };
        let header = encode(&header).map_err(|e| RaftError::Internal { what: e.to_string() })?;
        let size_bytes = header.len() + snapshot.snapshot.len();
        let too_large = RaftError::TooLarge { size_bytes, limit_bytes: MAX_SNAPSHOT_BYTES };
        if size_bytes > MAX_SNAPSHOT_BYTES {
            return Err(too_large);
        }
        let header_len = u32::try_from(header.len()).map_err(|_| too_large)?;
        let mut out = Vec::with_capacity(size_bytes + 64);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&header_len.to_le_bytes());
        out.extend_from_slice(&header);
        out.extend_from_slice(&snapshot.snapshot);
        let hash = blake3::hash(&out);
        out.extend_from_slice(hash.as_bytes());
        Ok(out)
    }
}

fn parse(content: &Bytes) -> Result<(Header, Bytes), String> {
    let (body, hash) =
        content.split_last_chunk::<{ blake3::OUT_LEN }>().ok_or("it is too short")?;
    if blake3::hash(body) != *hash {
        return Err("its checksum does not match".into());
    }
    let rest = body.strip_prefix(MAGIC).ok_or("it is no snapshot of this version")?;
    let (len, rest) = rest.split_first_chunk::<LEN_BYTES>().ok_or("it has no header")?;
    let len = u32::from_le_bytes(*len) as usize;
    let header = rest.get(..len).ok_or("its header is cut short")?;
    let header = decode(header).map_err(|e| e.to_string())?;
    let start = MAGIC.len() + LEN_BYTES + len;
    Ok((header, content.slice(start..body.len())))
}

#[cfg(test)]
mod tests {
    use holdfast_types::Code;

    use super::*;
    use crate::types::{LogId, Membership};

    fn snapshot(index: u64) -> Snapshot {
        let id = openraft::testing::log_id::<crate::types::TypeConfig>(1, 1, index);
        let last_log_id: Option<LogId> = Some(id);
        let meta = SnapshotMeta { last_log_id, last_membership: Membership::default() };
        Snapshot { meta, snapshot: Bytes::from(vec![7u8; 1_000]) }
    }

    fn open(dir: &Path, cluster: ClusterId) -> Result<(SnapshotFile, Option<Snapshot>), RaftError> {
        SnapshotFile::open(dir.join("snapshot"), cluster, Health::new())
    }

    #[test]
    fn a_slow_build_does_not_undo_a_newer_install() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = ClusterId::generate();
        let (file, none) = open(dir.path(), cluster).unwrap();
        assert!(none.is_none());
        file.keep(snapshot(9)).unwrap();
        assert_eq!(file.keep(snapshot(5)).unwrap().meta, snapshot(9).meta);
        let (_, found) = open(dir.path(), cluster).unwrap();
        assert_eq!(found.unwrap().meta, snapshot(9).meta);
    }

    /// I27: no damage panics, and all of it is noticed.
    #[test]
    fn damage_anywhere_is_refused_and_the_file_named() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = ClusterId::generate();
        let (file, _) = open(dir.path(), cluster).unwrap();
        file.keep(snapshot(9)).unwrap();
        let good = fs::read(file.path()).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            fs::write(file.path(), &bad).unwrap();
            let err = open(dir.path(), cluster).err().unwrap();
            assert_eq!(err.code(), Code::Corrupt, "byte {at}");
            assert!(err.to_string().contains("snapshot"), "{err}");
        }
        for len in [0, 31, 40, good.len() - 1] {
            fs::write(file.path(), &good[..len]).unwrap();
            assert_eq!(open(dir.path(), cluster).err().unwrap().code(), Code::Corrupt);
        }
        fs::write(file.path(), &good).unwrap();
        let foreign = open(dir.path(), ClusterId::generate()).err().unwrap();
        assert_eq!(foreign.code(), Code::WrongCluster);
    }
}
