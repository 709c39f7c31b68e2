//! Events.

use std::collections::BTreeMap;

use holdfast_proto::v1;
use serde::Serialize;

use crate::output::{one_line, rfc3339};

#[derive(Debug, Serialize)]
pub(crate) struct EventView {
    revision: u64,
    index: u32,
    at_ms: u64,
    kind: String,
    node: String,
    container: String,
    container_uid: String,
    message: String,
    fields: BTreeMap<String, String>,
}

impl EventView {
    /// One line; a table's columns could not be known while events still come.
    pub(crate) fn line(&self) -> String {
        let subject: Vec<_> =
            [&self.container, &self.node].into_iter().filter(|s| !s.is_empty()).cloned().collect();
        let subject = if subject.is_empty() { "-".to_owned() } else { subject.join("@") };
        let line = format!(
            "{}  {:>6}  {:<20}  {:<16}  {}",
            rfc3339(self.at_ms),
            self.revision,
            self.kind,
            subject,
            self.message
        );
        one_line(line.trim_end())
    }
}

impl From<v1::Event> for EventView {
    fn from(e: v1::Event) -> Self {
        Self {
            revision: e.revision,
            index: e.index,
            at_ms: e.at_ms,
            kind: e.kind,
            node: e.node,
            container: e.container,
            container_uid: e.container_uid,
            message: e.message,
            fields: e.fields.into_iter().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let event = v1::Event {
            revision: 42,
            at_ms: 1_700_000_000_000,
            kind: "takeover".into(),
            node: "n3".into(),
            container: "web".into(),
            message: "from n2,\ndata as of 1.2 s before".into(),
            ..Default::default()
        };
        assert_eq!(
            EventView::from(event).line(),
            "2023-11-14T22:13:20.000Z      42  takeover              web@n3            \
             from n2, data as of 1.2 s before"
        );
    }
}
