//! Images.

use holdfast_proto::v1;
use holdfast_types::ByteSize;
use serde::Serialize;

use crate::output::{rfc3339, table};

#[derive(Debug, Serialize)]
pub(crate) struct ImageView {
    uid: String,
    name: String,
    size_bytes: u64,
    entries: u64,
    content_bytes: u64,
    has_init: bool,
    nodes: Vec<String>,
    created_ms: u64,
    revision: u64,
}

impl ImageView {
    pub(crate) fn table(images: &[Self]) -> String {
        let row = |i: &Self| {
            let init = if i.has_init { "yes" } else { "no" }.to_owned();
            let content = ByteSize(i.content_bytes).to_string();
            let (size, nodes) = (ByteSize(i.size_bytes).to_string(), i.nodes.join(", "));
            let entries = i.entries.to_string();
            [i.name.clone(), size, content, entries, init, nodes, rfc3339(i.created_ms)]
        };
        let header = ["NAME", "SIZE", "CONTENT", "ENTRIES", "INIT", "NODES", "CREATED"];
        table(header, images.iter().map(row).collect())
    }

    /// One line after an import.
    pub(crate) fn sentence(&self) -> String {
        let content = ByteSize(self.content_bytes);
        let init = if self.has_init { "" } else { ", without an init of its own" };
        format!("{}: imported, {} entries, {content}{init}", self.name, self.entries)
    }
}

impl From<v1::Image> for ImageView {
    fn from(i: v1::Image) -> Self {
        Self {
            uid: i.uid,
            name: i.name,
            size_bytes: i.size_bytes,
            entries: i.entries,
            content_bytes: i.content_bytes,
            has_init: i.has_init,
            nodes: i.nodes,
            created_ms: i.created_ms,
            revision: i.revision,
        }
    }
}
