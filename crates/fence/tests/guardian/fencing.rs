//! What a fence must hold: forks, leftovers, paused machines; and kills below it. Rules 3 and 7.

use std::fs;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use holdfast_fence::ChildPath;
use holdfast_fence::protocol::{FenceCause, KillOutcome, Phase};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};

use crate::harness::{BUDGET_NS, Cgroup, MS, Node, Process, in_ms, sleep_until, wait_for};

/// I8: processes that fork all the time do not slip through a freeze.
#[test]
fn a_process_that_forks_all_the_time_is_stopped_too() {
    let mut node = Node::start();
    let log = node.dir.path().join("forks");
    let script = "while :; do (echo x >>\"$0\") & (echo y >>\"$0\") & wait; done";
    for child in ["web", "db"] {
        let mut command = node.enter(child, "sh");
        command.args(["-c", script]).arg(&log);
        node.launch(command);
    }
    let size = || fs::metadata(&log).map_or(0, |found| found.len());
    let deadline_ns = in_ms(1_000);
    node.client().thaw(in_ms(0), deadline_ns).expect("thawed");
    wait_for("forks", || size() > 100);
    sleep_until(deadline_ns + BUDGET_NS);
    let (before, fence) = (size(), node.status().last_fence.expect("a fence"));
    assert!(fence.complete_ns.is_some_and(|at_ns| at_ns < deadline_ns + BUDGET_NS), "{fence:?}");
    sleep_until(in_ms(300));
    assert_eq!(size(), before);
}

/// Rule 5: what is no longer owned is killed before the thaw, so it never runs again.
#[test]
fn one_container_is_killed_while_everything_is_frozen() {
    let mut node = Node::start();
    let (lost, kept) = (node.writer("lost"), node.writer("kept"));
    let mut client = node.client();
    client.thaw(in_ms(0), in_ms(30_000)).expect("thawed");
    lost.wait_running();
    kept.wait_running();
    client.relinquish().expect("stopped");
    let count = lost.count();
    let lost_name: ChildPath = "lost".parse().expect("a name");
    wait_for("it is dead", || match client.kill(&lost_name).expect("killed") {
        KillOutcome::Killed { populated } => !populated,
        KillOutcome::NotThere => panic!("its cgroup is still there"),
    });
    assert_eq!(
        client.kill(&"never-was".parse().expect("a name")).expect("nothing to do"),
        KillOutcome::NotThere
    );
    client.thaw(in_ms(0), in_ms(5_000)).expect("thawed");
    kept.wait_running();
    assert_eq!(lost.count(), count);
}

/// Rule 3: what is found below the ancestor at start belongs to no lease.
#[test]
fn leftovers_are_killed_at_start() {
    let ancestor = Cgroup::unique();
    let child = ancestor.0.join("old");
    fs::create_dir_all(&child).expect("made");
    let mut old = Process(Command::new("sleep").arg("1000").spawn().expect("started"));
    fs::write(child.join("cgroup.procs"), old.pid().to_string()).expect("moved");
    let node = Node::start_with(ancestor, &[]);
    old.ended();
    assert!(!node.status().populated);
}

/// Rule 7: when the real-time clock runs away from BOOTTIME, the machine was paused, and the lease
/// is over however long it still seems to last.
#[test]
fn a_paused_machine_loses_its_lease() {
    let clock = tempfile::NamedTempFile::new().expect("a file");
    // In place, as a reader of sysfs would see it: never empty.
    let write = |seconds: u64| {
        clock.as_file().write_all_at(format!("{seconds}\n").as_bytes(), 0).expect("written");
    };
    let base = 1_800_000_000 - in_ms(0) / 1_000_000_000;
    let now_s = || base + in_ms(0) / 1_000_000_000;
    write(now_s());
    let path = clock.path().to_str().expect("text").to_owned();
    let mut node = Node::start_with(Cgroup::unique(), &["--rtc", &path]);
    assert!(node.status().hardening.rtc);
    let writes = node.writer("web");
    node.client().thaw(in_ms(0), in_ms(60_000)).expect("thawed");
    let until_ns = in_ms(2_500);
    while in_ms(0) < until_ns {
        write(now_s());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    writes.wait_running();
    assert!(matches!(node.status().phase, Phase::Live { .. }), "a clock that ticks is no jump");
    write(now_s() + 10);
    let before_ns = in_ms(0);
    // A grant from before the pause, its deadline far ahead, that arrives after it: refused even
    // if it comes before the guardian's next look at the clock.
    node.client().renew(before_ns, in_ms(60_000)).expect_err("the lease is over");
    node.client().thaw(before_ns - 1_000 * MS, in_ms(60_000)).expect_err("and stays over");
    wait_for("the fence", || node.status().phase == Phase::Fenced);
    let fence = node.status().last_fence.expect("a fence");
    assert_eq!(fence.cause, FenceCause::ClockJump);
    assert!(fence.complete_ns.is_some_and(|at_ns| at_ns < fence.due_ns + BUDGET_NS));
    writes.assert_stopped_before(in_ms(0));
}

/// The host's refusals are said, not hidden; a clock that is not there is one.
#[test]
fn the_status_says_what_the_host_allows() {
    let node = Node::start_with(Cgroup::unique(), &["--rtc", "/nonexistent"]);
    let status = node.status();
    assert!(!status.hardening.rtc);
    assert!(status.hardening.memory_locked);
    let score = fs::read_to_string(format!("/proc/{}/oom_score_adj", node.guardian.pid()));
    assert_eq!(status.hardening.oom_exempt, score.expect("readable").trim() == "-1000");
    assert_eq!(status.fence_budget_ms, BUDGET_NS / MS);
    assert_eq!(status.guardian_pid, node.guardian.pid());
    let told = Command::new(crate::harness::GUARDIAN)
        .args(["status", "--socket"])
        .arg(node.socket())
        .stderr(Stdio::inherit())
        .output()
        .expect("ran");
    assert!(told.status.success());
    assert!(String::from_utf8_lossy(&told.stdout).contains("\"phase\":\"fenced\""));
}

/// A core would be written before its end, and everything protected waits for that.
#[test]
fn the_guardian_leaves_no_core() {
    let mut node = Node::start();
    let pid = Pid::from_raw(node.guardian.pid()).expect("a process");
    let limit = getrlimit(Resource::Core);
    let most = Rlimit { current: limit.maximum, ..limit };
    prlimit(Some(pid), Resource::Core, most).expect("more cores");
    kill_process(pid, Signal::ABORT).expect("a signal");
    assert!(!node.guardian.ended().core_dumped());
}
