//! Power cuts of every kind of node, judged as the quickstart does.

use holdfast_lab::quickstart::{QuickstartOptions, Target, quickstart};
use holdfast_lab::{LabError, Programs};

#[test]
fn a_container_outlives_a_worker() -> Result<(), LabError> {
    cut("t-power-worker", Target::Worker)
}

#[test]
fn a_container_outlives_a_follower() -> Result<(), LabError> {
    cut("t-power-follow", Target::Follower)
}

#[test]
fn a_container_outlives_the_leader() -> Result<(), LabError> {
    cut("t-power-leader", Target::Leader)
}

fn cut(name: &str, target: Target) -> Result<(), LabError> {
    let options =
        QuickstartOptions { kill: Some(target), ..QuickstartOptions::new(name, Programs::find()?) };
    let report = quickstart(&options)?;
    assert!(report.ok, "{}", report.rounds[0]);
    Ok(())
}
