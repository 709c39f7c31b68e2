//! Who this machine is: `<data_dir>/identity`, checksummed text, replaced as a whole. With it the
//! agent can ask for a lease before the log is opened.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use holdfast_core::NodeRole;
use holdfast_types::{ClusterId, NodeId, NodeName};

use crate::error::DaemonError;

const HEADER: &str = "holdfast node 1";

/// Who this machine is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its id there.
    pub node: NodeId,
    /// Its name there.
    pub name: NodeName,
    /// Its part in Raft.
    pub role: NodeRole,
    /// Where the cluster reaches it.
    pub address: String,
    /// Where other nodes answered last, its own address left out.
    pub peers: Vec<String>,
}

impl Identity {
    /// The file in that data directory.
    pub fn file(data_dir: &Path) -> PathBuf {
        data_dir.join("identity")
    }

    /// Reads it; nothing if the machine was never part of a cluster.
    pub fn read(data_dir: &Path) -> Result<Option<Self>, DaemonError> {
        let file = Self::file(data_dir);
        let corrupt = |what: &str| DaemonError::Corrupt { file: file.clone(), what: what.into() };
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                return Err(corrupt("it is no text"));
            }
            Err(source) => return Err(DaemonError::Disk { path: file, source }),
        };
        let identity = Self::parse(&text).ok_or_else(|| corrupt("it is no identity"))?;
        match identity.render() == text {
            true => Ok(Some(identity)),
            false => Err(corrupt("its checksum does not match")),
        }
    }

    /// Writes it, durably: after a crash there is the old file or all of the new one.
    pub fn write(&self, data_dir: &Path) -> Result<(), DaemonError> {
        let file = Self::file(data_dir);
        let temp = file.with_extension("new");
        let write = || {
            let mut out = File::create(&temp)?;
            out.write_all(self.render().as_bytes())?;
            out.sync_all()?;
            fs::rename(&temp, &file)?;
            File::open(data_dir)?.sync_all()
        };
        write().map_err(|source| DaemonError::Disk { path: file.clone(), source })
    }

    /// Every address at which the cluster may answer, its own last.
    pub fn seeds(&self) -> Vec<String> {
        let own = (self.role != NodeRole::Worker).then(|| self.address.clone());
        self.peers.iter().cloned().chain(own).collect()
    }

    pub(crate) fn render(&self) -> String {
        let Self { cluster, node, name, role, address, peers } = self;
        let peers: String = peers.iter().map(|peer| format!("peer {peer}\n")).collect();
        let body = format!(
            "{HEADER}\ncluster {cluster}\nnode {node}\nname {name}\nrole {role}\naddress {address}\n{peers}"
        );
        let hash = blake3::hash(body.as_bytes()).to_hex();
        format!("{body}blake3 {hash}\n")
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        (lines.next()? == HEADER).then_some(())?;
        let mut next = |key: &str| lines.next()?.strip_prefix(key)?.strip_prefix(' ');
        let cluster = next("cluster")?.parse().ok()?;
        let node = next("node")?.parse().ok()?;
        let name = next("name")?.parse().ok()?;
        let role = match next("role")? {
            "voter" => NodeRole::Voter,
            "standby" => NodeRole::Standby,
            "worker" => NodeRole::Worker,
            "witness" => NodeRole::Witness,
            _ => return None,
        };
        let address = next("address")?.to_owned();
        let peers = lines.map_while(|line| line.strip_prefix("peer ")).map(str::to_owned).collect();
        Some(Self { cluster, node, name, role, address, peers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_types::Code;

    fn identity() -> Identity {
        Identity {
            cluster: ClusterId::generate(),
            node: NodeId(7),
            name: "n2".parse().unwrap(),
            role: NodeRole::Standby,
            address: "10.0.0.2:7443".into(),
            peers: vec!["10.0.0.1:7443".into(), "10.0.0.3:7443".into()],
        }
    }

    #[test]
    fn an_identity_survives_its_file() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Identity::read(dir.path()).unwrap(), None);
        identity().write(dir.path()).unwrap();
        let other = Identity { peers: Vec::new(), ..identity() };
        other.write(dir.path()).unwrap();
        assert_eq!(Identity::read(dir.path()).unwrap(), Some(other));
    }

    #[test]
    fn damage_is_found_and_the_file_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = Identity::file(dir.path());
        let good = identity().render();
        for bad in [
            good.replace("node 7", "node 8"),
            good.replace("10.0.0.1", "10.0.0.9"),
            good[..good.len() / 2].to_owned(),
            String::new(),
        ] {
            fs::write(&file, bad).unwrap();
            let error = Identity::read(dir.path()).unwrap_err();
            assert_eq!(error.code(), Code::Corrupt);
            assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
        }
    }
}
