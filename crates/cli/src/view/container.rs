//! Containers, their replicas, and what diverged.

use std::collections::BTreeMap;

use holdfast_proto::v1;
use holdfast_types::ByteSize;
use serde::Serialize;

use super::word;
use crate::output::{age, pairs, rfc3339, span, table};
use crate::values::DurationArg;

#[derive(Debug, Serialize)]
pub(crate) struct ContainerView {
    uid: String,
    name: String,
    spec: Option<SpecView>,
    state: String,
    reason: String,
    epoch: u64,
    node: String,
    replicas: Vec<ReplicaView>,
    address: String,
    mac: String,
    created_ms: u64,
    revision: u64,
}

#[derive(Debug, Serialize)]
struct SpecView {
    image: String,
    disk_bytes: u64,
    memory_bytes: Option<u64>,
    cpu_milli: Option<u32>,
    pids: Option<u32>,
    protection: String,
    copies: u32,
    replicate_every_ms: u64,
    max_data_loss_ms: u64,
    priority: i32,
    command: Vec<String>,
    env: BTreeMap<String, String>,
    volumes: Vec<VolumeView>,
}

#[derive(Debug, Serialize)]
struct VolumeView {
    name: String,
    size_bytes: u64,
    path: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct ReplicaView {
    node: String,
    epoch: Option<u64>,
    seq: Option<u64>,
    snapshot_uuid: String,
    age_ms: Option<u64>,
}

#[derive(Debug, Serialize)]
pub(crate) struct DivergedView {
    container: String,
    container_uid: String,
    node: String,
    snapshot_uuid: String,
    epoch: u64,
    kept_ms: u64,
    changed_bytes: u64,
}

impl ContainerView {
    pub(crate) fn table(containers: &[Self]) -> String {
        let header = ["NAME", "STATE", "NODE", "ADDRESS", "REPLICAS", "IMAGE", "CREATED"];
        table(header, containers.iter().map(Self::row).collect())
    }

    fn row(&self) -> [String; 7] {
        let created = age(self.created_ms);
        let pinned = self.spec.as_ref().is_some_and(|s| s.protection == "pinned");
        let replicas = self.replicas.iter().map(ReplicaView::short).collect::<Vec<_>>().join(", ");
        [
            self.name.clone(),
            self.state.clone(),
            self.node.clone(),
            self.address.clone(),
            if pinned && replicas.is_empty() { "pinned".to_owned() } else { replicas },
            self.spec.as_ref().map(|s| s.image.clone()).unwrap_or_default(),
            if created.is_empty() { created } else { format!("{created} ago") },
        ]
    }

    /// Everything about one.
    pub(crate) fn details(&self) -> String {
        let mut lines = vec![
            ("name", self.name.clone()),
            ("uid", self.uid.clone()),
            ("state", self.state.clone()),
            ("node", format!("{} (epoch {})", self.node, self.epoch)),
            ("address", self.address.clone()),
            ("mac", self.mac.clone()),
            ("created", rfc3339(self.created_ms)),
            ("version", self.revision.to_string()),
        ];
        if !self.reason.is_empty() {
            lines.insert(3, ("reason", self.reason.clone()));
        }
        lines.extend(self.spec.iter().flat_map(SpecView::lines));
        match &self.replicas[..] {
            [] => pairs(&lines),
            replicas => format!("{}\n\n{}", pairs(&lines), ReplicaView::table(replicas)),
        }
    }

    /// One line after a change.
    pub(crate) fn sentence(&self) -> String {
        let mut text = format!("{}: {}", self.name, self.state);
        if !self.node.is_empty() {
            text = format!("{text} on {}", self.node);
        }
        if !self.address.is_empty() {
            text = format!("{text}, address {}", self.address);
        }
        if self.reason.is_empty() { text } else { format!("{text}: {}", self.reason) }
    }
}

impl SpecView {
    fn lines(&self) -> Vec<(&'static str, String)> {
        let every = DurationArg::from_millis(self.replicate_every_ms);
        let limit = |value: Option<String>| value.unwrap_or_else(|| "no limit".to_owned());
        let env = self.env.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>();
        vec![
            ("image", self.image.clone()),
            ("disk", ByteSize(self.disk_bytes).to_string()),
            ("volumes", self.volumes.iter().map(VolumeView::text).collect::<Vec<_>>().join(", ")),
            ("memory", limit(self.memory_bytes.map(|m| ByteSize(m).to_string()))),
            ("cpus", limit(self.cpu_milli.map(|m| (f64::from(m) / 1_000.0).to_string()))),
            ("pids", limit(self.pids.map(|p| p.to_string()))),
            ("protection", self.protection.clone()),
            ("copies", format!("{}, replicated every {every}", self.copies)),
            ("max data loss", DurationArg::from_millis(self.max_data_loss_ms).to_string()),
            ("priority", self.priority.to_string()),
            ("command", self.command.join(" ")),
            ("env", env.join(" ")),
        ]
    }
}

impl VolumeView {
    fn text(&self) -> String {
        format!("{} {} at {}", self.name, ByteSize(self.size_bytes), self.path)
    }
}

impl ReplicaView {
    fn table(replicas: &[Self]) -> String {
        let row = |r: &Self| [r.node.clone(), r.snapshot(), r.current(), r.snapshot_uuid.clone()];
        table(["REPLICA ON", "SNAPSHOT", "AGE", "UUID"], replicas.iter().map(row).collect())
    }

