//! A node that comes back in the very moment in which it is declared lost.

use std::time::Duration;

use holdfast_chaos_tests::checkers;
use holdfast_chaos_tests::rig::{On, Rig};
use holdfast_lab::quickstart::Cut;
use holdfast_lab::{BootInstant, LabError};

/// When the node comes back, before and after the last moment at which it may be declared lost, in
/// milliseconds. The first is about half a second sooner: the last answer came before the cut.
const OFFSETS_MS: [i64; 7] = [-600, -500, -400, -300, -200, -50, 100];

/// I8, I12, I13: whichever wins, the container runs on one node, and answers; a takeover comes no
/// sooner than its evidence allows.
#[test]
fn a_loss_races_with_the_nodes_return() -> Result<(), LabError> {
    Rig::play("t-race", On::Follower, 0, scenario)
}

fn scenario(rig: &Rig) -> Result<(), LabError> {
    let bound = i64::try_from(rig.scene.lease.lost_after_ms).unwrap_or(i64::MAX);
    for offset in OFFSETS_MS {
        let web = rig.stage.cluster.ask(async |s| {
            s.sync(&rig.stage.container, Duration::from_secs(45)).await?;
            s.container(&rig.stage.container).await
        })?;
        let applied = rig.stage.cluster.ask(async |s| s.status().await)?.applied;
        let cut = Cut::at(BootInstant::now(), applied);
        rig.lab().cut(&web.node)?;
        let wait = u64::try_from(bound + offset).unwrap_or(0);
        std::thread::sleep(Duration::from_millis(wait));
        rig.lab().heal(&web.node)?;
        checkers::answers_again(rig, BootInstant::now())?;
        checkers::never_two(rig);
        let now = rig.stage.cluster.ask(async |s| s.container(&rig.stage.container).await)?;
        if now.node != web.node {
            checkers::taken_over_in_order(rig, &web.node, cut)?;
        }
        println!(
            "{offset:+} ms: epoch {} on {} -> epoch {} on {}",
            web.epoch, web.node, now.epoch, now.node
        );
    }
    Ok(())
}
