//! Consensus beside etcd. The measuring program is the bench `consensus` of the daemon's crate; here
//! its numbers become medians and are held against targets.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::lab::json;
use super::report::Row;
use super::statistics::Sorted;
use crate::run;

/// What the measuring program calls, and the packages that have it.
const PROGRAMS: [(&str, &str); 4] = [
    ("etcd", "etcd-server"),
    ("strace", "strace"),
    ("setpriv", "util-linux"),
    ("unshare", "util-linux"),
];

/// Clients at work at a time.
const CLIENTS: [u32; 3] = [1, 64, 1_000];

const WRITES_TIMES: f64 = 3.0;
const READS_TIMES: f64 = 2.0;
const NEW_LEADER_S: f64 = 1.0;
const WORKERS_CORES: f64 = 0.5;
const RESTART_S: f64 = 10.0;
const CONTAINER_KIB: f64 = 1.5;
const APPLY_MS: f64 = 50.0;

/// How much is measured.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Rounds of each load, both clusters in turns.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds of each load.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Leaders of each cluster that are killed.
    #[arg(long, default_value_t = 11, value_parser = clap::value_parser!(u32).range(1..=1000))]
    kills: u32,
    /// Simulated workers.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    workers: u32,
    /// Containers in the state that a node restarts with.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    containers: u32,
    /// Measure this part alone.
    #[arg(long, value_parser = ["traffic", "flushes", "leader", "heartbeats", "scale"])]
    only: Option<String>,
    /// Where both keep their data: a filesystem whose flushes reach a disk.
    #[arg(long, default_value = "/var/tmp", value_name = "DIR")]
    dir: PathBuf,
}

/// Measures everything.
pub(crate) fn measure(root: &Path, options: &Options) -> Result<Vec<Row>> {
    let missing = |(program, _): &&(&str, &str)| !super::installed(program);
    let packages: Vec<_> = PROGRAMS.iter().filter(missing).map(|(_, package)| *package).collect();
    if !packages.is_empty() {
        bail!("programs are missing: apt-get install {}", packages.join(" "));
    }
    let dir = tempfile::Builder::new().prefix("holdfast-bench-").tempdir_in(&options.dir)?;
    let Options { rounds, seconds, kills, workers, only, .. } = options;
    let bench = |package: &str, name: &str| {
        let mut bench = run::cargo(root);
        bench.args(["bench", "--quiet", "--locked", "-p", package, "--bench", name, "--"]);
        bench.arg(dir.path());
        bench
    };
    let mut found = Vec::new();
    if only.as_deref() != Some("scale") {
        let mut bench = bench("holdfast-daemon", "consensus");
        bench.args([rounds, seconds, kills, workers].map(ToString::to_string)).args(only);
        found.extend(rows(&json(&mut bench, true)?));
    }
    // A bench of its own: one node, in no cluster.
    let scale = root.join("crates/raft/benches/scale").is_dir();
    if scale && only.as_deref().is_none_or(|only| only == "scale") {
        let mut bench = bench("holdfast-raft", "scale");
        found.extend(scale_rows(&json(bench.arg(options.containers.to_string()), true)?)?);
    }
    Ok(found)
}

/// A node that restarts with many containers; each figure was measured once.
fn scale_rows(measured: &Value) -> Result<Vec<Row>> {
    let figure = |name: &str, unit: &'static str, scale: f64| {
        let value = measured[name].as_f64().with_context(|| format!("no {name} was measured"))?;
        anyhow::Ok(Row::plain(format!("scale_{name}"), value * scale, unit, 1))
    };
    let apply = |when: &str| {
        anyhow::Ok(figure(&format!("{when}_apply_longest_ms"), "ms", 1.0)?.at_most(APPLY_MS))
    };
    Ok(vec![
        figure("containers", "", 1.0)?,
        figure("restart_s", "s", 1.0)?.at_most(RESTART_S),
        figure("rss_bytes_per_container", "KiB", 1.0 / 1024.0)?.at_most(CONTAINER_KIB),
        apply("quiet")?,
        apply("snapshot")?,
        figure("quiet_writes_per_s", "1/s", 1.0)?,
        figure("snapshot_writes_per_s", "1/s", 1.0)?,
        figure("snapshot_s", "s", 1.0)?,
        figure("rss_peak_bytes", "MiB", 1.0 / f64::from(1 << 20))?,
    ])
}

/// Whom it is compared with.
pub(crate) fn rival() -> Result<String> {
    let out = Command::new("etcd").arg("--version").output().context("etcd-server")?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let version = text.lines().find_map(|line| line.strip_prefix("etcd Version: "));
    Ok(format!("ETCD {}", version.context("etcd's version")?.trim()))
}