    fn short(&self) -> String {
        format!("{} ({})", self.node, self.current())
    }

    fn current(&self) -> String {
        self.age_ms.map(span).unwrap_or_else(|| "first copy under way".to_owned())
    }

    fn snapshot(&self) -> String {
        let both = self.epoch.zip(self.seq);
        both.map(|(epoch, seq)| format!("{epoch}.{seq}")).unwrap_or_default()
    }

    /// One line after a sync.
    pub(crate) fn sentence(&self, container: &str) -> String {
        format!("{container}: current on {} (snapshot {})", self.node, self.snapshot())
    }
}

impl DivergedView {
    pub(crate) fn table(diverged: &[Self]) -> String {
        let row = |d: &Self| {
            let changed = ByteSize(d.changed_bytes).to_string();
            let kept = rfc3339(d.kept_ms);
            let (container, node) = (d.container.clone(), d.node.clone());
            [container, node, d.epoch.to_string(), changed, kept, d.snapshot_uuid.clone()]
        };
        let header = ["CONTAINER", "NODE", "EPOCH", "CHANGED", "KEPT SINCE", "SNAPSHOT"];
        table(header, diverged.iter().map(row).collect())
    }
}

impl From<v1::Container> for ContainerView {
    fn from(c: v1::Container) -> Self {
        Self {
            state: word(c.state().as_str_name(), "CONTAINER_STATE_"),
            uid: c.uid,
            name: c.name,
            spec: c.spec.map(SpecView::from),
            reason: c.reason,
            epoch: c.epoch,
            node: c.node,
            replicas: c.replicas.into_iter().map(ReplicaView::from).collect(),
            address: c.address,
            mac: c.mac,
            created_ms: c.created_ms,
            revision: c.revision,
        }
    }
}

impl From<v1::ContainerSpec> for SpecView {
    fn from(s: v1::ContainerSpec) -> Self {
        Self {
            protection: word(s.protection().as_str_name(), "PROTECTION_"),
            image: s.image,
            disk_bytes: s.disk_bytes,
            memory_bytes: s.memory_bytes,
            cpu_milli: s.cpu_milli,
            pids: s.pids,
            copies: s.copies,
            replicate_every_ms: s.replicate_every_ms,
            max_data_loss_ms: s.max_data_loss_ms,
            priority: s.priority,
            command: s.command,
            env: s.env.into_iter().collect(),
            volumes: s.volumes.into_iter().map(VolumeView::from).collect(),
        }
    }
}

impl From<v1::DataVolume> for VolumeView {
    fn from(v: v1::DataVolume) -> Self {
        Self { name: v.name, size_bytes: v.size_bytes, path: v.path }
    }
}

impl From<v1::Replica> for ReplicaView {
    fn from(r: v1::Replica) -> Self {
        Self {
            node: r.node,
            epoch: r.epoch,
            seq: r.seq,
            snapshot_uuid: r.snapshot_uuid,
            age_ms: r.age_ms,
        }
    }
}

impl From<v1::Diverged> for DivergedView {
    fn from(d: v1::Diverged) -> Self {
        Self {
            container: d.container,
            container_uid: d.container_uid,
            node: d.node,
            snapshot_uuid: d.snapshot_uuid,
            epoch: d.epoch,
            kept_ms: d.kept_ms,
            changed_bytes: d.changed_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held() -> ContainerView {
        let fresh = v1::Replica {
            node: "n3".into(),
            epoch: Some(2),
            seq: Some(14),
            snapshot_uuid: "0190-aa".into(),
            age_ms: Some(3_400),
        };
        let coming = v1::Replica { node: "n1".into(), ..Default::default() };
        v1::Container {
            name: "web".into(),
            state: v1::ContainerState::Held.into(),
            reason: "its best copy is 90 s old".into(),
            node: "n2".into(),
            epoch: 2,
            address: "10.77.0.2".into(),
            spec: Some((&holdfast_types::ContainerSpec::default()).into()),
            replicas: vec![fresh, coming],
            ..Default::default()
        }
        .into()
    }

    #[test]
    fn a_listing_says_how_old_each_replica_is() {
        assert_eq!(
            ContainerView::table(&[held()]),
            "\
NAME  STATE  NODE  ADDRESS    REPLICAS                              IMAGE  CREATED
web   held   n2    10.77.0.2  n3 (3.4s), n1 (first copy under way)  -      -"
        );
    }

    #[test]
    fn details_say_why_a_container_is_held() {
        let text = held().details();
        assert!(text.contains("\nstate:          held\nreason:         its best copy"), "{text}");
        assert!(text.contains("\ncopies:         2, replicated every 5s\n"), "{text}");
        assert!(text.ends_with("n1          -         first copy under way  -"), "{text}");
    }

    #[test]
    fn json_has_the_apis_names() {
        let json = serde_json::to_value(held()).unwrap();
        assert_eq!(json["state"], "held");
        assert_eq!(json["spec"]["protection"], "protected");
        assert_eq!(json["spec"]["replicate_every_ms"], 5_000);
        assert_eq!(json["replicas"][0]["age_ms"], 3_400);
        assert!(json["replicas"][1]["age_ms"].is_null());
    }
}
