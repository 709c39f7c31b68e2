//! The LXC driver against real LXC: a busybox root, this machine's kernel.
#![allow(clippy::unwrap_used, reason = "a test's helper that fails has failed its test")]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use holdfast_runtime::{
    Changed, ContainerNet, ExecRequest, ExecStatus, RunEvent, Runtime, RuntimeError, Started,
    Status, Stopped, TermSize,
};
use holdfast_types::{ByteSize, Code, ContainerUid, Protection};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use support::{Node, SOON, wait_for};

/// An init that says hello and ends when asked to.
const POLITE: &str = "echo hello console; trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done";

/// An init that handles the request to end by not ending.
const STUBBORN: &str = "trap '' PWR; trap 'echo no' TERM; while :; do sleep 1 & wait $!; done";

#[test]
fn a_container_starts_runs_programs_and_stops() {
    let node = Node::new();
    let mut request = node.request(POLITE);
    request.env = [("GREETING".into(), "\"hi\" there ".into())].into();
    let uid = request.uid;
    let Started::Started { init_pid } = node.runtime.start(&request).unwrap() else {
        panic!("it cannot have run already");
    };
    assert_eq!(node.runtime.start(&request).unwrap(), Started::AlreadyRunning { init_pid });
    let running = Status::Running { protection: Protection::Protected, frozen: false };
    assert_eq!(node.runtime.status(uid).unwrap(), running);
    assert!(node.runtime.list().unwrap().contains_key(&uid));

    assert_eq!(node.exec(uid, &["true"]).status, ExecStatus::Exited(0));
    assert_eq!(node.exec(uid, &["false"]).status, ExecStatus::Exited(1));
    assert_eq!(node.exec(uid, &["no-such-program"]).status, ExecStatus::Exited(127));
    assert_eq!(node.exec(uid, &["hostname"]).stdout, b"web\n");
    let out = node.exec(uid, &["sh", "-c", "cat /proc/1/environ; echo oops >&2; exit 7"]);
    assert_eq!((out.status, out.stderr.as_slice()), (ExecStatus::Exited(7), &b"oops\n"[..]));
    let environ = String::from_utf8(out.stdout).unwrap();
    assert!(environ.split('\0').any(|v| v == "GREETING=\"hi\" there "), "{environ:?}");

    wait_for("the console's text", || {
        node.runtime.console_tail(uid, 100).unwrap().starts_with(b"hello console")
    });
    assert_eq!(node.runtime.forget(uid).unwrap_err().code(), Code::WrongState);
    let begun = Instant::now();
    assert_eq!(node.runtime.stop(uid, SOON).unwrap(), Stopped::Clean);
    assert!(begun.elapsed() < SOON);
    assert_eq!(node.runtime.status(uid).unwrap(), Status::Stopped);
    assert_eq!(node.runtime.stop(uid, SOON).unwrap(), Stopped::NotRunning);
    assert_nothing_left(&node, uid);
    assert_eq!(node.runtime.forget(uid).unwrap(), Changed::Yes);
    assert_eq!(node.runtime.forget(uid).unwrap(), Changed::No);
}

#[test]
fn it_is_unprivileged_and_its_files_are_not_shifted() {
    let node = Node::new();
    let request = node.request(POLITE);
    let Started::Started { init_pid } = node.runtime.start(&request).unwrap() else {
        panic!("it cannot have run already");
    };
    let map = fs::read_to_string(format!("/proc/{init_pid}/uid_map")).unwrap();
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "1879048192", "65536"]);
    node.exec(request.uid, &["sh", "-c", "echo data > /root/file"]);
    let file = request.rootfs.join("root/file");
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(file).unwrap());
    assert_eq!(owner, 0);
}

