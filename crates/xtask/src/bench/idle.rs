//! What an idle node costs: memory of its daemon and guardian, processor time, bytes shipped.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::lab::{Programs, json};
use super::report::Row;
use super::statistics::Sorted;
use crate::run;

/// How long the lab settles, and how long it is then watched.
const SETTLE: Duration = Duration::from_secs(15);
const WATCH: Duration = Duration::from_secs(30);

const DAEMON_MIB: f64 = 60.0;
const GUARDIAN_MIB: f64 = 4.0;
const CPU_PERCENT: f64 = 1.0;

/// Measures a lab of three nodes with one container that does nothing.
pub(crate) fn measure(programs: &Programs) -> Result<Vec<Row>> {
    run::succeed(programs.lab(&["up"]).stdout(std::process::Stdio::null()))?;
    let rows = watch(programs);
    run::succeed(programs.lab(&["down"]).stdout(std::process::Stdio::null()))?;
    rows
}

fn watch(programs: &Programs) -> Result<Vec<Row>> {
    let root = tempfile::tempdir()?;
    for dir in ["bin", "sbin", "proc", "sys", "dev"] {
        fs::create_dir(root.path().join(dir))?;
    }
    fs::copy("/bin/busybox", root.path().join("bin/busybox")).context("busybox-static")?;
    std::os::unix::fs::symlink("../bin/busybox", root.path().join("sbin/init"))?;
    let image = root.path().to_str().context("a path of text")?.to_owned();
    run::succeed(
        programs
            .client("n1", &["image", "import", "idle", &image])
            .stdout(std::process::Stdio::null()),
    )?;
    let create = ["create", "idle", "--image", "idle", "--", "/bin/busybox", "sleep", "1000000"];
    run::succeed(programs.client("n1", &create).stdout(std::process::Stdio::null()))?;
    run::succeed(programs.client("n1", &["sync", "idle"]).stdout(std::process::Stdio::null()))?;
    std::thread::sleep(SETTLE);
    let nodes = nodes(programs)?;
    let ticks = || nodes.iter().map(Node::ticks).collect::<Result<Vec<_>>>();
    let (snapshot, before) = (snapshot(programs)?, ticks()?);
    std::thread::sleep(WATCH);
    let after = ticks()?;
    let unchanged = snapshot == self::snapshot(programs)?;
    let per_s = clock_ticks()? * WATCH.as_secs_f64();
    let cpu = before.iter().zip(&after).map(|(b, a)| (a - b) as f64 / per_s * 100.0);
    let (cpu, n) = (Sorted::of(cpu), nodes.len());
    let daemon =
        Sorted::of(nodes.iter().map(|node| rss_mib(node.daemon)).collect::<Result<Vec<_>>>()?);
    let guardian =
        Sorted::of(nodes.iter().map(|node| rss_mib(node.guardian)).collect::<Result<Vec<_>>>()?);
    Ok(vec![
        Row::plain("idle_daemon_rss_max", daemon.max(), "MiB", n).at_most(DAEMON_MIB),
        Row::plain("idle_guardian_rss_max", guardian.max(), "MiB", n).at_most(GUARDIAN_MIB),
        Row::plain("idle_node_cpu_median", cpu.median(), "% core", n).at_most(CPU_PERCENT),
        Row::plain("idle_node_cpu_max", cpu.max(), "% core", n).at_most(CPU_PERCENT),
        Row::plain("idle_snapshots_shipped", f64::from(u8::from(!unchanged)), "", 1).at_most(0.0),
    ])
}

struct Node {
    daemon: u64,
    guardian: u64,
}

impl Node {
    /// Processor time of the node's own processes, in clock ticks (`proc(5)`, fields 14 and 15).
    fn ticks(&self) -> Result<u64> {
        let of = |pid: u64| -> Result<u64> {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
            let rest = stat.rsplit_once(')').context("a process's stat")?.1;
            let number =
                |n: usize| rest.split_whitespace().nth(n).and_then(|t| t.parse::<u64>().ok());
            Ok(number(11).context("utime")? + number(12).context("stime")?)
        };
        Ok(of(self.daemon)? + of(self.guardian)?)
    }
}

fn nodes(programs: &Programs) -> Result<Vec<Node>> {
    let status = json(&mut programs.lab(&["status", "-o", "json"]), true)?;
    let nodes =
        status["nodes"].as_array().or(status.as_array()).context("a status without nodes")?;
    let pid = |node: &serde_json::Value, part: &str| node[part]["pid"].as_u64();
    let one = |node| Some(Node { daemon: pid(node, "daemon")?, guardian: pid(node, "guardian")? });
    nodes.iter().map(|node| one(node).context("a node that does not run")).collect()
}

/// The newest snapshot of the idle container's replica.
fn snapshot(programs: &Programs) -> Result<String> {
    let container = json(&mut programs.client("n1", &["show", "idle", "-o", "json"]), true)?;
    Ok(container["replicas"][0]["snapshot_uuid"].to_string())
}

fn rss_mib(pid: u64) -> Result<f64> {
    let status = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status"))?;
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).context("VmRSS")?;
    let kib = line.split_whitespace().nth(1).and_then(|t| t.parse::<f64>().ok());
    Ok(kib.context("VmRSS in KiB")? / 1024.0)
}

/// Clock ticks a second (`sysconf(3)`, `_SC_CLK_TCK`).
fn clock_ticks() -> Result<f64> {
    let out = std::process::Command::new("getconf").arg("CLK_TCK").output().context("getconf")?;
    Ok(String::from_utf8(out.stdout)?.trim().parse()?)
}
