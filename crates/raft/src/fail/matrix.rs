//! Every point, killed and failed: what was acknowledged is there, nothing is made up, and the
//! node goes on (I1, I5, I27).
//!
//! ```text
//! parent ── plan ──► child: takes the script's steps, says "acked n" after each
//!                      │ SIGKILL at the point, or an error of the disk, once
//! parent ◄─ acked ─────┘ opens the files and compares with the script
//! ```

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use holdfast_types::{ClusterId, Code};
use openraft::storage::{RaftLogReader, RaftLogStorage};
use rustix::process::{Resource, Rlimit, setrlimit};

use super::armed::{self, Fault, POINTS, Plan};
use super::script::{self, Follower, Model, STEPS};
use crate::config::Identity;
use crate::dir::{claim, log_dir, snapshot_file};
use crate::store::{Health, LogStore};
use crate::types::{LogEntry, LogId, Vote};

const DIR: &str = "HOLDFAST_TEST_DIR";
const CLUSTER: &str = "HOLDFAST_TEST_CLUSTER";
const PLAN: &str = "HOLDFAST_TEST_PLAN";
const MOST_BYTES: &str = "HOLDFAST_TEST_MOST_BYTES";
const CHILD: &str = "fail::matrix::child_that_follows_the_script";

/// What a child said, and how it ended.
#[derive(Debug)]
struct Told {
    acked: usize,
    /// The code of the first refusal, if there was one.
    refused: Option<String>,
    /// Steps that were acknowledged after it.
    acked_late: usize,
    passed: BTreeMap<String, u64>,
    status: ExitStatus,
}

/// Not a test: what the child process does. It returns at once unless a parent set it up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_follows_the_script() {
    let (Ok(dir), Ok(cluster)) = (std::env::var(DIR), std::env::var(CLUSTER)) else { return };
    let (dir, cluster) = (PathBuf::from(dir), cluster.parse().unwrap());
    let plan = std::env::var(PLAN).ok().map(|plan| {
        let mut words = plan.split(' ');
        let mut word = || words.next().unwrap();
        let (fault, nth, point) = (word(), word(), word());
        let (fault, nth) = (Fault::named(fault).unwrap(), nth.parse().unwrap());
        Plan { point: point.to_owned(), nth, fault }
    });
    let received = script::donated(&dir, cluster).await;
    armed::arm(plan);
    if let Ok(most) = std::env::var(MOST_BYTES) {
        let most = Some(most.parse().unwrap());
        setrlimit(Resource::Fsize, Rlimit { current: most, maximum: most }).unwrap();
    }
    println!("\nbegun");
    let node = match script::start(&dir.join("raft"), cluster).await {
        Ok(node) => node,
        Err(error) => return println!("refused {}", error.code()),
    };
    let follower = Follower { node, received };
    for (n, step) in STEPS.iter().enumerate() {
        match follower.take(*step).await {
            Ok(()) => println!("acked {}", n + 1),
            Err(error) => {
                println!("refused {}", error.code());
                let first = follower.node.failed().await;
                assert_eq!(first, follower.node.check().unwrap_err());
            }
        }
    }
    for (point, times) in armed::passed() {
        println!("passed {times} {point}");
    }
    drop(follower.node.shutdown().await);
}

fn run(dir: &Path, cluster: ClusterId, plan: Option<&Plan>) -> Told {
    let mut command = Command::new(std::env::current_exe().unwrap());
    if let Some(Plan { point, nth, fault }) = plan {
        command.env(PLAN, format!("{} {nth} {point}", fault.name()));
    }
    listen(command, dir, cluster)
}

/// Starts the child, by its program or something that turns into it, and hears it out.
fn listen(mut command: Command, dir: &Path, cluster: ClusterId) -> Told {
    command.args(["--exact", CHILD, "--nocapture", "--test-threads=1"]);
    command.env(DIR, dir).env(CLUSTER, cluster.to_string());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (mut acked, mut refused, mut acked_late, mut passed) = (0, None, 0, BTreeMap::new());
    for line in lines.map_while(Result::ok) {
        if let Some(n) = line.strip_prefix("acked ") {
            match refused {
                None => acked = n.parse().unwrap(),
                Some(_) => acked_late += 1,
            }
        } else if let Some(code) = line.strip_prefix("refused ") {
            refused.get_or_insert_with(|| code.to_owned());
        } else if let Some((times, point)) =
            line.strip_prefix("passed ").and_then(|rest| rest.split_once(' '))
        {
            passed.insert(point.to_owned(), times.parse().unwrap());
        }
    }
    let status = child.wait().unwrap();
    Told { acked, refused, acked_late, passed, status }
}

/// How often each point is passed when nothing goes wrong.
fn undisturbed() -> BTreeMap<String, u64> {
    let dir = tempfile::tempdir().unwrap();
    let told = run(dir.path(), ClusterId::generate(), None);
    assert!(told.status.success() && told.acked == STEPS.len(), "{told:?}");
    told.passed
}

/// Which passings of a point are tried.
#[derive(Clone, Copy)]
enum Which {
    Every,
    Ends,
    FirstMiddleLast,
    Middle,
}

