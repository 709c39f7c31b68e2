//! Operations.

use holdfast_proto::v1;
use serde::Serialize;

use super::word;
use crate::output::{pairs, rfc3339};

#[derive(Debug, Serialize)]
pub(crate) struct OperationView {
    id: String,
    kind: String,
    container: String,
    state: String,
    error_code: String,
    message: String,
    started_ms: u64,
}

impl OperationView {
    pub(crate) fn details(&self) -> String {
        let mut lines = vec![
            ("operation", self.id.clone()),
            ("kind", self.kind.clone()),
            ("container", self.container.clone()),
            ("state", self.state.clone()),
            ("started", rfc3339(self.started_ms)),
            ("message", self.message.clone()),
        ];
        if !self.error_code.is_empty() {
            lines.push(("error", self.error_code.clone()));
        }
        pairs(&lines)
    }
}

impl From<v1::Operation> for OperationView {
    fn from(o: v1::Operation) -> Self {
        Self {
            state: word(o.state().as_str_name(), "OPERATION_STATE_"),
            id: o.id,
            kind: o.kind,
            container: o.container,
            error_code: o.error_code,
            message: o.message,
            started_ms: o.started_ms,
        }
    }
}
