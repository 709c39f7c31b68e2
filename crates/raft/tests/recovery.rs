//! A lost majority is given up, and returns (I8, I10, I11, I12).

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use holdfast_core::{AdmitNode, Command, Outcome, RegisterNode, RestoredFrom};
use holdfast_proto::Dialer;
use holdfast_raft::{RaftConfig, RaftError, RaftNode, Recovery, Restoring, recover, survey};
use holdfast_types::{ClusterId, Code, Epoch, NodeId, RequestId, TimestampMs};
use support::{Cluster, commit, new_node, wait};
use tokio::time::timeout;

fn plain(_: &mut RaftConfig) {}

/// Three voters, and some acknowledged writes.
async fn three() -> (Cluster, Vec<RequestId>) {
    let cluster = Cluster::admitted(3, plain).await;
    let leader = cluster.machines[0].node();
    commit(leader, Command::RegisterNode(RegisterNode { node: NodeId(1) })).await;
    let acked = cluster.write(&[0, 1, 2], 5).await;
    cluster.all_have(&[0, 1, 2], &acked).await;
    (cluster, acked)
}

fn person() -> Recovery {
    Recovery { by: "a test".into(), at: TimestampMs(9) }
}

fn dir(cluster: &Cluster, at: usize) -> std::path::PathBuf {
    cluster.machines[at].dir.path().join("raft")
}

/// Node 1's log becomes the cluster's.
async fn recover_first(cluster: &Cluster) -> u64 {
    let dir = dir(cluster, 0);
    let seen = survey(&dir).await.unwrap();
    assert_eq!(seen.voters.len(), 3);
    assert!(seen.committed <= seen.log_end && seen.last_entry.is_some());
    let end = seen.log_end;
    let done = recover(&dir, seen, person()).await.unwrap();
    assert_eq!(done.generation, 1);
    assert!(done.kept.join("log").exists());
    end
}

async fn stop_all(cluster: &mut Cluster) {
    for at in 0..3 {
        cluster.machines[at].stop().await;
    }
}

/// The survivor goes on alone with everything that it had; every number is above what others may
/// have given out; the evidence is in the state.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_survivor_goes_on_with_all_that_it_had() {
    let (mut cluster, acked) = three().await;
    let before = cluster.machines[0].node().applied();
    stop_all(&mut cluster).await;
    let end = recover_first(&cluster).await;
    cluster.boot(0).await.unwrap();
    assert_eq!(cluster.leader(&[0]).await, 0);
    let node = cluster.machines[0].node();
    assert_eq!(node.generation(), 1);
    let applied = node.applied();
    assert!(applied.index > end + 1_000_000_000 && applied.term > before.term + 1_000);
    let state = &applied.state;
    assert!(acked.iter().all(|request| state.answered.contains_key(request)));
    assert_eq!(state.lineage.generation, 1);
    let event = state.events.iter().find(|e| e.kind == "cluster-recovered").unwrap();
    assert_eq!(event.fields["log_end"], end.to_string());
    let more = cluster.write(&[0], 3).await;
    cluster.machines[0].stop().await;
    cluster.boot(0).await.unwrap();
    cluster.leader(&[0]).await;
    cluster.all_have(&[0], &more).await;
    let again = {
        cluster.machines[0].stop().await;
        survey(&dir(&cluster, 0)).await.unwrap()
    };
    let refused = recover(&dir(&cluster, 0), again, person()).await.unwrap_err();
    assert_eq!(refused.code(), Code::WrongState, "it is the only voter already");
}

/// I12: the dead voters return to where anybody knows better, and never even vote.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_majority_that_returns_takes_no_part() {
    let (mut cluster, _) = three().await;
    stop_all(&mut cluster).await;
    recover_first(&cluster).await;
    cluster.boot(0).await.unwrap();
    cluster.leader(&[0]).await;
    for at in [1, 2] {
        assert_eq!(cluster.boot(at).await.unwrap_err(), RaftError::Superseded);
        assert!(RaftNode::is_superseded(&dir(&cluster, at)));
    }
    // Nobody who knows better is there any more: it stays so.
    cluster.machines[0].stop().await;
    for at in [1, 2] {
        assert_eq!(cluster.boot(at).await.unwrap_err(), RaftError::Superseded);
    }
    cluster.boot(0).await.unwrap();
    cluster.write(&[0], 3).await;
}

/// I11, I12: two that could reach only each other are undone by the first contact, and disturb nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_majority_that_came_back_unseen_ends_with_the_first_contact() {
    let (mut cluster, _) = three().await;
    stop_all(&mut cluster).await;
    for at in [1, 2] {
        cluster.boot(at).await.unwrap();
    }
    let wrong = cluster.write(&[1, 2], 3).await;
    recover_first(&cluster).await;
    cluster.boot(0).await.unwrap();
    cluster.leader(&[0]).await;
    let term = cluster.machines[0].node().leadership_now().term;
    for at in [1, 2] {
        let node = cluster.machines[at].node();
        let ended = timeout(Duration::from_secs(20), node.failed()).await.unwrap();
        assert_eq!(ended, RaftError::Superseded, "node {}", at + 1);
        assert!(node.read_index().await.is_err());
        assert!(RaftNode::is_superseded(&dir(&cluster, at)));
    }
    let node = cluster.machines[0].node();
    assert_eq!(node.leadership_now().term, term, "the survivor was disturbed");
    assert!(wrong.iter().all(|request| !node.state().answered.contains_key(request)));
    cluster.write(&[0], 3).await;
}

