//! Letting a node go for good.
//!
//! ```text
//! checked ─▶ its vote goes to a standby, if there is one ─▶ RemoveNode ─▶ Raft is brought in line
//! ```
//! A leader that is to go hands leadership over first, and the call goes on at the next one. What is
//! cut short after the entry is finished by the leader's upkeep.

use std::time::Duration;

use holdfast_core::{Command, RemoveNode, SetRoles};
use holdfast_planner::{Quorum, may_leave, substitute};
use holdfast_proto::v1;
use holdfast_types::{Code, NodeId, RequestId};
use tokio::time::Instant;
use tracing::warn;

use super::answered;
use crate::fault::Fault;
use crate::leader::request_id;
use crate::member::Lead;
use crate::membership;

/// How long the answer waits for Raft to be in line. The node is gone all the same.
const ALIGN_PATIENCE: Duration = Duration::from_secs(2);

/// Removes a node.
pub(super) async fn remove_node(
    lead: Lead,
    request: v1::RemoveNodeRequest,
) -> Result<v1::RemoveNodeResponse, Fault> {
    let id = request_id(&request.request_id)?;
    let state = lead.read().await?;
    if answered(&state, id)?.is_some() {
        return Ok(v1::RemoveNodeResponse::default());
    }
    let node = state.node_named(&request.name.parse()?)?.clone();
    let command = RemoveNode { node: node.id, force: request.force };
    // Before a vote moves. It is checked again at its place in the log.
    command.check(&state)?;
    let quorum = membership::quorum(&lead.raft);
    let votes = node.role.votes() || quorum.voters.contains(&node.id);
    let successor = votes.then(|| substitute(&state, &quorum, node.id)).flatten();
    may_leave(&state, &quorum, &node, successor)
        .map_err(|why| Fault::new(Code::QuorumAtRisk, why))?;
    if node.id == lead.raft.id() {
        return Err(hand_over(&lead, &quorum).await?);
    }
    let successor = successor.and_then(|id| state.nodes.get(&id)).cloned();
    drop(state);
    if let Some(next) = &successor {
        let roles = [(node.id, holdfast_core::NodeRole::Standby), (next.id, next.voting_role())];
        let reason = format!("{} is removed, and {} votes in its place", node.name, next.name);
        let command = Command::SetRoles(SetRoles { roles: roles.into(), reason });
        lead.propose(RequestId::generate(), command).await?;
    }
    lead.propose(id, Command::RemoveNode(command)).await?;
    align(&lead, node.id).await;
    let successor = successor.map(|next| next.name.to_string()).unwrap_or_default();
    Ok(v1::RemoveNodeResponse { successor })
}

/// Makes another voter lead, and says who.
async fn hand_over(lead: &Lead, quorum: &Quorum) -> Result<Fault, Fault> {
    let me = lead.raft.id();
    let ready = |id: &&NodeId| **id != me && quorum.has_log(**id);
    let Some(to) = quorum.voters.iter().find(ready) else {
        let message = "this node leads, and no other voter can: ask again when one has the log";
        return Err(Fault::new(Code::QuorumAtRisk, message));
    };
    lead.raft.transfer_leadership(*to).await?;
    let address = lead.raft.state().nodes.get(to).map(|node| node.address.clone());
    Ok(Fault::not_leader(address))
}

async fn align(lead: &Lead, node: NodeId) {
    let until = lead.deadline.min(Instant::now() + ALIGN_PATIENCE);
    let is_member = || lead.raft.metrics().members.iter().any(|member| member.node == node);
    while is_member() && Instant::now() < until {
        match membership::align(&lead.raft).await {
            Ok(true) => {}
            Ok(false) => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(error) => {
                warn!(%error, "the removed node is still a member of Raft; it is tried again");
                return;
            }
        }
    }
}
