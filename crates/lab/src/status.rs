//! What a lab's nodes are doing, as the host sees it.

use std::fs;

use serde::Serialize;

use crate::LabError;
use crate::lab::Lab;
use crate::parts::host_pid;
use crate::plan::Part;
use crate::plumbing::cgroup::Hierarchies;
use crate::record::NodeRecord;

/// One node.
#[derive(Debug, Clone, Serialize)]
pub struct NodeStatus {
    /// What the lab knows of it.
    #[serde(flatten)]
    pub node: NodeRecord,
    /// Its daemon.
    pub daemon: PartStatus,
    /// Its guardian.
    pub guardian: PartStatus,
}

/// One part of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum PartStatus {
    /// There is no process at the moment.
    Down,
    /// It runs.
    Running {
        /// As the host counts.
        pid: i32,
    },
    /// It was stopped by a signal.
    Paused {
        /// As the host counts.
        pid: i32,
    },
}

impl Lab {
    /// All nodes, in order.
    pub fn status(&self) -> Result<Vec<NodeStatus>, LabError> {
        let hierarchies = Hierarchies::discover()?;
        let part = |node: &NodeRecord, part| {
            let pid = host_pid(&hierarchies, self.layout(), &node.name, part);
            pid.map_or(PartStatus::Down, |pid| part_status(pid.as_raw()))
        };
        let nodes = self.record()?.nodes.into_iter();
        Ok(nodes
            .map(|node| NodeStatus {
                daemon: part(&node, Part::Daemon),
                guardian: part(&node, Part::Guardian),
                node,
            })
            .collect())
    }
}

fn part_status(pid: i32) -> PartStatus {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name may hold anything: the state comes after the last parenthesis.
    match stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()) {
        None | Some('X' | 'Z') => PartStatus::Down,
        Some('T') => PartStatus::Paused { pid },
        Some(_) => PartStatus::Running { pid },
    }
}