#[test]
fn limits_are_in_the_cgroup_and_memory_is_enforced() {
    let node = Node::new();
    let mut request = node.request(POLITE);
    request.limits.memory = Some(ByteSize::mib(32));
    request.limits.cpu_milli = Some(500);
    request.limits.pids = Some(40);
    let uid = request.uid;
    node.runtime.start(&request).unwrap();
    let group = format!("protected/{uid}");
    let memory = node.limit(&group, &["memory.max", "memory.limit_in_bytes"]);
    assert_eq!(memory, (32 << 20).to_string());
    let cpu = node.limit(&group, &["cpu.max", "cpu.cfs_quota_us"]);
    assert_eq!(cpu.split(' ').next(), Some("50000"));
    assert_eq!(node.limit(&group, &["pids.max"]), "40");

    let used = node.runtime.usage(uid).unwrap();
    assert!(used.pids.is_some_and(|n| (1..40).contains(&n)), "{used:?}");
    assert!(used.memory_bytes.is_some_and(|n| n < 32 << 20) && used.cpu_us.is_some(), "{used:?}");

    // A block of 64 MiB does not fit.
    let hog = node.exec(uid, &["sh", "-c", "dd if=/dev/zero of=/dev/null bs=64M count=1"]);
    assert_eq!(hog.status, ExecStatus::Exited(137), "{hog:?}");
    assert!(node.runtime.status(uid).unwrap().is_running());
}

#[test]
fn an_init_that_ends_at_once_is_an_error_with_its_last_words() {
    let node = Node::new();
    let request = node.request("echo cannot open the database; exit 3");
    let error = node.runtime.start(&request).unwrap_err();
    assert!(matches!(error, RuntimeError::StartFailed { .. }), "{error}");
    assert!(error.to_string().contains("cannot open the database"), "{error}");
    assert_eq!(error.code(), Code::Runtime);
    assert_eq!(node.runtime.status(request.uid).unwrap(), Status::Stopped);
    assert_nothing_left(&node, request.uid);
}

#[test]
fn a_root_without_init_is_refused_before_anything_is_made() {
    let node = Node::new();
    let mut request = node.request("");
    request.command = Vec::new();
    fs::remove_file(request.rootfs.join("sbin/init")).unwrap();
    let error = node.runtime.start(&request).unwrap_err();
    assert!(matches!(error, RuntimeError::NoInit { .. }), "{error}");
    assert_nothing_left(&node, request.uid);
}

#[test]
fn what_ignores_the_request_is_killed_after_the_grace() {
    let node = Node::new();
    let request = node.request(STUBBORN);
    node.runtime.start(&request).unwrap();
    let grace = Duration::from_millis(300);
    let begun = Instant::now();
    assert_eq!(node.runtime.stop(request.uid, grace).unwrap(), Stopped::Killed);
    assert!(begun.elapsed() >= grace);
    assert_nothing_left(&node, request.uid);
}

#[test]
fn an_init_that_handles_no_signal_is_killed_without_waiting() {
    let node = Node::new();
    let request = node.request("while :; do sleep 1; done");
    node.runtime.start(&request).unwrap();
    let begun = Instant::now();
    assert_eq!(node.runtime.stop(request.uid, SOON).unwrap(), Stopped::Killed);
    assert!(begun.elapsed() < SOON);
    assert_nothing_left(&node, request.uid);
}

/// Part of I13's ground: a restarted daemon sees what runs, and can end it.
#[test]
fn a_new_runtime_adopts_what_an_old_one_started() {
    let node = Node::new();
    let mut request = node.request(POLITE);
    request.protection = Protection::Pinned;
    node.runtime.start(&request).unwrap();
    let adopted = node.another_runtime();
    let running = Status::Running { protection: Protection::Pinned, frozen: false };
    assert_eq!(adopted.list().unwrap(), [(request.uid, running)].into());
    assert!(matches!(adopted.start(&request), Ok(Started::AlreadyRunning { .. })));
    assert_eq!(adopted.stop(request.uid, SOON).unwrap(), Stopped::Clean);
    assert!(node.runtime.list().unwrap().is_empty());
}

