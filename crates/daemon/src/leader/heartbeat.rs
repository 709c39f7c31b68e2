//! Renewing leases (DESIGN section 5 rule 2).

use holdfast_controller::{Sighting, Version};
use holdfast_proto::internal::{HeartbeatRequest, HeartbeatResponse, Holding};
use holdfast_proto::{FieldError, required};
use holdfast_types::{ByteSize, FeatureLevel, HeldSnapshot, Incarnation, NodeId, VolumeUid};

use crate::clock;
use crate::fault::Fault;
use crate::member::Lead;

use super::pool_seen;
use super::rhythm::{self, GATHER};

/// Grants a lease, after a quorum round that began when the heartbeat was already here.
pub(super) async fn answer(
    lead: Lead,
    request: HeartbeatRequest,
) -> Result<HeartbeatResponse, Fault> {
    let (id, incarnation) = (NodeId(request.node_id), Incarnation(request.incarnation));
    // Ages in it are as of when it was sent; the round may take long.
    let arrived_ms = clock::boottime_ms();
    let level = FeatureLevel(request.feature_level);
    let version = Version { level, name: request.version.clone() };
    let standing = request.standing;
    let sighting = sighting(request)?;
    // Those that come now share the round.
    tokio::time::sleep(GATHER).await;
    lead.raft.read_index().await?;
    // The round proves that this node leads now; the table must be that of the same reign.
    let reign = lead.raft.leadership_now().reign.map(|reign| reign.term);
    if reign != Some(lead.leadership.term) {
        return Err(Fault::not_leader(lead.member.leader()));
    }
    super::known(&lead, id.0)?;
    let latest = || lead.raft.state().nodes.get(&id).cloned();
    lead.leadership.grant(id, incarnation, clock::boottime_ms, latest)?;
    lead.leadership.levels.heard(id, version);
    lead.leadership.standings.heard(id, standing);
    let send_full = lead.leadership.sightings.heard(id, incarnation, sighting, arrived_ms);
    let state = lead.raft.state();
    let lease = state.cluster()?.lease;
    let node = state.node(id)?;
    let (now_ms, period_ms) = (clock::boottime_ms(), lease.heartbeat_ms());
    Ok(HeartbeatResponse {
        lease_ms: lease.lease_ms,
        fence_budget_ms: lease.fence_budget_ms,
        assignment_revision: node.assignment_revision.0,
        view_revision: node.view_revision.0,
        term: lead.leadership.term,
        heartbeat_ms: period_ms,
        send_full,
        standing: lead.member.standing(&state.trust),
        next_heartbeat_ms: rhythm::next_ms(now_ms, period_ms, id, state.nodes.len()),
    })
}

pub(crate) fn sighting(request: HeartbeatRequest) -> Result<Sighting, Fault> {
    let mut sighting = Sighting { full: request.full, ..Default::default() };
    for holding in request.holdings {
        match holding.removed {
            true => sighting.removed.push(VolumeUid::try_from(&holding.volume[..])?),
            false => sighting.held.push(held(holding)?),
        }
    }
    sighting.pool = request.pool.map(pool_seen::from_message);
    sighting.without_pool = request.without_pool;
    sighting.memory = request.memory_bytes.map(ByteSize);
    Ok(sighting)
}

fn held(holding: Holding) -> Result<HeldSnapshot, FieldError> {
    let id = required(holding.newest, "newest")?.try_into()?;
    Ok(HeldSnapshot { id, age_ms: holding.age_ms })
}
