//! A leader that lost its network, and does not know it yet.

use std::time::Duration;

use holdfast_chaos_tests::checkers;
use holdfast_chaos_tests::rig::{On, Rig};
use holdfast_lab::quickstart::Cut;
use holdfast_lab::{BootInstant, LabError};

/// I8, I12: a leader grants to no one, itself included, without a quorum round that began after it
/// was asked (DESIGN section 5 rule 2). Its own container stops in time, and the takeover by the
/// others comes after.
#[test]
fn a_leader_that_is_cut_off_grants_itself_nothing() -> Result<(), LabError> {
    Rig::play("t-cut-leader", On::Leader, 0, scenario)
}

fn scenario(rig: &Rig) -> Result<(), LabError> {
    let applied = rig.stage.cluster.ask(async |s| s.status().await)?.applied;
    let cut = Cut::at(BootInstant::now(), applied);
    rig.lab().cut(rig.node())?;
    checkers::stopped_in_time(rig, BootInstant::now())?;
    checkers::answers_again(rig, BootInstant::now())?;
    // While it is cut off it tells only what it knew; the sync is answered by who leads now.
    rig.lab().heal(rig.node())?;
    let name = &rig.stage.container;
    rig.stage.cluster.ask(async |s| s.sync(name, Duration::from_secs(45)).await)?;
    checkers::taken_over_in_order(rig, rig.node(), cut)?;
    checkers::never_two(rig);
    checkers::nothing_lost_unsaid(rig, Some(cut))
}
