//! Proposals that belong to one reign.

mod support;

use std::time::Duration;

use holdfast_raft::{RaftConfig, RaftError};
use holdfast_types::RequestId;
use support::{Cluster, entry};

fn plain(_: &mut RaftConfig) {}

/// DESIGN section 5 rule 4: what a leader concluded never enters the log under another reign, not
/// even its own next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proposal_of_another_term_is_refused() {
    let cluster = Cluster::of(3, plain).await;
    let leader = cluster.leader(&[0, 1, 2]).await;
    let node = cluster.machines[leader].node();
    let term = node.metrics().term;
    let limit = Duration::from_secs(5);
    let before = node.applied_index();
    for other in [term - 1, term + 1] {
        let refused =
            node.propose_in_term(entry(RequestId::generate()), other, limit).await.unwrap_err();
        assert!(matches!(refused, RaftError::NotLeader { .. }), "{refused}");
    }
    assert_eq!(node.applied_index(), before);
    let answer = node.propose_in_term(entry(RequestId::generate()), term, limit).await.unwrap();
    assert!(answer.is_err(), "there is no such image");
    assert!(node.applied_index() > before);
}