impl Which {
    fn of(self, times: u64) -> Vec<u64> {
        let middle = times.div_ceil(2);
        let mut some = match self {
            Self::Every => (1..=times).collect(),
            Self::Ends => vec![1, times],
            Self::FirstMiddleLast => vec![1, middle, times],
            Self::Middle => vec![middle],
        };
        some.dedup();
        some
    }
}

async fn disturb(fault: Fault, which: Which, groups: &[&str]) {
    let times = undisturbed();
    let points = POINTS.iter().filter(|point| groups.iter().any(|g| point.starts_with(g)));
    let mut runs = 0;
    for point in points {
        let times = *times.get(*point).unwrap_or_else(|| panic!("{point} is never passed"));
        for nth in which.of(times) {
            let plan = Plan { point: (*point).to_owned(), nth, fault };
            disturbed(&plan).await;
            runs += 1;
        }
    }
    assert!(runs > 0);
    println!("{runs} runs of {}", fault.name());
}

async fn disturbed(plan: &Plan) {
    let dir = tempfile::tempdir().unwrap();
    let cluster = ClusterId::generate();
    let told = run(dir.path(), cluster, Some(plan));
    if plan.fault == Fault::Kill {
        assert_eq!(told.status.signal(), Some(9), "{plan:?} did not kill: {told:?}");
    } else {
        assert!(told.status.success(), "{plan:?}: {told:?}");
        assert_eq!(told.refused.as_deref(), Some(Code::DiskIo.as_str()), "{plan:?}: {told:?}");
        assert_eq!(told.acked_late, 0, "trusted again: {plan:?}: {told:?}");
    }
    let case = format!("{plan:?} after {} steps", told.acked);
    let found = inspect(&dir.path().join("raft"), cluster, told.acked, &case).await;
    goes_on(&dir.path().join("raft"), cluster, found, &case).await;
}

/// The vote's term, and the last id that is in the log or its snapshot.
struct Found {
    term: u64,
    last: Option<LogId>,
}

/// Opens the files as a start does and compares them with the script after `acked` steps. What the
/// next step would do may be there in part, nothing else.
async fn inspect(dir: &Path, cluster: ClusterId, acked: usize, case: &str) -> Found {
    let (sure, next) = (Model::after(acked), Model::after(acked + 1));
    // As every start does first.
    let whose = Identity { cluster, node: script::NODE };
    claim(dir, whose).unwrap_or_else(|e| panic!("{case}: {e}"));
    let snapshot = script::open_snapshot(&snapshot_file(dir), cluster);
    let snapshot = snapshot.unwrap_or_else(|e| panic!("{case}: {e}"));
    let covered = snapshot.as_ref().map(|(last, _)| last.index);
    if let Some((last, state)) = &snapshot {
        assert_eq!(next.log.get(&last.index), Some(&*last.leader_id), "{case}: snapshot");
        let entries = next.log.range(1..=last.index);
        assert!(entries.clone().count() == state.answered.len(), "{case}: the snapshot's state");
        for (index, term) in entries {
            let there = state.answered.contains_key(&script::request(*term, *index));
            assert!(there, "{case}: entry {index} is not in the snapshot");
        }
    }

    let store = LogStore::open(&log_dir(dir), Health::new());
    let mut store = store.unwrap_or_else(|e| panic!("{case}: {e}"));
    let heads = store.get_log_state().await.unwrap();
    let mut reader = store.get_log_reader().await;
    let vote: Option<Vote> = reader.read_vote().await.unwrap();
    let log: BTreeMap<u64, LogEntry> = reader
        .try_get_log_entries(..)
        .await
        .unwrap()
        .into_iter()
        .map(|entry| (entry.log_id.index, entry))
        .collect();
    drop(reader);
    close(store).await;

    let vote = vote.map_or((0, 0), |vote| (vote.leader_id.term, vote.leader_id.voted_for));
    assert!([sure.vote, next.vote].contains(&vote), "{case}: the vote is {vote:?}");
    let purged = heads.last_purged_log_id.map(|id| id.index);
    assert!(purged <= covered, "{case}: purged {purged:?}, snapshot {covered:?}");
    for (index, entry) in &log {
        let term = *entry.log_id.leader_id;
        let known = [&sure, &next].iter().any(|model| model.log.get(index) == Some(&term));
        assert!(known, "{case}: entry {index} of term {term} was never sent");
        let same = entry.payload == script::entry(term, *index).payload;
        assert!(same, "{case}: entry {index} has other content");
    }
    let lasting = sure.log.iter().filter(|(index, term)| next.log.get(index) == Some(term));
    for (index, term) in lasting {
        let there = log.get(index).is_some_and(|entry| *entry.log_id.leader_id == *term);
        assert!(there || Some(*index) <= covered, "{case}: entry {index} is lost");
    }
    let last = heads.last_log_id.max(snapshot.map(|(last, _)| last));
    Found { term: vote.0, last }
}

