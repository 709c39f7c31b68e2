//! Points of a container's disk that are kept by name.

use std::time::Duration;

use holdfast_chaos_tests::checkers;
use holdfast_chaos_tests::client::{Printed, holdfast};
use holdfast_chaos_tests::rig::{On, Rig};
use holdfast_lab::quickstart::Cut;
use holdfast_lab::workload::{fetch_chain, parse_chain};
use holdfast_lab::{BootInstant, LabError, wait_until};

const LIMIT: Duration = Duration::from_secs(60);
/// The shortest period of a schedule is a minute, and the leader looks every ten seconds.
const SCHEDULE_LIMIT: Duration = Duration::from_secs(150);

/// What is kept by name can be gone back to and cloned, is on every replica, and outlives the node
/// that took it; nothing that a restore replaces is lost.
#[test]
fn named_snapshots_are_restored_cloned_and_outlive_their_node() -> Result<(), LabError> {
    Rig::play("t-snapshots", On::Follower, 0, scenario)
}

fn scenario(rig: &Rig) -> Result<(), LabError> {
    write(rig, "one")?;
    done(rig, &["snapshot", "create", "web", "s1"])?;
    write(rig, "two")?;
    let said = done(rig, &["snapshot", "schedule", "web", "--keep", "minutely=1"])?.out;
    assert!(said.contains("minutely=1"), "{said}");
    let first = automatic(rig, |names| names.first().cloned())?;

    let again = holdfast(rig.lab(), &["snapshot", "create", "web", "s1"])?;
    assert!(again.err.contains("HF-ALREADY-EXISTS"), "{again:?}");
    let refused = holdfast(rig.lab(), &["snapshot", "restore", "web", "s1"])?;
    assert!(refused.status != Some(0), "restored while it runs: {refused:?}");
    let before = restore(rig, "s1")?;
    assert!(before.starts_with("before-restore-"), "{before}");
    assert_eq!(mark(rig, "web")?, "one");
    // What it was is one more snapshot, to which it can go back.
    restore(rig, &before)?;
    assert_eq!(mark(rig, "web")?, "two");
    cloned(rig)?;

    let second = automatic(rig, |names| {
        let newer = names.iter().find(|name| **name != first).cloned();
        newer.filter(|_| !names.contains(&first))
    })?;
    let said = done(rig, &["snapshot", "schedule", "web", "--off"])?.out;
    assert!(said.contains("no snapshots are taken by the clock"), "{said}");
    for name in ["s1", &before, &second] {
        wait_until("a replica's copy of every named snapshot", LIMIT, || {
            Ok(holders(rig, name)?.iter().any(|node| node != rig.node()))
        })?;
    }
    taken_over(rig, [&before, &second])
}

/// The node that took them is gone; what replaces it has them, and so has it when it is back.
fn taken_over(rig: &Rig, others: [&str; 2]) -> Result<(), LabError> {
    done(rig, &["sync", "web"])?;
    let revision = rig.stage.cluster.ask(async |s| s.status().await)?.applied;
    let cut = Cut::at(rig.lab().kill(rig.node())?, revision);
    checkers::answers_again(rig, BootInstant::now())?;
    checkers::taken_over_in_order(rig, rig.node(), cut)?;
    for name in ["s1", others[0], others[1]] {
        let row = row(rig, name)?.unwrap_or_else(|| panic!("{name} is gone"));
        assert!(row.contains(" taken "), "{row}");
        assert!(row.contains("(lost)"), "it shows a copy that nobody can reach: {row}");
    }
    assert_eq!(mark(rig, "web")?, "two");
    restore(rig, "s1")?;
    assert_eq!(mark(rig, "web")?, "one");
    let chain = fetch_chain(rig.lab().layout(), rig.scene.address, rig.lab().pace())?;
    parse_chain(&chain).unwrap_or_else(|fault| panic!("the chain is damaged: {fault}"));
    rig.lab().power_on(rig.node())?;
    for name in ["s1", others[0], others[1]] {
        wait_until("the returned node's copy of a named snapshot", LIMIT, || {
            let row = row(rig, name)?.unwrap_or_default();
            Ok(!row.contains("(lost)") && holders(rig, name)?.iter().any(|n| n == rig.node()))
        })?;
    }
    done(rig, &["snapshot", "rm", "web", "s1"])?;
    assert_eq!(row(rig, "s1")?, None);
    checkers::never_two(rig);
    Ok(())
}