/// A crash between any two steps: what is not whole is made anew, what is goes on, and until then
/// the node does not start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recovery_that_was_cut_short_is_finished_by_running_it_again() {
    let (mut cluster, acked) = three().await;
    stop_all(&mut cluster).await;
    let dir = dir(&cluster, 0);
    let beside = |what: &str| dir.with_extension(what);
    // While the new log was being made.
    std::fs::create_dir_all(beside("building").join("log")).unwrap();
    std::fs::write(beside("building").join("identity"), "half").unwrap();
    cluster.boot(0).await.unwrap();
    cluster.machines[0].stop().await;
    recover_first(&cluster).await;
    let kept = beside("before-recovery-1");
    // Before the first rename, and between the two.
    for both in [true, false] {
        std::fs::rename(&dir, beside("recovered")).unwrap();
        if both {
            std::fs::rename(&kept, &dir).unwrap();
        }
        let refused = cluster.boot(0).await.unwrap_err();
        assert_eq!(refused.code(), Code::RecoveryUnfinished, "{refused}");
        let seen = survey(&dir).await.unwrap();
        assert!(seen.unfinished);
        let done = recover(&dir, seen, person()).await.unwrap();
        assert_eq!((done.generation, &done.kept), (1, &kept));
        assert!(kept.exists() && !beside("recovered").exists());
    }
    cluster.boot(0).await.unwrap();
    cluster.leader(&[0]).await;
    cluster.all_have(&[0], &acked).await;
}

/// A backup of the machine that was put back brings the evidence of an earlier recovery: that is no
/// reason to stop halfway.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recovery_keeps_what_an_earlier_one_kept() {
    let (mut cluster, acked) = three().await;
    stop_all(&mut cluster).await;
    let dir = dir(&cluster, 0);
    let earlier = dir.with_extension("before-recovery-1");
    std::fs::create_dir(&earlier).unwrap();
    std::fs::write(earlier.join("evidence"), "kept").unwrap();
    let done = recover(&dir, survey(&dir).await.unwrap(), person()).await.unwrap();
    assert_eq!(done.kept, dir.with_extension("before-recovery-1-2"));
    assert!(done.kept.join("log").exists() && earlier.join("evidence").exists());
    // Between the two renames it crashed, and is told the same.
    std::fs::rename(&dir, dir.with_extension("recovered")).unwrap();
    let again = recover(&dir, survey(&dir).await.unwrap(), person()).await.unwrap();
    assert_eq!(again.kept, done.kept);
    cluster.boot(0).await.unwrap();
    cluster.leader(&[0]).await;
    cluster.all_have(&[0], &acked).await;
}

/// A node that joins after a recovery is of its generation from the first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_joins_after_a_recovery_is_of_its_generation() {
    let (mut cluster, _) = three().await;
    stop_all(&mut cluster).await;
    recover_first(&cluster).await;
    cluster.boot(0).await.unwrap();
    cluster.leader(&[0]).await;
    cluster.tune = |config| config.generation = 1;
    let first = cluster.machines[0].node().clone();
    let admit = AdmitNode { node: new_node("n4", "127.0.0.1:4") };
    let Outcome::Node(joined) = commit(&first, Command::AdmitNode(admit)).await else {
        panic!("no node")
    };
    cluster.add_machine_as(joined).await;
    let addr = cluster.machines[3].addr.clone();
    first.add_learner(joined, &addr).await.unwrap();
    first.change_voters([NodeId(1), joined].into()).await.unwrap();
    let acked = cluster.write(&[0, 3], 3).await;
    cluster.all_have(&[0, 3], &acked).await;
    // Its directory knows from now on.
    cluster.tune = plain;
    cluster.machines[3].stop().await;
    cluster.boot(3).await.unwrap();
    wait(async || (cluster.machines[3].node().generation() == 1).then_some(())).await;
    cluster.leader(&[0, 3]).await;
}

/// A backup's state is where a new cluster begins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_s_state_is_where_a_new_cluster_begins() {
    let (mut cluster, acked) = three().await;
    let leader = cluster.machines[0].node().clone();
    let admit = AdmitNode { node: new_node("n4", "127.0.0.1:4") };
    commit(&leader, Command::AdmitNode(admit)).await;
    let applied = leader.applied();
    stop_all(&mut cluster).await;

    let fresh = tempfile::tempdir().unwrap();
    let dir = fresh.path().join("raft");
    let asked = Restoring {
        cluster: ClusterId::generate(),
        founder: new_node("n1", "127.0.0.1:1"),
        from: RestoredFrom {
            cluster: cluster.cluster,
            index: applied.index,
            taken: TimestampMs(1),
        },
        term: applied.term,
        at: TimestampMs(2),
    };
    let identity = holdfast_raft::restore(&dir, asked.clone(), (*applied.state).clone()).await;
    let identity = identity.unwrap();
    assert_eq!((identity.cluster, identity.node), (asked.cluster, NodeId(1)));
    let again = holdfast_raft::restore(&dir, asked, (*applied.state).clone()).await.unwrap_err();
    assert_eq!(again.code(), Code::WrongState);

    let node = RaftNode::start(RaftConfig::new(&dir, identity, Dialer::plaintext())).await.unwrap();
    let mut leadership = node.leadership();
    let ready = leadership.wait_for(|l| l.reign.is_some_and(|r| r.ready));
    timeout(Duration::from_secs(10), ready).await.unwrap().unwrap();
    let state = node.state();
    assert!(acked.iter().all(|request| state.answered.contains_key(request)));
    assert_eq!(state.lineage.absent.len(), 3, "n2, n3 and n4");
    assert!(state.containers.values().all(|c| c.epoch() > Epoch(1_000_000)));
    node.shutdown().await.unwrap();
}