fn rows(measured: &Value) -> Vec<Row> {
    let list = |name: &str| {
        let values = measured[name].as_array().map(Vec::as_slice).unwrap_or_default();
        Sorted::of(values.iter().filter_map(Value::as_f64))
    };
    // A figure of both, each the median of its rounds.
    let both = |name: &str, unit| {
        let (ours, theirs) = (list(&format!("holdfast_{name}")), list(&format!("etcd_{name}")));
        let n = ours.len().min(theirs.len());
        Row::plain(name, ours.median(), unit, n).beside(theirs.median())
    };
    let mut rows = Vec::new();
    for (question, clients) in ["write", "read"].iter().flat_map(|q| CLIENTS.map(|c| (*q, c))) {
        let figure = |of: &str, unit| both(&format!("{question}_{clients}_{of}"), unit);
        let (rate, p50, p99) =
            (figure("rate", "1/s"), figure("p50_ms", "ms"), figure("p99_ms", "ms"));
        rows.extend(match (question, clients) {
            ("read", _) => [rate.at_least_times(READS_TIMES), p50, p99],
            (_, 1) => [rate, p50.at_most_times(1.0), p99],
            (_, 1_000) => [rate.at_least_times(WRITES_TIMES), p50, p99.at_most_times(1.0)],
            _ => [rate, p50, p99],
        });
        let failed = |who: &str| list(&format!("{who}_{question}_{clients}_errors")).sum();
        let row = Row::plain(format!("{question}_{clients}_failed"), failed("holdfast"), "", 0);
        rows.push(Row { n: rows.last().map_or(0, |row| row.n), ..row }.beside(failed("etcd")));
    }
    for clients in CLIENTS {
        let (flushes, writes) = (
            both(&format!("flushes_{clients}"), ""),
            both(&format!("flushed_writes_{clients}"), ""),
        );
        let each = flushes.rival.zip(writes.rival).map(|(flushes, writes)| flushes / writes);
        let name = format!("flushes_per_write_{clients}");
        let ours = Row::plain(name, flushes.value / writes.value, "", flushes.n);
        rows.extend([writes, flushes, ours.beside(each.unwrap_or(f64::NAN))]);
    }
    let (ours, theirs) = (list("holdfast_new_leader_s"), list("etcd_new_leader_s"));
    let leader = |name: &str, of: fn(&Sorted) -> f64| {
        Row::plain(format!("new_leader_{name}"), of(&ours), "s", ours.len()).beside(of(&theirs))
    };
    rows.extend([
        leader("min", Sorted::min),
        leader("median", Sorted::median).at_most(NEW_LEADER_S),
        leader("max", Sorted::max),
    ]);
    let plain = |name: &str, unit| {
        let list = list(name);
        Row::plain(name, list.median(), unit, list.len())
    };
    rows.extend([
        plain("workers_heartbeats_rate", "1/s"),
        plain("workers_heartbeats_failed", ""),
        plain("workers_processor", "cores").at_most(WORKERS_CORES),
        plain("workers_none_processor", "cores"),
        plain("workers_entries", "").at_most(0.0),
        plain("workers_leader_mib", "MiB"),
    ]);
    // A part that was left out has no figures.
    rows.retain(|row| row.n > 0);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn figures_stand_beside_etcds_and_are_held_against_them() {
        let measured = json!({
            "holdfast_write_1000_rate": [30_000.0, 29_000.0, 90_000.0],
            "etcd_write_1000_rate": [10_000.0, 9_000.0, 11_000.0],
            "holdfast_write_1000_p99_ms": [21.0], "etcd_write_1000_p99_ms": [20.0],
            "holdfast_write_1000_errors": [1, 0, 2], "etcd_write_1000_errors": [0, 0, 0],
            "holdfast_flushes_64": [300], "etcd_flushes_64": [100],
            "holdfast_flushed_writes_64": [600], "etcd_flushed_writes_64": [50],
            "holdfast_new_leader_s": [0.5, 0.7, 3.0], "etcd_new_leader_s": [1.5, 1.7, 1.9],
            "workers_entries": [1],
        });
        let rows = rows(&measured);
        let row = |name: &str| rows.iter().find(|row| row.name == name).unwrap();
        let rate = row("write_1000_rate");
        assert_eq!((rate.value, rate.rival, rate.met), (30_000.0, Some(10_000.0), Some(true)));
        assert_eq!(row("write_1000_p99_ms").met, Some(false));
        assert_eq!(row("flushes_per_write_64").ratio(), Some(0.25));
        assert_eq!(row("new_leader_median").met, Some(true));
        assert_eq!(row("workers_entries").met, Some(false));
        assert!(rows.iter().all(|row| !row.name.starts_with("read")), "it was not measured");
        let mut scale = json!({
            "containers": 10, "restart_s": 11.0, "rss_bytes_per_container": 1024,
            "quiet_apply_longest_ms": 3.0, "snapshot_apply_longest_ms": 51.0, "snapshot_s": 1.0,
            "quiet_writes_per_s": 9.0, "snapshot_writes_per_s": 8.0, "rss_peak_bytes": 1,
        });
        let rows = scale_rows(&scale).unwrap();
        let missed = rows.iter().filter(|row| row.met == Some(false)).map(|row| &*row.name);
        let missed: Vec<_> = missed.collect();
        assert_eq!(missed, ["scale_restart_s", "scale_snapshot_apply_longest_ms"]);
        // The pauses of apply had another name where they are measured, and were in no table.
        scale["quiet_apply_longest_ms"] = Value::Null;
        assert!(scale_rows(&scale).is_err());
    }
}
