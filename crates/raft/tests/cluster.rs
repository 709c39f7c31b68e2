//! Three nodes over real tonic on loopback: elections, reads, restarts, partitions.

mod support;

use std::time::{Duration, Instant};

use holdfast_proto::Dialer;
use holdfast_proto::RemoteError;
use holdfast_proto::internal::raft_service_client::RaftServiceClient;
use holdfast_proto::internal::{RaftRequest, SnapshotPart, SnapshotStart, snapshot_part};
use holdfast_raft::{RaftConfig, RaftNode};
use holdfast_types::{ClusterId, Code, NodeId, RequestId};
use support::{Cluster, entry, wait};

fn plain(_: &mut RaftConfig) {}

fn hash_all(config: &mut RaftConfig) {
    config.hash_every = 1;
}

const ALL: [usize; 3] = [0, 1, 2];

fn others(at: usize) -> Vec<usize> {
    ALL.into_iter().filter(|i| *i != at).collect()
}

/// I1, I3, I4, I5: the leader stops, another leads with everything acknowledged; the old one comes
/// back, catches up, and every node had the same state at every index.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_with_the_leader() {
    let mut cluster = Cluster::of(3, hash_all).await;
    let mut acked = cluster.write(&ALL, 20).await;
    let old = cluster.leader(&ALL).await;
    let term = cluster.machines[old].node().metrics().term;
    cluster.machines[old].stop().await;

    let rest = others(old);
    let new = cluster.leader(&rest).await;
    assert!(cluster.machines[new].node().metrics().term > term);
    cluster.all_have(&rest, &acked).await;
    acked.extend(cluster.write(&rest, 20).await);

    cluster.boot(old).await.unwrap();
    cluster.all_have(&ALL, &acked).await;
    let last = cluster.machines[new].node().applied_index();
    for at in ALL {
        cluster.machines[at].node().wait_applied(last, Duration::from_secs(5)).await.unwrap();
    }
    let mut compared = 0;
    for index in 1..=last {
        let mut hashes = Vec::new();
        for at in ALL {
            hashes.extend(cluster.machines[at].node().state_hash(index).await);
        }
        assert!(hashes.windows(2).all(|w| w[0] == w[1]), "index {index}: {hashes:?}");
        compared += hashes.len();
    }
    assert!(compared > 100, "{compared}");
}

/// A leader whose process is gone is followed as soon as nobody holds to it any more. Its silence
/// alone would have to last for the shortest election as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_leader_is_noticed_by_its_connection() {
    let mut cluster = Cluster::of(3, |config| {
        config.timing.election_min_ms = 5_900;
        config.timing.election_max_ms = 6_000;
    })
    .await;
    cluster.write(&ALL, 3).await;
    let old = cluster.leader(&ALL).await;
    let gone = Instant::now();
    cluster.machines[old].stop().await;
    cluster.leader(&others(old)).await;
    let silence = Duration::from_millis(6_000 + 5_900 - 250);
    assert!(gone.elapsed() < silence, "nobody noticed before {silence:?}");
}

/// I5: all nodes stop at once and start from their disks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_cluster_restarts_with_everything() {
    let mut cluster = Cluster::of(3, plain).await;
    let acked = cluster.write(&ALL, 30).await;
    let term = cluster.machines[0].node().metrics().term;
    for at in ALL {
        cluster.machines[at].stop().await;
    }
    for at in ALL {
        cluster.boot(at).await.unwrap();
    }
    let leader = cluster.leader(&ALL).await;
    // Leadership is never restored: a reign belongs to one process.
    assert!(cluster.machines[leader].node().metrics().term > term);
    cluster.all_have(&ALL, &acked).await;
    cluster.machines[leader].node().read_index().await.unwrap();
}

