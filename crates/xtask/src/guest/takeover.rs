//! `cargo xtask guest -- takeover`: the quickstart's rehearsal with each node's pool a volume group on
//! a disk of its own, judged as everywhere: nothing ran twice, nothing was lost unreported, the chain
//! is whole, the old copy was kept and caught up. Also the proof that all of it runs on a pure cgroup
//! v2, which the machine outside may not have.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::share::LOGS;
use super::suites::{PROFILE, Suite};
use crate::bench::PACKAGES;
use crate::run;

const PROGRAMS: [&str; 5] =
    ["holdfastd", "holdfast-guardian", "holdfast-freeze", "holdfast-lab", "holdfast"];

/// One disk a node.
const DISKS: [&str; 3] = ["/dev/nvme0n2", "/dev/nvme0n3", "/dev/nvme0n4"];
const DISK_MIB: u64 = 3072;

/// Three daemons, their guardians, and what they read of their programs.
const MEMORY_MIB: u64 = 1536;

/// What QEMU translates runs some twenty times slower; what waits for disks and timers does not. With
/// five times the lease and the waits there is as much to spare as outside, with ten also where other
/// work runs beside the guest.
const SLOW: &str = "10";

/// The rehearsal, its programs built.
pub(super) fn suite(root: &Path) -> Result<Suite> {
    let share = tempfile::tempdir()?;
    let target = build(root)?;
    for program in PROGRAMS {
        let from = target.join(program);
        fs::copy(&from, share.path().join(program)).with_context(|| from.display().to_string())?;
    }
    let command = ["holdfast-lab", "quickstart", "--kill", "follower", "--slow", SLOW, "--json"];
    let logs = ["--logs", LOGS];
    let disks = DISKS.iter().flat_map(|disk| ["--device", disk]);
    Ok(Suite {
        share,
        disks_mib: vec![DISK_MIB; DISKS.len()],
        memory_mib: MEMORY_MIB,
        command: command.into_iter().chain(logs).chain(disks).map(str::to_owned).collect(),
        cuts: Vec::new(),
        volatile: false,
        deadline: 1200,
    })
}

/// Builds the lab's programs; says where they are.
fn build(root: &Path) -> Result<PathBuf> {
    let mut build = run::cargo(root);
    build.args(["build", "--quiet", "--locked", "--bins", "--profile", PROFILE]);
    for package in PACKAGES {
        build.args(["-p", package]);
    }
    run::succeed(&mut build)?;
    Ok(super::image::target(root).join(PROFILE))
}
