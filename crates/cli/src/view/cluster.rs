//! The cluster and its nodes.

use std::collections::BTreeMap;

use holdfast_proto::v1;
use holdfast_types::ByteSize;
use serde::Serialize;

use super::word;
use crate::output::{one_line, pairs, span, table};

#[derive(Debug, Serialize)]
pub(crate) struct StatusView {
    cluster_id: String,
    leader: String,
    term: u64,
    applied: u64,
    node: String,
    nodes: Vec<NodeView>,
    lease: Option<LeaseView>,
    warnings: Vec<String>,
    containers_running: u32,
    containers_total: u32,
    state_hash: String,
    feature_level: u32,
    generation: u64,
}

#[derive(Debug, Serialize)]
struct LeaseView {
    lease_ms: u64,
    fence_budget_ms: u64,
    margin_ms: u64,
    drift_ppm: u64,
    lost_after_ms: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct NodeView {
    id: u64,
    name: String,
    address: String,
    role: String,
    state: String,
    incarnation: u64,
    leader: bool,
    pool: Option<CapacityView>,
    last_seen_ms: Option<u64>,
    containers: u32,
    labels: BTreeMap<String, String>,
    revision: u64,
    asked: Option<String>,
    note: String,
    feature_level: Option<u32>,
    version: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct CapacityView {
    name: String,
    driver: String,
    pub(crate) size_bytes: u64,
    pub(crate) used_bytes: u64,
    pub(crate) promised_bytes: u64,
    pub(crate) admits: bool,
    pub(crate) metadata_used_bytes: Option<u64>,
    pub(crate) metadata_size_bytes: Option<u64>,
}

impl StatusView {
    pub(crate) fn table(&self) -> String {
        let running = format!("{} of {} running", self.containers_running, self.containers_total);
        let lease = self.lease.as_ref().map(|l| {
            let lost = span(l.lost_after_ms);
            format!("{}; a silent node counts as lost after {lost}", span(l.lease_ms))
        });
        let leader = if self.leader.is_empty() { "none known" } else { &self.leader };
        let mut text = pairs(&[
            ("cluster", self.cluster_id.clone()),
            ("leader", format!("{leader} (term {})", self.term)),
            ("answered by", self.node.clone()),
            ("applied", format!("{} (state {})", self.applied, short(&self.state_hash))),
            ("containers", running),
            ("lease", lease.unwrap_or_default()),
            ("feature level", self.level()),
        ]);
        text = format!("{text}\n\n{}", NodeView::table(&self.nodes));
        for warning in &self.warnings {
            text = format!("{text}\nwarning: {}", one_line(warning));
        }
        text
    }

    /// The level in force, and who keeps it from rising; how often the cluster was recovered.
    fn level(&self) -> String {
        let behind =
            self.nodes.iter().filter(|n| n.feature_level.is_some_and(|l| l < self.newest()));
        let behind: Vec<_> = behind.map(|n| format!("{} runs {}", n.name, n.version)).collect();
        let mut text = self.feature_level.to_string();
        if !behind.is_empty() {
            text = format!("{text}; {}", behind.join(", "));
        }
        match self.generation {
            0 => text,
            n => format!("{text} (recovered {n} times)"),
        }
    }

    fn newest(&self) -> u32 {
        self.nodes.iter().filter_map(|n| n.feature_level).max().unwrap_or(self.feature_level)
    }
}

fn short(hash: &str) -> String {
    hash.chars().take(12).collect()
}

impl NodeView {
    pub(crate) fn table(nodes: &[Self]) -> String {
        let header = [
            "NAME",
            "ROLE",
            "DOMAIN",
            "STATE",
            "CONTAINERS",
            "POOL",
            "USED",
            "SIZE",
            "META",
            "LAST SEEN",
            "ADDRESS",
        ];
        table(header, nodes.iter().map(Self::row).collect())
    }

    /// Everything about one.
    pub(crate) fn pairs(&self) -> String {
        let label = |(key, value): (&String, &String)| format!("{key}={}", one_line(value));
        let labels: Vec<String> = self.labels.iter().map(label).collect();
        let table = Self::table(std::slice::from_ref(self));
        let pairs = pairs(&[
            ("id", self.id.to_string()),
            ("version", self.revision.to_string()),
            ("labels", labels.join(", ")),
            ("asked to be", self.asked.clone().unwrap_or_else(|| "what the cluster lacks".into())),
        ]);
        format!("{table}\n\n{pairs}")
    }

    fn row(&self) -> [String; 11] {
        let pool = |of: fn(&CapacityView) -> String| self.pool.as_ref().map(of).unwrap_or_default();
        [
            format!("{}#{}", self.name, self.incarnation),
            self.part(),
            one_line(self.labels.get("domain").map_or("", String::as_str)),
            self.state.clone(),
            self.containers.to_string(),
            pool(|p| if p.admits { p.driver.clone() } else { format!("{} (full)", p.driver) }),
            pool(|p| ByteSize(p.used_bytes).to_string()),
            pool(|p| ByteSize(p.size_bytes).to_string()),
            pool(CapacityView::metadata),
            self.last_seen_ms.map(|ms| format!("{} ago", span(ms))).unwrap_or_default(),
            self.address.clone(),
        ]
    }

    /// Its part in Raft, and what is wrong with it.
    fn part(&self) -> String {
        let role = if self.leader { format!("{}, leader", self.role) } else { self.role.clone() };
        if self.note.is_empty() { role } else { format!("{role} ({})", one_line(&self.note)) }
    }
}

/// The word of a role.
pub(crate) fn role_word(role: v1::NodeRole) -> String {
    word(role.as_str_name(), "NODE_ROLE_")
}

impl From<v1::StatusResponse> for StatusView {
    fn from(s: v1::StatusResponse) -> Self {
        Self {
            cluster_id: s.cluster_id,
            leader: s.leader,
            term: s.term,
            applied: s.applied,
            node: s.node,
            nodes: s.nodes.into_iter().map(NodeView::from).collect(),
            lease: s.lease.map(|l| LeaseView {
                lease_ms: l.lease_ms,
                fence_budget_ms: l.fence_budget_ms,
                margin_ms: l.margin_ms,
                drift_ppm: l.drift_ppm,
                lost_after_ms: l.lost_after_ms,
            }),
            warnings: s.warnings,
            containers_running: s.containers_running,
            containers_total: s.containers_total,
            state_hash: s.state_hash,
            feature_level: s.feature_level,
            generation: s.generation,
        }
    }
}

impl CapacityView {
    /// Use of the metadata in percent, where they can fill by themselves.
    pub(crate) fn metadata(&self) -> String {
        let percent = |(used, size): (u64, u64)| used.saturating_mul(100) / size.max(1);
        let both = self.metadata_used_bytes.zip(self.metadata_size_bytes);
        both.map(|both| format!("{} %", percent(both))).unwrap_or_default()
    }
}

impl From<v1::Capacity> for CapacityView {
    fn from(c: v1::Capacity) -> Self {
        Self {
            name: c.name,
            driver: c.driver,
            size_bytes: c.size_bytes,
            used_bytes: c.used_bytes,
            promised_bytes: c.promised_bytes,
            admits: c.admits,
            metadata_used_bytes: c.metadata_used_bytes,
            metadata_size_bytes: c.metadata_size_bytes,
        }
    }
}

impl From<v1::Node> for NodeView {
    fn from(n: v1::Node) -> Self {
        Self {
            role: role_word(n.role()),
            asked: (n.asked() != v1::NodeRole::Unspecified).then(|| role_word(n.asked())),
            state: word(n.state().as_str_name(), "NODE_STATE_"),
            id: n.id,
            name: n.name,
            address: n.address,
            incarnation: n.incarnation,
            leader: n.leader,
            pool: n.pool.map(CapacityView::from),
            last_seen_ms: n.last_seen_ms,
            containers: n.containers,
            labels: n.labels.into_iter().collect(),
            revision: n.revision,
            note: n.note,
            feature_level: n.feature_level,
            version: n.version,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_printed_with_its_incarnation() {
        let pool = v1::Capacity {
            driver: "lvm".into(),
            size_bytes: 10 << 30,
            used_bytes: 1 << 30,
            admits: true,
            metadata_used_bytes: Some(13 << 20),
            metadata_size_bytes: Some(128 << 20),
            ..Default::default()
        };
        let node = v1::Node {
            id: 1,
            name: "n1".into(),
            address: "10.0.0.1:7443".into(),
            role: v1::NodeRole::Voter.into(),
            state: v1::NodeState::Suspect.into(),
            incarnation: 7,
            leader: true,
            pool: Some(pool),
            last_seen_ms: Some(1_230),
            containers: 2,
            labels: [("domain".to_owned(), "rack-a".to_owned())].into(),
            ..Default::default()
        };
        assert_eq!(
            NodeView::table(&[node.into()]),
            "\
NAME  ROLE           DOMAIN  STATE    CONTAINERS  POOL  USED  SIZE   META  LAST SEEN  ADDRESS
n1#7  voter, leader  rack-a  suspect  2           lvm   1GiB  10GiB  10 %  1.2s ago   10.0.0.1:7443"
        );
        let new = v1::Node {
            role: v1::NodeRole::Witness.into(),
            note: "no vote yet: 9 entries behind".into(),
            ..Default::default()
        };
        assert_eq!(NodeView::from(new).part(), "witness (no vote yet: 9 entries behind)");
    }
}
