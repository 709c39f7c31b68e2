//! When the guardian itself fails: DESIGN section 5, rule 3, "its own dead man". I8.

use std::fs;
use std::path::PathBuf;

use nix::sys::signal::Signal;

use crate::harness::{BUDGET_NS, Node, in_ms, wait_for};

/// Stopped, it cannot fence; the kernel's timer ends it and everything with it by `s + T + F`.
#[test]
fn a_stopped_guardian_is_killed_by_its_timer_and_everything_with_it() {
    let mut node = Node::start();
    let writes = node.writer("web");
    let init_pid = node.status().init_pid;
    let deadline_ns = in_ms(1_000);
    node.client().thaw(in_ms(0), deadline_ns).expect("thawed");
    writes.wait_running();
    node.guardian.signal(Signal::SIGSTOP);
    writes.assert_stopped_before(deadline_ns + BUDGET_NS);
    assert!(writes.last_ns() > deadline_ns, "nobody fenced: it was the timer");
    wait_for("everything is dead", || !node.ancestor.event("populated"));
    let status = node.guardian.ended();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    wait_for("the init is dead", || !is_alive(init_pid));
}

/// Killed, at any moment of a lease: its namespace dies with it at once.
#[test]
fn a_killed_guardian_takes_everything_with_it() {
    let mut node = Node::start();
    let (web, db) = (node.writer("web"), node.writer("db"));
    node.client().thaw(in_ms(0), in_ms(30_000)).expect("thawed");
    web.wait_running();
    db.wait_running();
    node.guardian.signal(Signal::SIGKILL);
    wait_for("everything is dead", || !node.ancestor.event("populated"));
    let limit_ns = in_ms(0);
    web.assert_stopped_before(limit_ns);
    db.assert_stopped_before(limit_ns);
}

/// Its init stopped too, so that only the kernel is left to act: the death signal does.
#[test]
fn a_stopped_init_dies_with_the_guardian() {
    let mut node = Node::start();
    let writes = node.writer("web");
    let init = nix::unistd::Pid::from_raw(node.status().init_pid);
    let deadline_ns = in_ms(1_000);
    node.client().thaw(in_ms(0), deadline_ns).expect("thawed");
    writes.wait_running();
    nix::sys::signal::kill(init, Signal::SIGSTOP).expect("stopped");
    node.guardian.signal(Signal::SIGSTOP);
    writes.assert_stopped_before(deadline_ns + BUDGET_NS);
    wait_for("everything is dead", || !node.ancestor.event("populated"));
}

/// Killed while fenced: frozen processes die as well.
#[test]
fn a_guardian_killed_while_fenced_leaves_nothing() {
    let mut node = Node::start();
    let writes = node.writer("web");
    let mut client = node.client();
    client.thaw(in_ms(0), in_ms(30_000)).expect("thawed");
    writes.wait_running();
    client.relinquish().expect("stopped");
    node.guardian.signal(Signal::SIGKILL);
    wait_for("everything is dead", || !node.ancestor.event("populated"));
}

/// A guardian that cannot even die (here held by the v1 freezer; else by a lock in the kernel) is
/// what the init's own alarm is for.
#[test]
fn the_init_ends_by_itself_when_the_guardian_cannot_die() {
    let v1_freezer = PathBuf::from("/sys/fs/cgroup/freezer");
    if !v1_freezer.join("tasks").exists() {
        eprintln!("skipped: no v1 freezer here, and nothing else stops a process from dying");
        return;
    }
    let mut node = Node::start();
    let writes = node.writer("web");
    let deadline_ns = in_ms(1_000);
    node.client().thaw(in_ms(0), deadline_ns).expect("thawed");
    writes.wait_running();
    let held = Held(v1_freezer.join(format!("hf-fence-test-{}", node.guardian.pid())));
    fs::create_dir(&held.0).expect("made");
    fs::write(held.0.join("cgroup.procs"), node.guardian.pid().to_string()).expect("moved");
    fs::write(held.0.join("freezer.state"), "FROZEN").expect("frozen");
    writes.assert_stopped_before(deadline_ns + BUDGET_NS);
    wait_for("everything is dead", || !node.ancestor.event("populated"));
    assert!(node.guardian.0.try_wait().expect("asked").is_none(), "the guardian was held");
    drop(held);
    node.guardian.ended();
}

/// A v1 freezer cgroup that is thawed and removed at the end.
struct Held(PathBuf);

impl Drop for Held {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("freezer.state"), "THAWED");
        for pid in fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default().lines() {
            let _ = fs::write(self.0.with_file_name("cgroup.procs"), pid);
        }
        let give_up_ns = in_ms(5_000);
        while fs::remove_dir(&self.0).is_err() && in_ms(0) < give_up_ns {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

/// If the namespace's init dies, everything in it has died; the guardian says so and ends.
#[test]
fn the_guardian_ends_when_its_init_dies() {
    let mut node = Node::start();
    let writes = node.writer("web");
    node.client().thaw(in_ms(0), in_ms(30_000)).expect("thawed");
    writes.wait_running();
    let init = nix::unistd::Pid::from_raw(node.status().init_pid);
    nix::sys::signal::kill(init, Signal::SIGKILL).expect("killed");
    assert_eq!(node.guardian.ended().code(), Some(1));
    wait_for("everything is dead", || !node.ancestor.event("populated"));
    writes.assert_stopped_before(in_ms(0));
}

/// Told to end it fences first, and leaves nothing running.
#[test]
fn a_guardian_told_to_end_stops_everything_first() {
    let mut node = Node::start();
    let writes = node.writer("web");
    node.client().thaw(in_ms(0), in_ms(30_000)).expect("thawed");
    writes.wait_running();
    node.guardian.signal(Signal::SIGTERM);
    assert_eq!(node.guardian.ended().code(), Some(0));
    assert!(!node.ancestor.event("populated"));
    writes.assert_stopped_before(in_ms(0));
}

/// Whether a process is there and no zombie.
fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']))
}
