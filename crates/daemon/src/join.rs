//! `Join`: this node asks to be let into a cluster.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use holdfast_core::NodeRole;
use holdfast_proto::internal::leader_service_client::LeaderServiceClient;
use holdfast_proto::internal::{AdmitRequest, AdmitResponse};
use holdfast_proto::{Dialer, Dialers, is_answer, v1};
use holdfast_raft::RaftNode;
use holdfast_trust::{Bundle, Fingerprint, JoinToken, SecretKey, first_contact};
use holdfast_types::{ClusterId, Code, FeatureLevel, NodeId, RequestId};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{info, warn};
use uuid::Uuid;

use crate::certify::Issued;
use crate::channels::Channels;
use crate::convert::{node_role, role_number};
use crate::fault::Fault;
use crate::identity::Identity;
use crate::machine::Duties;
use crate::startup::Shell;

/// How long all attempts together may take: a person hears *no quorum* within 5 s.
const PATIENCE: Duration = Duration::from_millis(4_500);

/// And one of them.
const TRY_LIMIT: Duration = Duration::from_secs(2);

const PAUSE: Duration = Duration::from_millis(100);

/// How long the answer waits for consensus to take the node in. It is a node all the same.
const MEMBER_PATIENCE: Duration = Duration::from_secs(10);

/// Joins the cluster that these nodes are of.
pub(crate) async fn join(
    shell: &Arc<Shell>,
    peers: Vec<String>,
    role: v1::NodeRole,
    token: &str,
) -> Result<Identity, Fault> {
    if peers.is_empty() {
        return Err(Fault::new(Code::InvalidArgument, "name at least one node of the cluster"));
    }
    let token = token.parse::<JoinToken>().map_err(|e| {
        let message = format!("{e}; a member makes one: holdfast node token");
        Fault::new(e.code(), message)
    })?;
    let key = SecretKey::from_der(&shell.joining_key)?;
    let role = match (shell.only_votes(), role) {
        (true, v1::NodeRole::Unspecified) => v1::NodeRole::Witness,
        (true, other) if other != v1::NodeRole::Witness => return Err(no_pool_driver()),
        (_, role) => role,
    };
    let config = shell.config();
    let request = AdmitRequest {
        name: config.name.to_string(),
        address: config.advertise.clone(),
        role: node_role(role).map_or(0, role_number),
        request_id: admission(&token, &key).to_bytes().into(),
        underlay: config.network.underlay.to_string(),
        feature_level: FeatureLevel::OURS.0,
        token_id: token.id.as_bytes().to_vec().into(),
        token_secret: token.secret.0.to_vec().into(),
        signing_request: key.signing_request()?.into(),
    };
    let admitted = ask(peers, token.authority, request).await?;
    let bundle = bundle(&admitted, key, token.authority)?;
    let identity = Identity {
        cluster: ClusterId::try_from(&admitted.cluster_id[..])?,
        node: NodeId(admitted.node_id),
        name: config.name.clone(),
        role: granted_role(admitted.role)?,
        address: config.advertise.clone(),
        peers: admitted.peers,
    };
    let who = bundle.certificate.principal()?;
    if (who.cluster(), who.node()) != (identity.cluster, Some(identity.node)) {
        return Err(Fault::new(
            Code::Internal,
            format!("the leader has certified this node as {who}"),
        ));
    }
    shell.keyring().enforce(bundle)?;
    if !admitted.restored_from.is_empty() {
        shell.inherit_pool(ClusterId::try_from(&admitted.restored_from[..])?);
    }
    let (duties, hint) = shell.begin(&identity).inspect_err(|_| shell.forget_keys())?;
    let raft = match prepare(shell, &identity, admitted.generation, &*duties).await {
        Ok(raft) => raft,
        Err(fault) => {
            duties.stop().await;
            shell.forget_keys();
            return Err(fault);
        }
    };
    info!(cluster = %identity.cluster, id = %identity.node, role = %identity.role, "joined");
    shell.enter(identity.clone(), raft.clone(), duties, hint);
    if let Some(raft) = raft {
        wait_for_part(&raft, &identity).await;
    }
    Ok(identity)
}

/// Why a machine that can only vote is nothing else.
pub(crate) fn no_pool_driver() -> Fault {
    let message = "its configuration says that there is no pool ([pool] driver = \"none\"), so it can \
                   only be a witness: holdfast node join --role witness";
    Fault::new(Code::InvalidArgument, message)
}

