//! The documents at the top: what they point at must exist.
//!
//! Checked are relative Markdown links, and code spans that begin with a top-level folder of the
//! repository (`deploy/…`) or with a crate (`raft/src/…`). `ARCHITECTURE.md` tells its story by
//! file names; a file that moved must not leave it lying. And every stable error code has its entry
//! in `docs/errors.md`, and no other has one.

use std::path::Path;

use anyhow::{Context, Result};

const FOLDERS: &[&str] = &["crates/", "proto/", "deploy/", "chaos-tests/", ".ci/", ".cargo/"];

/// Where the codes are declared, and where they are explained.
const CODES: &str = "crates/types/src/code.rs";
const ERRORS: &str = "docs/errors.md";

/// Everything that is wrong with the documents, one line each.
pub(crate) fn violations(root: &Path) -> Result<Vec<String>> {
    let read =
        |path| std::fs::read_to_string(root.join(path)).with_context(|| format!("reading {path}"));
    let mut found = dangling(root)?;
    found.extend(unexplained(&read(CODES)?, &read(ERRORS)?));
    Ok(found)
}

/// Codes without an entry, and entries without a code.
fn unexplained(declarations: &str, page: &str) -> Vec<String> {
    let quoted = declarations.split('"').skip(1).step_by(2);
    let mut codes: Vec<_> = quoted.filter(|t| t.len() > 3 && t.starts_with("HF-")).collect();
    let mut entries: Vec<_> = page.lines().filter_map(|l| l.strip_prefix("### ")).collect();
    codes.sort_unstable();
    entries.sort_unstable();
    let lacking = codes.iter().filter(|c| !entries.contains(c));
    let lacking = lacking.map(|c| format!("{ERRORS} has no entry for {c}"));
    let strange = entries.iter().filter(|e| !codes.contains(e));
    lacking.chain(strange.map(|e| format!("{ERRORS} explains {e}, which is no code"))).collect()
}

/// Every pointer of a top-level document to something that is not there, one line each.
fn dangling(root: &Path) -> Result<Vec<String>> {
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

    /// DESIGN section 9: each stable code has a page in the docs.
    #[test]
    fn a_code_without_an_entry_and_an_entry_without_a_code_are_found() {
        let codes = "A = \"HF-A\", retry false; starts_with(\"HF-\"); B = \"HF-B\", retry true;";
        assert!(unexplained(codes, "### HF-B\nx\n### HF-A\n").is_empty());
        assert_eq!(
            unexplained(codes, "### HF-A\n### HF-C\n"),
            [
                "docs/errors.md has no entry for HF-B",
                "docs/errors.md explains HF-C, which is no code"
            ]
        );
    }

    #[test]
    fn links_and_code_spans_are_pointers() {
        let text = "See [how](ARCHITECTURE.md#map), [web](https://x.y/z), [here](#top),\n\
                    `crates/core/src/lib.rs::apply`, `crates/*`, `cargo xtask`, `proto/holdfast`,\n\
                    `raft/src/node.rs`, `src/apply.rs`, `/etc/holdfast`.";
        let crates = ["crates/core/src/lib.rs", "proto/holdfast", "raft/src/node.rs"];
        assert_eq!(pointers(text), [&["ARCHITECTURE.md"], &crates[..]].concat());
    }
}
