//! What the leader sees that is not in the log, as it is shown: looked at, or asked of the leader, at most
//! once in [`MAX_AGE`], however many clients there are. It is for showing only: ages, pools, who has a
//! lease. Nothing is decided by it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use holdfast_controller::{Leadership, Version};
use holdfast_core::{Node, State};
use holdfast_planner::{HeldCopy, NodeObservation, Observations, vote_note};
use holdfast_proto::internal::leader_service_client::LeaderServiceClient;
use holdfast_proto::internal::observed::Part;
use holdfast_proto::internal::{
    Capacity, Holding, ObserveRequest, Observed, ObservedLeader, ObservedNode,
};
use holdfast_proto::required;
use holdfast_raft::RaftNode;
use holdfast_types::{ByteSize, FeatureLevel, HeldSnapshot, NodeId, TimestampMs};
use tokio::time::Instant;
use tonic::Streaming;
use tonic::transport::Channel;

use crate::clock;
use crate::convert::Picture;
use crate::fault::Fault;
use crate::leader::pool_seen;
use crate::membership;
use crate::warnings::voters;

/// What is as old as this is asked for again.
pub(crate) const MAX_AGE: Duration = Duration::from_millis(500);

/// Copies in one message: well below its limit.
const PART: usize = 4_096;

/// What the leader says of a node.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Told {
    /// Why it does not vote although it is to, or is about to lose its vote.
    pub(crate) note: String,
    /// What it understands, if this leader has heard it.
    pub(crate) version: Option<Version>,
}

/// What one leader saw at one moment.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) observations: Observations,
    silent_ms: BTreeMap<NodeId, u64>,
    told: BTreeMap<NodeId, Told>,
    /// What of Raft needs a person's attention, one line each.
    pub(crate) trouble: Vec<String>,
    /// The leader's wall clock then.
    wall: TimestampMs,
    taken: Instant,
    pub(crate) term: u64,
}

impl Seen {
    /// What this process sees as the leader.
    pub(crate) fn here(leadership: &Leadership, raft: &RaftNode, state: &State) -> Self {
        let quorum = membership::quorum(raft);
        let told = |node: &Node| {
            let note = vote_note(state, &quorum, node).unwrap_or_default();
            (node.id, Told { note, version: leadership.levels.of(node.id) })
        };
        let (now_ms, wall) = (clock::boottime_ms(), clock::wall());
        let silent = |id: &NodeId| Some((*id, leadership.leases.silent_ms(*id, now_ms)?));
        Self {
            observations: leadership.observe(state, now_ms, wall),
            silent_ms: state.nodes.keys().filter_map(silent).collect(),
            told: state.nodes.values().map(told).collect(),
            trouble: voters(state, raft).into_iter().chain(replacing(leadership, state)).collect(),
            wall,
            taken: Instant::now(),
            term: leadership.term,
        }
    }

    /// Asks the leader at that channel.
    pub(crate) async fn there(channel: Channel, cluster_id: Vec<u8>) -> Result<Self, Fault> {
        let request = ObserveRequest { cluster_id: cluster_id.into() };
        let mut client = LeaderServiceClient::new(channel)
            .max_decoding_message_size(holdfast_proto::MAX_MESSAGE_BYTES);
        collect(client.observe(request).await?.into_inner()).await
    }

    pub(crate) fn is_fresh(&self, term: u64) -> bool {
        self.term == term && self.taken.elapsed() < MAX_AGE
    }

