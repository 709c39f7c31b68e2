//! Names, versions and inherited settings: said once, in the workspace's manifest.

use std::path::Path;

use anyhow::{Context, Result};
use toml::{Table, Value};

use crate::workspace::{Member, Workspace};

/// The keys of `[package]` that every member inherits.
const INHERITED: &[&str] = &["version", "edition", "rust-version", "license", "publish"];
const DEPENDENCY_TABLES: &[&str] = &["dependencies", "dev-dependencies", "build-dependencies"];

/// Every manifest that says something for itself, one line for each such thing.
pub(crate) fn violations(root: &Path, workspace: &Workspace) -> Result<Vec<String>> {
    let top = read(&root.join("Cargo.toml"))?;
    let mut found = Vec::new();
    for member in &workspace.members {
        found.extend(member_violations(member, &read(&member.manifest)?));
    }
    let version = lookup(&top, &["workspace", "package", "version"]).and_then(Value::as_str);
    let version = version.unwrap_or_default();
    for member in workspace.members.iter().filter(|m| m.version != version) {
        found.push(format!("{} has version {}, not {version}", member.folder, member.version));
    }
    let changes = std::fs::read_to_string(root.join("CHANGELOG.md")).unwrap_or_default();
    if !changes.is_empty() && !changelog_names(&changes, version) {
        found.push(format!("CHANGELOG.md's first version is neither {version} nor Unreleased"));
    }
    Ok(found)
}

fn member_violations(member: &Member, manifest: &Table) -> Vec<String> {
    let name = &member.folder;
    let mut found = Vec::new();
    if member.package != member.expected_package() {
        found.push(format!(
            "{name} is package {}, not {}",
            member.package,
            member.expected_package()
        ));
    }
    for key in INHERITED {
        if lookup(manifest, &["package", key, "workspace"]) != Some(&Value::Boolean(true)) {
            found.push(format!("{name} must say `{key}.workspace = true`"));
        }
    }
    if lookup(manifest, &["lints", "workspace"]) != Some(&Value::Boolean(true)) {
        found.push(format!("{name} must inherit the workspace's lints"));
    }
    for table in DEPENDENCY_TABLES {
        let Some(dependencies) = manifest.get(*table).and_then(Value::as_table) else { continue };
        for (dependency, value) in dependencies {
            if value.get("workspace") != Some(&Value::Boolean(true)) {
                found.push(format!("{name} must take {dependency} from the workspace"));
            }
        }
    }
    found
}

/// Whether the first `## ` heading is the version or "Unreleased", with or without brackets.
fn changelog_names(changes: &str, version: &str) -> bool {
    let first = changes.lines().find_map(|line| line.strip_prefix("## ")).unwrap_or_default();
    let word = first.split_whitespace().next().unwrap_or_default();
    let word = word.trim_matches(['[', ']']);
    word == version || word.eq_ignore_ascii_case("unreleased")
}

fn read(path: &Path) -> Result<Table> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    text.parse().with_context(|| format!("reading {}", path.display()))
}

fn lookup<'a>(table: &'a Table, path: &[&str]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(table.get(*first)?, |value, key| value.get(*key))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "
        [package]
        name = \"holdfast-core\"
        version.workspace = true
        edition.workspace = true
        rust-version.workspace = true
        license.workspace = true
        publish.workspace = true
        [lints]
        workspace = true
        [dependencies]
        serde.workspace = true
        nix = { workspace = true, features = [\"fs\"] }
    ";

    fn check(manifest: &str) -> Vec<String> {
        let package = "holdfast-core".to_owned();
        let member = Member { folder: "core".to_owned(), package, ..Member::default() };
        member_violations(&member, &manifest.parse().unwrap())
    }

    #[test]
    fn a_manifest_that_inherits_everything_passes() {
        assert_eq!(check(GOOD), Vec::<String>::new());
    }

    #[test]
    fn what_a_manifest_says_for_itself_is_found() {
        for (from, to) in [
            ("version.workspace = true", "version = \"9.9.9\""),
            ("[lints]\n        workspace = true", ""),
            ("serde.workspace = true", "serde = \"1\""),
        ] {
            assert_eq!(check(&GOOD.replacen(from, to, 1)).len(), 1, "{to}");
        }
    }

    #[test]
    fn the_changelog_begins_with_this_version() {
        assert!(changelog_names("# Changes\n\n## [0.1.0] - 2026-11-23\n", "0.1.0"));
        assert!(changelog_names("## Unreleased\n", "0.1.0"));
        assert!(!changelog_names("## 0.0.9\n## 0.1.0\n", "0.1.0"));
    }
}
