//! `cargo xtask guest -- pool`: the life of a pool, by the daemon and the client as an operator has
//! them, on real LVM: `deploy/guest/pool` is the walk. Disks come, are emptied and go, groups are split
//! and merged, the pool fills up and grows, its metadata is damaged and mended, the daemon is killed in
//! the midst; and a container on it writes all the while.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::suites::Suite;
use crate::bench::PACKAGES;
use crate::run;

const PROGRAMS: [&str; 4] = ["holdfastd", "holdfast-guardian", "holdfast-freeze", "holdfast"];

/// The walk; in the guest it is beside the programs.
const SCRIPT: &str = "deploy/guest/pool";
const NAME: &str = "holdfast-pool-walk";

const DISKS: [(&str, u64); 4] =
    [("/dev/nvme0n2", 1024), ("/dev/nvme0n3", 1024), ("/dev/nvme0n4", 384), ("/dev/nvme0n5", 384)];

/// One daemon, its guardian, and what they read of their programs.
const MEMORY_MIB: u64 = 1024;

/// The walk, its programs built.
pub(super) fn suite(root: &Path) -> Result<Suite> {
    let share = tempfile::tempdir()?;
    let mut build = run::cargo(root);
    build.args(["build", "--quiet", "--locked", "--bins"]);
    for package in PACKAGES {
        build.args(["-p", package]);
    }
    run::succeed(&mut build)?;
    let target = super::image::target(root).join("debug");
    let programs = PROGRAMS.iter().map(|program| (target.join(program), *program));
    for (from, name) in programs.chain([(root.join(SCRIPT), NAME)]) {
        fs::copy(&from, share.path().join(name)).with_context(|| from.display().to_string())?;
    }
    let command = [NAME].into_iter().chain(DISKS.iter().map(|(disk, _)| *disk));
    Ok(Suite {
        share,
        disks_mib: DISKS.iter().map(|(_, mib)| *mib).collect(),
        memory_mib: MEMORY_MIB,
        command: command.map(str::to_owned).collect(),
        cuts: Vec::new(),
        volatile: false,
        deadline: 1500,
    })
}
