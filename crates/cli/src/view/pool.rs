//! Pools.

use holdfast_proto::v1;
use holdfast_types::ByteSize;
use serde::Serialize;

use super::cluster::CapacityView;
use crate::output::{one_line, pairs, table};

#[derive(Debug, Serialize)]
pub(crate) struct PoolView {
    node: String,
    name: String,
    driver: String,
    capacity: Option<CapacityView>,
    trouble: String,
    path: String,
    vg: String,
    thin_pool: String,
    vg_uuid: String,
    thin_pool_uuid: String,
    vg_size_bytes: u64,
    vg_free_bytes: u64,
    devices: Vec<DeviceView>,
}

#[derive(Debug, Serialize)]
struct DeviceView {
    path: String,
    size_bytes: u64,
    free_bytes: u64,
    missing: bool,
}

impl PoolView {
    pub(crate) fn table(pools: &[Self]) -> String {
        let header = ["NODE", "POOL", "DRIVER", "USED", "SIZE", "META", "PROMISED", "STATE"];
        table(header, pools.iter().map(Self::row).collect())
    }

    fn row(&self) -> [String; 8] {
        let of = |value: fn(&CapacityView) -> String| {
            self.capacity.as_ref().map(value).unwrap_or_default()
        };
        [
            self.node.clone(),
            self.name.clone(),
            self.driver.clone(),
            of(|c| ByteSize(c.used_bytes).to_string()),
            of(|c| ByteSize(c.size_bytes).to_string()),
            of(CapacityView::metadata),
            of(|c| ByteSize(c.promised_bytes).to_string()),
            self.state(),
        ]
    }

    fn state(&self) -> String {
        match &self.capacity {
            _ if !self.trouble.is_empty() => self.trouble.clone(),
            Some(capacity) if !capacity.admits => "full".to_owned(),
            Some(_) => "open".to_owned(),
            None => String::new(),
        }
    }

    /// Everything about one.
    pub(crate) fn details(&self) -> String {
        let size = |bytes: u64| ByteSize(bytes).to_string();
        let mut lines = vec![
            ("pool", self.name.clone()),
            ("node", self.node.clone()),
            ("driver", self.driver.clone()),
            ("state", self.state()),
        ];
        if let Some(c) = &self.capacity {
            let used = format!("{} of {}", size(c.used_bytes), size(c.size_bytes));
            lines.push(("used", used));
            if let Some((used, all)) = c.metadata_used_bytes.zip(c.metadata_size_bytes) {
                lines.push(("metadata", format!("{} of {}", size(used), size(all))));
            }
            lines.push(("promised", size(c.promised_bytes)));
        }
        if !self.path.is_empty() {
            lines.push(("directory", self.path.clone()));
        }
        if !self.vg.is_empty() {
            let free = format!("{} of {}", size(self.vg_free_bytes), size(self.vg_size_bytes));
            lines.push(("volume group", format!("{} ({})", self.vg, self.vg_uuid)));
            lines.push(("thin pool", format!("{} ({})", self.thin_pool, self.thin_pool_uuid)));
            lines.push(("free in group", free));
        }
        let mut text = pairs(&lines);
        for device in &self.devices {
            text = format!("{text}\n{}", device.line());
        }
        text
    }
}

impl DeviceView {
    fn line(&self) -> String {
        let (size, free) = (ByteSize(self.size_bytes), ByteSize(self.free_bytes));
        let missing = if self.missing { ", MISSING" } else { "" };
        format!("device {}: {size}, {free} free{missing}", one_line(&self.path))
    }
}

impl From<v1::Pool> for PoolView {
    fn from(p: v1::Pool) -> Self {
        let device = |d: v1::PoolDevice| DeviceView {
            path: d.path,
            size_bytes: d.size_bytes,
            free_bytes: d.free_bytes,
            missing: d.missing,
        };
        Self {
            node: p.node,
            name: p.name,
            driver: p.driver,
            capacity: p.capacity.map(CapacityView::from),
            trouble: p.trouble,
            path: p.path,
            vg: p.vg,
            thin_pool: p.thin_pool,
            vg_uuid: p.vg_uuid,
            thin_pool_uuid: p.thin_pool_uuid,
            vg_size_bytes: p.vg_size_bytes,
            vg_free_bytes: p.vg_free_bytes,
            devices: p.devices.into_iter().map(device).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_printed_with_what_its_driver_has() {
        let capacity = v1::Capacity {
            name: "fast".into(),
            driver: "lvm".into(),
            size_bytes: 10 << 30,
            used_bytes: 1 << 30,
            promised_bytes: 2 << 30,
            admits: true,
            metadata_used_bytes: Some(5 << 20),
            metadata_size_bytes: Some(128 << 20),
        };
        let pool = v1::Pool {
            node: "n1".into(),
            name: "fast".into(),
            driver: "lvm".into(),
            capacity: Some(capacity),
            ..Default::default()
        };
        let view = PoolView::from(pool);
        assert!(view.details().contains("metadata:  5MiB of 128MiB"), "{}", view.details());
        assert_eq!(
            PoolView::table(&[view]),
            "\
NODE  POOL  DRIVER  USED  SIZE   META  PROMISED  STATE
n1    fast  lvm     1GiB  10GiB  3 %   2GiB      open"
        );
    }
}
