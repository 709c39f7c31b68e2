//! What versions say beyond values. The search for an order of all operations (see [`crate::linear`])
//! does not look at them; what is checked here needs no search, since versions are an order:
//!
//! - no two changes, of whatever node, have the same version;
//! - what was called after something had ended has no older version, and a change has a newer one;
//! - a read of a version shows of each label the newest change up to that version, and nothing else
//!   (but for what a change of unknown outcome wrote, whose version nobody was told);
//! - two reads of one version show the same;
//! - between the version that a swap replaced and its own there is no other change.

use std::collections::{BTreeMap, BTreeSet};

use super::history::{Call, What};
use crate::linear::{ABSENT, Value};

/// A change whose version is known.
struct Change {
    version: u64,
    key: usize,
    value: Value,
    /// The version that it replaced, if it was to replace a certain one.
    replaced: Option<u64>,
}

/// Everything that does not fit, one line each.
pub(super) fn check(calls: &[Call]) -> Vec<String> {
    let mut problems = Vec::new();
    let mut versions = BTreeSet::new();
    let nodes: BTreeSet<_> = calls.iter().map(|call| call.node).collect();
    for node in nodes {
        let calls: Vec<_> = calls.iter().filter(|call| call.node == node).collect();
        let mut changes: Vec<_> = calls.iter().filter_map(|call| change(call)).collect();
        changes.sort_by_key(|change| change.version);
        for change in &changes {
            if !versions.insert(change.version) {
                problems.push(format!("two changes have the version {}", change.version));
            }
        }
        swaps(&changes, &mut problems);
        reads(&calls, &changes, &mut problems);
        order(&calls, &mut problems);
    }
    problems
}

fn change(call: &Call) -> Option<Change> {
    match call.what {
        What::Write { key, value, version } => {
            Some(Change { version: version?, key, value, replaced: None })
        }
        What::Swap { key, value, at, version, .. } => {
            Some(Change { version: version?, key, value, replaced: Some(at) })
        }
        What::Read { .. } | What::Refused => None,
    }
}

fn swaps(changes: &[Change], problems: &mut Vec<String>) {
    for (place, change) in changes.iter().enumerate() {
        let Some(replaced) = change.replaced else { continue };
        let before = place.checked_sub(1).and_then(|before| changes.get(before));
        let between = before.map(|before| before.version).filter(|version| *version > replaced);
        if replaced >= change.version || between.is_some() {
            problems.push(format!(
                "a swap of version {replaced} became {}, and {between:?} lies between",
                change.version
            ));
        }
    }
}

fn reads(calls: &[&Call], changes: &[Change], problems: &mut Vec<String>) {
    let mut of_key: BTreeMap<usize, Vec<(u64, Value)>> = BTreeMap::new();
    for change in changes {
        of_key.entry(change.key).or_default().push((change.version, change.value));
    }
    let unknown: BTreeSet<(usize, Value)> = calls
        .iter()
        .filter_map(|call| match call.what {
            What::Write { key, value, version: None } => Some((key, value)),
            What::Swap { key, value, version: None, .. } => Some((key, value)),
            _ => None,
        })
        .collect();
    let mut seen: BTreeMap<u64, &Vec<Value>> = BTreeMap::new();
    for call in calls {
        let What::Read { values, version } = &call.what else { continue };
        if *seen.entry(*version).or_insert(values) != values {
            problems.push(format!("two reads of version {version} differ"));
        }
        for (key, value) in values.iter().enumerate() {
            let changes = of_key.get(&key).map(Vec::as_slice).unwrap_or_default();
            let newer = changes.partition_point(|(changed, _)| changed <= version);
            let newest = newer.checked_sub(1).map_or(ABSENT, |at| changes[at].1);
            if *value != newest && !unknown.contains(&(key, *value)) {
                problems.push(format!(
                    "a read of version {version} shows {value} in label {key}, where {newest} is the newest"
                ));
            }
        }
    }
}

/// What was called after something had ended is not older.
fn order(calls: &[&Call], problems: &mut Vec<String>) {
    let known = |call: &&&Call| -> Option<(u64, u64, u64, bool)> {
        let (version, changes) = match call.what {
            What::Read { version, .. } => (version, false),
            What::Write { version, .. } | What::Swap { version, .. } => (version?, true),
            What::Refused => return None,
        };
        Some((call.call, call.end?, version, changes))
    };
    let mut by_call: Vec<_> = calls.iter().filter_map(|call| known(&call)).collect();
    by_call.sort_unstable();
    let mut by_end = by_call.clone();
    by_end.sort_unstable_by_key(|(_, end, ..)| *end);
    let mut ended = by_end.iter().peekable();
    let mut newest = 0;
    for (call, _, version, changes) in &by_call {
        while let Some((_, _, version, _)) = ended.next_if(|(_, end, ..)| end < call) {
            newest = newest.max(*version);
        }
        if *version < newest || *changes && *version == newest {
            problems.push(format!(
                "version {version} was answered to a call after {newest} had been (at {call} ns)"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(call: u64, what: What) -> Call {
        Call { node: 0, call, end: Some(call + 1), what }
    }

    fn write(at: u64, key: usize, value: Value, version: u64) -> Call {
        call(at, What::Write { key, value, version: Some(version) })
    }

    fn read(at: u64, values: &[Value], version: u64) -> Call {
        call(at, What::Read { values: values.to_vec(), version })
    }

    fn swap(at: u64, expect: Value, of: u64, value: Value, version: u64) -> Call {
        call(at, What::Swap { key: 0, expect, at: of, value, version: Some(version) })
    }

    fn problem(calls: &[Call]) -> String {
        check(calls).join("; ")
    }

    #[test]
    fn what_follows_its_versions_passes() {
        let calls = [
            read(0, &[0, 0], 3),
            write(2, 0, 7, 5),
            read(4, &[7, 0], 5),
            // The node itself changed, and no label.
            read(6, &[7, 0], 6),
            swap(8, 7, 6, 8, 9),
            Call { end: None, ..call(10, What::Write { key: 1, value: 4, version: None }) },
            read(12, &[8, 4], 11),
            call(14, What::Refused),
        ];
        assert_eq!(problem(&calls), "");
    }

    #[test]
    fn what_does_not_is_named() {
        let twice = [write(0, 0, 1, 5), write(2, 1, 2, 5)];
        assert!(problem(&twice).contains("two changes have the version 5"));
        let back = [write(0, 0, 1, 5), read(2, &[0], 4)];
        assert!(problem(&back).contains("version 4 was answered to a call after 5 had been"));
        let lost = [write(0, 0, 1, 5), read(2, &[0], 6)];
        assert!(problem(&lost).contains("shows 0 in label 0, where 1 is the newest"));
        let torn = [read(0, &[0, 0], 5), read(2, &[0, 1], 5)];
        assert!(problem(&torn).contains("two reads of version 5 differ"));
        let between = [write(0, 1, 1, 5), swap(2, 0, 4, 2, 6)];
        assert!(
            problem(&between).contains("a swap of version 4 became 6, and Some(5) lies between")
        );
    }
}
