//! The daemon's configuration, as the lab writes it for a node.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Serialize;

use crate::LabError;
use crate::layout::{CLIENT_ADDRESS, Layout};
use crate::plan::LINK_GROUP;
use crate::record::{LabRecord, NodeRecord};

/// The API's port, and the one of metrics (DESIGN section 8).
const API_PORT: u16 = 7443;
const METRICS_PORT: u16 = 7480;

#[derive(Debug, Serialize)]
struct NodeConfig<'a> {
    name: &'a str,
    data_dir: PathBuf,
    socket: PathBuf,
    listen: String,
    advertise: String,
    metrics: String,
    cgroup_root: String,
    guardian: Guardian<'a>,
    pool: Pool,
    consensus: Consensus,
    network: Network,
    lxc: Lxc,
}

#[derive(Debug, Serialize)]
struct Guardian<'a> {
    socket: PathBuf,
    binary: &'a PathBuf,
    link_group: u32,
}

#[derive(Debug, Serialize)]
#[serde(tag = "driver", rename_all = "lowercase")]
enum Pool {
    Xfs { name: &'static str, path: PathBuf, size: String },
    Lvm,
}

#[derive(Debug, Serialize)]
struct Consensus {
    heartbeat_ms: u64,
}

#[derive(Debug, Serialize)]
struct Network {
    underlay: String,
    overlay_gateways: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Lxc {
    path: PathBuf,
}

impl NodeRecord {
    /// Where its API listens, on the fabric.
    pub fn api(&self) -> SocketAddr {
        (self.address, API_PORT).into()
    }

    /// Where its metrics are, on the fabric.
    pub fn metrics(&self) -> SocketAddr {
        (self.address, METRICS_PORT).into()
    }
}

/// A node's API address, as other nodes use it.
pub(crate) fn api_address(node: &NodeRecord) -> String {
    node.api().to_string()
}

/// Writes `holdfastd.toml` of a node.
pub(crate) fn write(
    layout: &Layout,
    node: &NodeRecord,
    record: &LabRecord,
) -> Result<(), LabError> {
    let path = layout.config_file(&node.name);
    let text = render(layout, node, record)
        .map_err(|e| LabError::Corrupt { path: path.clone(), why: e.to_string() })?;
    fs::write(&path, text).map_err(LabError::io("cannot write", &path))
}

fn render(
    layout: &Layout,
    node: &NodeRecord,
    record: &LabRecord,
) -> Result<String, toml::ser::Error> {
    let dir = layout.node_dir(&node.name);
    toml::to_string(&NodeConfig {
        name: &node.name,
        data_dir: dir.join("state"),
        socket: layout.socket(&node.name),
        listen: api_address(node),
        advertise: api_address(node),
        metrics: node.metrics().to_string(),
        cgroup_root: layout.node_cgroup(&node.name),
        guardian: Guardian {
            socket: layout.guardian_socket(&node.name),
            binary: &record.programs.guardian,
            link_group: LINK_GROUP,
        },
        pool: match node.device {
            Some(_) => Pool::Lvm,
            None => {
                let (path, size) = (dir.join("pool"), record.pool_size.to_string());
                Pool::Xfs { name: "default", path, size }
            }
        },
        consensus: Consensus { heartbeat_ms: record.pace.heartbeat_ms() },
        network: Network {
            underlay: node.address.to_string(),
            overlay_gateways: vec![CLIENT_ADDRESS.to_string()],
        },
        lxc: Lxc { path: dir.join("lxc") },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::node_address;
    use crate::pace::Pace;
    use crate::programs::Programs;
    use crate::record::{Power, Purpose, Role};
    use holdfast_types::ByteSize;

    #[test]
    fn a_nodes_configuration_has_the_agreed_keys() {
        let layout = Layout::new("lab", None).unwrap();
        let node = NodeRecord {
            name: "n1".into(),
            role: Role::Voter,
            address: node_address(1),
            power: Power::On,
            linked: true,
            device: None,
        };
        let dir = PathBuf::from("/b");
        let programs =
            Programs { lab: dir.join("l"), daemon: dir.join("d"), guardian: dir.join("g") };
        let record = LabRecord {
            name: "lab".into(),
            purpose: Purpose::Use,
            dir: layout.dir().into(),
            programs,
            pool_size: ByteSize::gib(4),
            pace: Pace::default(),
            nodes: Vec::new(),
            drops: Default::default(),
        };
        let text = render(&layout, &node, &record).unwrap();
        let expected = r#"name = "n1"
data_dir = "/var/lib/holdfast-lab/n1/state"
socket = "/run/holdfast-lab/n1/holdfastd.sock"
listen = "10.88.0.1:7443"
advertise = "10.88.0.1:7443"
metrics = "10.88.0.1:7480"
cgroup_root = "holdfast-lab/n1"

[guardian]
socket = "/run/holdfast-lab/n1/guardian.sock"
binary = "/b/g"
link_group = 72

[pool]
driver = "xfs"
name = "default"
path = "/var/lib/holdfast-lab/n1/pool"
size = "4GiB"

[consensus]
heartbeat_ms = 250

[network]
underlay = "10.88.0.1"
overlay_gateways = ["10.88.0.254"]

[lxc]
path = "/var/lib/holdfast-lab/n1/lxc"
"#;
        assert_eq!(text, expected);
        let node = NodeRecord { device: Some("/dev/sdb".into()), ..node };
        let text = render(&layout, &node, &record).unwrap();
        assert!(text.contains("\n[pool]\ndriver = \"lvm\"\n\n"), "{text}");
    }
}