/// A clone begins as the snapshot, and is a filesystem of its own.
fn cloned(rig: &Rig) -> Result<(), LabError> {
    done(rig, &["clone", "web", "--snapshot", "s1", "web2"])?;
    assert_eq!(mark(rig, "web2")?, "one");
    // Of ext4 this is its UUID, folded.
    let filesystem = |name| exec(rig, name, "stat -f -c %i /");
    assert_ne!(filesystem("web2")?, filesystem("web")?, "two filesystems of one UUID");
    done(rig, &["rm", "web2", "--force", "--yes"])?;
    Ok(())
}

/// Stops, restores, starts. Returns the name under which what it was is kept.
fn restore(rig: &Rig, name: &str) -> Result<String, LabError> {
    done(rig, &["stop", "web"])?;
    let said = done(rig, &["snapshot", "restore", "web", name])?.out;
    let before = said.rsplit(' ').next().unwrap_or_default().to_owned();
    done(rig, &["start", "web"])?;
    checkers::answers_again(rig, BootInstant::now())?;
    Ok(before)
}

/// Waits until `pick` finds what it looks for among the names that the schedule has given, of those
/// that are taken.
fn automatic(rig: &Rig, pick: impl Fn(&[String]) -> Option<String>) -> Result<String, LabError> {
    let mut found = None;
    wait_until("a snapshot by the clock", SCHEDULE_LIMIT, || {
        let listed = done(rig, &["snapshot", "ls", "web"])?.out;
        let named = |line: &str| {
            let mut words = line.split_whitespace().skip(1);
            let name = words.next().filter(|name| name.starts_with("auto-"))?;
            words.next().filter(|state| *state == "taken").map(|_| name.to_owned())
        };
        found = pick(&listed.lines().filter_map(named).collect::<Vec<_>>());
        Ok(found.is_some())
    })?;
    Ok(found.unwrap_or_default())
}

/// The line of `snapshot ls` about one of them.
fn row(rig: &Rig, name: &str) -> Result<Option<String>, LabError> {
    let listed = done(rig, &["snapshot", "ls", "web"])?.out;
    let is_it = |line: &&str| line.split_whitespace().nth(1) == Some(name);
    Ok(listed.lines().find(is_it).map(str::to_owned))
}

/// The nodes that have it, as listed.
fn holders(rig: &Rig, name: &str) -> Result<Vec<String>, LabError> {
    let row = row(rig, name)?.unwrap_or_default();
    let nodes: Vec<_> = rig.lab().record()?.nodes.into_iter().map(|n| n.name).collect();
    let words: Vec<_> = row.split([' ', ',']).collect();
    Ok(nodes.into_iter().filter(|node| words.contains(&node.as_str())).collect())
}

fn write(rig: &Rig, text: &str) -> Result<(), LabError> {
    exec(rig, "web", &format!("echo {text} > /data/mark")).map(drop)
}

fn mark(rig: &Rig, container: &str) -> Result<String, LabError> {
    exec(rig, container, "cat /data/mark")
}

fn exec(rig: &Rig, container: &str, script: &str) -> Result<String, LabError> {
    Ok(done(rig, &["exec", container, "--", "/bin/sh", "-c", script])?.out)
}

fn done(rig: &Rig, args: &[&str]) -> Result<Printed, LabError> {
    let printed = holdfast(rig.lab(), args)?;
    assert_eq!(printed.status, Some(0), "{args:?}: {printed:?}");
    Ok(printed)
}
