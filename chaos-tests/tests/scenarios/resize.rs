//! A disk that grows under a container that writes.

use holdfast_chaos_tests::checkers;
use holdfast_chaos_tests::client::{Printed, holdfast};
use holdfast_chaos_tests::rig::{On, Rig};
use holdfast_lab::quickstart::Cut;
use holdfast_lab::{BootInstant, LabError};
use holdfast_types::ByteSize;

const NOISE_BYTES_PER_S: u64 = 4 << 20;

/// The container sees the larger filesystem at once, its replica has it after the next sync, and
/// whoever takes over has it as well; stopped, the disk grows all the same. It never shrinks.
#[test]
fn a_disk_grows_on_every_copy_while_the_container_writes() -> Result<(), LabError> {
    Rig::play("t-resize", On::Follower, NOISE_BYTES_PER_S, scenario)
}

fn scenario(rig: &Rig) -> Result<(), LabError> {
    let first = rig.stage.disk.bytes();
    let [grown, again] = [first * 2, first * 3].map(ByteSize);
    assert!(seen(rig)? <= first);
    resize_running(rig, grown)?;
    assert!(nearly(grown, seen(rig)?), "done, and the container does not see it");
    let refused = holdfast(rig.lab(), &["resize", "web", &ByteSize(first).to_string()])?;
    assert_eq!(refused.status, Some(2), "{refused:?}");
    assert!(refused.err.contains("HF-INVALID-SIZE") && refused.err.contains("only grows"));
    let refused = holdfast(rig.lab(), &["resize", "web", "1024GiB"])?;
    assert!(refused.err.contains("has a pool of only"), "{refused:?}");
    checkers::answers_again(rig, BootInstant::now())?;
    checkers::nothing_lost_unsaid(rig, None)?;

    done(rig, &["sync", "web"])?;
    let revision = rig.stage.cluster.ask(async |s| s.status().await)?.applied;
    let cut = Cut::at(rig.lab().kill(rig.node())?, revision);
    checkers::answers_again(rig, BootInstant::now())?;
    checkers::taken_over_in_order(rig, rig.node(), cut)?;
    assert!(nearly(grown, seen(rig)?), "the copy that took over has the old size");
    checkers::nothing_lost_unsaid(rig, Some(cut))?;

    done(rig, &["stop", "web"])?;
    done(rig, &["resize", "web", &again.to_string()])?;
    done(rig, &["start", "web"])?;
    checkers::answers_again(rig, BootInstant::now())?;
    assert!(nearly(again, seen(rig)?), "it did not grow while it was stopped");
    checkers::never_two(rig);
    checkers::nothing_lost_unsaid(rig, Some(cut))
}

/// Where the kernel lets no mounted filesystem grow (CAP_SYS_RESOURCE, which a container of CI may
/// lack) that is said, and the next start makes up for it.
fn resize_running(rig: &Rig, size: ByteSize) -> Result<(), LabError> {
    let resized = holdfast(rig.lab(), &["resize", "web", &size.to_string()])?;
    if resized.status == Some(0) {
        return Ok(());
    }
    assert!(resized.err.contains("HF-NOT-ROOT") && resized.err.contains("CAP_SYS_RESOURCE"));
    assert!(seen(rig)? <= rig.stage.disk.bytes());
    done(rig, &["stop", "web"])?;
    done(rig, &["start", "web"])?;
    checkers::answers_again(rig, BootInstant::now()).map(drop)
}

fn done(rig: &Rig, args: &[&str]) -> Result<Printed, LabError> {
    let printed = holdfast(rig.lab(), args)?;
    assert_eq!(printed.status, Some(0), "{args:?}: {printed:?}");
    Ok(printed)
}

/// Whether a filesystem has so many bytes for files, its own tables not counted.
fn nearly(size: ByteSize, seen: u64) -> bool {
    seen <= size.bytes() && seen >= size.bytes() / 10 * 8
}

/// The size of the root filesystem in bytes, as the container sees it.
fn seen(rig: &Rig) -> Result<u64, LabError> {
    let printed = done(rig, &["exec", "web", "--", "df", "-kP", "/"])?;
    let field = printed.out.lines().last().and_then(|line| line.split_whitespace().nth(1));
    let kib: Option<u64> = field.and_then(|kib| kib.parse().ok());
    Ok(kib.unwrap_or_else(|| panic!("{printed:?}")) << 10)
}
