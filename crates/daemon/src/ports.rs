//! The controller's ports over consensus and gRPC. One set serves one reign.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use holdfast_controller::{PortError, Ports};
use holdfast_core::{Command, Entry, Node, Outcome, State};
use holdfast_planner::{Quorum, SealedCopy};
use holdfast_proto::internal::peer_service_client::PeerServiceClient;
use holdfast_proto::internal::{Holding, SealItem, SealRequest, SealResponse};
use holdfast_proto::{FieldError, required};
use holdfast_raft::{Applied, RaftNode};
use holdfast_types::{ClusterId, Code, Epoch, NodeId, RequestId, TimestampMs, VolumeUid};
use tokio::sync::{Mutex, watch};

use crate::channels::Channels;
use crate::fault::Fault;
use crate::{clock, membership};

/// A proposal that takes longer is asked again by whoever made it.
const PROPOSE_LIMIT: Duration = Duration::from_secs(2);

/// A holder that takes longer to seal is asked again in the next round.
const SEAL_LIMIT: Duration = Duration::from_secs(1);

/// The ports of one reign.
pub(crate) struct RaftPorts {
    raft: RaftNode,
    cluster: ClusterId,
    term: u64,
    channels: Channels,
    applied: Mutex<watch::Receiver<Applied>>,
}

impl RaftPorts {
    pub(crate) fn new(raft: RaftNode, cluster: ClusterId, term: u64, channels: Channels) -> Self {
        let applied = Mutex::new(raft.watch());
        Self { raft, cluster, term, channels, applied }
    }

    async fn ask_to_seal(
        &self,
        node: &Node,
        items: &[(VolumeUid, Epoch)],
    ) -> Result<SealResponse, Fault> {
        let item = |(volume, epoch): &(VolumeUid, Epoch)| SealItem {
            volume: volume.to_bytes().into(),
            epoch: epoch.0,
        };
        let request = SealRequest {
            cluster_id: self.cluster.to_bytes().into(),
            term: self.term,
            items: items.iter().map(item).collect(),
        };
        let mut client = PeerServiceClient::new(self.channels.to(&node.address)?)
            .max_decoding_message_size(holdfast_proto::MAX_MESSAGE_BYTES);
        match tokio::time::timeout(SEAL_LIMIT, client.seal(request)).await {
            Ok(answer) => Ok(answer?.into_inner()),
            Err(_) => Err(Fault::new(Code::Timeout, "it did not answer in time")),
        }
    }
}

#[async_trait]
impl Ports for RaftPorts {
    fn state(&self) -> Arc<State> {
        self.raft.state()
    }

    async fn changed(&self) {
        // The sender is gone only when consensus is, and then the reign ends as well.
        if self.applied.lock().await.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    async fn propose(&self, command: Command) -> Result<Outcome, PortError> {
        let entry = Entry { request: RequestId::generate(), at: self.wall(), command };
        let answer = self.raft.propose_in_term(entry, self.term, PROPOSE_LIMIT).await;
        Ok(answer.map_err(Fault::from)?.map_err(Fault::from)?)
    }

    async fn seal(
        &self,
        node: &Node,
        items: Vec<(VolumeUid, Epoch)>,
    ) -> Result<BTreeMap<VolumeUid, Vec<SealedCopy>>, PortError> {
        let answer = self.ask_to_seal(node, &items).await?;
        Ok(sealed_copies(node.id, &items, answer)?)
    }

    fn quorum(&self) -> Quorum {
        membership::quorum(&self.raft)
    }

    async fn align_membership(&self) -> Result<bool, PortError> {
        Ok(membership::align(&self.raft).await.map_err(Fault::from)?)
    }

    fn boottime_ms(&self) -> u64 {
        clock::boottime_ms()
    }

    fn wall(&self) -> TimestampMs {
        clock::wall()
    }
}

/// What a holder named under the seal, for each volume that it was asked about and answered for.
pub(crate) fn sealed_copies(
    node: NodeId,
    items: &[(VolumeUid, Epoch)],
    answer: SealResponse,
) -> Result<BTreeMap<VolumeUid, Vec<SealedCopy>>, Fault> {
    let asked: BTreeSet<VolumeUid> = items.iter().map(|(volume, _)| *volume).collect();
    let mut copies = BTreeMap::new();
    for sealed in answer.sealed {
        let volume = VolumeUid::try_from(&sealed.volume[..])?;
        let copy = |holding: Holding| {
            let id = required(holding.newest, "newest")?.try_into()?;
            Ok::<_, FieldError>(SealedCopy { node, id, age_ms: holding.age_ms })
        };
        let held: Vec<_> = sealed.held.into_iter().map(copy).collect::<Result<_, _>>()?;
        if asked.contains(&volume) {
            copies.insert(volume, held);
        }
    }
    Ok(copies)
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_proto::internal::Sealed;

    /// I15: a seal that is not answered for a volume is no seal of it, and of the others it is one.
    #[test]
    fn a_seal_is_one_of_the_volumes_it_was_answered_for() {
        let volume = |n: u128| VolumeUid(uuid::Uuid::from_u128(n));
        let sealed = |n: u128| Sealed { volume: volume(n).to_bytes().into(), held: Vec::new() };
        let items = [(volume(1), Epoch(1)), (volume(2), Epoch(4))];
        let part = SealResponse { sealed: vec![sealed(1), sealed(3)] };
        let sealed = sealed_copies(NodeId(2), &items, part).unwrap();
        assert_eq!(sealed, [(volume(1), Vec::new())].into());
    }
}
