//! Declares nodes lost (DESIGN section 5 rule 4).

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_core::{Command, MarkNodeLost, Node};
use tracing::{info, warn};

use crate::leadership::Leadership;
use crate::ports::Ports;

/// Looks again at least this often: nodes come and go meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Watches every node's silence, and proposes each loss once it may.
pub(crate) async fn watch<P: Ports>(ports: &P, leadership: &Leadership) {
    let mut pending: BTreeMap<_, MarkNodeLost> = BTreeMap::new();
    loop {
        let state = ports.state();
        let Some(cluster) = &state.cluster else {
            tokio::time::sleep(LOOK_EVERY).await;
            continue;
        };
        let now_ms = ports.boottime_ms();
        for node in state.nodes.values() {
            if let Some(evidence) = leadership.leases.decide_lost(node, &cluster.lease, now_ms) {
                info!(node = %node.name, incarnation = %node.incarnation, %evidence, "node is lost");
                let command =
                    MarkNodeLost { node: node.id, incarnation: node.incarnation, evidence };
                pending.insert(node.id, command);
            }
        }
        pending.retain(|id, command| {
            // Applied, or overtaken by a new registration: either way it is settled.
            let same = |n: &Node| n.is_up() && n.incarnation == command.incarnation;
            state.nodes.get(id).is_some_and(same)
        });
        for command in pending.values() {
            // Asking again under the same leadership is safe: `apply` marks a life lost once.
            if let Err(error) = ports.propose(Command::MarkNodeLost(command.clone())).await {
                warn!(node = %command.node, %error, "the loss could not be recorded yet");
            }
        }
        let up = state.nodes.values().filter(|n| n.is_up() && !pending.contains_key(&n.id));
        let due_ms = leadership.leases.next_due_ms(up.map(|n| n.id), &cluster.lease);
        let wait_ms = due_ms.map(|due| due.saturating_sub(ports.boottime_ms()));
        let wait = wait_ms.map_or(LOOK_EVERY, Duration::from_millis).min(LOOK_EVERY);
        tokio::time::sleep(wait.max(Duration::from_millis(1))).await;
    }
}