#[test]
fn freezing_is_told_from_being_frozen_with_the_ancestor() {
    let node = Node::new();
    let request = node.request(POLITE);
    let uid = request.uid;
    node.runtime.start(&request).unwrap();
    let frozen = |frozen| Status::Running { protection: Protection::Protected, frozen };
    assert_eq!(node.runtime.freeze(uid).unwrap(), Changed::Yes);
    assert_eq!(node.runtime.freeze(uid).unwrap(), Changed::No);
    assert_eq!(node.runtime.status(uid).unwrap(), frozen(true));
    assert_eq!(node.runtime.unfreeze(uid).unwrap(), Changed::Yes);
    wait_for("the thaw", || node.runtime.status(uid).unwrap() == frozen(false));

    let _thaw = FrozenAncestor::freeze(&node, "protected");
    wait_for("the freeze", || node.runtime.status(uid).unwrap() == frozen(true));
    assert_eq!(node.runtime.unfreeze(uid).unwrap(), Changed::No);
    assert_eq!(node.runtime.status(uid).unwrap(), frozen(true));
}

/// Rule 3 of DESIGN section 5: against a frozen tree every call ends, and a kill works.
#[test]
fn nothing_hangs_on_a_frozen_ancestor_and_a_kill_goes_through() {
    let node = Node::new();
    let request = node.request(POLITE);
    let uid = request.uid;
    node.runtime.start(&request).unwrap();
    let command = vec!["sh".to_owned(), "-c".into(), "echo on; sleep 1000".into()];
    let exec = ExecRequest { command, ..Default::default() };
    let mut inside = node.runtime.exec_piped(uid, &exec).unwrap();
    let mut byte = [0];
    fs::File::from(inside.stdout.take().unwrap()).read_exact(&mut byte).unwrap();
    let frozen = FrozenAncestor::freeze(&node, "protected");
    wait_for("the freeze", || {
        matches!(node.runtime.status(uid).unwrap(), Status::Running { frozen: true, .. })
    });
    let begun = Instant::now();
    let error = node.runtime.exec(uid, &ExecRequest { command: vec!["true".into()], ..exec }, SOON);
    assert!(matches!(error, Err(RuntimeError::Frozen(_))));
    assert_eq!(inside.child.wait(Duration::from_millis(50)).unwrap(), None);
    // A stop does not wait for what cannot answer.
    assert_eq!(node.runtime.stop(uid, SOON).unwrap(), Stopped::Killed);
    assert!(begun.elapsed() < SOON);
    assert!(inside.child.wait(SOON).unwrap().is_some());
    drop(frozen);
    assert_nothing_left(&node, uid);
}

/// A frozen monitor answers nobody: the start's deadline ends it, and nothing stays behind.
#[test]
fn a_start_into_a_frozen_ancestor_ends_by_its_deadline() {
    let node = Node::new();
    let request = node.request(POLITE);
    let frozen = FrozenAncestor::freeze(&node, "protected");
    let error = node.runtime.start(&request).unwrap_err();
    assert!(matches!(error, RuntimeError::Frozen(_)), "a known freeze is not waited for: {error}");
    drop(frozen);
    let _frozen = FrozenAncestor::freeze(&node, "");
    let mut config = node.config();
    config.start_timeout = Duration::from_millis(500);
    let runtime = node.runtime_with(config);
    let error = runtime.start(&request).unwrap_err();
    assert_eq!(error.code(), Code::Timeout, "{error}");
    assert_eq!(runtime.status(request.uid).unwrap(), Status::Stopped);
    assert_nothing_left(&node, request.uid);
}

#[test]
fn programs_are_fed_and_killed_through_their_session() {
    let node = Node::new();
    let request = node.request(POLITE);
    node.runtime.start(&request).unwrap();
    let exec = ExecRequest { command: vec!["cat".into()], ..Default::default() };
    let mut session = node.runtime.exec_piped(request.uid, &exec).unwrap();
    let mut stdin = fs::File::from(session.stdin.take().unwrap());
    stdin.write_all(b"to and fro").unwrap();
    drop(stdin);
    let mut text = String::new();
    fs::File::from(session.stdout.take().unwrap()).read_to_string(&mut text).unwrap();
    assert_eq!(text, "to and fro");
    assert_eq!(session.child.wait(SOON).unwrap(), Some(ExecStatus::Exited(0)));

    let exec = ExecRequest { command: vec!["sleep".into(), "9876501".into()], ..exec };
    let session = node.runtime.exec_piped(request.uid, &exec).unwrap();
    wait_for("the program's start", || sleeps("9876501"));
    drop(session);
    wait_for("the program's end", || !sleeps("9876501"));
}

