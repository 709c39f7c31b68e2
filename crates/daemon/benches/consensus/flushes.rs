//! How often each cluster flushes its disks, as the kernel sees it: `strace` counts the calls of all
//! threads of the three processes under load. Apart from the loads that are measured, since being
//! traced costs time.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cluster::Cluster;
use crate::load::{self, Question};
use crate::traffic::CLIENTS;
use crate::{Measured, Plan, say};

/// The calls that make a file durable, or claim to.
const CALLS: &str = "trace=fsync,fdatasync,sync_file_range,msync";

const SPAN: Duration = Duration::from_secs(2);

/// `strace` is attached, or gone, after so long.
const PATIENCE: Duration = Duration::from_secs(10);

/// Counts flushes beside writes.
pub(crate) async fn measure<C: Cluster>(
    cluster: &mut C,
    plan: &Plan,
    measured: &mut Measured,
) -> Result<()> {
    for clients in CLIENTS {
        let pids = cluster.pids()?;
        let tracers =
            pids.iter().map(|pid| Tracer::attach(*pid, &plan.dir)).collect::<Result<Vec<_>>>()?;
        let load = load::run(cluster, Question::Write, clients, SPAN).await;
        let flushes = tracers.into_iter().map(Tracer::count).sum::<Result<u64>>()?;
        let writes = load?.answers;
        say(&format!("{}: {clients} clients, {writes} writes, {flushes} flushes", C::NAME));
        measured.add(format!("{}_flushes_{clients}", C::NAME), flushes as f64);
        measured.add(format!("{}_flushed_writes_{clients}", C::NAME), writes as f64);
    }
    Ok(())
}

/// `strace` at work on one process.
struct Tracer {
    child: Child,
    table: std::path::PathBuf,
}

impl Tracer {
    fn attach(pid: u32, dir: &Path) -> Result<Self> {
        let table = dir.join(format!("strace.{pid}"));
        let mut command = Command::new("strace");
        command.args(["-f", "-c", "-e", CALLS, "-p", &pid.to_string(), "-o"]).arg(&table);
        command.stdin(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().context("strace: apt-get install strace")?;
        let traced = |tasks: std::fs::ReadDir| {
            tasks.flatten().all(|task| {
                let status = std::fs::read_to_string(task.path().join("status"));
                // A thread that has just ended needs no tracer.
                status.map_or(true, |text| text.contains(&format!("TracerPid:\t{}", child.id())))
            })
        };
        let until = std::time::Instant::now() + PATIENCE;
        while !traced(std::fs::read_dir(format!("/proc/{pid}/task"))?) {
            if std::time::Instant::now() > until {
                bail!("strace does not attach to process {pid}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(Self { child, table })
    }

    /// Lets the process go, and returns how many calls there were.
    fn count(mut self) -> Result<u64> {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.context("a pid")?, rustix::process::Signal::INT)?;
        self.child.wait()?;
        let table = std::fs::read_to_string(&self.table)?;
        // "% time  seconds  usecs/call  calls  [errors]  syscall"; no line where there was no call.
        let line = table.lines().find(|line| line.trim_end().ends_with(" total"));
        let calls = line.map(|line| line.split_whitespace().nth(3).and_then(|n| n.parse().ok()));
        calls.unwrap_or(Some(0)).context("strace's table has no count")
    }
}
