//! The daemon and the guardian of a node, each paused, continued or killed by itself.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::LabError;
use crate::lab::Lab;
use crate::layout::Layout;
use crate::plan::{NodePlan, Part};
use crate::plumbing::cgroup::Hierarchies;

impl Lab {
    /// SIGSTOP to the part: it is there and does nothing.
    pub fn pause(&self, node: &str, part: Part) -> Result<(), LabError> {
        self.signal(node, part, Signal::SIGSTOP)
    }

    /// SIGCONT to the part.
    pub fn resume(&self, node: &str, part: Part) -> Result<(), LabError> {
        self.signal(node, part, Signal::SIGCONT)
    }

    /// SIGKILL to the part's main process; the node's init starts it again.
    pub fn crash(&self, node: &str, part: Part) -> Result<(), LabError> {
        self.signal(node, part, Signal::SIGKILL)
    }

    /// SIGKILL to the part and whatever it has started, all at once.
    pub fn crash_whole(&self, node: &str, part: Part) -> Result<(), LabError> {
        let kill = self.unit_path(node, part)?.join("cgroup.kill");
        fs::write(&kill, "1").map_err(LabError::io("cannot write", &kill))
    }

    /// Waits until a program of this name (15 characters at most, as the kernel keeps it), which
    /// the part started, is in one of these system calls, and stops it there with SIGSTOP. Looks
    /// without a pause: such moments are short. Returns its process id.
    pub fn catch(
        &self,
        node: &str,
        part: Part,
        (program, calls): (&str, &[&str]),
        limit: Duration,
    ) -> Result<i32, LabError> {
        let procs = self.unit_path(node, part)?.join("cgroup.procs");
        let end = Instant::now() + limit;
        let file = |pid: i32, name| fs::read_to_string(format!("/proc/{pid}/{name}"));
        let named = |pid: &i32| file(*pid, "comm").is_ok_and(|comm| comm.trim() == program);
        while Instant::now() < end {
            let text = fs::read_to_string(&procs).unwrap_or_default();
            let mut pids = text.lines().filter_map(|line| line.parse().ok());
            let Some(pid) = pids.find(named) else { continue };
            // Stopped first: what is seen then stays so. "running" is not stopped yet.
            let _ = kill(Pid::from_raw(pid), Signal::SIGSTOP);
            let mut call = file(pid, "syscall").unwrap_or_default();
            while call.starts_with("running") && Instant::now() < end {
                call = file(pid, "syscall").unwrap_or_default();
            }
            if call.split(' ').next().is_some_and(|number| calls.contains(&number)) {
                return Ok(pid);
            }
            let _ = kill(Pid::from_raw(pid), Signal::SIGCONT);
        }
        let what = format!("{program} on {node} in system call {}", calls.join(" or "));
        Err(LabError::Deadline { what, seconds: limit.as_secs() })
    }

    /// SIGCONT to what was [caught](Self::catch).
    pub fn let_go(&self, pid: i32) -> Result<(), LabError> {
        kill(Pid::from_raw(pid), Signal::SIGCONT).map_err(LabError::sys("cannot continue it"))
    }

    fn unit_path(&self, node: &str, part: Part) -> Result<PathBuf, LabError> {
        self.record()?.node(node)?;
        let unit = NodePlan::unit_cgroup(&self.layout().node_cgroup(node), part);
        Ok(Hierarchies::discover()?.path(&unit))
    }

    /// The part's main process, as the host counts.
    pub fn pid(&self, node: &str, part: Part) -> Result<i32, LabError> {
        self.record()?.node(node)?;
        host_pid(&Hierarchies::discover()?, self.layout(), node, part).map(Pid::as_raw)
    }

    fn signal(&self, node: &str, part: Part, signal: Signal) -> Result<(), LabError> {
        let pid = Pid::from_raw(self.pid(node, part)?);
        kill(pid, signal).map_err(LabError::sys("cannot send the signal"))
    }
}

/// The part's main process: the one whose id inside the node is what its init wrote down.
pub(crate) fn host_pid(
    hierarchies: &Hierarchies,
    layout: &Layout,
    node: &str,
    part: Part,
) -> Result<Pid, LabError> {
    let gone = || LabError::NotRunning { node: node.to_owned(), service: part.unit() };
    let inner = fs::read_to_string(NodePlan::pid_file(&layout.node_run(node), part));
    let inner: i32 = inner.ok().and_then(|t| t.trim().parse().ok()).ok_or_else(gone)?;
    let unit = NodePlan::unit_cgroup(&layout.node_cgroup(node), part);
    find(hierarchies, &unit, inner).ok_or_else(gone)
}

/// The node's pid 1, as the host counts, if the node lives.
pub(crate) fn init_pid(hierarchies: &Hierarchies, layout: &Layout, node: &str) -> Option<Pid> {
    find(hierarchies, &NodePlan::init_cgroup(&layout.node_cgroup(node)), 1)
}

/// The process in the cgroup that has this id inside its node.
fn find(hierarchies: &Hierarchies, cgroup: &str, inner: i32) -> Option<Pid> {
    let procs = fs::read_to_string(hierarchies.path(cgroup).join("cgroup.procs")).ok()?;
    let mut pids = procs.lines().filter_map(|line| line.parse::<i32>().ok());
    pids.find(|pid| pid_in_node(*pid) == Some(inner)).map(Pid::from_raw)
}

/// A process's id in the second of the pid namespaces that it is in: the node's, seen from the
/// host (`NSpid` in proc_pid_status(5)).
fn pid_in_node(pid: i32) -> Option<i32> {
    let status = fs::read_to_string(PathBuf::from(format!("/proc/{pid}/status"))).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("NSpid:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
