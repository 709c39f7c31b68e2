//! Nodes that come, go, and come back as somebody else.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic")]

mod support;

use std::time::Duration;

use holdfast_proto::v1;
use holdfast_proto::v1::NodeRole::{Standby, Unspecified, Voter, Witness, Worker};
use holdfast_types::Code;
use support::{Node, all_up, three, wait};

const LIMIT: Duration = Duration::from_secs(30);

async fn roles(node: &Node) -> Vec<(String, v1::NodeRole)> {
    node.status().await.nodes.iter().map(|n| (n.name.clone(), n.role())).collect()
}

/// Waits until everybody who is to vote does.
async fn settled(node: &Node, names: &[&str]) {
    wait("the voters", LIMIT, async || {
        let status = node.status().await;
        let votes = |n: &&v1::Node| matches!(n.role(), Voter | Witness) && n.note.is_empty();
        let voters: Vec<_> = status.nodes.iter().filter(votes).map(|n| n.name.as_str()).collect();
        (!status.leader.is_empty() && voters == names).then_some(())
    })
    .await;
}

/// A standby takes the vote of a node that is removed; that node's daemon ends, for good, and the
/// machine comes back as another node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_node_hears_of_it_and_its_vote_goes_to_a_standby() {
    let [n1, n2, mut n3] = three().await;
    let n4 = Node::fresh("n4").await;
    n4.join(&n1, Unspecified).await.unwrap();
    all_up(&n1, 4).await;
    assert_eq!(roles(&n1).await[3], ("n4".to_owned(), Standby));
    settled(&n1, &["n1", "n2", "n3"]).await;
    let old = n1.status().await.nodes[2].id;

    assert_eq!(n2.remove("n3", false).await.unwrap(), "n4");
    settled(&n1, &["n1", "n2", "n4"]).await;
    let error = n3.failed().await;
    assert_eq!(error.code(), Code::NodeRemoved, "{error}");
    assert!(error.to_string().contains("let it join anew"), "{error}");
    assert_eq!(n3.start().await.unwrap_err().code(), Code::NodeRemoved, "and not after a restart");
    assert_eq!(n1.remove("n3", false).await.unwrap_err().code, Code::NotFound);

    let anew = Node::fresh("n3").await;
    let joined = anew.join(&n1, Unspecified).await.unwrap();
    assert!(joined.node_id > old);
    assert_eq!(joined.role(), Standby);
    all_up(&n1, 4).await;
}

/// Its vote cannot leave Raft, since nobody who is to have it instead answers: the node goes on until
/// somebody does. One that ended with its vote left a cluster without a quorum behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_vote_cannot_be_taken_away_is_not_removed_yet() {
    let [n1, mut n2, n3] = three().await;
    let mut n4 = Node::fresh("n4").await;
    n4.join(&n1, Standby).await.unwrap();
    all_up(&n1, 4).await;
    settled(&n1, &["n1", "n2", "n3"]).await;
    n2.stop().await;
    wait("n2 to be missed", LIMIT, async || {
        let status = n1.status().await;
        status.warnings.iter().any(|w| w.starts_with("voter n2 does not answer")).then_some(())
    })
    .await;
    // For a moment it is still taken for one that answers.
    let codes = [Code::Timeout, Code::QuorumAtRisk, Code::NoQuorum];
    wait("its successor to be gone as the vote passes to it", 2 * LIMIT, async || {
        n4.stop().await;
        let error = n1.remove("n3", false).await.unwrap_err();
        assert!(codes.contains(&error.code), "{error}");
        // Its vote is on its way, and may have come so far that n4's answer is needed.
        let is_moving = error.message.contains("run the same command again");
        if is_moving || error.code != Code::QuorumAtRisk {
            return Some(());
        }
        n4.start().await.unwrap();
        wait("n4", LIMIT, async || {
            let nodes = n1.status().await.nodes;
            let there = |n: &v1::Node| n.name == "n4" && n.last_seen_ms.is_some_and(|ms| ms < 300);
            nodes.iter().any(there).then_some(())
        })
        .await;
        None
    })
    .await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(n3.strings.removed.borrow().is_empty(), "its vote is needed");
    assert!(n3.status().await.nodes.iter().any(|n| n.name == "n3"));

    n4.start().await.unwrap();
    wait("the same command", LIMIT, async || match n1.remove("n3", false).await {
        // What timed out before has come about since.
        Err(error) => (error.code == Code::NotFound).then_some(()),
        Ok(_) => Some(()),
    })
    .await;
    n2.start().await.unwrap();
    settled(&n1, &["n1", "n2", "n4"]).await;
}

