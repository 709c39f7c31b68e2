//! Letting a node go for good.
//!
//! ```text
//! checked ─▶ SetRoles: it votes no longer, a standby does, if there is one
//!         ─▶ Raft's voters lack it ─▶ RemoveNode ─▶ Raft's members lack it
//! ```
//! In this order, since a node that was removed ends: one that ended with its vote still in Raft could be
//! the one that the next leader needs. A leader that is to go hands leadership over first, and the call
//! goes on at the next one. What is cut short before `RemoveNode` leaves a standby, and the same command
//! goes on from there (a refusal by then says so); what is cut short after it is finished by the leader's upkeep.

use std::time::Duration;

use holdfast_core::{Command, Node, NodeRole, RemoveNode, SetRoles};
use holdfast_planner::{may_leave, substitute};
use holdfast_proto::v1;
use holdfast_raft::RaftError;
use holdfast_types::{Code, NodeId, RequestId};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::warn;

use super::answered;
use crate::fault::Fault;
use crate::leader::request_id;
use crate::member::Lead;
use crate::membership;

/// How long the answer waits for Raft: less than another node waits for it on a client's behalf.
const PATIENCE: Duration = Duration::from_millis(1_700);

/// Between two looks at Raft.
const PAUSE: Duration = Duration::from_millis(50);

/// Removes a node.
pub(super) async fn remove_node(
    lead: Lead,
    request: v1::RemoveNodeRequest,
) -> Result<v1::RemoveNodeResponse, Fault> {
    let id = request_id(&request.request_id)?;
    let until = lead.deadline.min(Instant::now() + PATIENCE);
    // The upkeep would give the vote back.
    let votes = timeout_at(until, lead.leadership.votes.lock());
    let _votes = votes.await.map_err(|_| again(&request.name))?;
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
    may_leave(&state, &quorum, &node, successor).map_err(|why| at_risk(why, !node.role.votes()))?;
    if node.id == lead.raft.id() {
        return Err(hand_over(&lead).await?);
    }
    let successor = successor.and_then(|id| state.nodes.get(&id)).cloned();
    drop(state);
    if node.role.votes() {
        let command = Command::SetRoles(without_vote(&node, successor.as_ref()));
        lead.propose(RequestId::generate(), command).await?;
    }
    take_vote(&lead, &node, successor.as_ref().map(|next| next.id), until).await?;
    lead.propose(id, Command::RemoveNode(command)).await?;
    align(&lead, node.id, until).await;
    let successor = successor.map(|next| next.name.to_string()).unwrap_or_default();
    Ok(v1::RemoveNodeResponse { successor })
}

/// Makes another voter lead, and says who. One that is unfit would decline.
async fn hand_over(lead: &Lead) -> Result<Fault, Fault> {
    let Some(to) = lead.raft.successor() else {
        let message = "this node leads, and no other voter can: none has the log, or its own disk is \
                       too slow for another to be elected; ask again when that has passed";
        return Err(Fault::new(Code::QuorumAtRisk, message));
    };
    lead.raft.transfer_leadership(to).await?;
    let address = lead.raft.state().nodes.get(&to).map(|node| node.address.clone());
    Ok(Fault::not_leader(address))
}

fn without_vote(node: &Node, successor: Option<&Node>) -> SetRoles {
    let reason = match successor {
        Some(next) => format!("{} is removed, and {} votes in its place", node.name, next.name),
        None => format!("{} is removed", node.name),
    };
    let next = successor.map(|next| (next.id, next.voting_role()));
    SetRoles { roles: next.into_iter().chain([(node.id, NodeRole::Standby)]).collect(), reason }
}

/// Returns once Raft's voters lack the node.
async fn take_vote(
    lead: &Lead,
    node: &Node,
    successor: Option<NodeId>,
    until: Instant,
) -> Result<(), Fault> {
    loop {
        let quorum = membership::quorum(&lead.raft);
        if !quorum.voters.contains(&node.id) {
            return Ok(());
        }
        may_leave(&lead.raft.state(), &quorum, node, successor)
            .map_err(|why| at_risk(why, true))?;
        let others = quorum.voters.iter().copied().filter(|id| *id != node.id);
        let voters = others.chain(successor).collect();
        match timeout_at(until, lead.raft.change_voters(voters)).await {
            Ok(Ok(())) => {}
            // One that was begun before.
            Ok(Err(RaftError::MembershipBusy)) if Instant::now() + PAUSE < until => {
                sleep(PAUSE).await;
            }
            Ok(Err(RaftError::MembershipBusy | RaftError::Timeout)) | Err(_) => {
                return Err(again(node.name.as_str()));
            }
            Ok(Err(error)) => return Err(error.into()),
        }
    }
}

/// Once its role was taken from it, the upkeep goes on with that by itself.
fn at_risk(why: String, is_moving: bool) -> Fault {
    let then = "; its vote passes on as soon as that is mended: run the same command again then";
    Fault::new(Code::QuorumAtRisk, if is_moving { why + then } else { why })
}

fn again(name: &str) -> Fault {
    let message = format!(
        "{name} is not removed yet: its vote could not be taken from it in time; run the same command \
         again"
    );
    Fault::new(Code::Timeout, message)
}

async fn align(lead: &Lead, node: NodeId, until: Instant) {
    let is_member = || lead.raft.metrics().members.iter().any(|member| member.node == node);
    while is_member() && Instant::now() < until {
        match membership::align(&lead.raft).await {
            Ok(true) => {}
            Ok(false) => sleep(PAUSE).await,
            Err(error) => {
                warn!(%error, "the removed node is still a member of Raft; it is tried again");
                return;
            }
        }
    }
}
