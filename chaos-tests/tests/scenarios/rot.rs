//! A disk that forgets.

use std::time::Duration;

use holdfast_chaos_tests::checkers;
use holdfast_chaos_tests::rig::{On, Rig};
use holdfast_lab::quickstart::Cut;
use holdfast_lab::{LabError, wait_until};

const LIMIT: Duration = Duration::from_secs(60);
const SYNC_LIMIT: Duration = Duration::from_secs(20);

/// I15, I16: a replica that has rotted is found, told of, shipped anew, and only then taken over.
#[test]
fn a_rotten_replica_is_shipped_anew() -> Result<(), LabError> {
    Rig::play("t-rot", On::Follower, 0, scenario)
}

fn scenario(rig: &Rig) -> Result<(), LabError> {
    let (cluster, web) = (&rig.stage.cluster, &rig.stage.container);
    let before = cluster.ask(async |s| s.status().await)?.applied;
    let held = cluster.ask(async |s| s.sync(web, SYNC_LIMIT).await)?;
    let node = held.node;
    let whole = cluster.scrub(&node)?;
    assert!(whole.copies > 0 && whole.rotten == 0, "{whole:?}");

    // A snapshot may have come between looking for the newest and spoiling it: then it is no rot of
    // anything that counts, and is spoiled again.
    wait_until("rot that is found", LIMIT, || {
        rig.lab().rot(&node, rig.scene.uid)?;
        cluster.ask(async |s| s.sync(web, SYNC_LIMIT).await)?;
        Ok(cluster.scrub(&node)?.rotten > 0)
    })?;
    let told = cluster.events(before)?.into_iter().filter(|e| e.kind == "copy-rotten");
    let told: Vec<_> = told.collect();
    assert!(told.iter().any(|e| e.node == node && e.container == web.to_string()), "{told:?}");

    // The newest copy is sound again: it is what the takeover goes to.
    cluster.wait_for("a replica that is current again", LIMIT, async |s| {
        s.sync(web, SYNC_LIMIT).await.map(Some)
    })?;
    let again = cluster.scrub(&node)?;
    assert_eq!(again.rotten, 0, "{again:?}");
    let revision = cluster.ask(async |s| s.status().await)?.applied;
    let cut = Cut::at(rig.lab().kill(rig.node())?, revision);
    checkers::answers_again(rig, cut.boot)?;
    checkers::never_two(rig);
    checkers::nothing_lost_unsaid(rig, Some(cut))
}
