//! Replication beside a raw copy, `btrfs send` and `rsync`. The measuring program is the bench
//! `replicate` of the agent's crate; here its numbers become medians and are held against targets.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};
use serde_json::Value;

use super::lab::json;
use super::report::Row;
use super::statistics::Sorted;
use crate::run;

/// What the measuring program calls, and the packages that have it.
const PROGRAMS: [(&str, &str); 6] = [
    ("rsync", "rsync"),
    ("mkfs.btrfs", "btrfs-progs"),
    ("mkfs.xfs", "xfsprogs"),
    ("mkfs.ext4", "e2fsprogs"),
    ("losetup", "mount"),
    ("fstrim", "util-linux"),
];

/// What the directory of a run begins with.
const PREFIX: &str = "holdfast-bench-";

const RAW_SHARE: f64 = 0.8;
const BTRFS_TIMES: f64 = 1.5;
const RSYNC_TIMES: f64 = 2.0;
const DELTA_RSYNC_TIMES: f64 = 20.0;
const WIRE_SHARE: f64 = 1.02;
/// 100 GiB beside 1 GiB: what the same change may take longer.
const SCALE_TIMES: f64 = 1.25;
const PAUSE_MS: f64 = 50.0;
/// Both ends together.
const GROWTH_MIB: f64 = 128.0;

/// How much is measured.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Rounds of each measurement, in turns.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Full copies are of so many MiB.
    #[arg(long, default_value_t = 4 << 10, value_parser = clap::value_parser!(u64).range(64..=16 << 10))]
    size: u64,
    /// 1 % is changed of so many MiB.
    #[arg(long, default_value_t = 10 << 10, value_parser = clap::value_parser!(u64).range(64..=16 << 10))]
    delta_size: u64,
    /// Measure this part alone.
    #[arg(long, value_parser = ["full", "delta", "scale", "torn", "pause"])]
    only: Option<String>,
    /// Where the disks are made: 25 GB are needed, on a filesystem with direct I/O.
    #[arg(long, default_value = "/var/tmp", value_name = "DIR")]
    dir: std::path::PathBuf,
}

/// Measures everything.
pub(crate) fn measure(root: &Path, options: &Options) -> Result<Vec<Row>> {
    let missing = |(program, _): &&(&str, &str)| !super::installed(program);
    let packages: Vec<_> = PROGRAMS.iter().filter(missing).map(|(_, package)| *package).collect();
    if !packages.is_empty() {
        bail!("programs are missing: apt-get install {}", packages.join(" "));
    }
    sweep(&options.dir);
    let dir = tempfile::Builder::new().prefix(PREFIX).tempdir_in(&options.dir)?;
    let mib = |mib: u64| (mib << 20).to_string();
    let mut bench = run::cargo(root);
    bench.args(["bench", "--quiet", "--locked", "-p", "holdfast-agent", "--bench", "replicate"]);
    bench.arg("--").arg(dir.path()).arg(options.rounds.to_string());
    bench.args([mib(options.size), mib(options.delta_size)]);
    bench.args(&options.only);
    let measured = json(&mut bench, true);
    clean(dir.path());
    Ok(rows(&measured?))
}

