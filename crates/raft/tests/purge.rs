//! The log goes by its size and its age, not only by its number of entries.

mod support;

use std::time::Duration;

use holdfast_core::{Command, Entry, RecordFloor};
use holdfast_raft::RaftConfig;
use holdfast_types::{
    ContainerUid, Epoch, NodeId, RequestId, Seq, SnapshotId, SnapshotUuid, TimestampMs, VolumeUid,
};
use support::{Cluster, wait};

/// Nothing goes by its number, nor is a snapshot made for it.
fn by_size(config: &mut RaftConfig) {
    config.snapshot_every = 1_000_000;
    config.keep_entries = 1_000_000;
    config.keep_bytes = 256 << 10;
}

fn by_age(config: &mut RaftConfig) {
    by_size(config);
    config.keep_bytes = 64 << 20;
    config.keep_age = Duration::from_secs(1);
}

fn by_number(config: &mut RaftConfig) {
    config.snapshot_every = 20;
    config.keep_entries = 5;
}

/// Some 30 KiB that are refused, and remembered as every entry is.
fn large(request: RequestId) -> Entry {
    let uid = ContainerUid::generate();
    let snapshot = SnapshotId {
        volume: VolumeUid::from(uid),
        epoch: Epoch(1),
        seq: Seq(1),
        uuid: SnapshotUuid::generate(),
        parent: None,
    };
    let copies = (0..250).map(|_| (uid, NodeId(1), snapshot, TimestampMs(0)));
    let command = Command::RecordFloor(RecordFloor { copies: copies.collect() });
    Entry { request, at: TimestampMs(0), command }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_of_many_bytes_gets_a_snapshot_and_is_purged() {
    let mut cluster = Cluster::of(1, by_size).await;
    let node = cluster.machines[0].node().clone();
    let mut acked = Vec::new();
    for _ in 0..60 {
        let request = RequestId::generate();
        drop(node.propose(large(request)).await.unwrap());
        acked.push(request);
    }
    let purged = async || {
        let metrics = cluster.machines[0].node().metrics();
        (metrics.snapshot > 0 && metrics.purged > 0).then_some(metrics)
    };
    let metrics = wait(purged).await;
    assert!(metrics.purged <= metrics.snapshot && metrics.last_log > metrics.purged, "{metrics:?}");
    drop(node);
    cluster.machines[0].stop().await;
    cluster.boot(0).await.unwrap();
    cluster.all_have(&[0], &acked).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_of_an_idle_cluster_grows_old_and_goes() {
    let mut cluster = Cluster::of(1, by_age).await;
    let acked = cluster.write(&[0], 5).await;
    let gone = async || {
        let metrics = cluster.machines[0].node().metrics();
        (metrics.purged > 0 && metrics.purged == metrics.last_log).then_some(metrics)
    };
    let metrics = wait(gone).await;
    assert_eq!(metrics.snapshot, metrics.last_log);
    cluster.machines[0].stop().await;
    cluster.boot(0).await.unwrap();
    cluster.all_have(&[0], &acked).await;
    cluster.write(&[0], 1).await;
}

/// A follower that starts from a snapshot catches up while others go on writing and the log is
/// purged as fast as it may be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_catches_up_under_load() {
    let mut cluster = Cluster::of(1, by_number).await;
    cluster.write(&[0], 400).await;
    let first = cluster.machines[0].node().clone();
    wait(async || (first.metrics().purged > 0).then_some(())).await;
    let node = cluster.add_machine().await;

    let (stop, stopped) = tokio::sync::watch::channel(false);
    let writers = (0..4).map(|_| {
        let (first, stopped) = (first.clone(), stopped.clone());
        tokio::spawn(async move {
            while !*stopped.borrow() {
                drop(first.propose(support::entry(RequestId::generate())).await.unwrap());
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    first.add_learner(node, &cluster.machines[1].addr).await.unwrap();
    let marks = cluster.write(&[0], 50).await;
    cluster.all_have(&[1], &marks).await;
    assert!(cluster.machines[1].node().metrics().purged > 0, "it began with a snapshot");
    stop.send_replace(true);
    for writer in writers {
        writer.await.unwrap();
    }
}