/// I6, I12: a leader cut off from the others proves nothing and commits nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minority_says_no_quorum_within_five_seconds() {
    let cluster = Cluster::of(3, plain).await;
    let acked = cluster.write(&ALL, 5).await;
    let leader = cluster.leader(&ALL).await;
    let follower = others(leader)[0];
    cluster.all_have(&[follower], &acked).await;
    cluster.cut(&ALL);

    let began = Instant::now();
    let [lead, follow] = [leader, follower].map(|at| cluster.machines[at].node());
    let (read, written, forwarded) = tokio::join!(
        lead.read_index(),
        lead.propose(entry(RequestId::generate())),
        follow.propose(entry(RequestId::generate())),
    );
    let elapsed = began.elapsed();
    assert!(elapsed < Duration::from_secs(5), "{elapsed:?}");
    assert_eq!(read.unwrap_err().code(), Code::NoQuorum);
    assert_eq!(written.unwrap_err().code(), Code::NoQuorum);
    // The follower may still have named the old leader, for as long as an election takes.
    let code = forwarded.unwrap_err().code();
    assert!([Code::NoQuorum, Code::NotLeader].contains(&code), "{code}");
    let silent = follow.propose(entry(RequestId::generate())).await.unwrap_err();
    assert_eq!(silent.code(), Code::NoQuorum);

    cluster.cut(&[]);
    cluster.write(&ALL, 1).await;
}

/// I6: the deposed leader never answers a read with the others' writes missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deposed_leader_answers_no_read() {
    let cluster = Cluster::of(3, plain).await;
    let old = cluster.leader(&ALL).await;
    cluster.machines[old].node().read_index().await.unwrap();
    cluster.cut(&[old]);
    let rest = others(old);
    let acked = cluster.write(&rest, 5).await;
    let error = cluster.machines[old].node().read_index().await.unwrap_err();
    assert!([Code::NoQuorum, Code::NotLeader].contains(&error.code()), "{error}");
    cluster.cut(&[]);
    cluster.all_have(&[old], &acked).await;
}

/// A node that was cut off asks before it stands, so its return deposes nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_returning_node_does_not_depose_the_leader() {
    let cluster = Cluster::of(3, plain).await;
    let leader = cluster.leader(&ALL).await;
    let lone = others(leader)[0];
    let term = cluster.machines[leader].node().metrics().term;
    cluster.cut(&[lone]);
    // It has no leader any more, so its election timer has run out.
    wait(async || cluster.machines[lone].node().leadership_now().leader.is_none().then_some(()))
        .await;
    let mut leadership = cluster.machines[lone].node().leadership();
    leadership.mark_unchanged();
    let quiet = tokio::time::timeout(Duration::from_secs(3), leadership.changed()).await;
    assert!(quiet.is_err(), "a lone node changed its mind: {:?}", leadership.borrow());

    cluster.cut(&[]);
    let acked = cluster.write(&[leader], 5).await;
    cluster.all_have(&ALL, &acked).await;
    assert_eq!(cluster.machines[leader].node().metrics().term, term);
    assert_eq!(cluster.machines[lone].node().metrics().term, term);
}

/// A node that does not hear the leader, but is heard, asks in vain: the others do hear it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_does_not_hear_the_leader_does_not_depose_it() {
    let cluster = Cluster::of(3, plain).await;
    let leader = cluster.leader(&ALL).await;
    let deaf = others(leader)[0];
    let term = cluster.machines[leader].node().metrics().term;
    cluster.cut_ways(&[(leader, deaf)]);
    wait(async || cluster.machines[deaf].node().leadership_now().leader.is_none().then_some(()))
        .await;
    let mut leadership = cluster.machines[leader].node().leadership();
    leadership.mark_unchanged();
    let quiet = tokio::time::timeout(Duration::from_secs(5), leadership.changed()).await;
    assert!(quiet.is_err(), "a deaf node deposed the leader: {:?}", leadership.borrow());

    cluster.cut(&[]);
    let acked = cluster.write(&[leader], 5).await;
    cluster.all_have(&ALL, &acked).await;
    assert_eq!(cluster.machines[deaf].node().metrics().term, term);
}

