//! Where a lab's things are and what they are called: all from its name and directory.
//!
//! Everything that a lab makes carries its name, so that `down` can find and remove it without
//! any record, and never touches another lab's.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use holdfast_types::NodeName;

use crate::LabError;

/// The default lab's name: the one that the `holdfast` client finds by itself.
pub const DEFAULT_LAB: &str = "lab";

/// Longest name: it goes into socket paths (108 bytes at most) and cgroup names.
const MAX_NAME_LEN: usize = 24;

/// Names and paths of one lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    name: String,
    dir: PathBuf,
}

impl Layout {
    /// The layout of the lab `name` with its data under `dir`, or `/var/lib/holdfast-<name>`.
    pub fn new(name: &str, dir: Option<&Path>) -> Result<Self, LabError> {
        name.parse::<NodeName>().map_err(|e| LabError::LabName(Some(e)))?;
        if name.len() > MAX_NAME_LEN {
            return Err(LabError::LabName(None));
        }
        let dir = dir.map_or_else(|| format!("/var/lib/holdfast-{name}").into(), Path::to_owned);
        Ok(Self { name: name.to_owned(), dir })
    }

    /// The lab's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its nodes keep their data: one directory per node.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The file that marks [`dir`](Self::dir) as this lab's, to be removed with it.
    pub fn marker(&self) -> PathBuf {
        self.dir.join(".holdfast-lab")
    }

    /// A node's data: its pool, state, config and logs.
    pub fn node_dir(&self, node: &str) -> PathBuf {
        self.dir.join(node)
    }

    /// Sockets, process ids and the lab's record. Gone after a reboot, as the lab is.
    pub fn run_dir(&self) -> PathBuf {
        format!("/run/holdfast-{}", self.name).into()
    }

    /// A node's part of [`run_dir`](Self::run_dir).
    pub fn node_run(&self, node: &str) -> PathBuf {
        self.run_dir().join(node)
    }

    /// The lab's record of itself.
    pub fn state_file(&self) -> PathBuf {
        self.run_dir().join("lab.json")
    }

    /// Held while a command changes the lab.
    pub fn lock_file(&self) -> PathBuf {
        format!("/run/lock/holdfast-{}.lock", self.name).into()
    }

    /// The daemon's client socket.
    pub fn socket(&self, node: &str) -> PathBuf {
        self.node_run(node).join("holdfastd.sock")
    }

    /// The guardian's socket.
    pub fn guardian_socket(&self, node: &str) -> PathBuf {
        self.node_run(node).join("guardian.sock")
    }

    /// The daemon's configuration.
    pub fn config_file(&self, node: &str) -> PathBuf {
        self.node_dir(node).join("holdfastd.toml")
    }

    /// The daemon's key and certificate.
    pub fn keys_file(&self, node: &str) -> PathBuf {
        self.node_dir(node).join("state/keys.pem")
    }

    /// A node's pool, where it is a volume group of its own, and that group.
    pub fn pool(&self, node: &str) -> String {
        format!("{}{node}", self.pool_prefix())
    }

    pub(crate) fn pool_prefix(&self) -> String {
        format!("hf-{}-", self.name)
    }

    /// Whether a volume group is one of the lab's: `hf-a-n1-n2` is none of a lab `a`.
    pub(crate) fn is_pool(&self, group: &str) -> bool {
        let number =
            group.strip_prefix(&self.pool_prefix()).and_then(|node| node.strip_prefix('n'));
        number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    }

    /// A node's own configuration of LVM.
    pub fn lvm_dir(&self, node: &str) -> PathBuf {
        self.node_dir(node).join("lvm")
    }

    /// What all of the lab's cgroups are below, relative to each hierarchy's root.
    pub fn cgroup(&self) -> String {
        format!("holdfast-{}", self.name)
    }

    /// What all of a node's cgroups are below.
    pub fn node_cgroup(&self, node: &str) -> String {
        format!("{}/{node}", self.cgroup())
    }

    /// A network namespace of the lab, as `ip netns` names it. Labels have no dot, so one lab's
    /// names never begin another's.
    pub fn netns(&self, part: &str) -> String {
        format!("{}{part}", self.netns_prefix())
    }

    /// What the names of the lab's network namespaces begin with.
    pub fn netns_prefix(&self) -> String {
        format!("hf.{}.", self.name)
    }

    /// The namespace with the bridge that stands for the network between the nodes.
    pub fn fabric(&self) -> String {
        self.netns("fabric")
    }

    /// The namespace of the client, which is an endpoint of the overlay too.
    pub fn client(&self) -> String {
        self.netns("client")
    }
}

/// The underlay address of the node with this number (1 is the first).
pub(crate) fn node_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 88, 0, number)
}

/// The client's underlay address: the overlay's gateway endpoint.
pub const CLIENT_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 254);

/// The client's address on the overlay, 10.77.0.0/16.
pub const CLIENT_OVERLAY_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 255, 254);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_lab_is_where_the_manual_says() {
        let lab = Layout::new("lab", None).unwrap();
        assert_eq!(lab.dir(), Path::new("/var/lib/holdfast-lab"));
        assert_eq!(lab.socket("n1"), Path::new("/run/holdfast-lab/n1/holdfastd.sock"));
        assert_eq!(lab.node_cgroup("n2"), "holdfast-lab/n2");
    }

    #[test]
    fn one_labs_names_never_begin_anothers() {
        let a = Layout::new("lab", None).unwrap();
        let b = Layout::new("lab-n1", None).unwrap();
        assert!(!b.fabric().starts_with(&a.netns_prefix()));
    }

    #[test]
    fn names_that_would_leave_their_place_are_refused() {
        for bad in ["", "../x", "a/b", "a.b", "a-name-that-is-rather-too-long"] {
            assert!(Layout::new(bad, None).is_err(), "{bad}");
        }
    }
}
