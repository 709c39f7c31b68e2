//! What is tried in the guest under a name of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::{consensus, pool, takeover};
use crate::run;

/// A prepared run: its programs in a share, its disks, its command.
pub(super) struct Suite {
    pub(super) share: TempDir,
    pub(super) disks_mib: Vec<u64>,
    /// Memory that it needs at least.
    pub(super) memory_mib: u64,
    pub(super) command: Vec<String>,
    /// The command runs once for each of these, until the power is cut, and then once to its end;
    /// always on the same disks.
    pub(super) cuts: Vec<Cut>,
    /// Whether the disks lose what was not flushed.
    pub(super) volatile: bool,
    /// Seconds that a run takes at most, without KVM.
    pub(super) deadline: u64,
}

/// A power cut.
#[derive(Clone)]
pub(super) struct Cut {
    /// It comes after the command has printed this,
    pub(super) text: String,
    /// at random within so many milliseconds.
    pub(super) late_ms: u64,
    /// The one disk, by its place, that loses what was not flushed; all of them if none.
    pub(super) only: Option<usize>,
}

/// The suite of that name, its programs built; `None` for what is a command of the guest.
pub(super) fn find(root: &Path, command: &[String]) -> Result<Option<Suite>> {
    match command {
        [name, only @ ..] if name == "conformance" => conformance(root, only).map(Some),
        [name] if name == "powercut" => power_cut(root).map(Some),
        [name] if name == "consensus" => consensus::suite(root).map(Some),
        [name] if name == "pool" => pool::suite(root).map(Some),
        [name] if name == "takeover" => takeover::suite(root).map(Some),
        [name] if name == "cycles" => cycles(root).map(Some),
        _ => Ok(None),
    }
}

/// With what the guest's programs are built, of the workspace's `Cargo.toml`.
pub(super) const PROFILE: &str = "emulated";
const DISK_MIB: u64 = 3072;
/// The helper that freezes filesystems.
const FREEZE: &str = "holdfast-freeze";
const SEED: &str = "HOLDFAST_TEST_SEED";
const DISKS: &str = "HOLDFAST_TEST_DISKS=/dev/nvme0n2,/dev/nvme0n3";
const VOLATILE_DISKS: &str = "HOLDFAST_TEST_DISKS=/dev/vda,/dev/vdb";

/// The storage suite on the `lvm` driver: `crates/storage/tests/lvm/`. Only those of its tests that are named, if any are.
fn conformance(root: &Path, only: &[String]) -> Result<Suite> {
    let mut suite = storage_test(root, "lvm", &["conformance"], &[DISKS])?;
    suite.command.extend_from_slice(only);
    Ok(suite)
}

/// What a cycle of a snapshot costs, with and without LVM: `crates/storage/tests/cycles.rs`.
fn cycles(root: &Path) -> Result<Suite> {
    // LVM's commands are counted by what stands before them in the PATH.
    const COUNT: &str = "#!/bin/sh\necho \"$$ $*\" >>/run/lvm-commands\nexec /sbin/lvm \"$@\"\n";
    let suite = storage_test(root, "cycles", &[], &[DISKS])?;
    let counting = suite.share.path().join("lvm");
    fs::write(&counting, COUNT)?;
    fs::set_permissions(&counting, fs::Permissions::from_mode(0o755))?;
    Ok(suite)
}

/// Power cuts in the life of a pool, a volume and its replica, on disks with a volatile cache:
/// `crates/storage/tests/powercut.rs`.
fn power_cut(root: &Path) -> Result<Suite> {
    const CUTS: [(&str, u64); 20] = [
        ("at making 0.", 4000),
        ("at making 0.", 4000),
        ("at opening 0.", 1500),
        ("at create 0.", 300),
        ("at snapshot 1.", 100),
        ("at receive 2.", 100),
        ("at frame 1.", 50),
        ("at finish 2.", 100),
        ("at promote 1.", 300),
        ("at demote 2.", 300),
        ("at resize 1.", 200),
        ("at tail 0.", 300),
        ("at scratch 0.", 300),
        ("at reserve 0.", 500),
        ("at spend 0.", 300),
        ("at drop 1.", 300),
        ("at remove 1.", 300),
        ("at opening 0.", 3000),
        ("at finish 1.", 300),
        ("at snapshot 0.", 0),
    ];
    let environment = [VOLATILE_DISKS, "HOLDFAST_TEST_ACKED=/share/acked"];
    let suite = storage_test(root, "powercut", &[], &environment)?;
    let cut = |(text, late_ms): (&str, u64)| Cut { text: text.to_owned(), late_ms, only: None };
    Ok(Suite { cuts: CUTS.into_iter().map(cut).collect(), volatile: true, ..suite })
}

fn storage_test(root: &Path, test: &str, features: &[&str], environment: &[&str]) -> Result<Suite> {
    let messages = build_test(root, "holdfast-storage", test, features)?;
    let share = tempfile::tempdir()?;
    // The share comes first in the guest's PATH: a test must not be named as a tool is.
    let name = format!("holdfast-test-{test}");
    for (target, name) in [(test, name.as_str()), (FREEZE, FREEZE)] {
        let program = executable(&messages, target)
            .with_context(|| format!("cargo named no program of {target}"))?;
        fs::copy(&program, share.path().join(name))
            .with_context(|| program.display().to_string())?;
    }
    // What is left to chance there is repeated by it.
    let seed = std::env::var(SEED).map(|seed| format!("{SEED}={seed}")).ok();
    let seed: Vec<&str> = seed.iter().map(String::as_str).collect();
    let program = [name.as_str(), "--test-threads=1", "--nocapture"];
    let command = [&["env"][..], &seed, environment, &program].concat();
    Ok(Suite {
        share,
        disks_mib: vec![DISK_MIB, DISK_MIB],
        memory_mib: 512,
        command: command.into_iter().map(str::to_owned).collect(),
        cuts: Vec::new(),
        volatile: false,
        deadline: 1500,
    })
}

/// Builds an integration test, and its package's programs; cargo's messages say where they are.
pub(super) fn build_test(
    root: &Path,
    package: &str,
    test: &str,
    features: &[&str],
) -> Result<String> {
    let mut build = run::cargo(root);
    build.args(["test", "--quiet", "--locked", "--no-run", "--message-format=json"]);
    build.args(["--profile", PROFILE]);
    build.args(["-p", package, "--test", test, "--features", &features.join(",")]);
    let out = build.stderr(Stdio::inherit()).output().context("running cargo")?;
    if !out.status.success() {
        bail!("the test {test} of {package} does not build");
    }
    String::from_utf8(out.stdout).context("cargo's messages")
}

/// The program of a target, by cargo's messages (one JSON object a line).
pub(super) fn executable(messages: &str, test: &str) -> Option<PathBuf> {
    let messages =
        messages.lines().filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok());
    let mut programs = messages.filter(|m| m["target"]["name"] == test);
    programs.find_map(|m| m["executable"].as_str().map(PathBuf::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_the_one_that_cargo_names() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"other"},"executable":"/x"}
{"reason":"compiler-artifact","target":{"name":"lvm"},"executable":null}
not json
{"reason":"compiler-artifact","target":{"name":"lvm"},"executable":"/t/lvm-1"}"#;
        assert_eq!(executable(messages, "lvm"), Some("/t/lvm-1".into()));
        assert_eq!(executable(messages, "none"), None);
    }
}
