//! One guardian with its own ancestor cgroup and network namespace, and protected writers.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::Duration;

use holdfast_fence::protocol::Status;
use holdfast_fence::{ChildPath, GuardianClient, boottime_ns, enter_command, find_unified};

pub(crate) const GUARDIAN: &str = env!("CARGO_BIN_EXE_holdfast-guardian");
/// `F` in these tests.
pub(crate) const BUDGET_NS: u64 = 500 * MS;
pub(crate) const MS: u64 = 1_000_000;
pub(crate) const LINK_GROUP: u32 = 7_703;

/// An instant `ms` from now.
pub(crate) fn in_ms(ms: u64) -> u64 {
    boottime_ns() + ms * MS
}

/// Waits for a condition; fails loudly after ten seconds.
pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let give_up_ns = in_ms(10_000);
    while !condition() {
        assert!(boottime_ns() < give_up_ns, "waited 10 s for: {what}");
        sleep(Duration::from_millis(2));
    }
}

/// Sleeps until an instant of CLOCK_BOOTTIME: for proving that nothing happens *after* it.
pub(crate) fn sleep_until(at_ns: u64) {
    while boottime_ns() < at_ns {
        sleep(Duration::from_nanos((at_ns - boottime_ns().min(at_ns)).max(MS)));
    }
}

/// A cgroup that is killed and removed at the end.
pub(crate) struct Cgroup(pub(crate) PathBuf);

impl Cgroup {
    pub(crate) fn unique() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let unified = find_unified().expect("cgroup v2 is mounted");
        Self(unified.join(format!("hf-fence-test-{}-{number}", std::process::id())))
    }

    pub(crate) fn event(&self, key: &str) -> bool {
        let text = fs::read_to_string(self.0.join("cgroup.events")).unwrap_or_default();
        text.lines().any(|line| line == format!("{key} 1"))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
        let give_up_ns = in_ms(5_000);
        while self.event("populated") && boottime_ns() < give_up_ns {
            sleep(Duration::from_millis(5));
        }
        remove_tree(&self.0);
    }
}

fn remove_tree(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    let _ = fs::remove_dir(path);
}

/// A process of ours that is killed and reaped at the end.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    pub(crate) fn pid(&self) -> i32 {
        self.0.id() as i32
    }

    /// Waits until it has ended.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        wait_for("the process ends", || {
            status = self.0.try_wait().expect("asked");
            status.is_some()
        });
        status.expect("just seen")
    }

    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid()), signal).expect("signalled");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A guardian and all that belongs to it. Fields are dropped in order: processes first.
pub(crate) struct Node {
    pub(crate) guardian: Process,
    launched: Vec<Process>,
    pub(crate) ancestor: Cgroup,
    pub(crate) dir: tempfile::TempDir,
}

impl Node {
    pub(crate) fn start() -> Self {
        Self::start_with(Cgroup::unique(), &[])
    }

    pub(crate) fn start_with(ancestor: Cgroup, flags: &[&str]) -> Self {
        // Its own network namespace: link groups are per namespace.
        Self::start_wrapped(ancestor, &["unshare", "--net", "--"], flags)
    }

    pub(crate) fn start_wrapped(ancestor: Cgroup, wrapper: &[&str], flags: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut command = Command::new(wrapper[0]);
        command.args(&wrapper[1..]);
        command.args([GUARDIAN, "serve", "--link-group", &LINK_GROUP.to_string()]);
        command.arg("--socket").arg(dir.path().join("guardian.sock"));
        command.arg("--cgroup").arg(&ancestor.0).args(flags).stdin(Stdio::null());
        let guardian = Process(command.spawn().expect("started"));
        let node = Self { guardian, launched: Vec::new(), ancestor, dir };
        wait_for("the guardian listens", || GuardianClient::connect(&node.socket()).is_ok());
        node
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("guardian.sock")
    }

    /// A client that is patient: these machines are busy.
    pub(crate) fn client(&self) -> GuardianClient {
        let client = GuardianClient::connect(&self.socket()).expect("connected");
        client.with_timeout(Duration::from_secs(5))
    }

    pub(crate) fn status(&self) -> Status {
        self.client().status().expect("a status")
    }

    pub(crate) fn enter(&self, child: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let child: ChildPath = child.parse().expect("a name");
        let init_pid = self.status().init_pid;
        let mut command =
            enter_command(Path::new(GUARDIAN), init_pid, &self.ancestor.0, &child, program);
        command.stdin(Stdio::null());
        command
    }

    /// Launches a protected program that goes on until it is stopped.
    pub(crate) fn launch(&mut self, mut command: Command) -> i32 {
        self.launched.push(Process(command.spawn().expect("launched")));
        self.launched.last().expect("just pushed").pid()
    }

    /// Launches a protected writer; it writes once the ancestor is thawed.
    pub(crate) fn writer(&mut self, child: &str) -> Writes {
        let path = self.dir.path().join(format!("writes-{child}"));
        let writes = Writes(File::create_new(&path).expect("a file"));
        writes.0.set_len(16).expect("sized");
        let mut command = self.enter(child, std::env::current_exe().expect("our own path"));
        command.args(["--exact", "harness::helper_that_writes", "--ignored", "--nocapture"]);
        command.env(WRITE_TO, path).stdout(Stdio::null());
        self.launch(command);
        let reader = File::open(self.dir.path().join(format!("writes-{child}"))).expect("a file");
        Writes(reader)
    }
}

/// What a writer has written so far: how many times, and when last.
pub(crate) struct Writes(File);

impl Writes {
    pub(crate) fn count(&self) -> u64 {
        self.read().0
    }

    pub(crate) fn last_ns(&self) -> u64 {
        self.read().1
    }

    fn read(&self) -> (u64, u64) {
        let mut bytes = [0u8; 16];
        self.0.read_exact_at(&mut bytes, 0).expect("sixteen bytes");
        let number = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight"));
        (number(0), number(8))
    }

    pub(crate) fn wait_running(&self) {
        let before = self.count();
        wait_for("the writer writes", || self.count() > before);
    }

    /// Nothing is written any more, and nothing was written at or after `limit_ns`.
    pub(crate) fn assert_stopped_before(&self, limit_ns: u64) {
        sleep_until(limit_ns);
        let (count, last_ns) = self.read();
        assert!(count > 0, "the writer ran");
        assert!(last_ns < limit_ns, "a write {} us late", (last_ns - limit_ns) / 1_000);
        sleep(Duration::from_millis(300));
        assert_eq!(self.count(), count, "a write after everything had stopped");
    }
}

const WRITE_TO: &str = "HOLDFAST_TEST_WRITE_TO";

/// The protected program: this test binary, started again with a file to write to.
#[test]
#[ignore = "the writer of the other tests, no test"]
fn helper_that_writes() {
    let Some(path) = std::env::var_os(WRITE_TO) else { return };
    let file = File::options().write(true).open(path).expect("the file to write to");
    for count in 1u64.. {
        let mut bytes = count.to_ne_bytes().to_vec();
        bytes.extend(boottime_ns().to_ne_bytes());
        file.write_all_at(&bytes, 0).expect("written");
        sleep(Duration::from_micros(200));
    }
}