    /// Shows `state` with this to `paint`.
    pub(crate) fn picture<T>(
        &self,
        state: &State,
        leader: Option<NodeId>,
        paint: impl FnOnce(&Picture<'_>) -> T,
    ) -> T {
        let since_ms = u64::try_from(self.taken.elapsed().as_millis()).unwrap_or(u64::MAX);
        paint(&Picture {
            state,
            seen: Some(&self.observations),
            leader,
            told: Some(&self.told),
            silent_ms: &|id| self.silent_ms.get(&id).map(|ms| ms.saturating_add(since_ms)),
            now: TimestampMs(self.wall.0.saturating_add(since_ms)),
        })
    }

    /// The parts in which it is sent.
    pub(crate) fn parts(&self, state: &State) -> Vec<Observed> {
        let leader = ObservedLeader {
            term: self.term,
            wall_ms: self.wall.0,
            leading_ms: self.observations.leading_ms,
            cold_start: self.observations.cold_start,
            warnings: self.trouble.clone(),
        };
        let mut parts = vec![Part::Leader(leader)];
        for id in state.nodes.keys() {
            let seen = self.observations.nodes.get(id);
            let Told { note, version } = self.told.get(id).cloned().unwrap_or_default();
            let mut held = seen.iter().flat_map(|node| node.held.values()).map(|copy| {
                let age_ms = self.wall.since(copy.as_of);
                Holding::from(HeldSnapshot { id: copy.newest, age_ms })
            });
            parts.push(Part::Node(ObservedNode {
                node_id: id.0,
                leased: seen.is_some_and(|node| node.leased),
                pool: seen.and_then(|node| node.pool.as_ref()).map(pool_seen::to_message),
                without_pool: seen.is_some_and(|node| node.without_pool),
                memory_bytes: seen.and_then(|node| node.memory).map(ByteSize::bytes),
                silent_ms: self.silent_ms.get(id).copied(),
                held: held.by_ref().take(PART).collect(),
                heard: seen.is_some(),
                note,
                feature_level: version.as_ref().map(|version| version.level.0),
                version: version.map(|version| version.name).unwrap_or_default(),
            }));
            loop {
                let held: Vec<_> = held.by_ref().take(PART).collect();
                if held.is_empty() {
                    break;
                }
                parts.push(Part::Node(ObservedNode {
                    node_id: id.0,
                    held,
                    heard: true,
                    ..Default::default()
                }));
            }
        }
        parts.into_iter().map(|part| Observed { part: Some(part) }).collect()
    }

    pub(crate) fn begin(leader: &ObservedLeader) -> Self {
        let (leading_ms, cold_start) = (leader.leading_ms, leader.cold_start);
        Self {
            observations: Observations { nodes: BTreeMap::new(), leading_ms, cold_start },
            silent_ms: BTreeMap::new(),
            told: BTreeMap::new(),
            trouble: leader.warnings.clone(),
            wall: TimestampMs(leader.wall_ms),
            taken: Instant::now(),
            term: leader.term,
        }
    }

    /// Takes in a node, or more of its copies.
    pub(crate) fn add(&mut self, part: ObservedNode) -> Result<(), Fault> {
        let id = NodeId(part.node_id);
        if let Some(silent_ms) = part.silent_ms {
            self.silent_ms.insert(id, silent_ms);
        }
        // It comes with the first part.
        self.told.entry(id).or_insert_with(|| Told {
            note: part.note,
            version: part
                .feature_level
                .map(|level| Version { level: FeatureLevel(level), name: part.version }),
        });
        if !part.heard {
            return Ok(());
        }
        let node = self.observations.nodes.entry(id).or_insert_with(|| NodeObservation {
            leased: part.leased,
            pool: part.pool.map(|pool: Capacity| pool_seen::from_message(pool)),
            without_pool: part.without_pool,
            memory: part.memory_bytes.map(ByteSize),
            held: BTreeMap::new(),
        });
        for holding in part.held {
            let newest: holdfast_types::SnapshotId =
                required(holding.newest, "newest")?.try_into()?;
            let as_of = self.wall.before(holding.age_ms);
            node.held.insert(newest.volume, HeldCopy { newest, as_of });
        }
        Ok(())
    }
}

async fn collect(mut stream: Streaming<Observed>) -> Result<Seen, Fault> {
    let first = stream.message().await?.and_then(|message| message.part);
    let Some(Part::Leader(leader)) = first else { return Err(Fault::not_leader(None)) };
    let mut seen = Seen::begin(&leader);
    while let Some(message) = stream.message().await? {
        if let Some(Part::Node(node)) = message.part {
            seen.add(node)?;
        }
    }
    Ok(seen)
}

/// Whom the replacement of the authority waits for.
fn replacing(leadership: &Leadership, state: &State) -> Option<String> {
    if state.trust.authorities.len() < 2 {
        return None;
    }
    let behind = leadership.standings.behind(state).join(", ");
    Some(format!(
        "the authority is being replaced, and the next step waits for: {behind}; one that is gone for \
         good holds it up until it is removed (holdfast node rm)"
    ))
}

/// What was seen last. Whoever comes while it is being asked for waits for the same answer.
#[derive(Debug, Default)]
pub(crate) struct LastSeen(tokio::sync::Mutex<Option<Arc<Seen>>>);

impl LastSeen {
    /// What the leader of `term` sees, at most [`MAX_AGE`] ago.
    pub(crate) async fn of(
        &self,
        term: u64,
        ask: impl Future<Output = Result<Seen, Fault>>,
    ) -> Result<Arc<Seen>, Fault> {
        let mut last = self.0.lock().await;
        if let Some(seen) = last.as_ref().filter(|seen| seen.is_fresh(term)) {
            return Ok(seen.clone());
        }
        let seen = Arc::new(ask.await?);
        *last = Some(seen.clone());
        Ok(seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_core::{NodeLife, NodeRole};
    use holdfast_planner::PoolObservation;
    use holdfast_types::{Epoch, Incarnation, Revision, Seq, SnapshotId, SnapshotUuid, VolumeUid};
    use uuid::Uuid;

    fn copy(n: u128) -> (VolumeUid, HeldCopy) {
        let volume = VolumeUid(Uuid::from_u128(n));
        let uuid = SnapshotUuid(Uuid::from_u128(n));
        let newest = SnapshotId { volume, epoch: Epoch(1), seq: Seq(2), uuid, parent: None };
        (volume, HeldCopy { newest, as_of: TimestampMs(9_000) })
    }

    /// What a follower shows is what the leader would, however many copies there are.
    #[test]
    fn what_is_seen_survives_the_wire_in_parts() {
        let pool = PoolObservation {
            name: "fast".into(),
            driver: "lvm".into(),
            size: ByteSize(100),
            used: ByteSize(85),
            promised: ByteSize(3),
            metadata: Some((ByteSize(1), ByteSize(2))),
            admits: true,
        };
        let heard = NodeObservation {
            leased: true,
            pool: Some(pool),
            without_pool: false,
            memory: Some(ByteSize(7)),
            held: (0..PART as u128 * 2 + 1).map(copy).collect(),
        };
        let version = Some(Version { level: FeatureLevel(1), name: "0.1.0".into() });
        let told = Told { note: "it has not got the log yet".into(), version };
        let observations =
            Observations { nodes: [(NodeId(1), heard)].into(), leading_ms: 5, cold_start: true };
        let seen = Seen {
            observations,
            silent_ms: [(NodeId(1), 40), (NodeId(2), 70)].into(),
            told: [(NodeId(1), told.clone()), (NodeId(2), Told::default())].into(),
            trouble: vec!["voter n2 has not answered yet".into()],
            wall: TimestampMs(10_000),
            taken: Instant::now(),
            term: 3,
        };
        let mut state = State::default();
        for n in [1, 2] {
            let node = node(n);
            state.nodes.insert(node.id, node);
        }
        let parts = seen.parts(&state);
        assert_eq!(parts.len(), 1 + 3 + 1);
        let mut parts = parts.into_iter().map(|message| message.part.unwrap());
        let Some(Part::Leader(leader)) = parts.next() else { panic!("the leader comes first") };
        let mut back = Seen::begin(&leader);
        for part in parts {
            let Part::Node(node) = part else { panic!("a second leader") };
            back.add(node).unwrap();
        }
        assert_eq!(back.observations, seen.observations);
        assert_eq!((&back.silent_ms, back.term), (&seen.silent_ms, 3));
        assert_eq!((&back.told, &back.trouble), (&seen.told, &seen.trouble));
        assert!(back.is_fresh(3) && !back.is_fresh(4), "another leader sees anew");
    }

    fn node(n: u64) -> Node {
        Node {
            id: NodeId(n),
            name: format!("n{n}").parse().unwrap(),
            address: format!("n{n}:7443"),
            underlay: "10.88.0.1".parse().unwrap(),
            role: NodeRole::Voter,
            incarnation: Incarnation(1),
            life: NodeLife::Up,
            assignment_revision: Revision(1),
            view_revision: Revision(1),
            labels: BTreeMap::new(),
            asked: None,
            revision: Revision(1),
        }
    }
}
