//! Named snapshots and schedules.

use holdfast_proto::v1;
use holdfast_types::{ByteSize, ContainerName};
use serde::Serialize;

use super::word;
use crate::output::{rfc3339, table};

#[derive(Debug, Serialize)]
pub(crate) struct SnapshotView {
    container: String,
    name: String,
    uuid: String,
    state: String,
    origin: String,
    created_ms: u64,
    taken_ms: Option<u64>,
    size_bytes: Option<u64>,
    nodes: Vec<String>,
    lost_nodes: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ScheduleView {
    container: String,
    keep: Option<String>,
}

impl SnapshotView {
    pub(crate) fn table(snapshots: &[Self]) -> String {
        let header = ["CONTAINER", "NAME", "STATE", "BY", "TAKEN", "DISK", "NODES"];
        table(header, snapshots.iter().map(Self::row).collect())
    }

    fn row(&self) -> [String; 7] {
        let node = |name: &String| match self.lost_nodes.contains(name) {
            true => format!("{name} (lost)"),
            false => name.clone(),
        };
        [
            self.container.clone(),
            self.name.clone(),
            self.state.clone(),
            self.origin.clone(),
            self.taken_ms.map(rfc3339).unwrap_or_default(),
            self.size_bytes.map(|bytes| ByteSize(bytes).to_string()).unwrap_or_default(),
            self.nodes.iter().map(node).collect::<Vec<_>>().join(", "),
        ]
    }
}

impl From<v1::Snapshot> for SnapshotView {
    fn from(s: v1::Snapshot) -> Self {
        Self {
            state: word(s.state().as_str_name(), "SNAPSHOT_STATE_"),
            origin: word(s.origin().as_str_name(), "SNAPSHOT_ORIGIN_"),
            container: s.container,
            name: s.name,
            uuid: s.uuid,
            created_ms: s.created_ms,
            taken_ms: s.taken_ms,
            size_bytes: s.size_bytes,
            nodes: s.nodes,
            lost_nodes: s.lost_nodes,
        }
    }
}

impl ScheduleView {
    pub(crate) fn new(container: &ContainerName, schedule: Option<v1::Schedule>) -> Self {
        Self { container: container.to_string(), keep: schedule.map(|s| s.keep) }
    }

    pub(crate) fn sentence(&self) -> String {
        match &self.keep {
            Some(keep) => format!("{}: {keep}", self.container),
            None => format!("{}: no snapshots are taken by the clock", self.container),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A copy that nobody can reach now is not shown as if it could.
    #[test]
    fn lost_holders_are_shown_as_such() {
        let snapshot = v1::Snapshot {
            container: "web".into(),
            name: "s1".into(),
            state: v1::SnapshotState::LeftBehind.into(),
            nodes: vec!["n1".into(), "n2".into()],
            lost_nodes: vec!["n1".into()],
            ..Default::default()
        };
        let row = SnapshotView::from(snapshot).row();
        assert_eq!((row[2].as_str(), row[6].as_str()), ("left-behind", "n1 (lost), n2"));
    }
}
