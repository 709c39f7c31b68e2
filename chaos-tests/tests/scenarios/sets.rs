//! A container with a data volume, whose disks are one set.

use std::time::Duration;

use holdfast_chaos_tests::client::{Printed, holdfast};
use holdfast_chaos_tests::rig::{On, Rig};
use holdfast_lab::{LabError, wait_until};

/// Appends the next number to a file on the root, then to one on the data volume, for ever. So at any
/// moment the root has as many numbers as the data volume, or one more.
const WRITER: &str = "i=$(cat /root.log | tail -n 1); i=${i:-0}; \
    j=$(cat /srv/data.log | tail -n 1); [ $i = ${j:-0} ] || echo $i >> /srv/data.log; \
    while :; do i=$((i+1)); echo $i >> /root.log; echo $i >> /srv/data.log; \
    [ $((i % 50)) != 0 ] || sleep 0.01; done";
const LIMIT: Duration = Duration::from_secs(60);

/// I17: whatever moment a takeover goes back to, root and data volume are of the same one; and data
/// volumes grow, stop, start and go with their container.
#[test]
fn root_and_data_volume_are_of_one_moment_after_a_takeover() -> Result<(), LabError> {
    Rig::play("t-sets", On::Follower, 0, scenario)
}

fn scenario(rig: &Rig) -> Result<(), LabError> {
    let image = rig.stage.image.to_string();
    let refused = ["create", "bad", "--image", &image, "--volume", "data=64MiB:/proc/x"];
    assert!(holdfast(rig.lab(), &refused)?.err.contains("HF-INVALID-ARGUMENT"));
    let disk = rig.stage.disk.to_string();
    let create = [
        &["create", "pair", "--image", &image, "--disk", &disk, "--node", rig.node()][..],
        &["--volume", "data=64MiB:/srv", "--volume", "deep=32MiB:/srv/in/deep"],
        &["--replicate-every", "1s", "--", "/bin/sh", "-c", WRITER],
    ];
    done(rig, &create.concat())?;
    let shown = done(rig, &["show", "pair"])?.out;
    assert!(shown.contains("data 64MiB at /srv, deep 32MiB at /srv/in/deep"), "{shown}");
    let mounts = exec(rig, "cat /proc/mounts")?;
    assert!(mounts.contains(" /srv ext4") && mounts.contains(" /srv/in/deep ext4"), "{mounts}");
    assert_eq!(exec(rig, "stat -c %a:%u:%g /srv; ls -A /srv/in/deep")?, "755:0:0");
    done(rig, &["sync", "pair"])?;
    for round in 0..2 {
        let before = last(rig, "/root.log")?;
        wait_until("more numbers", LIMIT, || Ok(last(rig, "/root.log")? > before + 500))?;
        done(rig, &["sync", "pair"])?;
        let node = place(rig)?;
        rig.lab().kill(&node)?;
        wait_until("a takeover", LIMIT, || Ok(place(rig)? != node && runs(rig)?))?;
        // What the writer found when it began again is what the copy held.
        judge(rig, round)?;
        rig.lab().power_on(&node)?;
        wait_until("a current replica", LIMIT, || {
            Ok(holdfast(rig.lab(), &["sync", "pair"])?.status == Some(0))
        })?;
    }
    let grown = holdfast(rig.lab(), &["resize", "pair", "128MiB", "--volume", "data"])?;
    assert!(grown.status == Some(0) || grown.err.contains("CAP_SYS_RESOURCE"), "{grown:?}");
    done(rig, &["stop", "pair"])?;
    done(rig, &["start", "pair"])?;
    let size = exec(rig, "df -kP /srv | tail -n 1 | awk '{print $2}'")?;
    assert!(size.parse().is_ok_and(|kib: u64| kib > 100 << 10), "{size}");
    judge(rig, 2)?;
    done(rig, &["rm", "pair", "--force", "--yes"])?;
    Ok(())
}

/// The numbers follow one another in both files, and the data volume has what the root has, but for
/// the one that may be under way.
fn judge(rig: &Rig, round: u32) -> Result<(), LabError> {
    let count = |file: &str| {
        let gaps = format!("awk 'NR != $1 {{ bad = 1; exit }} END {{ print bad + 0, NR }}' {file}");
        exec(rig, &gaps)
    };
    // The root is read first and the writer goes on: the data volume may be ahead by then.
    let (root, data) = (count("/root.log")?, count("/srv/data.log")?);
    let number = |text: &str| text.strip_prefix("0 ").and_then(|n| n.parse::<u64>().ok());
    let (Some(root), Some(data)) = (number(&root), number(&data)) else {
        panic!("round {round}: a number is missing or torn: root {root}, data {data}");
    };
    assert!(data + 1 >= root, "round {round}: root {root}, data {data}");
    Ok(())
}

fn last(rig: &Rig, file: &str) -> Result<u64, LabError> {
    Ok(exec(rig, &format!("tail -n 1 {file}"))?.parse().unwrap_or(0))
}

fn place(rig: &Rig) -> Result<String, LabError> {
    let name = "pair".parse().map_err(|_| LabError::LabName(None))?;
    rig.stage.cluster.ask(async |s| Ok(s.container(&name).await?.node))
}

fn runs(rig: &Rig) -> Result<bool, LabError> {
    let ran = holdfast(rig.lab(), &["exec", "pair", "--", "/bin/true"])?;
    Ok(ran.status == Some(0))
}

fn exec(rig: &Rig, script: &str) -> Result<String, LabError> {
    Ok(done(rig, &["exec", "pair", "--", "/bin/sh", "-c", script])?.out)
}

fn done(rig: &Rig, args: &[&str]) -> Result<Printed, LabError> {
    let printed = holdfast(rig.lab(), args)?;
    assert_eq!(printed.status, Some(0), "{args:?}: {printed:?}");
    Ok(printed)
}
