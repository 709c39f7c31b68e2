//! node-init: pid 1 of a lab node. It starts the node's services, reaps what is orphaned, and
//! starts a service again when it ends, as units with `Restart=always` would be.
//!
//! It also keeps a *fuse*: a child that does nothing. When the fuse dies, so does the node. The
//! guardian's last resort, which reboots a real machine, blows it (a namespace's init cannot be
//! killed from inside).
//!
//! ```text
//!            start                     ended after < SETTLED: double the pause
//! waiting ────────────▶ running ───────────────────────────────────────────────▶ waiting
//!    ▲                                 ended later: the shortest pause              │
//!    └──────────────────────────────── until its pause is over ◀────────────────────┘
//! ```

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::wait::{WaitStatus, waitpid};

use super::boot::append;
use crate::LabError;
use crate::plan::{FUSE, NodePlan, Service};
use crate::plumbing::mounts;

const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A service that ran for this long counts as started well.
const SETTLED: Duration = Duration::from_secs(5);

/// Runs the node of this plan until it is killed, or its fuse is.
pub fn init(plan_file: &Path) -> Result<(), LabError> {
    mounts::own_proc()?;
    let plan = NodePlan::load(plan_file)?;
    let fuse = start_fuse(&plan)?;
    let mut units: Vec<_> = plan.services.iter().map(Unit::new).collect();
    let (ended, endings) = channel();
    std::thread::spawn(move || reap(&ended));
    loop {
        let now = Instant::now();
        for unit in units.iter_mut().filter(|u| u.is_due(now)) {
            unit.start(&plan, fuse);
        }
        let due = units.iter().filter_map(Unit::due).min();
        let Some((pid, how)) = next_ending(&endings, due) else { continue };
        if pid == fuse {
            eprintln!("{} the fuse has blown: the node dies", jiff::Timestamp::now());
            return Ok(());
        }
        if let Some(unit) = units.iter_mut().find(|u| u.pid() == Some(pid)) {
            eprintln!("{} {} ended: {how}", jiff::Timestamp::now(), unit.service.part.unit());
            unit.ended(Instant::now());
        }
    }
}

fn start_fuse(plan: &NodePlan) -> Result<i32, LabError> {
    let fuse = Command::new(&plan.lab_program)
        .arg("node-fuse")
        .stdin(Stdio::null())
        .spawn()
        .map_err(LabError::io("cannot run", &plan.lab_program))?;
    Ok(fuse.id().cast_signed())
}

/// The fuse: is there until it is killed.
pub fn fuse() {
    loop {
        std::thread::park();
    }
}

/// Waits for every child there ever is; a node's orphans become pid 1's children.
fn reap(ended: &Sender<(i32, String)>) {
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, status)) => {
                let _ = ended.send((pid.as_raw(), format!("exit status {status}")));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) => {
                let _ = ended.send((pid.as_raw(), signal.to_string()));
            }
            // No child at the moment: one is started before its pause is over.
            Err(Errno::ECHILD) => std::thread::sleep(Duration::from_millis(20)),
            Ok(_) | Err(_) => {}
        }
    }
}

fn next_ending(endings: &Receiver<(i32, String)>, due: Option<Instant>) -> Option<(i32, String)> {
    let wait = due.map_or(Duration::from_secs(3600), |d| d.duration_since(Instant::now()));
    endings.recv_timeout(wait).ok()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting { until: Instant },
    Running { pid: i32, since: Instant },
}

struct Unit<'a> {
    service: &'a Service,
    state: State,
    pause: Duration,
}

impl<'a> Unit<'a> {
    fn new(service: &'a Service) -> Self {
        Self { service, state: State::Waiting { until: Instant::now() }, pause: SHORTEST_PAUSE }
    }

    fn pid(&self) -> Option<i32> {
        match self.state {
            State::Running { pid, .. } => Some(pid),
            State::Waiting { .. } => None,
        }
    }

    fn due(&self) -> Option<Instant> {
        match self.state {
            State::Waiting { until } => Some(until),
            State::Running { .. } => None,
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        self.due().is_some_and(|due| due <= now)
    }

    fn start(&mut self, plan: &NodePlan, fuse: i32) {
        match spawn(self.service, plan, fuse) {
            Ok(pid) => self.state = State::Running { pid, since: Instant::now() },
            Err(error) => {
                eprintln!("{} {}: {error}", jiff::Timestamp::now(), self.service.part.unit());
                self.back_off(Instant::now());
            }
        }
    }

    fn ended(&mut self, now: Instant) {
        if matches!(self.state, State::Running { since, .. } if now - since >= SETTLED) {
            self.pause = SHORTEST_PAUSE;
        }
        self.back_off(now);
    }

    fn back_off(&mut self, now: Instant) {
        self.state = State::Waiting { until: now + self.pause };
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}

fn spawn(service: &Service, plan: &NodePlan, fuse: i32) -> Result<i32, LabError> {
    let part = service.part;
    let log_path = plan.node_dir.join(format!("{}.log", part.unit()));
    let log = append(&log_path)?;
    let errors = log.try_clone().map_err(LabError::io("cannot share", &log_path))?;
    let child = Command::new(&plan.lab_program)
        .args(["node-exec", "--cgroup", &NodePlan::unit_cgroup(&plan.cgroup, part)])
        .arg(format!("--oom-score-adj={}", service.oom_score_adj))
        .arg("--")
        .args(service.argv.iter().map(|word| word.replace(FUSE, &fuse.to_string())))
        .envs(&service.env)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .spawn()
        .map_err(LabError::io("cannot run", &plan.lab_program))?;
    let pid_file = NodePlan::pid_file(&plan.node_run, part);
    std::fs::write(&pid_file, child.id().to_string())
        .map_err(LabError::io("cannot write", &pid_file))?;
    i32::try_from(child.id())
        .map_err(|_| LabError::NotRunning { node: plan.node.clone(), service: part.unit() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Part;

    fn service() -> Service {
        let argv = vec!["true".to_owned()];
        Service { part: Part::Daemon, argv, env: Default::default(), oom_score_adj: 0 }
    }

    #[test]
    fn pauses_double_until_a_service_settles() {
        let service = service();
        let mut unit = Unit::new(&service);
        let start = Instant::now();
        unit.state = State::Running { pid: 7, since: start };
        unit.ended(start + Duration::from_secs(1));
        assert_eq!(unit.due(), Some(start + Duration::from_millis(1100)));
        assert_eq!(unit.pause, SHORTEST_PAUSE * 2);
        unit.state = State::Running { pid: 8, since: start };
        unit.ended(start + SETTLED);
        assert_eq!(unit.due(), Some(start + SETTLED + SHORTEST_PAUSE));
        for _ in 0..20 {
            unit.back_off(start);
        }
        assert_eq!(unit.pause, LONGEST_PAUSE);
    }
}
