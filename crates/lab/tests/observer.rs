//! The outside observer on real cgroups and real processes (I8). Root only.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use holdfast_lab::observe::{Observation, Observer};
use holdfast_lab::{BootInstant, Layout, Pace, wait_until};
use holdfast_types::ContainerUid;

const LIMIT: Duration = Duration::from_secs(10);

/// Two nodes' cgroups for one container, removed when dropped.
struct Stage {
    layout: Layout,
    top: PathBuf,
    uid: ContainerUid,
}

impl Stage {
    fn new(name: &str) -> Self {
        let hybrid = Path::new("/sys/fs/cgroup/unified");
        let root = if hybrid.exists() { hybrid } else { Path::new("/sys/fs/cgroup") };
        let layout = Layout::new(name, None).unwrap();
        let stage = Self { top: root.join(layout.cgroup()), layout, uid: ContainerUid::generate() };
        for node in ["n1", "n2"] {
            fs::create_dir_all(stage.cgroup(node).join("inner")).unwrap();
        }
        stage
    }

    fn cgroup(&self, node: &str) -> PathBuf {
        self.top.join(node).join("protected").join(self.uid.to_string())
    }

    /// A busy task of the container, one cgroup further down, as a container's tasks may be.
    fn spawn(&self, node: &str) -> Task {
        let procs = self.cgroup(node).join("inner/cgroup.procs");
        let script = format!("echo $$ > {}; while :; do :; done", procs.display());
        Task(Command::new("sh").args(["-c", &script]).spawn().unwrap())
    }

    fn until(&self, observer: &Observer, what: &str, done: impl Fn(&Observation) -> bool) {
        wait_until(what, LIMIT, || Ok(done(&observer.observation()))).unwrap();
    }

    fn until_idle(&self, observer: &Observer, node: &str) {
        let quiet = Duration::from_millis(50);
        self.until(observer, "idleness", |seen| {
            let last = seen.last_run(self.uid, node).unwrap_or_default();
            BootInstant::now().since(last) > quiet
        });
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = fs::write(self.top.join("cgroup.kill"), "1");
        let find = Command::new("find").arg(&self.top).args(["-depth", "-type", "d"]).output();
        let _ = wait_until("the end of the stage", LIMIT, || {
            for dir in String::from_utf8_lossy(&find.as_ref().unwrap().stdout).lines() {
                let _ = fs::remove_dir(dir);
            }
            Ok(!self.top.exists())
        });
    }
}

struct Task(Child);

impl Drop for Task {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn one_after_the_other_is_seen_with_its_gap() {
    let stage = Stage::new("t-obs-gap");
    let observer = Observer::start(&stage.layout, Pace::default()).unwrap();
    let first = stage.spawn("n1");
    stage.until(&observer, "the first run", |s| s.last_run(stage.uid, "n1").is_some());
    drop(first);
    stage.until_idle(&observer, "n1");
    let _second = stage.spawn("n2");
    stage.until(&observer, "the second run", |s| s.last_run(stage.uid, "n2").is_some());
    let verdict = observer.observation().verdict(stage.uid);
    assert!(verdict.holds());
    assert!(verdict.min_gap_ms().is_some_and(|gap| (40..5000).contains(&gap)), "{verdict:?}");
}

/// The observer itself must fail when there is something to see.
#[test]
fn two_at_once_are_caught() {
    let stage = Stage::new("t-obs-two");
    let observer = Observer::start(&stage.layout, Pace::default()).unwrap();
    let (_first, _second) = (stage.spawn("n1"), stage.spawn("n2"));
    stage.until(&observer, "the overlap", |s| s.verdict(stage.uid).overlap_ms() >= 20);
    assert!(!observer.observation().verdict(stage.uid).holds());
}

/// DESIGN section 5: frozen is stopped, and the ancestor's freeze reaches everything below.
#[test]
fn a_frozen_ancestor_ends_the_run() {
    let stage = Stage::new("t-obs-ice");
    let observer = Observer::start(&stage.layout, Pace::default()).unwrap();
    let _first = stage.spawn("n1");
    stage.until(&observer, "the first run", |s| s.last_run(stage.uid, "n1").is_some());
    fs::write(stage.top.join("n1/protected/cgroup.freeze"), "1").unwrap();
    stage.until_idle(&observer, "n1");
    let _second = stage.spawn("n2");
    stage.until(&observer, "the second run", |s| s.last_run(stage.uid, "n2").is_some());
    assert!(observer.observation().verdict(stage.uid).holds());
    let thaw = BootInstant::now();
    fs::write(stage.top.join("n1/protected/cgroup.freeze"), "0").unwrap();
    stage.until(&observer, "the run after the thaw", |s| {
        s.first_run_after(stage.uid, "n1", thaw).is_some() && !s.verdict(stage.uid).holds()
    });
}

/// SIGSTOP is not a stop: whoever sends SIGCONT undoes it.
#[test]
fn a_sigstopped_task_still_counts_as_running() {
    let stage = Stage::new("t-obs-stop");
    let observer = Observer::start(&stage.layout, Pace::default()).unwrap();
    let task = stage.spawn("n1");
    stage.until(&observer, "the first run", |s| s.last_run(stage.uid, "n1").is_some());
    Command::new("kill").args(["-STOP", &task.0.id().to_string()]).status().unwrap();
    let stopped = BootInstant::now();
    stage.until(&observer, "the run going on", |s| {
        let last = s.last_run(stage.uid, "n1").unwrap_or_default();
        last.since(stopped) > Duration::from_millis(100)
    });
}
