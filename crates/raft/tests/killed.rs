//! A process that is killed with SIGKILL while it acknowledges entries (I5).

mod support;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use holdfast_proto::Dialer;
use holdfast_raft::{Identity, RaftConfig, RaftNode};
use holdfast_types::{ClusterId, NodeId, RequestId};
use support::entry;

const DIR: &str = "HOLDFAST_TEST_DIR";
const CLUSTER: &str = "HOLDFAST_TEST_CLUSTER";
const WRITERS: usize = 8;
const ROUNDS: usize = 4;
const ACKED_PER_ROUND: usize = 150;

/// Not a test: what the child process does. It returns at once unless a parent set it up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_writes_until_it_is_killed() {
    let (Ok(dir), Ok(cluster)) = (std::env::var(DIR), std::env::var(CLUSTER)) else { return };
    let node = start(Path::new(&dir), cluster.parse().unwrap()).await;
    // Fails on all but the first start.
    drop(node.initialize("127.0.0.1:1").await);
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..WRITERS {
        let node = node.clone();
        writers.spawn(async move {
            loop {
                let request = RequestId::generate();
                drop(node.propose(entry(request)).await.unwrap());
                println!("acked {request}");
            }
        });
    }
    writers.join_next().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_sigkill() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("raft");
    let cluster = ClusterId::generate();
    let mut acked: Vec<RequestId> = Vec::new();
    for round in 0..ROUNDS {
        let mut child = Guard(spawn(&dir, cluster));
        let lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
        let acks = lines.filter_map(|line| {
            line.unwrap()
                .split_once("acked ")
                .map(|(_, id)| id.trim().parse::<RequestId>().unwrap())
        });
        acked.extend(acks.take(ACKED_PER_ROUND));
        drop(child);
        assert_eq!(acked.len(), (round + 1) * ACKED_PER_ROUND, "the child ended too soon");

        let node = start(&dir, cluster).await;
        let reign = |l: &holdfast_raft::Leadership| l.reign.is_some_and(|r| r.ready);
        let mut leadership = node.leadership();
        tokio::time::timeout(support::PATIENCE, leadership.wait_for(reign)).await.unwrap().unwrap();
        let state = node.state();
        let lost = acked.iter().filter(|r| !state.answered.contains_key(r)).count();
        assert_eq!(lost, 0, "round {round}");
        node.shutdown().await.unwrap();
    }
}

/// SIGKILL, whatever becomes of the test.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn spawn(dir: &Path, cluster: ClusterId) -> Child {
    Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "child_that_writes_until_it_is_killed", "--nocapture"])
        .env(DIR, dir)
        .env(CLUSTER, cluster.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a child")
}

async fn start(dir: &Path, cluster: ClusterId) -> RaftNode {
    let mut config =
        RaftConfig::new(dir, Identity { cluster, node: NodeId(1) }, Dialer::plaintext());
    // Snapshots and purges happen while it is killed.
    config.snapshot_every = 100;
    config.keep_entries = 50;
    RaftNode::start(config).await.expect("start")
}
