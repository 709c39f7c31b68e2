//! A machine of the cluster: a disk with a filesystem, and the process of its node.

use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use crate::member::DISK_FAILED;
use crate::notes::Notes;

pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_millis(20);

/// One machine.
pub(crate) struct Machine {
    pub(crate) node: u64,
    disk: String,
    mount: PathBuf,
    status: PathBuf,
    notes: PathBuf,
    running: Option<Child>,
}

/// How its node last said that it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) term: u64,
    pub(crate) leads: bool,
    /// All three vote, and no change is under way.
    pub(crate) complete: bool,
    pub(crate) last: u64,
    pub(crate) committed: u64,
    pub(crate) applied: u64,
    pub(crate) snapshot: u64,
    /// The state's, once nobody writes any more.
    pub(crate) hash: Option<String>,
}

impl Status {
    fn parse(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split(' ').collect();
        let [term, leads, complete, last, committed, applied, snapshot, hash] = words[..] else {
            return None;
        };
        Some(Self {
            term: term.parse().ok()?,
            leads: leads == "true",
            complete: complete == "true",
            last: last.parse().ok()?,
            committed: committed.parse().ok()?,
            applied: applied.parse().ok()?,
            snapshot: snapshot.parse().ok()?,
            hash: (hash != "-").then(|| hash.to_owned()),
        })
    }
}

pub(crate) fn run(command: &str, args: &[&str]) {
    let status = Command::new(command).args(args).stdin(Stdio::null()).status().unwrap();
    assert!(status.success(), "{command} {args:?}: {status}");
}

impl Machine {
    pub(crate) fn new(node: u64, disk: &str, notes: &Path) -> Self {
        let mount = PathBuf::from(format!("/run/n{node}"));
        let status = PathBuf::from(format!("/run/n{node}.status"));
        Self { node, disk: disk.to_owned(), mount, status, notes: notes.to_owned(), running: None }
    }

    /// Makes its filesystem, unless that was done in a life before, and mounts it.
    pub(crate) fn prepare(&self, notes: &Notes) {
        let formatted = format!("formatted {}", self.node);
        if !notes.read().says(&formatted) {
            println!("at formatting {}.", self.node);
            run("mkfs.ext4", &["-q", "-F", "-E", "lazy_itable_init=0", &self.disk]);
            notes.write(formatted);
        }
        self.mount();
    }

    fn path(&self) -> &str {
        self.mount.to_str().unwrap()
    }

    fn mount(&self) {
        std::fs::create_dir_all(&self.mount).unwrap();
        run("mount", &["-t", "ext4", &self.disk, self.path()]);
    }

    pub(crate) fn unmount(&self) {
        run("umount", &[self.path()]);
    }

    /// Starts its node.
    pub(crate) fn start(&mut self) {
        drop(std::fs::remove_file(&self.status));
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_member_of_the_cluster", "--nocapture"])
            .env("HOLDFAST_TEST_NODE", self.node.to_string())
            .env("HOLDFAST_TEST_MOUNT", &self.mount)
            .env("HOLDFAST_TEST_STATUS", &self.status)
            .env("HOLDFAST_TEST_ACKED", &self.notes)
            .stdin(Stdio::piped())
            .spawn();
        self.running = Some(child.unwrap());
    }

    /// The end of its process, with its status.
    fn ended(&mut self) -> Option<i32> {
        let status = self.running.as_mut()?.try_wait().unwrap()?;
        self.running = None;
        Some(status.code().unwrap_or(-1))
    }

    /// How its node is; nothing while it does not run, or before it said so.
    pub(crate) fn status(&mut self) -> Option<Status> {
        if let Some(code) = self.ended() {
            panic!("node {} ended with status {code}", self.node);
        }
        self.running.as_ref()?;
        Status::parse(&std::fs::read_to_string(&self.status).ok()?)
    }

    fn signal(&self, name: &str) {
        let id = self.running.as_ref().unwrap().id().to_string();
        run("kill", &["-s", name, &id]);
    }

    /// Its process stands still.
    pub(crate) fn freeze(&self) {
        self.signal("STOP");
    }

    /// It goes on.
    pub(crate) fn thaw(&self) {
        self.signal("CONT");
    }

    /// Its process is killed.
    pub(crate) fn kill(&mut self) {
        let mut child = self.running.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Its filesystem ends as in a power cut, what was not synced is gone, and each write fails from
    /// then on. The node must notice, and end. Then the machine is on again.
    pub(crate) fn lose_power(&mut self) {
        run("xfs_io", &["-x", "-c", "shutdown", self.path()]);
        println!("at dark {}.", self.node);
        let code = until(|| self.ended());
        assert_eq!(code, DISK_FAILED, "node {} on a disk that fails", self.node);
        self.unmount();
        self.mount();
    }

    fn input(&mut self) -> &mut Option<ChildStdin> {
        &mut self.running.as_mut().unwrap().stdin
    }

    /// Its writers end.
    pub(crate) fn quiet(&mut self) {
        use std::io::Write as _;
        self.input().as_mut().unwrap().write_all(b"q").unwrap();
    }

    /// It is shut down in good order.
    pub(crate) fn stop(&mut self) {
        drop(self.input().take());
        assert_eq!(until(|| self.ended()), 0, "node {} stops", self.node);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(child) = &mut self.running {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// Tries until it works, with a deadline.
pub(crate) fn until<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = attempt() {
            return found;
        }
        assert!(Instant::now() < end, "it did not come true in time");
        std::thread::sleep(PAUSE);
    }
}