#[test]
fn a_program_that_overruns_is_killed_inside_too() {
    let node = Node::new();
    let request = node.request(POLITE);
    node.runtime.start(&request).unwrap();
    let command = vec!["sleep".into(), "9876502".into()];
    let exec = ExecRequest { command, ..Default::default() };
    let error = node.runtime.exec(request.uid, &exec, Duration::from_millis(300)).unwrap_err();
    assert_eq!(error.code(), Code::Timeout);
    wait_for("the program's end", || !sleeps("9876502"));
}

#[test]
fn a_terminal_has_its_size_and_echoes() {
    let node = Node::new();
    let request = node.request(POLITE);
    std::os::unix::fs::symlink("busybox", request.rootfs.join("bin/stty")).unwrap();
    node.runtime.start(&request).unwrap();
    let script = "stty size; read line; echo got $line";
    let exec = ExecRequest {
        command: vec!["sh".into(), "-c".into(), script.into()],
        terminal: Some(TermSize { rows: 33, columns: 99 }),
        ..Default::default()
    };
    let mut session = node.runtime.exec_piped(request.uid, &exec).unwrap();
    let mut output = fs::File::from(session.stdout.take().unwrap());
    let mut stdin = fs::File::from(session.stdin.take().unwrap());
    // Only once the size is there: taking the terminal over discards what was typed before.
    let mut text = read_until(&mut output, "33 99");
    stdin.write_all(b"word\n").unwrap();
    text += &read_until(&mut output, "got word");
    assert!(text.contains("33 99") && text.contains("got word"), "{text:?}");
    assert_eq!(session.child.wait(SOON).unwrap(), Some(ExecStatus::Exited(0)));
}

#[test]
fn a_watch_tells_of_every_beginning_and_end() {
    let node = Node::new();
    let (first, second) = (node.request(POLITE), node.request(POLITE));
    node.runtime.start(&first).unwrap();
    let (tx, rx) = mpsc::channel();
    let watching = node.another_runtime().watch(Box::new(move |e| tx.send(e).unwrap())).unwrap();
    let next = || rx.recv_timeout(SOON).unwrap();
    node.runtime.start(&second).unwrap();
    assert_eq!(next(), RunEvent::Running(second.uid));
    node.runtime.kill(first.uid).unwrap();
    assert_eq!(next(), RunEvent::Exited(first.uid));
    node.exec(second.uid, &["sh", "-c", "kill -TERM 1"]);
    assert_eq!(next(), RunEvent::Exited(second.uid));
    drop(watching);
    assert!(rx.recv().is_err());
}

/// I9: only a start starts, so a reboot from inside is an end.
#[test]
fn a_container_that_reboots_has_ended_and_can_be_started_again() {
    let node = Node::new();
    let request = node.request(POLITE);
    let uid = request.uid;
    std::os::unix::fs::symlink("busybox", request.rootfs.join("bin/reboot")).unwrap();
    node.runtime.start(&request).unwrap();
    let (tx, rx) = mpsc::channel();
    let _watching = node.runtime.watch(Box::new(move |e| tx.send(e).unwrap())).unwrap();
    let command = vec!["reboot".into(), "-f".into()];
    let exec = ExecRequest { command, ..Default::default() };
    node.runtime.exec(uid, &exec, SOON).unwrap();
    assert_eq!(rx.recv_timeout(SOON).unwrap(), RunEvent::Exited(uid));
    assert_eq!(node.runtime.status(uid).unwrap(), Status::Stopped);
    assert!(matches!(node.runtime.start(&request).unwrap(), Started::Started { .. }));
    assert_eq!(rx.recv_timeout(SOON).unwrap(), RunEvent::Running(uid));
    assert_eq!(node.runtime.stop(uid, SOON).unwrap(), Stopped::Clean);
    assert_nothing_left(&node, uid);
}

