//! The documents at the top: what they point at must exist.
//!
//! Checked are relative Markdown links, and code spans that begin with a top-level folder of the
//! repository (`deploy/…`) or with a crate (`raft/src/…`). `ARCHITECTURE.md` tells its story by
//! file names; a file that moved must not leave it lying.

use std::path::Path;

use anyhow::{Context, Result};

const FOLDERS: &[&str] = &["crates/", "proto/", "deploy/", "chaos-tests/", ".ci/", ".cargo/"];

/// Every pointer of a top-level document to something that is not there, one line each.
pub(crate) fn dangling(root: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root).context("reading the workspace root")? {
        let path = entry?.path();
        if path.extension().is_none_or(|e| e != "md") {
            continue;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {name}"))?;
        for target in pointers(&text) {
            if !root.join(target).exists() && !root.join("crates").join(target).exists() {
                found.push(format!("{name} points at {target}, which does not exist"));
            }
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

fn pointers(text: &str) -> Vec<&str> {
    let links = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(t, _)| t);
    let links = links.filter(|t| !t.contains("://") && !t.starts_with(['#', '/']));
    let links = links.map(|t| t.split('#').next().unwrap_or(t));
    let spans = text.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    let in_crate = |span: &str| span.contains("/src/") || span.contains("/tests/");
    let spans = spans
        .filter(|span| in_crate(span) || FOLDERS.iter().any(|folder| span.starts_with(folder)));
    let spans = spans.filter(|s| !s.contains([' ', '*', '{', '<', '…']));
    // A pointer may go on to an item (`file.rs::item`) or a line (`file.rs:12`).
    links.chain(spans.map(|span| span.split(':').next().unwrap_or(span))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_code_spans_are_pointers() {
        let text = "See [how](ARCHITECTURE.md#map), [web](https://x.y/z), [here](#top),\n\
                    `crates/core/src/lib.rs::apply`, `crates/*`, `cargo xtask`, `proto/holdfast`,\n\
                    `raft/src/node.rs`, `src/apply.rs`, `/etc/holdfast`.";
        let crates = ["crates/core/src/lib.rs", "proto/holdfast", "raft/src/node.rs"];
        assert_eq!(pointers(text), [&["ARCHITECTURE.md"], &crates[..]].concat());
    }
}
