//! A node that was removed while it was away: it takes itself for a voter, and nobody else does.

mod support;

use std::time::Duration;

use holdfast_core::{Command, RemoveNode};
use holdfast_proto::Dialer;
use holdfast_proto::RemoteError;
use holdfast_proto::internal::RaftRequest;
use holdfast_proto::internal::raft_service_client::RaftServiceClient;
use holdfast_raft::RaftConfig;
use holdfast_types::{Code, NodeId};
use support::{Cluster, commit, wait};

fn plain(_: &mut RaftConfig) {}

async fn ask(cluster: &Cluster, at: usize, from: NodeId) -> Option<Code> {
    let machine = &cluster.machines[at];
    let request = RaftRequest {
        cluster_id: cluster.cluster.to_bytes().into(),
        from: from.0,
        to: machine.identity.node.0,
        ..Default::default()
    };
    let address = machine.addr.parse().ok()?;
    let channel = Dialer::plaintext().lazy(&address, Duration::from_secs(2));
    let mut client = RaftServiceClient::new(channel);
    let mut codes = Vec::new();
    for answer in [
        client.vote(request.clone()).await,
        client.pre_vote(request.clone()).await,
        client.append(request.clone()).await,
        client.transfer_leader(request.clone()).await,
    ] {
        codes.push(RemoteError::from(answer.err()?).code);
    }
    codes.dedup();
    let [code] = codes[..] else { panic!("{codes:?}") };
    Some(code)
}

/// It was cut off while it was removed, comes back, and still has the membership in which it votes.
/// No leader is deposed, no term raised, and none of its calls gets past the door.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_node_neither_votes_nor_disturbs() {
    let cluster = Cluster::admitted(4, plain).await;
    let gone = cluster.machines[3].identity.node;
    cluster.write(&[0, 1, 2, 3], 5).await;
    cluster.cut(&[3]);
    let rest = [0, 1, 2];
    let leader = cluster.leader(&rest).await;
    let lead = cluster.machines[leader].node();
    commit(lead, Command::RemoveNode(RemoveNode { node: gone, force: false })).await;
    assert_eq!(ask(&cluster, leader, gone).await, Some(Code::InvalidArgument), "it still votes");
    let voters = rest.map(|at| cluster.machines[at].identity.node).into();
    lead.change_voters(voters).await.expect("change_voters");
    lead.remove_learner(gone).await.expect("remove_learner");
    let index = lead.applied_index();
    for at in rest {
        let node = cluster.machines[at].node();
        node.wait_applied(index, Duration::from_secs(5)).await.expect("applied");
        assert!(!node.metrics().members.iter().any(|m| m.node == gone));
    }
    let away = cluster.machines[3].node();
    assert!(away.metrics().voters.contains(&gone), "it has not heard of it");
    wait(async || away.leadership_now().leader.is_none().then_some(())).await;

    let term = lead.metrics().term;
    cluster.cut(&[]);
    for at in rest {
        assert_eq!(ask(&cluster, at, gone).await, Some(Code::NodeRemoved));
        let newer = NodeId(index + 1_000);
        assert_eq!(ask(&cluster, at, newer).await, Some(Code::InvalidArgument), "it may be new");
    }
    // Long enough for it to stand for election more than once.
    let asked_at = lead.applied_index();
    cluster.write(&rest, 40).await;
    wait(async || {
        let pause = tokio::time::sleep(Duration::from_millis(100));
        pause.await;
        cluster.write(&rest, 1).await;
        (lead.applied_index() > asked_at + 70).then_some(())
    })
    .await;
    assert_eq!(cluster.leader(&rest).await, leader, "the leader was deposed");
    assert_eq!(lead.metrics().term, term);
    assert_eq!(away.leadership_now().reign, None);
}
