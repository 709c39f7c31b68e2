//! Letting nodes in, and their new lives.

use holdfast_core::{
    Command, LetIn, MAX_VOTERS, NewNode, Node, NodeRole, Outcome, RegisterNode, State,
};
use holdfast_planner::part_of_newcomer;
use holdfast_proto::internal::{AdmitRequest, AdmitResponse, RegisterRequest, RegisterResponse};
use holdfast_proto::{Address, v1};
use holdfast_trust::{Secret, SigningRequest, check_address};
use holdfast_types::{Code, FeatureLevel, NodeId, RequestId};
use uuid::Uuid;

use super::{known, request_id};
use crate::certify::{self, Issued};
use crate::clock;
use crate::convert::{node_role, role_number};
use crate::fault::Fault;
use crate::member::Lead;

/// Lets a node in for a token, with the role that it asked for if that is free, and certifies it. What is
/// refused here costs no entry: strangers make the cluster write nothing.
pub(super) async fn admit(lead: Lead, request: AdmitRequest) -> Result<AdmitResponse, Fault> {
    let id = request_id(&request.request_id)?;
    // Strangers come here. Before anything is done for one, its token is looked up in what is at hand.
    let (token, hash) = token_of(&request)?;
    let known = |state: &State| {
        let is_used = state.trust.tokens.get(&token).is_some_and(|kept| kept.used.is_some());
        match is_used {
            true => Ok(()),
            false => Ok(state.trust.open_token(&token, &hash, clock::wall()).map(drop)?),
        }
    };
    lead.look(known).await?;
    let signing = SigningRequest::from_der(&request.signing_request)?;
    let shown = Shown { token, hash, key: signing.public_key_hash(), signing };
    let state = lead.read().await?;
    let trust = &state.trust;
    // Who came before with this token and this key comes again: also after its daemon has started anew.
    let node = match trust.let_in(&shown.token, &shown.hash, &shown.key) {
        Some(node) => node,
        None => {
            trust.open_token(&shown.token, &shown.hash, clock::wall())?;
            let_in(&lead, &state, id, &request, &shown).await?
        }
    };
    // What that request id was answered before may be about another token, and another machine.
    let is_let_in =
        |state: &State| state.trust.let_in(&shown.token, &shown.hash, &shown.key) == Some(node);
    if !is_let_in(&lead.raft.state()) {
        return Err(Fault::new(Code::InvalidArgument, "that request id was for something else"));
    }
    drop(state);
    let state = lead.raft.state();
    let Issued { certificate, authorities } = certify::issue(&state, node, &shown.signing)?;
    Ok(AdmitResponse {
        cluster_id: lead.member.cluster().to_bytes().into(),
        node_id: node.0,
        role: role_number(state.node(node)?.role),
        peers: state.nodes.values().filter(|n| n.id != node).map(|n| n.address.clone()).collect(),
        generation: state.lineage.generation,
        restored_from: restored_from(&state),
        certificate: certificate.into(),
        authorities: authorities.into_iter().map(Into::into).collect(),
    })
}

/// What a newcomer has shown.
struct Shown {
    token: Uuid,
    hash: [u8; 32],
    key: [u8; 32],
    signing: SigningRequest,
}

/// The token that was shown, and the hash of its secret.
fn token_of(request: &AdmitRequest) -> Result<(Uuid, [u8; 32]), Fault> {
    let bad = |what: &str| Fault::new(Code::InvalidArgument, what);
    let token = Uuid::from_slice(&request.token_id).map_err(|_| bad("the token's id"))?;
    let secret = request.token_secret.as_ref().try_into();
    let secret = secret.map(Secret).map_err(|_| bad("the token's secret"))?;
    Ok((token, secret.hash()))
}

async fn let_in(
    lead: &Lead,
    state: &State,
    id: RequestId,
    request: &AdmitRequest,
    shown: &Shown,
) -> Result<NodeId, Fault> {
    understands(state, request.feature_level)?;
    // A retry of what was answered gets that answer (I7), and finds itself here.
    if !state.answered.contains_key(&id) {
        free(state, request)?;
    }
    let wanted = v1::NodeRole::try_from(i32::try_from(request.role).unwrap_or(-1))
        .map_err(|_| Fault::new(Code::InvalidArgument, "there is no such role"))?;
    let node = NewNode {
        name: request.name.parse()?,
        address: address(&request.address)?,
        underlay: request
            .underlay
            .parse()
            .map_err(|_| Fault::new(Code::InvalidArgument, "underlay: no IPv4 address"))?,
        role: decide_role(state, node_role(wanted))?,
        asked: node_role(wanted),
    };
    let command = LetIn { token: shown.token, hash: shown.hash, key: shown.key, node };
    match lead.propose(id, Command::LetIn(command)).await? {
        Outcome::Node(node) => Ok(node),
        _ => Err(Fault::new(Code::InvalidArgument, "that request id was for something else")),
    }
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

fn address(text: &str) -> Result<String, Fault> {
    check_address(text)?;
    match text.parse() {
        Ok(Address::Tcp(address)) => Ok(address),
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
