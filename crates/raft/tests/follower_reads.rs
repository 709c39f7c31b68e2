//! I6 on nodes that do not lead: they read through the leader, from their own state.

mod support;

use std::time::Duration;

use holdfast_raft::{Applied, RaftConfig, RaftError, RaftNode};
use holdfast_types::{Code, RequestId};
use support::{Cluster, PATIENCE, entry, wait};
use tokio::time::{sleep, timeout};

fn plain(_: &mut RaftConfig) {}

const ALL: [usize; 3] = [0, 1, 2];
const LIMIT: Duration = Duration::from_secs(4);

fn others(at: usize) -> Vec<usize> {
    ALL.into_iter().filter(|i| *i != at).collect()
}

/// Reads until it is answered.
async fn read(node: &RaftNode) -> Applied {
    let tries = async {
        loop {
            match node.read(LIMIT).await {
                Ok(read) => return read,
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        }
    };
    timeout(PATIENCE, tries).await.expect("nobody answered in time")
}

/// Everything that was acknowledged before the call is in what a follower reads, however many ask at a
/// time; and no read has an entry of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_reads_what_was_acknowledged_before_it_was_asked() {
    let cluster = Cluster::of(3, plain).await;
    let leader = cluster.leader(&ALL).await;
    let nodes: Vec<RaftNode> = ALL.iter().map(|at| cluster.machines[*at].node().clone()).collect();
    let one_reads = |number: usize| {
        let (writer, reader) = (nodes[leader].clone(), nodes[number % 3].clone());
        tokio::spawn(async move {
            for _ in 0..20 {
                let request = RequestId::generate();
                drop(writer.propose(entry(request)).await.unwrap());
                let seen = read(&reader).await;
                assert!(seen.state.answered.contains_key(&request), "at {}", reader.id());
            }
        })
    };
    let readers: Vec<_> = (0..30).map(one_reads).collect();
    for reader in readers {
        reader.await.unwrap();
    }
    let before = nodes[leader].metrics().last_log;
    for node in &nodes {
        let seen = read(node).await;
        assert_eq!(seen.index, before, "a read went through the log");
    }
}

/// I12: a follower that is cut off reads nothing, says how old what it has may be, and goes on when it
/// is back, through the leader of then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_is_cut_off_reads_nothing_and_knows_its_age() {
    let cluster = Cluster::of(3, plain).await;
    let leader = cluster.leader(&ALL).await;
    let lone = others(leader)[0];
    let node = cluster.machines[lone].node();
    drop(read(node).await);
    let young = node.age().unwrap();
    cluster.cut(&[lone]);
    let rest = others(lone);
    let acked = cluster.write(&rest, 3).await;
    let error = node.read(LIMIT).await.unwrap_err();
    assert!([Code::NoQuorum, Code::NotLeader].contains(&error.code()), "{error}");
    let state = node.state();
    assert!(!acked.iter().any(|request| state.answered.contains_key(request)));
    wait(async || (node.age().unwrap() > young + Duration::from_secs(1)).then_some(())).await;

    cluster.cut(&[]);
    let seen = read(node).await;
    assert!(acked.iter().all(|request| seen.state.answered.contains_key(request)));
    // Without anybody reading it stays young by itself.
    wait(async || (node.age().unwrap() < Duration::from_secs(1)).then_some(())).await;
}

/// I6 through a change of leader: a deposed one answers no question of a follower's either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_go_on_with_the_next_leader() {
    let mut cluster = Cluster::of(3, plain).await;
    let old = cluster.leader(&ALL).await;
    let rest = others(old);
    let reader = cluster.machines[rest[0]].node().clone();
    drop(read(&reader).await);
    cluster.machines[old].stop().await;
    let acked = cluster.write(&rest, 5).await;
    for at in &rest {
        let node = cluster.machines[*at].node();
        let seen = read(node).await;
        assert!(acked.iter().all(|request| seen.state.answered.contains_key(request)));
    }
    for at in rest {
        cluster.machines[at].stop().await;
    }
    assert_eq!(reader.read(LIMIT).await.unwrap_err(), RaftError::Stopped);
}
