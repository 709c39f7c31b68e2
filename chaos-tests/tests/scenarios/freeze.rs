//! A daemon that dies while it has the container's filesystem frozen.

use std::time::Duration;

use holdfast_chaos_tests::checkers;
use holdfast_chaos_tests::faults::{Victim, die_in_mid_freeze};
use holdfast_chaos_tests::rig::{On, Rig};
use holdfast_lab::{BootInstant, LabError, wait_until};

const TIMES: usize = 5;
/// The node keeps its container: its daemon is back before the lease ends.
const LIMIT: Duration = Duration::from_secs(15);

/// The helper thaws whatever happens to its parent (DESIGN section 4).
#[test]
fn a_freeze_outlives_the_daemon_only_briefly() -> Result<(), LabError> {
    crash_and_judge("t-freeze-one", Victim::Daemon)
}

/// With the helper dead too, the next daemon thaws when it starts.
#[test]
fn a_freeze_that_nobody_ended_is_undone_at_the_next_start() -> Result<(), LabError> {
    crash_and_judge("t-freeze-both", Victim::DaemonAndHelper)
}

fn crash_and_judge(name: &str, victim: Victim) -> Result<(), LabError> {
    // Much to sync makes for a long freeze, which is easier to hit.
    Rig::play(name, On::Follower, 4 << 20, |rig| scenario(rig, victim))
}

fn scenario(rig: &Rig, victim: Victim) -> Result<(), LabError> {
    for _ in 0..TIMES {
        die_in_mid_freeze(rig, victim)?;
        let died = BootInstant::now();
        wait_until("an answer, which takes a write to the disk", LIMIT, || {
            Ok(rig.scene.probe.first_after(died).is_some())
        })?;
        // Replication goes on, freezes and all.
        let name = &rig.stage.container;
        rig.stage.cluster.ask(async |s| s.sync(name, Duration::from_secs(30)).await)?;
    }
    let web = rig.stage.cluster.ask(async |s| s.container(&rig.stage.container).await)?;
    assert_eq!(web.node, rig.node(), "a short crash is no reason to move");
    checkers::never_two(rig);
    checkers::nothing_lost_unsaid(rig, None)
}
