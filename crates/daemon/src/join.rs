//! `Join`: this node asks to be let into a cluster.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use holdfast_core::NodeRole;
use holdfast_proto::internal::leader_service_client::LeaderServiceClient;
use holdfast_proto::internal::{AdmitRequest, AdmitResponse};
use holdfast_proto::{is_answer, v1};
use holdfast_raft::RaftNode;
use holdfast_types::{ClusterId, Code, FeatureLevel, NodeId};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{info, warn};

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
) -> Result<Identity, Fault> {
    if peers.is_empty() {
        return Err(Fault::new(Code::InvalidArgument, "name at least one node of the cluster"));
    }
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
        request_id: shell.admission.to_bytes().into(),
        underlay: config.network.underlay.to_string(),
        feature_level: FeatureLevel::OURS.0,
    };
    let admitted = ask(peers, request).await?;
    let identity = Identity {
        cluster: ClusterId::try_from(&admitted.cluster_id[..])?,
        node: NodeId(admitted.node_id),
        name: config.name.clone(),
        role: granted_role(admitted.role)?,
        address: config.advertise.clone(),
        peers: admitted.peers,
    };
    if !admitted.restored_from.is_empty() {
        shell.inherit_pool(ClusterId::try_from(&admitted.restored_from[..])?);
    }
    let (duties, hint) = shell.begin(&identity)?;
    let raft = match prepare(shell, &identity, admitted.generation, &*duties).await {
        Ok(raft) => raft,
        Err(fault) => {
            duties.stop().await;
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
    identity.write(shell.data().path())?;
    Ok(raft)
}

/// Asks one node after another, and whom they name as the leader first. That somebody is there and
/// nobody leads says more than who is not there.
async fn ask(peers: Vec<String>, request: AdmitRequest) -> Result<AdmitResponse, Fault> {
    let channels = Channels::default();
    let until = Instant::now() + PATIENCE;
    let mut order: VecDeque<String> = peers.into();
    let mut leaderless = false;
    loop {
        let Some(address) = order.pop_front() else {
            return Err(Fault::new(Code::InvalidArgument, "there is no node to ask"));
        };
        let mut client = LeaderServiceClient::new(channels.to(&address)?);
        let limit = until.min(Instant::now() + TRY_LIMIT);
        let fault = match timeout_at(limit, client.admit(request.clone())).await {
            Ok(Ok(answer)) => return Ok(answer.into_inner()),
            Err(_) => Fault::new(Code::Timeout, format!("{address} did not answer in time")),
            Ok(Err(status)) if !is_answer(&status) => {
                Fault::new(Code::Unavailable, format!("cannot reach {address}"))
            }
            Ok(Err(status)) => status.into(),
        };
        order.push_back(address);
        let elsewhere = matches!(
            fault.code,
            Code::NotLeader | Code::NoQuorum | Code::Unavailable | Code::Timeout
        );
        if !elsewhere {
            return Err(fault);
        }
        // One that took the call and does not answer waits for its own quorum.
        leaderless |= fault.code != Code::Unavailable;
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
