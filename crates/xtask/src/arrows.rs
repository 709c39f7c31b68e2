//! The crates and their arrows: who may use whom, and who must stay pure.
//!
//! The table is the design's. An arrow that is not in it is a design change: change the design,
//! `ARCHITECTURE.md` and this table together.

use std::fmt::Write as _;

use crate::workspace::{Member, Workspace};

/// Each crate by its folder, and the crates that it may use. Development dependencies are free:
/// a test may drive anything.
const TABLE: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("core", &["types"]),
    ("planner", &["types", "core"]),
    ("reconcile", &["types"]),
    ("storage", &["types"]),
    ("runtime", &["types"]),
    ("network", &["types"]),
    ("fence", &["types"]),
    ("trust", &["types"]),
    ("proto", &["trust", "types"]),
    ("raft", &["core", "proto", "types"]),
    ("agent", &["reconcile", "storage", "runtime", "network", "fence", "proto", "types"]),
    ("controller", &["planner", "core", "types"]),
    (
        "daemon",
        &[
            "types",
            "core",
            "planner",
            "reconcile",
            "storage",
            "runtime",
            "network",
            "fence",
            "proto",
            "raft",
            "trust",
            "agent",
            "controller",
        ],
    ),
    ("cli", &["proto", "trust", "types"]),
    ("lab", &["cli", "proto", "types"]),
    ("sim", &["core", "planner", "reconcile", "controller", "agent", "raft"]),
    ("fuzz", &["agent", "daemon", "proto", "raft", "runtime", "storage", "trust", "types"]),
    ("xtask", &[]),
    ("chaos-tests", &["lab", "cli", "proto", "trust", "types"]),
];

/// Crates that decide, and so touch nothing: no runtime, no network, no disk, no kernel. Not even
/// in their tests.
const PURE: &[&str] = &["core", "planner", "reconcile"];
const IMPURE_DEPENDENCIES: &[&str] = &["tokio", "tonic", "openraft", "sled", "nix"];

/// Dependencies with one home, so that they can be replaced there.
const HOMES: &[(&str, &str)] = &[("openraft", "raft"), ("sled", "raft")];

/// Every arrow that the design does not have, one line each.
pub(crate) fn violations(workspace: &Workspace) -> Vec<String> {
    workspace.members.iter().flat_map(member_violations).collect()
}

fn member_violations(member: &Member) -> Vec<String> {
    let name = member.folder.as_str();
    let Some(allowed) = allowed(name) else {
        return vec![format!("{name} is not in the table of crates (crates/xtask/src/arrows.rs)")];
    };
    let mut found = Vec::new();
    for arrow in member.internal() {
        if !allowed.contains(&arrow) {
            found.push(format!("{name} -> {arrow} is no arrow of the design"));
        }
    }
    for dependency in &member.dependencies {
        let on = dependency.name.as_str();
        if PURE.contains(&name) && IMPURE_DEPENDENCIES.contains(&on) {
            found.push(format!("{name} is pure and must not list {on}"));
        }
        if let Some((_, home)) = HOMES.iter().find(|(dep, home)| *dep == on && *home != name) {
            found.push(format!("{name} must not list {on}: its only home is {home}"));
        }
        if dependency.is_normal() && dependency.features.iter().any(|f| f == "fake") {
            found.push(format!("{name} enables the fake of {on} outside its tests"));
        }
    }
    found
}

fn allowed(name: &str) -> Option<&'static [&'static str]> {
    TABLE.iter().find(|(from, _)| *from == name).map(|(_, to)| *to)
}

/// The table as text: what each crate uses, and in brackets what it may use and does not.
pub(crate) fn table(workspace: &Workspace) -> String {
    let mut text = String::new();
    for (name, allowed) in TABLE {
        let Some(member) = workspace.members.iter().find(|m| m.folder == *name) else {
            continue;
        };
        let used = member.internal();
        let row: Vec<String> = allowed
            .iter()
            .map(|to| if used.contains(to) { (*to).to_owned() } else { format!("[{to}]") })
            .collect();
        let row = if row.is_empty() { "-".to_owned() } else { row.join(" ") };
        let _ = writeln!(text, "{name:<12} {row}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Dependency;

    fn member(folder: &str, dependencies: &[(&str, Option<&str>)]) -> Member {
        let dependencies = dependencies
            .iter()
            .map(|(name, kind)| Dependency {
                name: (*name).to_owned(),
                kind: kind.map(str::to_owned),
                features: Vec::new(),
            })
            .collect();
        Member { folder: folder.to_owned(), dependencies, ..Member::default() }
    }

    #[test]
    fn an_arrow_outside_the_table_is_found() {
        assert!(member_violations(&member("agent", &[("holdfast-storage", None)])).is_empty());
        assert_eq!(
            member_violations(&member("agent", &[("holdfast-controller", None)])),
            ["agent -> controller is no arrow of the design"]
        );
        assert!(
            member_violations(&member("agent", &[("holdfast-raft", Some("dev"))])).is_empty(),
            "tests may drive anything"
        );
        assert_eq!(member_violations(&member("utils", &[])).len(), 1, "an unknown crate");
    }

    #[test]
    fn pure_crates_stay_pure_in_their_tests_too() {
        for kind in [None, Some("dev"), Some("build")] {
            assert_eq!(
                member_violations(&member("planner", &[("tokio", kind)])),
                ["planner is pure and must not list tokio"]
            );
        }
    }

    #[test]
    fn openraft_and_sled_have_one_home() {
        assert!(member_violations(&member("raft", &[("sled", None)])).is_empty());
        assert_eq!(member_violations(&member("daemon", &[("sled", None)])).len(), 1);
    }

    #[test]
    fn a_fake_is_for_tests() {
        let mut agent = member("agent", &[("holdfast-network", None)]);
        agent.dependencies[0].features.push("fake".to_owned());
        assert_eq!(member_violations(&agent).len(), 1);
        agent.dependencies[0].kind = Some("dev".to_owned());
        assert!(member_violations(&agent).is_empty());
    }

    #[test]
    fn the_table_has_no_circle() {
        let mut above: Vec<&str> = Vec::new();
        let mut left: Vec<_> = TABLE.to_vec();
        while let Some(i) = left.iter().position(|(_, to)| to.iter().all(|t| above.contains(t))) {
            above.push(left.swap_remove(i).0);
        }
        assert!(left.is_empty(), "in a circle, or pointing at nothing: {left:?}");
    }
}
