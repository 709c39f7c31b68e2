//! The polling thread.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use holdfast_types::ContainerUid;
use serde::Serialize;

use super::sweep::{Interval, Verdict, sweep};
use super::task::process_runs;
use crate::LabError;
use crate::clock::BootInstant;
use crate::layout::Layout;
use crate::pace::Pace;
use crate::plumbing::cgroup::Hierarchies;

/// Pause between two polls.
pub const PERIOD: Duration = Duration::from_millis(2);
/// As high as an ordinary process goes: the observer must see what a loaded machine does.
const PRIORITY: i32 = -20;
/// The deepest cgroup looked into below a container's (systemd makes three or four).
const MAX_DEPTH: usize = 16;

/// What was seen so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Observation {
    /// The run intervals of each container, in the order of their beginnings.
    pub runs: BTreeMap<ContainerUid, Vec<Interval>>,
    /// How many polls were made.
    pub polls: u64,
    /// The longest time between two polls: what happened within may be missing.
    pub longest_blink_ns: u64,
}

impl Observation {
    /// The judgement on one container (I8).
    pub fn verdict(&self, uid: ContainerUid) -> Verdict {
        self.runs.get(&uid).map_or_else(Verdict::default, |runs| sweep(runs))
    }

    /// The last instant at which the container was seen to run on the node.
    pub fn last_run(&self, uid: ContainerUid, node: &str) -> Option<BootInstant> {
        self.runs.get(&uid)?.iter().filter(|i| i.node == node).map(|i| i.last).max()
    }

    /// The first instant after `from` at which the container was seen to run on the node.
    pub fn first_run_after(
        &self,
        uid: ContainerUid,
        node: &str,
        from: BootInstant,
    ) -> Option<BootInstant> {
        let here = self.runs.get(&uid)?.iter().filter(|i| i.node == node && i.last > from);
        here.map(|i| i.first.max(from)).min()
    }
}

/// A running observer of one lab. It stops when dropped.
#[derive(Debug)]
pub struct Observer {
    seen: Arc<Mutex<Observation>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Observer {
    /// Begins to watch every protected container of the lab, on every node that it has or gets.
    pub fn start(layout: &Layout, pace: Pace) -> Result<Self, LabError> {
        let lab = Hierarchies::discover()?.path(&layout.cgroup());
        let (seen, stop) = <(Arc<Mutex<Observation>>, Arc<AtomicBool>)>::default();
        let (shared, ending) = (Arc::clone(&seen), Arc::clone(&stop));
        let thread = std::thread::Builder::new()
            .name("observer".into())
            .spawn(move || watch(&lab, &shared, &ending, pace.of(PERIOD)))
            .map_err(LabError::io("cannot start a thread for", Path::new("the observer")))?;
        Ok(Self { seen, stop, thread: Some(thread) })
    }

    /// What was seen so far.
    pub fn observation(&self) -> Observation {
        lock(&self.seen).clone()
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock(seen: &Mutex<Observation>) -> MutexGuard<'_, Observation> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn watch(lab: &Path, seen: &Mutex<Observation>, stop: &AtomicBool, pause: Duration) {
    // Where the host does not allow it the blinks are longer, and the observation says so.
    let _ = rustix::process::setpriority_process(None, PRIORITY);
    let mut poller = Poller::default();
    while !stop.load(Ordering::Relaxed) {
        poller.poll(lab, seen);
        std::thread::sleep(pause);
    }
}

/// Remembers which run intervals are still open.
#[derive(Debug, Default)]
struct Poller {
    /// Index into the container's intervals.
    open: BTreeMap<(String, ContainerUid), usize>,
    last_poll: Option<BootInstant>,
}

impl Poller {
    fn poll(&mut self, lab: &Path, seen: &Mutex<Observation>) {
        let begin = BootInstant::now();
        let running: Vec<_> = containers(lab)
            .into_iter()
            .filter_map(|(node, uid, cgroup)| {
                cgroup_runs(&cgroup, 0).then(|| ((node, uid), BootInstant::now()))
            })
            .collect();
        let mut seen = lock(seen);
        let blink = self.last_poll.replace(begin).map_or(0, |last| begin.0 - last.0);
        seen.longest_blink_ns = seen.longest_blink_ns.max(blink);
        seen.polls += 1;
        self.open.retain(|key, _| running.iter().any(|(found, _)| found == key));
        for (key, at) in running {
            let runs = seen.runs.entry(key.1).or_default();
            match self.open.get(&key).and_then(|index| runs.get_mut(*index)) {
                Some(interval) => interval.last = at,
                None => {
                    runs.push(Interval { node: key.0.clone(), first: begin, last: at });
                    self.open.insert(key, runs.len() - 1);
                }
            }
        }
    }
}

/// Every protected container's cgroup below the lab's: `<node>/protected/<uid>`.
fn containers(lab: &Path) -> Vec<(String, ContainerUid, PathBuf)> {
    let mut found = Vec::new();
    for (node, dir) in children(lab) {
        for (name, cgroup) in children(&dir.join("protected")) {
            if let Ok(uid) = name.parse() {
                found.push((node.clone(), uid, cgroup));
            }
        }
    }
    found
}

/// Whether some task in the cgroup or below may run user code.
fn cgroup_runs(cgroup: &Path, depth: usize) -> bool {
    let events = fs::read_to_string(cgroup.join("cgroup.events")).unwrap_or_default();
    let has = |what| events.lines().any(|line| line == what);
    // An ancestor's freeze shows here too: "frozen" is the state, not the wish (cgroup v2).
    if has("frozen 1") || has("populated 0") || depth > MAX_DEPTH {
        return false;
    }
    let procs = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    procs.lines().any(process_runs)
        || children(cgroup).iter().any(|(_, child)| cgroup_runs(child, depth + 1))
}

fn children(dir: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let dirs = entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
    dirs.filter_map(|e| Some((e.file_name().into_string().ok()?, e.path()))).collect()
}
