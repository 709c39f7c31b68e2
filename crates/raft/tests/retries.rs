//! I7 across changes of leader: a request applies once, and one whose answer may be forgotten is refused.

mod support;

use std::time::Duration;

use holdfast_core::{Command, Entry, Guarded, RemoveImage};
use holdfast_raft::RaftConfig;
use holdfast_types::{Code, RequestId, Revision, TimestampMs};
use support::{Cluster, entry, wait};

fn plain(_: &mut RaftConfig) {}

const ALL: [usize; 3] = [0, 1, 2];

fn guarded(request: RequestId, since: u64) -> Entry {
    let remove = Command::RemoveImage(RemoveImage { name: "none".parse().expect("a name") });
    let since = Some(Revision(since));
    let command = Command::Guarded(Guarded { since, expect: None, command: Box::new(remove) });
    Entry { request, at: TimestampMs(0), command }
}

/// The leader is gone before its client has heard: the next one knows the request, in the window, and
/// beyond it refuses it for good, whoever leads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_at_the_next_leader_applies_once_or_is_refused() {
    let mut cluster = Cluster::of(3, plain).await;
    let old = cluster.leader(&ALL).await;
    let node = cluster.machines[old].node().clone();
    let since = node.applied_index();
    let request = RequestId::generate();
    let first = node.propose(guarded(request, since)).await.unwrap();
    assert_eq!(first.as_ref().unwrap_err().code, Code::NotFound);
    drop(node);
    cluster.machines[old].stop().await;

    let rest: Vec<usize> = ALL.into_iter().filter(|at| *at != old).collect();
    let retry = async |cluster: &Cluster, among: &[usize]| {
        let again = async || {
            let leader = cluster.leader(among).await;
            cluster.machines[leader].node().propose(guarded(request, since)).await.ok()
        };
        wait(again).await
    };
    assert_eq!(retry(&cluster, &rest).await, first);
    let leader = cluster.leader(&rest).await;
    let state = cluster.machines[leader].node().state();
    assert_eq!(state.answered_order.iter().filter(|known| **known == request).count(), 1);
    drop(state);

    // Its answer is pushed out by others', minutes later.
    let others: Vec<_> = (0..64)
        .map(|_| {
            let node = cluster.machines[leader].node().clone();
            tokio::spawn(async move {
                for _ in 0..150 {
                    let later = Entry { at: TimestampMs(600_000), ..entry(RequestId::generate()) };
                    drop(node.propose(later).await.unwrap());
                }
            })
        })
        .collect();
    for other in others {
        other.await.unwrap();
    }
    let late = retry(&cluster, &rest).await.unwrap_err();
    assert_eq!(late.code, Code::RequestExpired);
    cluster.boot(old).await.unwrap();
    let index = cluster.machines[leader].node().applied_index();
    let caught_up = cluster.machines[old].node().wait_applied(index, Duration::from_secs(20)).await;
    assert!(caught_up.unwrap().state.answers_forgotten > Revision(since));
    cluster.machines[leader].stop().await;
    let late =
        retry(&cluster, &ALL.into_iter().filter(|at| *at != leader).collect::<Vec<_>>()).await;
    assert_eq!(late.unwrap_err().code, Code::RequestExpired);
}
