//! Waiting until a replica holds everything that was written before the call.

use std::time::Duration;

use holdfast_proto::internal::SyncNowRequest;
use holdfast_proto::internal::peer_service_client::PeerServiceClient;
use holdfast_proto::{required, v1};
use holdfast_types::{Code, ContainerUid, NodeId, SnapshotId, VolumeUid};
use tokio::time::{Instant, sleep};

use super::container::not_held;
use crate::fault::Fault;
use crate::member::Lead;

/// How long a sync may take if the client does not say.
const LIMIT: Duration = Duration::from_secs(30);

/// And at most, whatever it says.
const MAX: Duration = Duration::from_secs(600);

/// How often it is looked whether a replica has said that it is current.
const LOOK: Duration = Duration::from_millis(20);

/// How long this sync may take.
pub(super) fn limit(request: &v1::SyncRequest) -> Duration {
    match request.timeout_ms {
        0 => LIMIT,
        ms => Duration::from_millis(ms).min(MAX),
    }
}

/// Ships on the container's node, and answers once a replica has it; on the leader.
pub(super) async fn sync(lead: Lead, request: v1::SyncRequest) -> Result<v1::SyncResponse, Fault> {
    let limit = limit(&request);
    let state = lead.read().await?;
    let container = state.container_named(&request.name.parse()?)?;
    not_held(container)?;
    let node = state.node(container.node)?;
    let message = SyncNowRequest {
        volume: VolumeUid::from(container.uid).to_bytes().into(),
        timeout_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
    };
    let (uid, channel) = (container.uid, lead.member.channels.to(&node.address)?);
    drop(state);
    let answer = PeerServiceClient::new(channel).sync_now(message).await?.into_inner();
    let snapshot: SnapshotId = required(answer.snapshot, "snapshot")?.try_into()?;
    let replica = holder(&lead, uid, &snapshot).await?;
    Ok(v1::SyncResponse { replica: Some(replica) })
}

/// A replica that has said by itself that it holds the snapshot, or a newer one: holders report
/// progress, not the primary. It does so with its next heartbeat.
async fn holder(
    lead: &Lead,
    uid: ContainerUid,
    snapshot: &SnapshotId,
) -> Result<v1::Replica, Fault> {
    loop {
        let state = lead.raft.state();
        let container = state.container(uid)?;
        let found = lead.picture(&state, |picture, _| {
            let has = |id: &&NodeId| {
                let copy = picture.newest_copy(container, **id);
                copy.is_some_and(|copy| copy.newest.order() >= snapshot.order())
            };
            container.replicas.iter().find(has).map(|id| picture.replica(container, *id))
        });
        if let Some(replica) = found {
            return Ok(replica);
        }
        drop(state);
        if Instant::now() + LOOK >= lead.deadline {
            let message = "a replica is current, and has not said so itself yet";
            return Err(Fault::new(Code::Timeout, message));
        }
        sleep(LOOK).await;
    }
}
