//! Tells the agent where the leader was last heard.

use holdfast_raft::RaftNode;
use tokio::sync::watch;

/// Passes the leader's address on, whoever it is, until consensus stops.
pub(crate) async fn follow(raft: RaftNode, hint: watch::Sender<Option<String>>) {
    let mut leadership = raft.leadership();
    drop(raft);
    loop {
        let leader = leadership.borrow_and_update().leader.clone();
        let address = leader.map(|peer| peer.addr).filter(|address| !address.is_empty());
        hint.send_if_modified(|old| {
            let changed = *old != address;
            *old = address;
            changed
        });
        if leadership.changed().await.is_err() {
            return;
        }
    }
}