/// I6, I12: a leader that hears the others, but is not heard by them, proves nothing; another leads,
/// and its return is orderly.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_nobody_hears_is_replaced() {
    let cluster = Cluster::of(3, plain).await;
    let old = cluster.leader(&ALL).await;
    let rest = others(old);
    cluster.cut_ways(&[(old, rest[0]), (old, rest[1])]);
    let new = cluster.leader(&rest).await;
    let acked = cluster.write(&rest, 5).await;
    // It hears of its successor, who can call it.
    cluster.all_have(&[old], &acked).await;
    let error = cluster.machines[old].node().read_index().await.unwrap_err();
    assert_eq!(error.code(), Code::NotLeader, "{error}");
    let term = cluster.machines[new].node().metrics().term;

    cluster.cut(&[]);
    let acked = cluster.write(&[new], 5).await;
    cluster.all_have(&ALL, &acked).await;
    assert_eq!(cluster.machines[new].node().metrics().term, term, "its return deposed nobody");
}

/// One that should not lead gives it up to one that is fit, and does not get it back; a voter that
/// should not lead is not asked to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_space_hands_over_to_one_that_has_some() {
    // Each node's directory is on a filesystem of its own in earnest; here they share one.
    fn crowded(config: &mut RaftConfig) {
        let short = config.identity.node.0 <= 2;
        config.care.floor_bytes = if short { u64::MAX / 4 } else { 0 };
    }
    let cluster = Cluster::of(3, crowded).await;
    // Node 1 founded it, node 2 is as short of space.
    let fit = wait(async || {
        let lead = cluster.leader(&ALL).await;
        (cluster.machines[lead].identity.node == NodeId(3)).then_some(lead)
    })
    .await;
    let node = cluster.machines[fit].node();
    assert_eq!(node.unfit(), None);
    wait(async || (node.unfit_peers().len() == 2).then_some(())).await;
    assert!(node.unfit_peers()[&NodeId(1)].contains("free space"), "{:?}", node.unfit_peers());
    assert_eq!(node.successor(), None, "both others should not lead");
    let acked = cluster.write(&ALL, 5).await;
    cluster.all_have(&ALL, &acked).await;

    // Asked all the same it declines, and the fit one leads again at last.
    let why = cluster.machines[0].node().unfit().unwrap();
    assert!(why.to_string().contains("MiB left"), "{why}");
    drop(node.transfer_leadership(NodeId(1)).await);
    let acked = cluster.write(&ALL, 5).await;
    cluster.all_have(&ALL, &acked).await;
    wait(async || (cluster.leader(&ALL).await == fit).then_some(())).await;

    // Where nobody is fit, one that is not leads in the end.
    cluster.cut(&[fit]);
    let acked = cluster.write(&others(fit), 5).await;
    cluster.cut(&[]);
    cluster.all_have(&ALL, &acked).await;
}

/// Where all are unfit nobody waits for a better one for long: the first sign of the leader's death
/// counts for them too, only later than for others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_leader_is_noticed_where_all_are_unfit() {
    let mut cluster = Cluster::of(3, |config| {
        config.timing.election_min_ms = 5_900;
        config.timing.election_max_ms = 6_000;
        config.care.floor_bytes = u64::MAX / 4;
    })
    .await;
    let unfit = |at: &usize| cluster.machines[*at].node().unfit().is_some();
    wait(async || ALL.iter().all(unfit).then_some(())).await;
    let old = cluster.leader(&ALL).await;
    let gone = Instant::now();
    cluster.machines[old].stop().await;
    cluster.leader(&others(old)).await;
    let silence = Duration::from_millis(6_000 + 5_900 - 250);
    assert!(gone.elapsed() < silence, "nobody noticed before {silence:?}");
}

