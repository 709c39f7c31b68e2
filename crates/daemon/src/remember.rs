//! Keeps the addresses of the other nodes on disk, so that a node that starts again finds the
//! cluster although nodes have come and gone.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use holdfast_proto::v1;
use holdfast_proto::v1::cluster_service_client::ClusterServiceClient;
use holdfast_raft::RaftNode;
use tokio::time::sleep;
use tracing::warn;

use crate::channels::There;
use crate::forward::Call;
use crate::identity::Identity;
use crate::member::Member;

/// Changes within this time are written once.
const PAUSE: Duration = Duration::from_secs(2);

/// A worker has no state of its own, and asks.
const ASK_EVERY: Duration = Duration::from_secs(60);

/// Follows the nodes' addresses, for as long as it is run.
pub(crate) async fn follow(member: Arc<Member>, data_dir: PathBuf) {
    let mut known = member.identity.peers.clone();
    loop {
        let peers = match &member.raft {
            Some(raft) => {
                sleep(PAUSE).await;
                changed(raft, &member.identity, &known).await
            }
            None => {
                let peers = ask(&member).await;
                sleep(ASK_EVERY).await;
                peers
            }
        };
        let Some(peers) = peers.filter(|peers| !peers.is_empty() && *peers != known) else {
            continue;
        };
        let identity = Identity { peers: peers.clone(), ..member.identity.clone() };
        let dir = data_dir.clone();
        let written = tokio::task::spawn_blocking(move || identity.write(&dir)).await;
        match written {
            Ok(Ok(())) => known = peers.clone(),
            Ok(Err(error)) => warn!(%error, "the nodes' addresses could not be kept"),
            Err(_) => return,
        }
        member.set_seeds(peers);
    }
}

/// The addresses, once they differ from `known`.
async fn changed(raft: &RaftNode, me: &Identity, known: &[String]) -> Option<Vec<String>> {
    let others = |state: &holdfast_core::State| -> Vec<String> {
        let others = state.nodes.values().filter(|n| n.id != me.node);
        others.map(|n| n.address.clone()).collect()
    };
    let mut applied = raft.watch();
    let differ = applied.wait_for(|applied| {
        let now = others(&applied.state);
        !now.is_empty() && now != known
    });
    differ.await.ok().map(|applied| others(&applied.state))
}

async fn ask(member: &Arc<Member>) -> Option<Vec<String>> {
    let call = Call::begin(Duration::ZERO);
    let here = |_| async { Err(crate::fault::Fault::no_quorum()) };
    let there = |there: There| {
        let request = call.onward(v1::ListNodesRequest {});
        async move { ClusterServiceClient::new(there.relay).list_nodes(request).await }
    };
    let nodes = member.at_leader(&call, here, there).await.ok()?.nodes;
    let others = nodes.into_iter().filter(|node| node.id != member.node().0);
    Some(others.map(|node| node.address).collect())
}
