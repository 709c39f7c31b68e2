//! What a node is to be: written by `up`, read by the node's init.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::LabError;
use crate::layout::Layout;
use crate::record::{LabRecord, NodeRecord};

/// The link group of protected containers' host-side links, in every node: any number but 0.
pub(crate) const LINK_GROUP: u32 = 72;

/// Stands in a service's arguments for the process id of the node's fuse (see `node::init`).
pub(crate) const FUSE: &str = "{fuse}";

/// A part of a node that can be stopped, continued or killed by itself.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// `holdfastd`.
    Daemon,
    /// `holdfast-guardian`.
    Guardian,
}

impl Part {
    /// The part's cgroup, log and pid file are called this.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Daemon => "holdfastd",
            Self::Guardian => "holdfast-guardian",
        }
    }
}

/// Everything that the node's init needs to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodePlan {
    pub(crate) node: String,
    pub(crate) netns: String,
    pub(crate) lab_dir: PathBuf,
    /// For the node's logs.
    pub(crate) node_dir: PathBuf,
    /// For pid files, and a place to put mounts aside.
    pub(crate) node_run: PathBuf,
    /// Below each hierarchy.
    pub(crate) cgroup: String,
    /// The program to run the node's init and services with.
    pub(crate) lab_program: PathBuf,
    pub(crate) services: Vec<Service>,
    /// Whether it has the host's System V semaphores: device-mapper and udev, which is the host's,
    /// meet there.
    pub(crate) host_ipc: bool,
}

/// A program that runs for as long as the node does: it is started again whenever it ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Service {
    pub(crate) part: Part,
    pub(crate) argv: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    /// See proc_pid_oom_score_adj(5).
    pub(crate) oom_score_adj: i16,
}

impl NodePlan {
    /// `unified` is where the v2 hierarchy is mounted.
    pub(crate) fn new(
        layout: &Layout,
        machine: &NodeRecord,
        record: &LabRecord,
        unified: &Path,
    ) -> Self {
        let (node, programs) = (machine.name.as_str(), &record.programs);
        let text = |path: &Path| path.display().to_string();
        let guardian = Service {
            part: Part::Guardian,
            argv: vec![
                text(&programs.guardian),
                "serve".into(),
                "--socket".into(),
                text(&layout.guardian_socket(node)),
                "--cgroup".into(),
                text(&unified.join(layout.node_cgroup(node)).join("protected")),
                "--link-group".into(),
                LINK_GROUP.to_string(),
                "--last-resort".into(),
                format!("kill-pid={FUSE}"),
                "--fence-budget-ms".into(),
                record.pace.lease().fence_budget_ms.to_string(),
            ],
            env: BTreeMap::new(),
            oom_score_adj: -1000,
        };
        let lvm = machine.device.iter().map(|_| {
            let dir = text(&layout.lvm_dir(node));
            ("LVM_SYSTEM_DIR".to_owned(), dir)
        });
        let daemon = Service {
            part: Part::Daemon,
            argv: vec![text(&programs.daemon), "--config".into(), text(&layout.config_file(node))],
            env: lvm.collect(),
            oom_score_adj: -900,
        };
        Self {
            node: node.to_owned(),
            netns: layout.netns(node),
            lab_dir: layout.dir().to_owned(),
            node_dir: layout.node_dir(node),
            node_run: layout.node_run(node),
            cgroup: layout.node_cgroup(node),
            lab_program: programs.lab.clone(),
            services: vec![guardian, daemon],
            host_ipc: machine.device.is_some(),
        }
    }

    /// Where the plan of a node lies.
    pub(crate) fn path(node_run: &Path) -> PathBuf {
        node_run.join("plan.json")
    }

    pub(crate) fn save(&self) -> Result<(), LabError> {
        let path = Self::path(&self.node_run);
        let text = serde_json::to_string_pretty(self)
            .map_err(|e| LabError::Corrupt { path: path.clone(), why: e.to_string() })?;
        fs::write(&path, text).map_err(LabError::io("cannot write", &path))
    }

    pub(crate) fn load(path: &Path) -> Result<Self, LabError> {
        let text = fs::read_to_string(path).map_err(LabError::io("cannot read", path))?;
        serde_json::from_str(&text)
            .map_err(|e| LabError::Corrupt { path: path.to_owned(), why: e.to_string() })
    }

    /// The cgroup of the node's init: it alone is in there.
    pub(crate) fn init_cgroup(cgroup: &str) -> String {
        format!("{cgroup}/init.scope")
    }

    pub(crate) fn unit_cgroup(cgroup: &str, part: Part) -> String {
        format!("{cgroup}/{}.service", part.unit())
    }

    /// Where the node's init writes the process id that it gave the part, as the node counts.
    pub(crate) fn pid_file(node_run: &Path, part: Part) -> PathBuf {
        node_run.join(format!("{}.pid", part.unit()))
    }
}