/// It was removed while it was away: it neither gets a lease nor deposes the leader.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_removed_while_it_was_away_ends_when_it_comes_back() {
    let [n1, n2, mut n3] = three().await;
    settled(&n1, &["n1", "n2", "n3"]).await;
    n3.stop().await;
    n2.remove("n3", false).await.unwrap();
    settled(&n1, &["n1", "n2"]).await;
    // What is seen is up to half a second old.
    let before = wait("the warning of two voters", LIMIT, async || {
        let status = n1.status().await;
        status.warnings.iter().any(|line| line.starts_with("two voters")).then_some(status)
    })
    .await;
    n3.start().await.unwrap();
    assert_eq!(n3.failed().await.code(), Code::NodeRemoved);
    let after = n1.status().await;
    assert_eq!((after.term, after.leader), (before.term, before.leader));
    assert!(after.nodes.iter().all(|n| n.name != "n3"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_cost_the_quorum_is_refused_with_the_figures() {
    let [n1, mut n2, n3] = three().await;
    settled(&n1, &["n1", "n2", "n3"]).await;
    n2.stop().await;
    wait("n2 to be missed", LIMIT, async || {
        let status = n1.status().await;
        status.warnings.iter().any(|w| w.starts_with("voter n2 does not answer")).then_some(())
    })
    .await;
    let refused = n1.remove("n3", false).await.unwrap_err();
    assert_eq!(refused.code, Code::QuorumAtRisk);
    assert_eq!(
        refused.message,
        "without n3, 1 of 2 voters would answer, and 2 must; these do not: n2"
    );
    assert_eq!(n3.status().await.nodes.len(), 3, "nothing changed");
    n1.remove("n2", false).await.unwrap();
    settled(&n1, &["n1", "n3"]).await;
}

/// The leader hands over, and the next one removes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_can_be_removed() {
    let [mut n1, n2, n3] = three().await;
    settled(&n2, &["n1", "n2", "n3"]).await;
    assert_eq!(n2.status().await.leader, "n1");
    n3.remove("n1", false).await.unwrap();
    settled(&n2, &["n2", "n3"]).await;
    assert_eq!(n1.failed().await.code(), Code::NodeRemoved);
}

/// What a node had cast its votes with is gone with its disk: an empty machine of its name is not
/// that node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_machine_does_not_come_back_under_its_old_identity() {
    let [n1, _n2, mut n3] = three().await;
    settled(&n1, &["n1", "n2", "n3"]).await;
    let old = n1.status().await.nodes[2].id;
    n3.stop().await;
    // Its identity alone was saved.
    let raft = n3.config.data_dir.join("raft");
    for lost in [raft.join("log"), raft.clone()] {
        std::fs::remove_dir_all(&lost).unwrap();
        let error = n3.start().await.unwrap_err();
        assert_eq!(error.code(), Code::Corrupt, "{error}");
        assert!(error.to_string().contains("holdfast node rm"), "{error}");
    }
    std::fs::remove_dir_all(&n3.config.data_dir).unwrap();
    n3.start().await.unwrap();
    let refused = n3.join(&n1, Unspecified).await.unwrap_err();
    assert_eq!(refused.code, Code::AlreadyExists);
    assert!(refused.message.contains("holdfast node rm n3"), "{refused}");
    n1.remove("n3", false).await.unwrap();
    let joined = n3.join(&n1, Unspecified).await.unwrap();
    assert!(joined.node_id > old && joined.role() == Voter, "{joined:?}");
    settled(&n1, &["n1", "n2", "n3"]).await;
}

/// Two machines and a small third one: any may fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_and_a_witness_survive_the_loss_of_any() {
    let mut nodes = [Node::fresh("n1").await, Node::fresh("n2").await, Node::fresh("w").await];
    nodes[0].init().await;
    nodes[1].join(&nodes[0], Unspecified).await.unwrap();
    let joined = nodes[2].join(&nodes[0], Witness).await.unwrap();
    assert_eq!(joined.role(), Witness);
    settled(&nodes[0], &["n1", "n2", "w"]).await;
    all_up(&nodes[0], 3).await;
    for at in [2, 0, 1] {
        nodes[at].stop().await;
        let other = &nodes[(at + 1) % 3];
        wait("a leader of the other two", LIMIT, async || {
            let leader = other.status().await.leader;
            (!leader.is_empty() && leader != nodes[at].config.name.as_str()).then_some(())
        })
        .await;
        nodes[at].start().await.unwrap();
        all_up(&nodes[(at + 1) % 3], 3).await;
        settled(&nodes[at], &["n1", "n2", "w"]).await;
    }
}

/// Workers are no members, and what nobody asked for stays at three voters and two standbys.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_leave_it_to_the_cluster_get_what_it_lacks() {
    let n1 = Node::fresh("n1").await;
    n1.init().await;
    let mut others = Vec::new();
    for (name, wish, part) in [
        ("n2", Unspecified, Voter),
        ("n3", Unspecified, Voter),
        ("n4", Unspecified, Standby),
        ("n5", Worker, Worker),
        ("n6", Unspecified, Standby),
    ] {
        let node = Node::fresh(name).await;
        let joined = node.join(&n1, wish).await.unwrap();
        assert_eq!(joined.role(), part, "{name}");
        others.push(node);
    }
    // Six nodes: five vote.
    settled(&n1, &["n1", "n2", "n3", "n4", "n6"]).await;
    let status = all_up(&n1, 6).await;
    assert!(status.warnings.iter().all(|line| !line.contains("voter")), "{:?}", status.warnings);
}