/// Many callers share rounds, and each sees what was acknowledged before it called (I6).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_share_rounds_and_see_what_was_acknowledged() {
    let cluster = Cluster::of(3, plain).await;
    let leader = cluster.leader(&ALL).await;
    let node = cluster.machines[leader].node();
    let readers = (0..200).map(|_| {
        let node: RaftNode = node.clone();
        tokio::spawn(async move {
            let request = RequestId::generate();
            drop(node.propose(entry(request)).await.unwrap());
            let before = node.applied_index();
            let index = node.read_index().await.unwrap();
            assert!(index >= before && node.applied_index() >= index);
            assert!(node.state().answered.contains_key(&request));
        })
    });
    for reader in readers.collect::<Vec<_>>() {
        reader.await.unwrap();
    }
}

/// A node far behind gets a snapshot, and its state is the same (I4).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_node_starts_from_a_snapshot() {
    fn tight(config: &mut RaftConfig) {
        config.snapshot_every = 50;
        config.keep_entries = 5;
    }
    let mut cluster = Cluster::of(3, tight).await;
    let acked = cluster.write(&ALL, 300).await;
    let leader = cluster.leader(&ALL).await;
    wait(async || (cluster.machines[leader].node().metrics().purged > 0).then_some(())).await;

    let node = cluster.add_machine().await;
    let first = cluster.machines[leader].node();
    first.add_learner(node, &cluster.machines[3].addr).await.unwrap();
    cluster.all_have(&[3], &acked).await;
    let metrics = cluster.machines[3].node().metrics();
    assert!(metrics.snapshot > 0, "{metrics:?}");
    let index = first.applied_index();
    let theirs = cluster.machines[3].node().wait_applied(index, Duration::from_secs(5)).await;
    assert_eq!(theirs.unwrap().hash().hash, first.applied().hash().hash);

    // And it starts from that snapshot again.
    cluster.machines[3].stop().await;
    cluster.boot(3).await.unwrap();
    cluster.all_have(&[3], &acked).await;

    // A damaged snapshot is refused, and named.
    cluster.machines[3].stop().await;
    let file = cluster.machines[3].dir.path().join("raft/snapshot");
    let mut content = std::fs::read(&file).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    std::fs::write(&file, &content).unwrap();
    let error = cluster.boot(3).await.unwrap_err();
    assert_eq!(error.code(), Code::Corrupt);
    assert!(error.to_string().contains("raft/snapshot"), "{error}");

    // So is a missing one: an empty state is no substitute for a purged log.
    std::fs::remove_file(&file).unwrap();
    let error = cluster.boot(3).await.unwrap_err();
    assert_eq!(error.code(), Code::Corrupt, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_moves_on_request_and_members_change() {
    let cluster = Cluster::of(3, plain).await;
    let old = cluster.leader(&ALL).await;
    let to = others(old)[0];
    let (from, target) = (cluster.machines[old].node(), cluster.machines[to].identity.node);
    from.transfer_leadership(target).await.unwrap();
    assert_eq!(cluster.leader(&ALL).await, to);
    let reign = cluster.machines[to].node().leadership_now().reign.unwrap();
    assert!(reign.since <= holdfast_raft::boottime());
    wait(async || from.leadership_now().leader.filter(|l| l.node == target)).await;
    let refused = from.propose(entry(RequestId::generate())).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotLeader);
    // What was decided in one term is never proposed in another, even by the same process.
    let new = cluster.machines[to].node();
    let limit = Duration::from_secs(4);
    let stale = new.propose_in_term(entry(RequestId::generate()), reign.term - 1, limit).await;
    assert_eq!(stale.unwrap_err().code(), Code::NotLeader);
    let own = new.propose_in_term(entry(RequestId::generate()), reign.term, limit).await;
    drop(own.unwrap());
    assert!(refused.to_string().contains(&cluster.machines[to].addr), "{refused}");

    let node = cluster.machines[to].node();
    let old_id = cluster.machines[old].identity.node;
    let keep = ALL.iter().filter(|at| **at != old).map(|at| cluster.machines[*at].identity.node);
    node.change_voters(keep.collect()).await.unwrap();
    let metrics = node.metrics();
    assert_eq!((metrics.voters.len(), metrics.joint), (2, false));
    assert!(metrics.learners.contains(&old_id));
    node.remove_learner(old_id).await.unwrap();
    let stranger = node.change_voters([target, NodeId(99)].into()).await.unwrap_err();
    assert_eq!(stranger.code(), Code::NotFound);
    let again = node.initialize("127.0.0.1:1").await.unwrap_err();
    assert_eq!(again.code(), Code::WrongState);
}

