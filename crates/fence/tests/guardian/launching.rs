//! The launcher: what it starts is under the fence from birth; otherwise it is like running the
//! program itself.

use std::path::Path;
use std::process::{Command, Stdio};

use holdfast_fence::enter_command;
use nix::sys::signal::Signal;

use crate::harness::{Cgroup, GUARDIAN, Node, Process, in_ms, wait_for};

fn output(mut command: Command) -> (Option<i32>, String) {
    let output = command.output().expect("ran");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Rule 3: in the ancestor, in the pid namespace, with a /proc that shows it.
#[test]
fn a_launched_program_is_under_the_fence_and_in_the_namespace() {
    let node = Node::start();
    node.client().thaw(in_ms(0), in_ms(30_000)).expect("thawed");
    let mut command = node.enter("web/run", "sh");
    command.args(["-c", "grep ^0:: /proc/self/cgroup; cat /proc/1/comm; exit 7"]);
    let (code, text) = output(command);
    let name = node.ancestor.0.file_name().and_then(|n| n.to_str()).expect("a name");
    assert_eq!(code, Some(7));
    assert_eq!(text, format!("0::/{name}/web/run\nholdfast-init\n"));

    let mut killed = node.enter("web", "sh");
    killed.args(["-c", "kill -KILL $$"]);
    assert_eq!(output(killed).0, Some(128 + 9));
    let mut absent = node.enter("web", "/no/such/program");
    absent.stderr(Stdio::null());
    assert_eq!(output(absent).0, Some(127));
}

/// Rule 3: the init's mount namespace is a slave: volumes mounted later appear in it, and nothing
/// that is mounted in it appears on the host.
#[test]
fn later_mounts_appear_inside_and_not_the_other_way_round() {
    // A host whose root mount is shared, as systemd makes it.
    let wrapper = ["unshare", "--net", "--mount", "--propagation", "shared", "--"];
    let node = Node::start_wrapped(Cgroup::unique(), &wrapper, &[]);
    let status = node.status();
    assert!(status.hardening.mounts_propagate);
    let (host, inside) = (node.guardian.pid(), status.init_pid);
    let sees = |pid: i32, point: &Path| {
        let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).expect("read");
        mounts.contains(point.to_str().expect("text"))
    };
    for (name, by, host_sees, inside_sees) in
        [("volume", host, true, true), ("private", inside, false, true)]
    {
        let point = node.dir.path().join(name);
        std::fs::create_dir(&point).expect("made");
        let mut mount = Command::new("nsenter");
        mount.args(["--mount", "--target", &by.to_string()]);
        mount.args(["mount", "-t", "tmpfs", "none"]).arg(&point);
        assert!(mount.stdin(Stdio::null()).status().expect("ran").success());
        assert_eq!((sees(host, &point), sees(inside, &point)), (host_sees, inside_sees), "{name}");
    }
}

#[test]
fn orphans_are_reaped_by_the_init() {
    let node = Node::start();
    node.client().thaw(in_ms(0), in_ms(30_000)).expect("thawed");
    let mut command = node.enter("web", "sh");
    command.args(["-c", "(sleep 0.05 &) ; exit 0"]);
    assert_eq!(output(command).0, Some(0));
    wait_for("no zombie is left", || !node.ancestor.event("populated"));
    let mut zombies = node.enter("web", "sh");
    zombies.args(["-c", "grep -l '^State:.Z' /proc/[0-9]*/status; exit 0"]);
    assert_eq!(output(zombies), (Some(0), String::new()));
}

#[test]
fn signals_reach_the_program_and_it_dies_with_its_launcher() {
    let node = Node::start();
    node.client().thaw(in_ms(0), in_ms(30_000)).expect("thawed");
    let started = node.dir.path().join("started");
    let mut command = node.enter("web", "sh");
    let script = "trap 'exit 42' TERM; >\"$0\"; while :; do sleep 0.01; done";
    command.args(["-c", script]).arg(&started);
    let mut launcher = Process(command.spawn().expect("launched"));
    wait_for("it runs", || started.exists());
    launcher.signal(Signal::SIGTERM);
    assert_eq!(launcher.ended().code(), Some(42));

    let mut command = node.enter("web", "sleep");
    command.arg("1000");
    let launcher = Process(command.spawn().expect("launched"));
    wait_for("it runs", || {
        let procs = node.ancestor.0.join("web/cgroup.procs");
        std::fs::read_to_string(procs).is_ok_and(|text| text.lines().count() == 1)
    });
    launcher.signal(Signal::SIGKILL);
    wait_for("it is gone", || !node.ancestor.event("populated"));
}

