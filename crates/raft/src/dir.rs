//! The data directory: who it belongs to, and files that appear whole or not at all.
//!
//! ```text
//! <dir>/identity     cluster and node, checksummed text; written once
//! <dir>/log/         sled: log, vote, purge marker; made before the identity, and never again
//! <dir>/log.tail     where the log ended when it was last acknowledged
//! <dir>/snapshot     the state up to some index
//! ```

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::config::Identity;
use crate::error::RaftError;
use crate::fail;

const HEADER: &str = "holdfast raft 1";

pub(crate) fn identity_file(dir: &Path) -> PathBuf {
    dir.join("identity")
}

pub(crate) fn log_dir(dir: &Path) -> PathBuf {
    dir.join("log")
}

pub(crate) fn snapshot_file(dir: &Path) -> PathBuf {
    dir.join("snapshot")
}

/// Makes the directory if need be and checks or writes whose it is.
pub(crate) fn claim(dir: &Path, identity: Identity) -> Result<(), RaftError> {
    let disk = |e: io::Error| RaftError::disk(dir, &e);
    fs::create_dir_all(dir).map_err(disk)?;
    let file = identity_file(dir);
    match read_identity(dir)? {
        Some(found) if found.cluster != identity.cluster => {
            Err(RaftError::WrongCluster { file, expected: identity.cluster, found: found.cluster })
        }
        Some(found) if found.node != identity.node => {
            Err(RaftError::WrongNode { file, expected: identity.node, found: found.node })
        }
        // A vote that was cast is in the log: a node without it could cast another in the same term.
        Some(_) if !log_dir(dir).exists() => {
            let what = "it is gone, and with it the votes of this node, which must not vote again \
                        under its id: remove it from the cluster (holdfast node rm), move \
                        identity and raft* out of the data directory (leave pool*), and let it join \
                        anew";
            Err(RaftError::corrupt(&log_dir(dir), what))
        }
        Some(_) => Ok(()),
        None if is_used(&log_dir(dir)).map_err(disk)? || snapshot_file(dir).exists() => {
            Err(RaftError::corrupt(&file, "it is missing beside a log or snapshot"))
        }
        None => {
            fs::create_dir_all(log_dir(dir)).map_err(disk)?;
            sync_dir(dir)?;
            // A directory that a power cut took back would let the node vote again.
            if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                sync_dir(parent)?;
            }
            replace_file(&file, render(identity).as_bytes())
        }
    }
}

/// Whether there is anything in a directory.
fn is_used(dir: &Path) -> io::Result<bool> {
    match fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// Whose the directory is; nothing if it was never claimed.
pub(crate) fn read_identity(dir: &Path) -> Result<Option<Identity>, RaftError> {
    let file = identity_file(dir);
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) if e.kind() == io::ErrorKind::InvalidData => {
            return Err(RaftError::corrupt(&file, "it is no text"));
        }
        Err(e) => return Err(RaftError::disk(&file, &e)),
    };
    let identity = parse(&text).ok_or_else(|| RaftError::corrupt(&file, "it is no identity"))?;
    if render(identity) != text {
        return Err(RaftError::corrupt(&file, "its checksum does not match"));
    }
    Ok(Some(identity))
}

/// Writes a file that after a crash has either its old content or all of the new.
pub(crate) fn replace_file(file: &Path, content: &[u8]) -> Result<(), RaftError> {
    let disk = |e: io::Error| RaftError::disk(file, &e);
    let at = |step| fail::at_file(file, step).map_err(disk);
    let temp = file.with_extension("new");
    let mut out = File::create(&temp).map_err(disk)?;
    at("created")?;
    out.write_all(content).map_err(disk)?;
    at("written")?;
    out.sync_all().map_err(disk)?;
    at("synced")?;
    fs::rename(&temp, file).map_err(disk)?;
    at("renamed")?;
    sync_dir(file.parent().unwrap_or(Path::new("/")))?;
    at("durable")
}

/// Makes the directory's entries durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), RaftError> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(|e| RaftError::disk(dir, &e))
}

fn render(identity: Identity) -> String {
    let body = format!("{HEADER}\ncluster {}\nnode {}\n", identity.cluster, identity.node);
    let hash = blake3::hash(body.as_bytes()).to_hex();
    format!("{body}blake3 {hash}\n")
}

fn parse(text: &str) -> Option<Identity> {
    let mut lines = text.lines();
    (lines.next()? == HEADER).then_some(())?;
    let cluster = lines.next()?.strip_prefix("cluster ")?.parse().ok()?;
    let node = lines.next()?.strip_prefix("node ")?.parse().ok()?;
    Some(Identity { cluster, node })
}

#[cfg(test)]
mod tests {
    use holdfast_types::{ClusterId, Code, NodeId};

    use super::*;

    fn identity() -> Identity {
        Identity { cluster: ClusterId::generate(), node: NodeId(3) }
    }

    #[test]
    fn a_directory_serves_one_node_of_one_cluster() {
        let dir = tempfile::tempdir().unwrap();
        let mine = identity();
        claim(dir.path(), mine).unwrap();
        claim(dir.path(), mine).unwrap();
        let foreign = claim(dir.path(), identity()).unwrap_err();
        assert_eq!(foreign.code(), Code::WrongCluster);
        let other = claim(dir.path(), Identity { node: NodeId(4), ..mine }).unwrap_err();
        assert_eq!(other.code(), Code::Config);
    }

    /// A node whose log was deleted began with an empty one, and could vote twice in a term.
    #[test]
    fn a_log_that_is_gone_is_not_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let mine = identity();
        claim(dir.path(), mine).unwrap();
        fs::remove_dir_all(log_dir(dir.path())).unwrap();
        let error = claim(dir.path(), mine).unwrap_err();
        assert_eq!(error.code(), Code::Corrupt);
        assert!(error.to_string().contains("holdfast node rm"), "{error}");
        assert!(!log_dir(dir.path()).exists(), "nothing was made in its place");
    }

    #[test]
    fn a_damaged_or_missing_identity_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let mine = identity();
        claim(dir.path(), mine).unwrap();
        let file = identity_file(dir.path());
        let text = fs::read_to_string(&file).unwrap().replace("node 3", "node 4");
        fs::write(&file, text).unwrap();
        let err = claim(dir.path(), mine).unwrap_err();
        assert!(matches!(&err, RaftError::Corrupt { file: f, .. } if *f == file), "{err}");

        fs::remove_file(&file).unwrap();
        fs::write(log_dir(dir.path()).join("db"), "log").unwrap();
        assert_eq!(claim(dir.path(), mine).unwrap_err().code(), Code::Corrupt);
    }
}
