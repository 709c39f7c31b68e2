//! Backups, and what became of one.

use holdfast_proto::backup::Backup;
use holdfast_proto::v1;
use holdfast_types::ByteSize;
use jiff::Timestamp;
use serde::Serialize;

use crate::output::pairs;

#[derive(Debug, Serialize)]
pub(crate) struct BackupView {
    cluster_id: String,
    index: u64,
    term: u64,
    taken: String,
    node: String,
    version: String,
    feature_level: u32,
    nodes: u64,
    containers: u64,
    images: u64,
    size_bytes: u64,
    hash: String,
}

impl BackupView {
    pub(crate) fn new(backup: Backup, size_bytes: u64) -> Self {
        let Backup { header: h, hash, .. } = backup;
        let taken = i64::try_from(h.taken_ms).ok();
        let taken = taken.and_then(|ms| Timestamp::from_millisecond(ms).ok());
        Self {
            taken: taken.map(|at| at.to_string()).unwrap_or_default(),
            cluster_id: h.cluster_id,
            index: h.index,
            term: h.term,
            node: h.node,
            version: h.version,
            feature_level: h.feature_level,
            nodes: h.nodes,
            containers: h.containers,
            images: h.images,
            size_bytes,
            hash,
        }
    }

    pub(crate) fn table(&self) -> String {
        let holds =
            format!("{} nodes, {} containers, {} images", self.nodes, self.containers, self.images);
        pairs(&[
            ("cluster", self.cluster_id.clone()),
            ("as of", format!("entry {} of term {}", self.index, self.term)),
            ("taken", format!("{} on {}", self.taken, self.node)),
            ("written by", format!("holdfast {}", self.version)),
            ("feature level", self.feature_level.to_string()),
            ("holds", holds),
            ("size", ByteSize(self.size_bytes).to_string()),
            ("hash", format!("{}, right", self.hash)),
        ])
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct RestoredView {
    cluster_id: String,
    node_id: u64,
    from_cluster: String,
    from_index: u64,
    absent: Vec<String>,
}

impl RestoredView {
    pub(crate) fn table(&self) -> String {
        let made = format!(
            "cluster {}: made of the backup of {} at entry {}, this is node {}",
            self.cluster_id, self.from_cluster, self.from_index, self.node_id
        );
        match self.absent.is_empty() {
            true => made,
            false => format!(
                "{made}\nabsent until they join again under their names: {}",
                self.absent.join(", ")
            ),
        }
    }
}

impl From<v1::RestoreResponse> for RestoredView {
    fn from(r: v1::RestoreResponse) -> Self {
        let backup = r.backup.unwrap_or_default();
        Self {
            cluster_id: r.cluster_id,
            node_id: r.node_id,
            from_cluster: backup.cluster_id,
            from_index: backup.index,
            absent: r.absent,
        }
    }
}
