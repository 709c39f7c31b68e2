//! A whole Debian with systemd instead of busybox.

use std::time::{Duration, Instant};

use holdfast_chaos_tests::client::holdfast;
use holdfast_lab::quickstart::{ImageKind, Narrator, QuickstartOptions, Stage, Target, play};
use holdfast_lab::{LabError, Programs, wait_until};

const BOOT_LIMIT: Duration = Duration::from_secs(30);
/// A container that does not end when asked is killed after 10 s.
const STOP_LIMIT: Duration = Duration::from_secs(8);

#[test]
fn a_debian_outlives_its_machine_and_shuts_down_when_asked() -> Result<(), LabError> {
    let options = QuickstartOptions {
        image: ImageKind::Debian12,
        kill: Some(Target::Leader),
        ..QuickstartOptions::new("t-debian", Programs::find()?)
    };
    let narrator = Narrator::default();
    let stage = Stage::set(&options, &narrator)?;
    let scenario = || -> Result<(), LabError> {
        let report = play(&stage, &options, &narrator, 1)?;
        assert!(report.ok(), "{report}");
        narrator.say(report);
        boots_whole(&stage)?;
        shuts_down(&stage)?;
        starts_again(&stage)
    };
    scenario().inspect_err(|_| stage.show_logs())
}

/// No unit has failed, the workload is one of them, and the name is the container's own.
fn boots_whole(stage: &Stage) -> Result<(), LabError> {
    wait_until("the end of the boot", BOOT_LIMIT, || {
        let state = inside(stage, &["systemctl", "is-system-running"])?;
        Ok(!["", "offline", "initializing", "starting"].contains(&state.as_str()))
    })?;
    let failed = inside(stage, &["systemctl", "--failed", "--plain", "--no-legend"])?;
    assert_eq!(inside(stage, &["systemctl", "is-system-running"])?, "running", "{failed}");
    assert_eq!(inside(stage, &["systemctl", "is-active", "records"])?, "active");
    assert_eq!(inside(stage, &["hostname"])?, stage.container.as_str());
    Ok(())
}

/// systemd is told to halt, and gets the time to: its last words are in the log.
fn shuts_down(stage: &Stage) -> Result<(), LabError> {
    let name = stage.container.as_str();
    let booted = holdfast(stage.lab(), &["logs", name])?;
    assert!(booted.out.contains("Reached target"), "{booted:?}");
    let begun = Instant::now();
    let stopped = holdfast(stage.lab(), &["stop", name])?;
    assert_eq!(stopped.status, Some(0), "{stopped:?}");
    let took = begun.elapsed();
    assert!(took < STOP_LIMIT, "it took {took:?}: it was killed");
    let logs = holdfast(stage.lab(), &["logs", name])?;
    assert!(logs.out.contains("Stopped records.service"), "{logs:?}");
    Ok(())
}

fn starts_again(stage: &Stage) -> Result<(), LabError> {
    let started = holdfast(stage.lab(), &["start", stage.container.as_str()])?;
    assert_eq!(started.status, Some(0), "{started:?}");
    boots_whole(stage)
}

/// What a command in the container prints.
fn inside(stage: &Stage, command: &[&str]) -> Result<String, LabError> {
    let args = [&["exec", "--no-stdin", stage.container.as_str(), "--"], command].concat();
    Ok(holdfast(stage.lab(), &args)?.out)
}
