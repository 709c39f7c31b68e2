//! Letting nodes in, and their new lives.

use holdfast_core::{AdmitNode, Command, NewNode, NodeRole, Outcome, RegisterNode, State};
use holdfast_proto::internal::{AdmitRequest, AdmitResponse, RegisterRequest, RegisterResponse};
use holdfast_proto::{Address, v1};
use holdfast_types::{Code, NodeId};

use super::request_id;
use crate::convert::{node_role, role_number};
use crate::fault::Fault;
use crate::member::Lead;
use crate::membership::MAX_VOTERS;

/// Below so many nodes three voters are enough, from there on five (DESIGN section 8).
const LARGE: usize = 5;

/// Lets a node in, with the role that it asked for if that is free.
pub(super) async fn admit(lead: Lead, request: AdmitRequest) -> Result<AdmitResponse, Fault> {
    let id = request_id(&request.request_id)?;
    let state = lead.read().await?;
    let wanted = v1::NodeRole::try_from(i32::try_from(request.role).unwrap_or(-1))
        .map_err(|_| Fault::new(Code::InvalidArgument, "there is no such role"))?;
    let node = NewNode {
        name: request.name.parse()?,
        address: address(request.address)?,
        underlay: request
            .underlay
            .parse()
            .map_err(|_| Fault::new(Code::InvalidArgument, "underlay: no IPv4 address"))?,
        role: decide_role(&state, node_role(wanted)),
    };
    drop(state);
    let Outcome::Node(node) = lead.propose(id, Command::AdmitNode(AdmitNode { node })).await?
    else {
        return Err(Fault::new(Code::InvalidArgument, "that request id was for something else"));
    };
    let state = lead.raft.state();
    Ok(AdmitResponse {
        cluster_id: lead.member.cluster().to_bytes().into(),
        node_id: node.0,
        role: role_number(state.node(node)?.role),
        peers: state.nodes.values().filter(|n| n.id != node).map(|n| n.address.clone()).collect(),
    })
}

/// A new life of a node's daemon. A second try is known by its request id (I7).
pub(super) async fn register(
    lead: Lead,
    request: RegisterRequest,
) -> Result<RegisterResponse, Fault> {
    let id = request_id(&request.request_id)?;
    let command = Command::RegisterNode(RegisterNode { node: NodeId(request.node_id) });
    match lead.propose(id, command).await? {
        Outcome::Registered(incarnation) => Ok(RegisterResponse { incarnation: incarnation.0 }),
        _ => Err(Fault::new(Code::InvalidArgument, "that request id was for something else")),
    }
}

fn address(text: String) -> Result<String, Fault> {
    match text.parse() {
        Ok(Address::Tcp(_)) => Ok(text),
        Ok(Address::Unix(_)) | Err(_) => {
            Err(Fault::new(Code::InvalidArgument, format!("address: {text:?} is not host:port")))
        }
    }
}

/// What was asked for; a vote only while there is one to give.
fn decide_role(state: &State, wanted: Option<NodeRole>) -> NodeRole {
    let voters = state.nodes.values().filter(|n| n.role == NodeRole::Voter).count();
    let by_itself = if state.nodes.len() + 1 < LARGE { 3 } else { 5 };
    match wanted {
        None if voters < by_itself => NodeRole::Voter,
        None => NodeRole::Standby,
        Some(NodeRole::Voter) if voters >= MAX_VOTERS => NodeRole::Standby,
        Some(role) => role,
    }
}
