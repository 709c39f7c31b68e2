//! A large copy whose receiver and whose sender are killed on the way.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use holdfast_chaos_tests::client::{Printed, begin, holdfast};
use holdfast_chaos_tests::rig::{On, Rig};
use holdfast_lab::{LabError, Part, wait_until};

const LIMIT: Duration = Duration::from_secs(60);
/// What is to be copied, at a rate at which it takes a dozen seconds.
const BULK_MIB: u64 = 200;
const RATE: &str = "\n[replication]\nrate = \"16MiB\"\n";
/// What two interruptions may cost: what was not synced at the receiver (64 MiB), what was under way
/// each time, and what the other container writes meanwhile. Begun anew, the copy would cost 110 MiB
/// or 150 MiB more.
const AGAIN_MIB: u64 = 95;
const MIB: u64 = 1 << 20;

/// I16, I17: neither a receiver nor a sender that is killed begins the copy anew, and nothing is left
/// behind.
#[test]
fn a_copy_survives_both_its_ends() -> Result<(), LabError> {
    Rig::play("t-resume", On::Follower, 0, scenario)
}

fn scenario(rig: &Rig) -> Result<(), LabError> {
    let (lab, sender) = (rig.lab(), rig.node());
    limit(rig, sender)?;
    let image = rig.stage.image.to_string();
    let create = ["create", "bulk", "--image", &image, "--node", sender];
    done(rig, &[&create[..], &["--replicate-every", "30s"]].concat())?;
    done(rig, &["sync", "bulk"])?;
    let fill = format!("dd if=/dev/urandom of=/data/bulk bs=1M count={BULK_MIB} && sync");
    done(rig, &["exec", "bulk", "--", "/bin/sh", "-c", &fill])?;
    let title = "bulk".parse().map_err(|_| LabError::LabName(None))?;
    let container = rig.stage.cluster.ask(async |s| s.container(&title).await)?;
    let receiver = container.replicas.first().map(|r| r.node.clone()).unwrap_or_default();

    let before = sent(rig, sender)?;
    let mut syncing = begin(lab, &["sync", "bulk"])?;
    let since = || Ok::<_, LabError>(sent(rig, sender)?.saturating_sub(before) / MIB);
    wait_until("110 MiB of the copy", LIMIT, || Ok(since()? >= 110))?;
    lab.crash(&receiver, Part::Daemon)?;
    wait_until("a transfer that goes on", LIMIT, || {
        Ok(metric(rig, sender, "holdfast_transfers_resumed_total{direction=\"out\"}")? > 0)
    })?;
    wait_until("150 MiB of the copy", LIMIT, || Ok(since()? >= 150))?;
    let first = since()?;
    lab.crash(sender, Part::Daemon)?;
    let _ = syncing.wait();
    wait_until("a current replica", LIMIT, || {
        Ok(holdfast(lab, &["sync", "bulk"])?.status == Some(0))
    })?;
    let second = sent(rig, sender)? / MIB;
    let all = first + second;
    assert!(
        all <= BULK_MIB + AGAIN_MIB,
        "{first} MiB and {second} MiB were sent for {BULK_MIB} MiB"
    );
    assert!(all >= BULK_MIB - 8, "{first} MiB and {second} MiB: the copy cannot be whole");

    let looked = rig.stage.cluster.scrub(&receiver)?;
    assert!(looked.copies > 0 && looked.rotten == 0, "{looked:?}");
    done(rig, &["rm", "bulk", "--force", "--yes"])?;
    for node in [sender, &receiver] {
        wait_until("an end of everything of it", LIMIT, || {
            Ok(left_behind(rig, node, &container.uid)?.is_empty())
        })?;
    }
    Ok(())
}

/// Has a node ship no faster than [`RATE`].
fn limit(rig: &Rig, node: &str) -> Result<(), LabError> {
    let path = rig.lab().layout().config_file(node);
    let append = || fs::OpenOptions::new().append(true).open(&path)?.write_all(RATE.as_bytes());
    append().map_err(|source| LabError::Io { what: "cannot write", path: path.clone(), source })?;
    rig.lab().crash(node, Part::Daemon)?;
    wait_until("a lease", LIMIT, || Ok(metric(rig, node, "holdfast_leased")? == 1))
}

fn sent(rig: &Rig, node: &str) -> Result<u64, LabError> {
    metric(rig, node, "holdfast_transfer_bytes_total{direction=\"out\"}")
}

/// One of a node's metrics, asked from the node itself; 0 while it does not answer.
fn metric(rig: &Rig, node: &str, name: &str) -> Result<u64, LabError> {
    let record = rig.lab().record()?;
    let nodes = record.nodes.iter();
    let address = nodes.filter(|n| n.name == node).map(|n| n.address).next();
    let address = address.map(|a| a.to_string()).unwrap_or_default();
    let get = format!(
        "exec 3<>/dev/tcp/{address}/7480; printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3"
    );
    let netns = format!("--net=/run/netns/{}", rig.lab().layout().netns(node));
    let asked = Command::new("nsenter")
        .args([&netns, "timeout", "2", "bash", "-c", &get])
        .output()
        .map_err(|source| LabError::Io { what: "cannot run", path: "nsenter".into(), source })?;
    let text = String::from_utf8_lossy(&asked.stdout);
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    Ok(value.unwrap_or(0))
}

/// Files in a node's pool, and devices, that carry this container's name.
fn left_behind(rig: &Rig, node: &str, uid: &str) -> Result<Vec<PathBuf>, LabError> {
    // The pool is mounted where only the node sees it.
    let root = format!("/proc/{}/root", rig.lab().pid(node, Part::Daemon)?);
    let dir = rig.lab().layout().node_dir(node);
    let mut dirs = vec![Path::new(&root).join(dir.strip_prefix("/").unwrap_or(&dir))];
    let mut found = Vec::new();
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().contains(uid) {
                found.push(entry.path());
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                dirs.push(entry.path());
            }
        }
    }
    for device in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        let file = device.path().join("loop/backing_file");
        if fs::read_to_string(&file).is_ok_and(|backing| backing.contains(uid)) {
            found.push(file);
        }
    }
    Ok(found)
}

fn done(rig: &Rig, args: &[&str]) -> Result<Printed, LabError> {
    let printed = holdfast(rig.lab(), args)?;
    assert_eq!(printed.status, Some(0), "{args:?}: {printed:?}");
    Ok(printed)
}
