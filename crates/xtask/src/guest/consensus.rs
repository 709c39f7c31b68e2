//! `cargo xtask guest -- consensus`: power cuts of three nodes that write, each a process with a disk
//! of its own, all with a volatile cache: `crates/raft/tests/powercut/`. Within a life single machines
//! lose their power as well; and where a cut says so, only one disk loses what it had not written.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::suites::{Cut, Suite, build_test, executable};

const TEST: &str = "powercut";
const LIFE: &str = "a_life_until_the_power_goes";
/// One a node.
const DISKS: &str = "HOLDFAST_TEST_DISKS=/dev/vda,/dev/vdb,/dev/vdc";
const DISK_MIB: u64 = 256;
/// Outside of the guest: no cut reaches it.
const ACKED: &str = "HOLDFAST_TEST_ACKED=/share/acked";
/// The last life, which is whole, takes a minute there, and ten where much else runs.
const DEADLINE: u64 = 900;

/// When the power goes, and whose disk alone loses what was not flushed. A life begins with another
/// upset than the one before, so that each of these comes early in its life.
const CUTS: [(&str, u64, Option<usize>); 14] = [
    ("at formatting 2.", 600, None),
    ("at forming 0.", 800, None),
    ("at vote", 30, None),
    ("at purged", 100, None),
    ("at dark", 300, None),
    ("at truncating", 1500, None),
    ("at dark", 2000, None),
    ("at installing", 300, None),
    ("at vote", 0, Some(1)),
    ("at truncating", 600, Some(2)),
    ("at opening 0.", 1500, None),
    ("at installing", 1000, None),
    ("at leading", 500, Some(0)),
    ("at return", 1500, None),
];

/// The cluster, its program built.
pub(super) fn suite(root: &Path) -> Result<Suite> {
    let messages = build_test(root, "holdfast-raft", TEST, &[])?;
    let share = tempfile::tempdir()?;
    let program = executable(&messages, TEST).context("cargo named no program of the test")?;
    let name = format!("holdfast-test-{TEST}");
    fs::copy(&program, share.path().join(&name)).with_context(|| program.display().to_string())?;
    let command = ["env", DISKS, ACKED, &name, "--exact", LIFE, "--nocapture"];
    let cut = |(text, late_ms, only): (&str, u64, _)| Cut { text: text.to_owned(), late_ms, only };
    Ok(Suite {
        share,
        disks_mib: vec![DISK_MIB; 3],
        memory_mib: 768,
        command: command.map(str::to_owned).to_vec(),
        cuts: CUTS.into_iter().map(cut).collect(),
        volatile: true,
        deadline: DEADLINE,
    })
}