/// Takes away what a run left that was itself interrupted.
fn sweep(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            clean(&entry.path());
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Takes away what is mounted, attached and served below a directory, however the program has ended.
fn clean(dir: &Path) {
    let pid = std::fs::read_to_string(dir.join("rsyncd.pid")).unwrap_or_default();
    let name = std::fs::read_to_string(format!("/proc/{}/comm", pid.trim())).unwrap_or_default();
    // The number may have gone to another since.
    if name.trim() == "rsync" {
        quietly(Command::new("kill").arg(pid.trim()));
    }
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    // Those mounted last come first.
    for place in
        places.filter(|place| Path::new(place).starts_with(dir)).collect::<Vec<_>>().iter().rev()
    {
        quietly(Command::new("umount").arg("-l").arg(place));
    }
    let out = Command::new("losetup").args(["-n", "-O", "NAME,BACK-FILE"]).output();
    let attached = out.map(|out| String::from_utf8_lossy(&out.stdout).into_owned());
    for line in attached.unwrap_or_default().lines() {
        if let Some((device, file)) = line.split_once(' ')
            && Path::new(file.trim()).starts_with(dir)
        {
            quietly(Command::new("losetup").arg("-d").arg(device));
        }
    }
}

fn quietly(command: &mut Command) {
    // What is gone by itself need not be taken away.
    let _ = command.stdin(Stdio::null()).stderr(Stdio::null()).status();
}

fn rows(measured: &Value) -> Vec<Row> {
    let list = |name: &str| {
        let values = measured[name].as_array().map(Vec::as_slice).unwrap_or_default();
        Sorted::of(values.iter().filter_map(Value::as_f64))
    };
    let median = |name: &str, unit| {
        let list = list(&format!("{name}_s"));
        Row::plain(name, list.median(), unit, list.len())
    };
    // How many times as long the other one takes.
    let times = |name: &str, ours: &str, theirs: &str| {
        let (ours, theirs) = (list(ours), list(theirs));
        Row::plain(name, theirs.median() / ours.median(), "x", ours.len().min(theirs.len()))
    };
    let mut rows = Vec::new();
    for limit in ["disk_write", "disk_read", "loopback"] {
        for when in ["before", "after"] {
            let name = format!("limit_{limit}_{when}");
            let list = list(&name);
            rows.push(Row::plain(name, list.median(), "MiB/s", list.len()));
        }
    }
    for name in ["full", "full_raw", "full_raw_direct", "full_btrfs", "full_rsync"] {
        rows.push(median(name, "s"));
    }
    for name in ["full_processor", "full_raw_processor", "full_raw_direct_processor"] {
        rows.push(median(name, "s"));
    }
    let absent = measured["btrfs_absent"].as_str();
    let mut btrfs = times("full_against_btrfs", "full_s", "full_btrfs_s").at_least(BTRFS_TIMES);
    if let Some(reason) = absent {
        eprintln!("replicate: no btrfs here: {reason}");
        (btrfs.target, btrfs.met) = ("n/a".to_owned(), None);
    }
    rows.extend([
        times("full_against_raw", "full_s", "full_raw_s").at_least(RAW_SHARE),
        times("full_against_raw_direct", "full_s", "full_raw_direct_s"),
        btrfs,
        times("full_against_rsync", "full_s", "full_rsync_s").at_least(RSYNC_TIMES),
    ]);
    let (grew, wire) = (list("full_grew_mib"), list("full_wire"));
    rows.push(Row::plain("full_memory_max", grew.max(), "MiB", grew.len()).at_most(GROWTH_MIB));
    rows.push(Row::plain("full_wire", wire.median() / f64::from(1 << 20), "MiB", wire.len()));
    rows.extend([median("delta", "s"), median("delta_rsync", "s")]);
    rows.push(times("delta_against_rsync", "delta_s", "delta_rsync_s").at_least(DELTA_RSYNC_TIMES));
    let wire = times("delta_wire_of_changed", "delta_changed", "delta_wire");
    rows.push(wire.at_most(WIRE_SHARE));
    for name in ["scale_1g", "scale_10g", "scale_100g"] {
        rows.push(median(name, "s"));
    }
    rows.push(times("scale_100g_of_1g", "scale_1g_s", "scale_100g_s").at_most(SCALE_TIMES));
    let torn = list("torn_extents");
    rows.push(Row::plain("torn_extents", torn.median(), "", torn.len()));
    rows.extend([median("torn", "s"), median("torn_first_frame", "s")]);
    rows.push(times("torn_wire_of_changed", "torn_changed", "torn_wire"));
    for (name, limit) in [("pause", Some(PAUSE_MS)), ("frozen", None)] {
        let list = list(&format!("{name}_ms"));
        let row = |of: &str, value| Row::plain(format!("{name}_{of}"), value, "ms", list.len());
        rows.push(row("median", list.median()));
        let p99 = row("p99", list.quantile(0.99));
        rows.push(limit.map_or(p99.clone(), |limit| p99.at_most(limit)));
        rows.push(row("max", list.max()));
    }
    // A part that was left out has no figures.
    rows.retain(|row| row.n > 0 || row.target == "n/a");
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_ratio_is_of_medians_and_held_against_its_target() {
        let measured = json!({
            "full_s": [4.0, 5.0, 9.0], "full_raw_s": [4.0, 3.0, 8.0], "full_rsync_s": [9.0],
            "delta_wire": [101.0], "delta_changed": [100.0], "btrfs_absent": "no such filesystem",
        });
        let rows = rows(&measured);
        let row = |name: &str| rows.iter().find(|row| row.name == name).unwrap();
        assert_eq!((row("full").value, row("full").n), (5.0, 3));
        assert_eq!((row("full_against_raw").value, row("full_against_raw").met), (0.8, Some(true)));
        assert_eq!(row("full_against_rsync").met, Some(false));
        assert_eq!(row("delta_wire_of_changed").met, Some(true));
        assert_eq!(
            (row("full_against_btrfs").met, &*row("full_against_btrfs").target),
            (None, "n/a")
        );
        assert!(rows.iter().all(|row| !row.name.starts_with("pause")), "it was not measured");
    }
}