/// I7 is the state's; here: an entry above the limit never reaches the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_apply_once_and_large_entries_are_refused() {
    let cluster = Cluster::of(1, plain).await;
    let node = cluster.machines[0].node();
    let request = RequestId::generate();
    let first = node.propose(entry(request)).await.unwrap();
    assert_eq!(node.propose(entry(request)).await.unwrap(), first);
    assert_eq!(node.state().answered_order.len(), 1);

    let before = node.metrics().last_log;
    let mut large = entry(RequestId::generate());
    large.command = support::large_command();
    assert_eq!(node.propose(large).await.unwrap_err().code(), Code::TooLarge);
    assert_eq!(node.metrics().last_log, before);
}

/// A data directory serves one cluster and one node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_directory_is_refused() {
    let mut cluster = Cluster::of(1, plain).await;
    cluster.machines[0].stop().await;
    let dir = cluster.machines[0].dir.path().join("raft");
    let found = RaftNode::identity(&dir).unwrap().unwrap();
    assert_eq!(found, cluster.machines[0].identity);
    cluster.machines[0].identity.cluster = ClusterId::generate();
    assert_eq!(cluster.boot(0).await.unwrap_err().code(), Code::WrongCluster);
}

/// I26, I27: what is for another cluster or node, or is no message at all, changes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_and_garbage_are_refused_at_the_door() {
    let cluster = Cluster::of(1, plain).await;
    let machine = &cluster.machines[0];
    let before = machine.node().metrics();
    let address = machine.addr.parse().unwrap();
    let channel = Dialer::plaintext().connect(&address, Duration::from_secs(5)).await.unwrap();
    let mut client = RaftServiceClient::new(channel);
    let right = RaftRequest {
        cluster_id: cluster.cluster.to_bytes().into(),
        from: 2,
        to: 1,
        body: vec![0xc1; 100].into(),
        generation: 0,
    };
    let foreign = ClusterId::generate().to_bytes().into();
    let cases = [
        (RaftRequest { cluster_id: foreign, ..right.clone() }, Code::WrongCluster),
        (RaftRequest { to: 2, ..right.clone() }, Code::WrongCluster),
        (RaftRequest { cluster_id: vec![1].into(), ..right.clone() }, Code::InvalidArgument),
        (RaftRequest { body: Vec::new().into(), ..right.clone() }, Code::InvalidArgument),
        (right, Code::InvalidArgument),
    ];
    for (request, code) in cases {
        let answers = [
            client.append(request.clone()).await,
            client.vote(request.clone()).await,
            client.pre_vote(request.clone()).await,
            client.transfer_leader(request.clone()).await,
            client.read_index(request.clone()).await,
            client.install_snapshot(tokio_stream::once(start(request))).await,
        ];
        for answer in answers {
            assert_eq!(RemoteError::from(answer.unwrap_err()).code, code);
        }
    }
    let empty = tokio_stream::empty::<SnapshotPart>();
    assert!(client.install_snapshot(empty).await.is_err());
    let after = machine.node().metrics();
    assert_eq!((after.term, after.last_log), (before.term, before.last_log));
    assert!(machine.node().leadership_now().reign.is_some());
}

fn start(request: RaftRequest) -> SnapshotPart {
    let start = SnapshotStart { request: Some(request), size_bytes: 0, hash: Vec::new().into() };
    SnapshotPart { part: Some(snapshot_part::Part::Start(start)) }
}