/// A caller gives up on programs that are frozen and kills their launchers: one that has not begun
/// never does, one that ran dies.
#[test]
fn a_frozen_program_never_outruns_its_launcher() {
    let node = Node::start();
    let mut client = node.client();
    client.thaw(in_ms(0), in_ms(30_000)).expect("thawed");
    let running = node.dir.path().join("running");
    let mut command = node.enter("old", "sh");
    command.args(["-c", ">\"$0\"; sleep 1000"]).arg(&running);
    let old = Process(command.spawn().expect("launched"));
    wait_for("it runs", || running.exists());
    client.relinquish().expect("stopped");

    let ran = node.dir.path().join("ran");
    let mut command = node.enter("new", "touch");
    let new = Process(command.arg(&ran).spawn().expect("launched"));
    let populated = |child: &str| {
        let text = std::fs::read_to_string(node.ancestor.0.join(child).join("cgroup.events"));
        text.is_ok_and(|text| text.contains("populated 1"))
    };
    wait_for("it waits in the frozen cgroup", || populated("new"));
    new.signal(Signal::SIGKILL);
    old.signal(Signal::SIGKILL);
    drop((old, new));
    client.thaw(in_ms(0), in_ms(30_000)).expect("thawed");
    wait_for("the new one is gone", || !populated("new"));
    assert!(!ran.exists(), "it never ran");
}

/// I8: a daemon is killed while its launcher is on the way. What that starts is known to nobody, so
/// it starts nothing: neither later below the fence nor afterwards.
#[test]
fn a_program_never_outlives_its_caller_into_the_fence() {
    let node = Node::start();
    let ran = node.dir.path().join("ran");
    let mut command = node.enter("web", "touch");
    command.arg(&ran);
    // The same command, called by a shell.
    let mut shell = Command::new("sh");
    shell.args(["-c", "\"$0\" enter --caller $$ \"$@\" & wait"]).arg(command.get_program());
    shell.args(command.get_args().skip(3)).stdin(Stdio::null());
    let mut caller = Process(shell.spawn().expect("called"));
    wait_for("it waits in the frozen cgroup", || node.ancestor.event("populated"));
    caller.signal(Signal::SIGKILL);
    caller.ended();
    node.client().thaw(in_ms(0), in_ms(30_000)).expect("thawed");
    wait_for("it is gone", || !node.ancestor.event("populated"));
    assert!(!ran.exists(), "it ran");
    // A launcher that begins only now is nobody's child.
    let late: Vec<_> = command.get_args().skip(3).map(std::ffi::OsString::from).collect();
    let mut orphan = Command::new(GUARDIAN);
    orphan.args(["enter", "--caller", &caller.pid().to_string()]).args(late);
    assert_eq!(output(orphan).0, Some(126));
    // Nor is a process that lives its caller when it is not its parent.
    let mut stranger = Command::new(GUARDIAN);
    stranger.args(["enter", "--caller", &node.guardian.pid().to_string()]);
    stranger.args(command.get_args().skip(3));
    assert_eq!(output(stranger).0, Some(126));
    assert!(!ran.exists(), "it ran");
}

/// Nothing starts outside of the fence by a wrong number or path.
#[test]
fn a_wrong_init_or_ancestor_starts_nothing() {
    let node = Node::start();
    node.client().thaw(in_ms(0), in_ms(30_000)).expect("thawed");
    let init_pid = node.status().init_pid;
    let child = "web".parse().expect("a name");
    let unified = holdfast_fence::find_unified().expect("mounted");
    let marker = node.dir.path().join("ran");
    for (init_pid, ancestor) in [
        (1, node.ancestor.0.as_path()),
        (node.guardian.pid(), node.ancestor.0.as_path()),
        (i32::MAX, node.ancestor.0.as_path()),
        (init_pid, unified.as_path()),
        (init_pid, Path::new("/tmp")),
    ] {
        let mut command = enter_command(Path::new(GUARDIAN), init_pid, ancestor, &child, "touch");
        command.arg(&marker).stdin(Stdio::null()).stderr(Stdio::null());
        assert_eq!(output(command).0, Some(126), "{init_pid} {ancestor:?}");
    }
    assert!(!marker.exists());
}
