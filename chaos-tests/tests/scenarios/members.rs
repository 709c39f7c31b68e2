//! Voters come and go.

use std::path::Path;
use std::time::{Duration, Instant};

use holdfast_chaos_tests::client::holdfast;
use holdfast_lab::{Cluster, LabError, Part, Programs, Purpose, ScopedLab, UpOptions};

/// A minute until a lost voter is replaced, and what a loaded machine needs besides.
const REPLACED_WITHIN: Duration = Duration::from_secs(150);
const SETTLED_WITHIN: Duration = Duration::from_secs(60);
/// Several elections' time.
const UNDISTURBED_FOR: Duration = Duration::from_secs(10);

/// I1, and the membership that runs itself: of six nodes that leave it to the cluster five vote. One
/// loses its power: the sixth votes in its place, and it comes back without a vote. Another is
/// removed while it is cut off: when it is back, it ends, and nobody is deposed.
#[test]
fn a_lost_voter_is_replaced_and_a_removed_one_does_not_disturb() -> Result<(), LabError> {
    let options = UpOptions {
        voters: 5,
        workers: 1,
        purpose: Purpose::Rehearsal,
        replace: true,
        ..UpOptions::new("t-members", Programs::find()?)
    };
    let lab = ScopedLab::up(&options)?;
    form(&lab)?;
    let leader = Cluster::at(&lab, "n1")?.ask(async |s| s.status().await)?.leader;
    // Whom nothing happens to.
    let cluster = Cluster::at(&lab, &leader)?;
    let mut others = ["n1", "n2", "n3", "n4", "n5"].into_iter().filter(|n| *n != leader);
    let (lost, removed) = (others.next().unwrap_or_default(), others.next().unwrap_or_default());

    lab.kill(lost)?;
    settle(&cluster, REPLACED_WITHIN, |voters| {
        voters.len() == 5 && voters.contains(&"n6") && !voters.contains(&lost)
    })?;
    let events = at(&lab, &leader, &["events"])?;
    assert!(events.contains(&format!("node {lost} is now a standby: {lost} was")), "{events}");
    lab.power_on(lost)?;
    cluster.wait_for("the return of the lost one", SETTLED_WITHIN, async |s| {
        let nodes = s.status().await?.nodes;
        Ok(nodes.iter().all(|n| n.last_seen_ms.is_some_and(|ms| ms < 3_000)).then_some(()))
    })?;
    settle(&cluster, SETTLED_WITHIN, |voters| voters.len() == 5 && !voters.contains(&lost))?;

    lab.cut(removed)?;
    let done = at(&lab, &leader, &["node", "rm", removed])?;
    // At once, if it has the log again by now.
    assert!(done.starts_with(&format!("node {removed}: removed")), "{done}");
    settle(&cluster, SETTLED_WITHIN, |voters| voters.len() == 5 && voters.contains(&lost))?;
    let before = cluster.ask(async |s| s.status().await)?;
    lab.heal(removed)?;
    let until = Instant::now() + UNDISTURBED_FOR;
    while Instant::now() < until {
        let now = cluster.ask(async |s| s.status().await)?;
        assert_eq!((now.term, &now.leader), (before.term, &before.leader), "it disturbs");
        std::thread::sleep(Duration::from_millis(200));
    }
    let its_own = Cluster::at(&lab, removed)?;
    let answer = its_own.ask(async |s| s.nodes().await);
    assert!(answer.is_err(), "it still answers: {answer:?}");
    let log = lab.layout().node_dir(removed).join(format!("{}.log", Part::Daemon.unit()));
    let log = std::fs::read_to_string(&log).unwrap_or_default();
    assert!(log.contains("HF-NODE-REMOVED"), "{log}");
    Ok(())
}

/// The first node founds the cluster, the others join and leave their part to it.
fn form(lab: &ScopedLab) -> Result<(), LabError> {
    let nodes = lab.record()?.nodes;
    let peer = format!("{}:7443", nodes[0].address);
    at(lab, &nodes[0].name, &["cluster", "init"])?;
    for node in &nodes[1..] {
        let token = at(lab, &nodes[0].name, &["node", "token"])?;
        let file = lab.layout().node_dir(&node.name).join("token");
        std::fs::write(&file, token).map_err(|source| unwritten(&file, source))?;
        let file = file.display().to_string();
        at(lab, &node.name, &["node", "join", "--peer", &peer, "--token-file", &file])?;
    }
    let cluster = Cluster::at(lab, "n1")?;
    settle(&cluster, SETTLED_WITHIN, |voters| voters == ["n1", "n2", "n3", "n4", "n5"])
}

fn unwritten(path: &Path, source: std::io::Error) -> LabError {
    LabError::Io { what: "cannot write", path: path.to_owned(), source }
}

/// Asks this node, and returns what it said.
///
/// # Panics
/// If it refused.
fn at(lab: &ScopedLab, node: &str, what: &[&str]) -> Result<String, LabError> {
    let socket = format!("unix:{}", lab.layout().socket(node).display());
    let line = [&["--address", &socket, "--timeout", "30s"], what].concat();
    let done = holdfast(lab, &line)?;
    assert_eq!(done.status, Some(0), "{node}: {done:?}");
    Ok(done.out)
}

/// Waits until those vote that should, in Raft as well.
fn settle(
    cluster: &Cluster,
    limit: Duration,
    right: impl Fn(&[&str]) -> bool,
) -> Result<(), LabError> {
    cluster.wait_for("the voters", limit, async |s| {
        let nodes = s.status().await?.nodes;
        let votes = nodes.iter().filter(|n| n.role().as_str_name() == "NODE_ROLE_VOTER");
        let voters: Vec<_> = votes.filter(|n| n.note.is_empty()).map(|n| n.name.as_str()).collect();
        Ok(right(&voters).then_some(()))
    })
}
