//! Letting nodes in, and their new lives.

use holdfast_core::{
    AdmitNode, Command, MAX_VOTERS, NewNode, Node, NodeRole, Outcome, RegisterNode, State,
};
use holdfast_planner::part_of_newcomer;
use holdfast_proto::internal::{AdmitRequest, AdmitResponse, RegisterRequest, RegisterResponse};
use holdfast_proto::{Address, v1};
use holdfast_types::{Code, FeatureLevel, NodeId};

use super::{known, request_id};
use crate::convert::{node_role, role_number};
use crate::fault::Fault;
use crate::member::Lead;

/// Lets a node in, with the role that it asked for if that is free.
pub(super) async fn admit(lead: Lead, request: AdmitRequest) -> Result<AdmitResponse, Fault> {
    let id = request_id(&request.request_id)?;
    let state = lead.read().await?;
    understands(&state, request.feature_level)?;
    // A retry of what was answered gets that answer (I7), and finds itself here.
    if !state.answered.contains_key(&id) {
        free(&state, &request)?;
    }
    let wanted = v1::NodeRole::try_from(i32::try_from(request.role).unwrap_or(-1))
        .map_err(|_| Fault::new(Code::InvalidArgument, "there is no such role"))?;
    let node = NewNode {
        name: request.name.parse()?,
        address: address(request.address)?,
        underlay: request
            .underlay
            .parse()
            .map_err(|_| Fault::new(Code::InvalidArgument, "underlay: no IPv4 address"))?,
        role: decide_role(&state, node_role(wanted))?,
        asked: node_role(wanted),
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
        generation: state.lineage.generation,
        restored_from: restored_from(&state),
    })
}

/// A new life of a node's daemon. A second try is known by its request id (I7).
pub(super) async fn register(
    lead: Lead,
    request: RegisterRequest,
) -> Result<RegisterResponse, Fault> {
    let id = request_id(&request.request_id)?;
    known(&lead, request.node_id)?;
    understands(&lead.raft.state(), request.feature_level)?;
    let command = Command::RegisterNode(RegisterNode { node: NodeId(request.node_id) });
    match lead.propose(id, command).await? {
        Outcome::Registered(incarnation) => Ok(RegisterResponse { incarnation: incarnation.0 }),
        _ => Err(Fault::new(Code::InvalidArgument, "that request id was for something else")),
    }
}

/// A node that would not understand what is said in the cluster has no place in it.
fn understands(state: &State, level: u32) -> Result<(), Fault> {
    let (theirs, ours) = (FeatureLevel(level), state.feature_level);
    if theirs >= ours {
        return Ok(());
    }
    let message = format!(
        "this node's version of holdfast is too old for its cluster: it understands feature level \
         {theirs}, and {ours} is in force; install the version that the cluster runs"
    );
    Err(Fault::new(Code::VersionTooOld, message))
}

/// The cluster whose pools are this one's, if it was restored from a backup.
fn restored_from(state: &State) -> bytes::Bytes {
    let restored = state.lineage.restored.as_ref();
    restored.map(|from| from.cluster.to_bytes().into()).unwrap_or_default()
}

fn address(text: String) -> Result<String, Fault> {
    match text.parse() {
        Ok(Address::Tcp(_)) => Ok(text),
        Ok(Address::Unix(_)) | Err(_) => {
            Err(Fault::new(Code::InvalidArgument, format!("address: {text:?} is not host:port")))
        }
    }
}

/// Whether name and address are no other node's. A machine that was wiped is another one: what it
/// had cast its votes with is gone.
fn free(state: &State, request: &AdmitRequest) -> Result<(), Fault> {
    let same = |n: &&Node| n.name.as_str() == request.name || n.address == request.address;
    // One that is known from a backup alone comes back under its name.
    let there = |n: &&Node| !state.lineage.absent.contains(&n.id);
    let Some(other) = state.nodes.values().filter(there).find(same) else { return Ok(()) };
    let what = if other.name.as_str() == request.name {
        format!("there is a node {} already", other.name)
    } else {
        format!("node {} has the address {}", other.name, other.address)
    };
    let message = format!(
        "{what}: a machine that was wiped or replaced does not come back as that node; holdfast node \
         rm {} lets it go, or give this one another",
        other.name
    );
    Err(Fault::new(Code::AlreadyExists, message))
}

/// What was asked for; a vote only while there is one to give.
fn decide_role(state: &State, wanted: Option<NodeRole>) -> Result<NodeRole, Fault> {
    let voters = state.nodes.values().filter(|n| n.role.votes()).count();
    match wanted {
        None => Ok(part_of_newcomer(state)),
        Some(NodeRole::Witness) if voters >= MAX_VOTERS => {
            let message = format!("{voters} nodes vote already: a witness would be of no use");
            Err(Fault::new(Code::WrongState, message))
        }
        Some(NodeRole::Voter) if voters >= MAX_VOTERS => Ok(NodeRole::Standby),
        Some(role) => Ok(role),
    }
}