#[test]
fn a_watch_notices_a_container_that_lived_for_a_moment() {
    let node = Node::new();
    let (tx, rx) = mpsc::channel();
    let _watching = node
        .runtime
        .watch(Box::new(move |e| {
            let _ = tx.send(e);
        }))
        .unwrap();
    let request = node.request("exit 1");
    node.runtime.start(&request).unwrap_err();
    let ended = |event| event == RunEvent::Exited(request.uid);
    assert!(std::iter::from_fn(|| rx.recv_timeout(SOON).ok()).any(ended));
}

/// Whether a `sleep` with this argument runs on this machine.
fn sleeps(argument: &str) -> bool {
    let line = format!("sleep\0{argument}\0");
    fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        fs::read(entry.path().join("cmdline")).is_ok_and(|text| text == line.as_bytes())
    })
}

/// Reads until a text was seen, the end (an EIO), or the deadline.
fn read_until(terminal: &mut fs::File, wanted: &str) -> String {
    let until = Instant::now() + SOON;
    let mut text = Vec::new();
    let mut buffer = [0u8; 256];
    while Instant::now() < until && !String::from_utf8_lossy(&text).contains(wanted) {
        let mut fds = [PollFd::new(terminal, PollFlags::IN)];
        let second = Timespec { tv_sec: 1, tv_nsec: 0 };
        if poll(&mut fds, Some(&second)).unwrap() == 0 {
            continue;
        }
        match terminal.read(&mut buffer) {
            Ok(len @ 1..) => text.extend_from_slice(&buffer[..len]),
            _ => break,
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Rule 3 of DESIGN section 5: below the guardian, in its pid, mount and here also network
/// namespace, everything of a protected container is in the one ancestor, and dies with it.
#[test]
fn a_protected_container_lives_and_dies_below_the_guardian() {
    let node = Node::new();
    let guardian = support::Guardian::start(&node);
    let runtime = node.runtime_with_enter(guardian.enter());
    let mut request = node.request(POLITE);
    std::os::unix::fs::symlink("busybox", request.rootfs.join("bin/ip")).unwrap();
    request.network = Some(ContainerNet {
        link: "hf-inner".into(),
        mac: "02:48:0a:63:00:05".parse().unwrap(),
        address: "10.99.0.5".parse().unwrap(),
        prefix: 24,
        gateway: Some("10.99.0.1".parse().unwrap()),
    });
    let uid = request.uid;
    let Started::Started { init_pid } = runtime.start(&request).unwrap() else {
        panic!("it cannot have run already");
    };
    let numbers = fs::read_to_string(format!("/proc/{init_pid}/status")).unwrap();
    let numbers = numbers.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap();
    assert_eq!(numbers.split_whitespace().count(), 3, "ours, the guardian's, its own: {numbers}");

    let script = "ip -4 addr show eth0; ip route; cat /sys/class/net/eth0/address";
    let exec = ExecRequest {
        command: vec!["sh".into(), "-c".into(), script.into()],
        ..Default::default()
    };
    let out = runtime.exec(uid, &exec, SOON).unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    for wanted in ["10.99.0.5/24", "default via 10.99.0.1", "02:48:0a:63:00:05"] {
        assert!(text.contains(wanted), "{wanted} is not in {text}");
    }
    for group in [format!("protected/{uid}"), format!("protected/{uid}.monitor")] {
        assert!(node.cgroups(&group).len() > 1, "{group} is in every hierarchy");
    }
    assert_eq!(runtime.stop(uid, SOON).unwrap(), Stopped::Clean);
    assert_nothing_left(&node, uid);
    assert!(guardian.has_link("hf-inner"), "a clean stop gives the link back");

    runtime.start(&request).unwrap();
    drop(guardian);
    wait_for("the end with the guardian", || runtime.status(uid).unwrap() == Status::Stopped);
    assert_eq!(runtime.stop(uid, SOON).unwrap(), Stopped::NotRunning);
    assert_nothing_left(&node, uid);
}

/// Freezes everything protected of a node, as its guardian does.
struct FrozenAncestor(std::path::PathBuf);

impl FrozenAncestor {
    fn freeze(node: &Node, group: &str) -> Self {
        let dirs = node.cgroups(group).into_iter().map(|dir| dir.join("cgroup.freeze"));
        let file = dirs.into_iter().find(|file| file.exists()).unwrap();
        fs::write(&file, "1").unwrap();
        Self(file)
    }
}

impl Drop for FrozenAncestor {
    fn drop(&mut self) {
        let _ = fs::write(&self.0, "0");
    }
}

/// I8: a start that a freeze holds back runs nothing of its container yet, and would after the thaw.
#[test]
fn a_start_that_a_freeze_holds_back_is_found_and_killed() {
    let node = Node::new();
    let uid = ContainerUid::generate();
    let protected = node.cgroups("protected").remove(0);
    let helper = protected.join(format!("{uid}.helper"));
    fs::create_dir(&helper).unwrap();
    let mut program = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    fs::write(helper.join("cgroup.procs"), program.id().to_string()).unwrap();
    fs::write(protected.join("cgroup.freeze"), "1").unwrap();
    let found = (node.runtime.list().unwrap().len(), node.runtime.entered().unwrap());
    let killed = node.runtime.kill(uid);
    fs::write(protected.join("cgroup.freeze"), "0").unwrap();
    let ended = program.kill().and_then(|()| program.wait());
    killed.unwrap();
    ended.unwrap();
    assert_eq!(found, (0, [uid].into()));
    assert!(node.runtime.entered().unwrap().is_empty());
    assert_nothing_left(&node, uid);
}

/// L4: no cgroup in any hierarchy, and so no process.
fn assert_nothing_left(node: &Node, uid: ContainerUid) {
    for side in ["protected", "pinned"] {
        for suffix in ["", ".monitor", ".pivot", ".helper"] {
            let left = node.cgroups(&format!("{side}/{uid}{suffix}"));
            assert!(left.is_empty(), "{left:?} are left");
        }
    }
}

/// A whole Debian with systemd, unprivileged. `HF_DEBIAN_TAR` names the archive, made with
/// `mmdebstrap --variant=minbase --include=systemd,systemd-sysv,dbus bookworm debian.tar`.
#[test]
#[ignore = "needs a Debian root filesystem, named by HF_DEBIAN_TAR"]
fn debian_boots_until_systemd_says_running_and_stops_when_asked() {
    let node = Node::new();
    let mut request = node.request("");
    request.command = Vec::new();
    request.rootfs = request.rootfs.with_file_name("debian");
    fs::create_dir(&request.rootfs).unwrap();
    let archive = fs::File::open(std::env::var_os("HF_DEBIAN_TAR").unwrap()).unwrap();
    let stats =
        holdfast_runtime::image::unpack(archive, &request.rootfs, Default::default()).unwrap();
    assert!(stats.has_init);
    node.runtime.start(&request).unwrap();
    let state = || {
        let out = node.exec(request.uid, &["systemctl", "is-system-running"]);
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    };
    wait_for("the boot", || {
        !matches!(state().as_str(), "" | "offline" | "starting" | "initializing")
    });
    let failed = node.exec(request.uid, &["systemctl", "--failed", "--plain", "--no-legend"]);
    assert_eq!(state(), "running", "{}", String::from_utf8_lossy(&failed.stdout));
    let begun = Instant::now();
    assert_eq!(node.runtime.stop(request.uid, SOON).unwrap(), Stopped::Clean);
    println!("stopped in {:?}", begun.elapsed());
    assert_nothing_left(&node, request.uid);
}