/// The node starts on these files, and a later leader's entry follows the last one.
async fn goes_on(dir: &Path, cluster: ClusterId, found: Found, case: &str) {
    let node = script::start(dir, cluster).await.unwrap_or_else(|e| panic!("{case}: {e}"));
    let term = found.term + 4;
    let index = found.last.map_or(0, |last| last.index + 1);
    let next = vec![script::entry(term, index)];
    let commit = Some(script::id(term, index));
    let answer = script::append(&node, term, found.last, next, commit).await.unwrap();
    assert!(answer.is_success(), "{case}: {answer:?}");
    let applied = node.wait_applied(index, std::time::Duration::from_secs(10)).await;
    let state = applied.unwrap_or_else(|e| panic!("{case}: {e}")).state;
    assert_eq!(state.answered.len() as u64, index, "{case}");
    node.shutdown().await.unwrap();
}

async fn close(store: LogStore) {
    let mut closed = store.closed();
    drop(store);
    closed.wait_for(|closed| *closed).await.unwrap();
}

/// A point that no step reaches would be tested by nothing.
#[test]
fn every_point_is_reached() {
    let times = undisturbed();
    let missed: Vec<_> = POINTS.iter().filter(|point| !times.contains_key(**point)).collect();
    assert!(missed.is_empty(), "never passed: {missed:?}");
}

const STARTING: &[&str] = &["identity.", "log.tail.", "open."];
const APPENDING: &[&str] = &["append.", "tail."];
const FLUSHING: &[&str] = &["flush."];
const CHANGING: &[&str] = &["vote.", "truncate.", "purge."];
const SNAPSHOTS: &[&str] = &["snapshot.", "install."];
const ALL: [&[&str]; 5] = [STARTING, APPENDING, FLUSHING, CHANGING, SNAPSHOTS];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_it_starts_for_the_first_time() {
    disturb(Fault::Kill, Which::Every, STARTING).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_it_appends() {
    disturb(Fault::Kill, Which::Every, APPENDING).await;
}

/// Every flush: those of a truncation have to be ordered as well as any.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_every_flush() {
    disturb(Fault::Kill, Which::Every, FLUSHING).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_it_votes_truncates_and_purges() {
    disturb(Fault::Kill, Which::Every, CHANGING).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_it_makes_and_installs_snapshots() {
    disturb(Fault::Kill, Which::FirstMiddleLast, SNAPSHOTS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fails_at_any_point_is_not_trusted_again() {
    for groups in ALL {
        disturb(Fault::Io, Which::Ends, groups).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_full_at_any_point_loses_nothing() {
    for groups in ALL {
        disturb(Fault::Full, Which::Middle, groups).await;
    }
}

/// A snapshot that there is no room for is none, and the voter goes on with its log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_without_room_for_a_snapshot_keeps_its_voter() {
    let made = undisturbed()["snapshot.created"];
    for point in ["snapshot.created", "snapshot.written", "snapshot.synced"] {
        let plan = Plan { point: point.to_owned(), nth: 1, fault: Fault::Full };
        let dir = tempfile::tempdir().unwrap();
        let cluster = ClusterId::generate();
        let told = run(dir.path(), cluster, Some(&plan));
        let case = format!("{plan:?}: {told:?}");
        assert!(told.status.success() && told.refused.is_none(), "{case}");
        assert_eq!(told.acked, STEPS.len(), "{case}");
        assert!(told.passed["snapshot.created"] > made, "it was tried once more: {case}");
        let raft = dir.path().join("raft");
        let found = inspect(&raft, cluster, told.acked, &case).await;
        goes_on(&raft, cluster, found, &case).await;
    }
}

/// Not a point but the kernel refuses: no file may grow beyond a limit, as on a full disk, wherever
/// sled or we happen to be writing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_takes_no_more_is_not_trusted_and_loses_nothing() {
    let mut reached = std::collections::BTreeSet::new();
    for kib in [1u64, 8, 96, 192, 320] {
        let dir = tempfile::tempdir().unwrap();
        let cluster = ClusterId::generate();
        // The signal that comes with the error would end the process.
        let mut command = Command::new("sh");
        command
            .args(["-c", r#"trap "" XFSZ; exec "$0" "$@""#])
            .arg(std::env::current_exe().unwrap());
        command.env(MOST_BYTES, (kib << 10).to_string());
        let told = listen(command, dir.path(), cluster);
        let case = format!("files of {kib} KiB: {told:?}");
        assert!(told.status.success(), "{case}");
        assert_eq!(told.refused.as_deref(), Some(Code::DiskIo.as_str()), "{case}");
        assert_eq!(told.acked_late, 0, "trusted again: {case}");
        reached.insert(told.acked);
        let raft = dir.path().join("raft");
        let found = inspect(&raft, cluster, told.acked, &case).await;
        goes_on(&raft, cluster, found, &case).await;
    }
    assert!(reached.len() > 1, "all ended at the same step: {reached:?}");
}

/// All of the points are in one of the groups.
#[test]
fn no_point_is_left_out() {
    let groups = ALL.concat();
    let left: Vec<_> =
        POINTS.iter().filter(|point| !groups.iter().any(|g| point.starts_with(g))).collect();
    assert!(left.is_empty(), "{left:?}");
}
