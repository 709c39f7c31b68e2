//! Declares nodes lost (DESIGN section 5 rule 4).

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_core::{Command, MarkNodeLost, Node, State};
use holdfast_types::NodeId;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::leadership::Leadership;
use crate::ports::Ports;

/// Looks again at least this often: nodes come and go meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A loss that could not be recorded is proposed again after this. A leader that was cut off from
/// the others decides that all of them are lost, and must not fill its own log with it.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// A loss that is decided, and not in the log yet.
struct Pending {
    command: MarkNodeLost,
    due: Instant,
}

/// Watches every node's silence, and proposes each loss once it may.
pub(crate) async fn watch<P: Ports>(ports: &P, leadership: &Leadership) {
    let mut pending: BTreeMap<NodeId, Pending> = BTreeMap::new();
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
                pending.insert(node.id, Pending { command, due: Instant::now() });
            }
        }
        pending.retain(|_, p| !settled(&state, &p.command));
        propose_due(ports, &mut pending).await;
        let up = state.nodes.values().filter(|n| n.is_up() && !pending.contains_key(&n.id));
        let due_ms = leadership.leases.next_due_ms(up.map(|n| n.id), &cluster.lease);
        let wait_ms = due_ms.map(|due| due.saturating_sub(ports.boottime_ms()));
        let wait = wait_ms.map_or(LOOK_EVERY, Duration::from_millis).min(LOOK_EVERY);
        tokio::time::sleep(wait.max(Duration::from_millis(1))).await;
    }
}

/// Applied, or overtaken by a new registration.
fn settled(state: &State, command: &MarkNodeLost) -> bool {
    let open = |n: &Node| n.is_up() && n.incarnation == command.incarnation;
    !state.nodes.get(&command.node).is_some_and(open)
}

/// Asking again under the same leadership is safe: `apply` marks a life lost once.
async fn propose_due<P: Ports>(ports: &P, pending: &mut BTreeMap<NodeId, Pending>) {
    for Pending { command, due } in pending.values_mut().filter(|p| p.due <= Instant::now()) {
        if let Err(error) = ports.propose(Command::MarkNodeLost(command.clone())).await {
            warn!(node = %command.node, %error, "the loss could not be recorded yet");
        }
        *due = Instant::now() + RETRY_EVERY;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FakePorts, state_of};
    use holdfast_core::Evidence;
    use holdfast_types::Incarnation;

    /// A leader that was cut off proposed every node's loss ten times a second, into its own log.
    #[test]
    fn a_loss_that_is_not_recorded_is_proposed_again_only_now_and_then() {
        let ports = FakePorts::new(state_of(&[2]));
        let (node, incarnation) = (NodeId(2), Incarnation(1));
        let command = MarkNodeLost { node, incarnation, evidence: Evidence::Relinquished };
        let mut pending = BTreeMap::from([(node, Pending { command, due: Instant::now() })]);
        let rt = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let propose = |pending: &mut _| {
            rt.block_on(propose_due(&ports, pending));
            ports.proposed().len()
        };
        assert_eq!(propose(&mut pending), 1);
        assert_eq!(propose(&mut pending), 1, "too soon");
        pending.get_mut(&node).unwrap().due = Instant::now();
        assert_eq!(propose(&mut pending), 2);
    }
}
