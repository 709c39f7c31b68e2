//! Processes that are there and do nothing.

use holdfast_chaos_tests::checkers;
use holdfast_chaos_tests::rig::{On, Rig};
use holdfast_lab::quickstart::Cut;
use holdfast_lab::{BootInstant, LabError, Part};

/// I8, I9: the daemon is stopped, so nobody renews the lease. The guardian alone must stop the
/// container in time, and the takeover comes after.
#[test]
fn the_guardian_alone_stops_the_container_of_a_stopped_daemon() -> Result<(), LabError> {
    stop_and_judge("t-stop-daemon", &[Part::Daemon])
}

/// I8: the guardian is stopped too. The kernel's timer must end it, and everything protected with
/// it.
#[test]
fn the_kernel_ends_a_stopped_guardian_and_its_containers() -> Result<(), LabError> {
    stop_and_judge("t-stop-both", &[Part::Guardian, Part::Daemon])
}

fn stop_and_judge(name: &str, parts: &[Part]) -> Result<(), LabError> {
    Rig::play(name, On::Follower, 0, |rig| scenario(rig, parts))
}

fn scenario(rig: &Rig, parts: &[Part]) -> Result<(), LabError> {
    let revision = rig.stage.cluster.ask(async |s| s.status().await)?.applied;
    parts.iter().try_for_each(|part| rig.lab().pause(rig.node(), *part))?;
    let stopped = BootInstant::now();
    let cut = Cut::at(stopped, revision);
    checkers::stopped_in_time(rig, stopped)?;
    checkers::taken_over_in_order(rig, rig.node(), cut)?;
    checkers::answers_again(rig, BootInstant::now())?;
    checkers::never_two(rig);
    // The node comes to itself, with a container that is not its own any more (I13).
    for part in parts {
        match rig.lab().resume(rig.node(), *part) {
            Ok(()) | Err(LabError::NotRunning { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    let resumed = BootInstant::now();
    rig.stage.cluster.wait_for(
        "the node's return",
        std::time::Duration::from_secs(45),
        async |s| {
            let web = s.container(&rig.stage.container).await?;
            let mut here = web.replicas.iter().filter(|r| r.node == rig.node());
            Ok(here.any(|r| r.epoch == Some(web.epoch)).then_some(()))
        },
    )?;
    let seen = rig.stage.observer.observation();
    assert_eq!(seen.first_run_after(rig.scene.uid, rig.node(), resumed), None);
    checkers::answers_again(rig, resumed)?;
    checkers::never_two(rig);
    checkers::nothing_lost_unsaid(rig, Some(cut))
}
