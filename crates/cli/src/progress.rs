//! Progress on standard error: drawn on a terminal, silent anywhere else.

use std::time::Duration;

use holdfast_proto::v1;
use indicatif::{ProgressBar, ProgressStyle};

use crate::output::one_line;

const TICK: Duration = Duration::from_millis(120);

/// Bytes sent, of `total` if it is known.
pub(crate) fn bytes(total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (ProgressBar::new(total), BYTES_OF_TOTAL),
        None => (ProgressBar::new_spinner(), BYTES),
    };
    styled(bar, template)
}

/// A spinner with a message.
pub(crate) fn spinner() -> ProgressBar {
    styled(ProgressBar::new_spinner(), "{spinner} {msg} ({elapsed})")
}

/// Says what the operation is doing.
pub(crate) fn tell(bar: &ProgressBar, operation: &v1::Operation) {
    let what = if operation.message.is_empty() { "…" } else { &operation.message };
    bar.set_message(one_line(&format!("{} {}: {what}", operation.kind, operation.container)));
}

const BYTES_OF_TOTAL: &str =
    "{spinner} {msg} [{bar:30}] {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left";
const BYTES: &str = "{spinner} {msg} {bytes}, {bytes_per_sec}";

fn styled(bar: ProgressBar, template: &str) -> ProgressBar {
    // A template that does not parse costs the looks, nothing else.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    if !bar.is_hidden() {
        bar.enable_steady_tick(TICK);
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_parse() {
        for template in [BYTES, BYTES_OF_TOTAL] {
            assert!(ProgressStyle::with_template(template).is_ok());
        }
    }
}
