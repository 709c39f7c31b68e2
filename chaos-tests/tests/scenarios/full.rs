//! A pool that fills.

use std::time::Duration;

use holdfast_chaos_tests::checkers;
use holdfast_chaos_tests::rig::{On, Rig};
use holdfast_lab::{BootInstant, LabError, wait_until};
use holdfast_types::{Code, ContainerSpec, NodeName};

/// A container that overwrites so much each second always has bases worth giving up.
const NOISE_BYTES_PER_S: u64 = 1 << 20;
/// Past the threshold of 90, well before the brim.
const PERCENT: u64 = 93;
/// The agent looks every two seconds; what it says goes through Raft.
const EVENT_LIMIT: Duration = Duration::from_secs(30);
/// Several of the rig's intervals of a second.
const OLD_MS: u64 = 4_000;
const SYNC_LIMIT: Duration = Duration::from_secs(2);
/// The copy after a full pool is shipped whole.
const RESUME_LIMIT: Duration = Duration::from_secs(60);

/// I20: admission and replication stop before the pool is full, say so, and go on by themselves;
/// the container serves all the while, and nothing that it wrote is lost.
#[test]
fn a_full_pool_stops_admission_and_replication_until_there_is_room() -> Result<(), LabError> {
    Rig::play("t-full", On::Follower, NOISE_BYTES_PER_S, scenario)
}

fn scenario(rig: &Rig) -> Result<(), LabError> {
    let (cluster, web) = (&rig.stage.cluster, &rig.stage.container);
    let before = cluster.ask(async |s| s.status().await)?.applied;
    rig.lab().fill(rig.node(), PERCENT)?;
    for kind in ["pool-full", "replication-stopped", "bases-dropped"] {
        told(rig, before, kind)?;
    }
    let newest = || -> Result<Vec<_>, LabError> {
        let container = cluster.ask(async |s| s.container(web).await)?;
        Ok(container.replicas.iter().map(|r| (r.node.clone(), r.epoch, r.seq)).collect())
    };
    let stale = newest()?;
    assert!(stale.iter().any(|(_, _, seq)| seq.is_some()), "the replica is kept: {stale:?}");

    let synced = cluster.ask(async |s| s.sync(web, SYNC_LIMIT).await.map(drop));
    assert_eq!(synced.map_err(|e| e.code()), Err(Code::PoolFull));
    let spec = ContainerSpec { image: Some(rig.stage.image.clone()), ..ContainerSpec::default() };
    let name = "another".parse().map_err(|_| LabError::LabName(None))?;
    let node: NodeName = rig.node().parse().map_err(|_| LabError::LabName(None))?;
    let made = cluster.ask(async |s| s.create(&name, &spec, true, Some(&node)).await.map(drop));
    let refused = made.map_err(|e| (e.code(), e.to_string()));
    let reason = format!("{node} has a pool past its admission threshold");
    match refused {
        Err((Code::PoolFull, words)) => assert!(words.contains(&reason), "{words}"),
        other => panic!("{other:?}"),
    }
    cluster.wait_for("several rounds of replication", EVENT_LIMIT, async |s| {
        let container = s.container(web).await?;
        let age_ms = container.replicas.iter().filter_map(|r| r.age_ms).min();
        Ok((age_ms >= Some(OLD_MS)).then_some(()))
    })?;
    assert_eq!(newest()?, stale, "something was shipped from a full pool");
    checkers::answers_again(rig, BootInstant::now())?;

    rig.lab().unfill(rig.node())?;
    told(rig, before, "replication-resumed")?;
    cluster.wait_for("a replica that is current again", RESUME_LIMIT, async |s| {
        s.sync(web, SYNC_LIMIT).await.map(Some)
    })?;
    assert_ne!(newest()?, stale);
    told(rig, before, "pool-ok")?;
    let kinds = |kind: &str| -> Result<usize, LabError> {
        Ok(cluster.events(before)?.iter().filter(|e| e.kind == kind).count())
    };
    for kind in ["pool-full", "replication-stopped", "replication-resumed"] {
        assert_eq!(kinds(kind)?, 1, "{kind} is told once, not each round");
    }
    checkers::never_two(rig);
    checkers::nothing_lost_unsaid(rig, None)
}

/// Waits for an event of that kind about the container or its node.
fn told(rig: &Rig, after: u64, kind: &str) -> Result<(), LabError> {
    wait_until(&format!("the event {kind}"), EVENT_LIMIT, || {
        let all = rig.stage.cluster.events(after)?;
        Ok(all.iter().any(|e| e.kind == kind && e.node == rig.node()))
    })
}