/// Everything that may fail before this machine is a node. A log that was opened under the new id
/// may have been heard of by the leader, so opening it comes last but for saying whose it is.
async fn prepare(
    shell: &Shell,
    identity: &Identity,
    generation: u64,
    duties: &dyn Duties,
) -> Result<Option<RaftNode>, Fault> {
    duties.run().await?;
    let raft = match identity.role.has_log() {
        true => Some(shell.open_raft_of(identity, generation).await?),
        false => None,
    };
    shell.keyring().keep()?;
    identity.write(shell.data().path())?;
    Ok(raft)
}

/// One for all attempts with that token of this daemon: the cluster lets this machine in once.
fn admission(token: &JoinToken, key: &SecretKey) -> RequestId {
    let mut hash = blake3::Hasher::new();
    hash.update(token.id.as_bytes()).update(&token.secret.0).update(&key.public_key_hash());
    let mut id = [0; 16];
    id.copy_from_slice(&hash.finalize().as_bytes()[..16]);
    RequestId(Uuid::from_bytes(id))
}

/// What this machine is from now on, by the authority that its token names.
fn bundle(
    admitted: &AdmitResponse,
    key: SecretKey,
    authority: Fingerprint,
) -> Result<Bundle, Fault> {
    let certificate = admitted.certificate.to_vec();
    let authorities = admitted.authorities.iter().map(|der| der.to_vec()).collect();
    let bundle = Issued { certificate, authorities }.bundle(key)?;
    match bundle.believes(authority) {
        true => Ok(bundle),
        false => {
            let message =
                "the cluster has another authority than the token says: make another token";
            Err(Fault::new(Code::Untrusted, message))
        }
    }
}

/// Asks one node after another, and whom they name as the leader first. That somebody is there and
/// nobody leads says more than who is not there.
async fn ask(
    peers: Vec<String>,
    authority: Fingerprint,
    request: AdmitRequest,
) -> Result<AdmitResponse, Fault> {
    let dialer = Dialer::tls(first_contact(authority)?);
    let channels = Channels::new(Dialers::both(dialer));
    let until = Instant::now() + PATIENCE;
    let mut order: VecDeque<String> = peers.into();
    let mut leaderless = false;
    loop {
        let Some(address) = order.pop_front() else {
            return Err(Fault::new(Code::InvalidArgument, "there is no node to ask"));
        };
        let mut client = LeaderServiceClient::new(channels.to(&address)?);
        let limit = until.min(Instant::now() + TRY_LIMIT);
        let mut answered = false;
        let fault = match timeout_at(limit, client.admit(request.clone())).await {
            Ok(Ok(answer)) => return Ok(answer.into_inner()),
            Err(_) => Fault::new(Code::Timeout, format!("{address} did not answer in time")),
            Ok(Err(status)) => match (is_answer(&status), Fault::from(status)) {
                (false, Fault { code: Code::Unavailable, .. }) => {
                    Fault::new(Code::Unavailable, format!("cannot reach {address}"))
                }
                (false, fault) => Fault { message: format!("{address}: {fault}"), ..fault },
                (true, fault) => {
                    answered = true;
                    fault
                }
            },
        };
        order.push_back(address);
        // What a member says of the token is the cluster's word.
        let elsewhere = !(answered && fault.code == Code::Untrusted)
            && matches!(
                fault.code,
                Code::NotLeader
                    | Code::NoQuorum
                    | Code::Unavailable
                    | Code::Timeout
                    | Code::Untrusted
            );
        if !elsewhere {
            return Err(fault);
        }
        // One that took the call and does not answer waits for its own quorum.
        leaderless |= !matches!(fault.code, Code::Unavailable | Code::Untrusted);
        if until.saturating_duration_since(Instant::now()) < PAUSE {
            return Err(if leaderless { Fault::no_quorum() } else { fault });
        }
        if let Some(leader) = fault.leader {
            order.retain(|other| *other != leader);
            order.push_front(leader);
        }
        sleep(PAUSE).await;
    }
}

fn granted_role(number: u32) -> Result<NodeRole, Fault> {
    let role = i32::try_from(number).ok().and_then(|n| v1::NodeRole::try_from(n).ok());
    role.and_then(node_role)
        .ok_or_else(|| Fault::new(Code::Internal, "the leader named no role for this node"))
}

/// Waits until this node has its part: whoever asked for a voter counts on it from now on.
async fn wait_for_part(raft: &RaftNode, me: &Identity) {
    let has_part = || {
        let members = raft.metrics();
        members.voters.contains(&me.node) || !me.role.votes() && members.learners.contains(&me.node)
    };
    let until = Instant::now() + MEMBER_PATIENCE;
    while !has_part() {
        if Instant::now() >= until {
            warn!("this node has no part in consensus yet; it will when the leader reaches it");
            return;
        }
        sleep(PAUSE).await;
    }
}
