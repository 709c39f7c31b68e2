//! Bad input to the guardian's socket and command line (I27).

use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send, socket,
};
use std::os::fd::AsRawFd;

use crate::harness::{GUARDIAN, Node, in_ms};
use holdfast_fence::GuardianClient;

fn raw(node: &Node) -> OwnedFd {
    let flags = SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).expect("a socket");
    let address = UnixAddr::new(&node.socket()).expect("an address");
    connect(fd.as_raw_fd(), &address).expect("connected");
    fd
}

fn ask(fd: &OwnedFd, packet: &[u8]) -> String {
    send(fd.as_raw_fd(), packet, MsgFlags::empty()).expect("sent");
    let mut buffer = [0u8; 8192];
    let length = recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty()).expect("an answer");
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

/// Rule 3: nobody reaches the ancestor itself, or anything outside it, by a name.
#[test]
fn a_name_that_leaves_the_ancestor_is_refused() {
    let mut node = Node::start();
    let writes = node.writer("web");
    node.client().thaw(in_ms(0), in_ms(30_000)).expect("thawed");
    writes.wait_running();
    let fd = raw(&node);
    for name in ["", ".", "..", "../x", "/", "web/../..", "web/.", "cgroup.kill", "/proc"] {
        let packet = format!(r#"{{"seq":1,"request":{{"kill":{{"child":"{name}"}}}}}}"#);
        assert!(ask(&fd, packet.as_bytes()).contains("malformed"), "{name}");
    }
    writes.wait_running();
}

#[test]
fn nonsense_is_answered_and_harms_nobody() {
    let node = Node::start();
    let fd = raw(&node);
    let deep = "[".repeat(4_000);
    let long = "x".repeat(6_000);
    for packet in ["x", "{}", "\0", r#"{"seq":1}"#, deep.as_str(), long.as_str()] {
        assert!(ask(&fd, packet.as_bytes()).contains("malformed"));
    }
    // Many that say nothing do not lock out one that does.
    let silent: Vec<_> = (0..64).map(|_| raw(&node)).collect();
    node.status();
    drop(silent);
    node.status();
}

#[test]
fn an_ancestor_has_one_guardian_and_a_lone_socket_none() {
    let node = Node::start();
    let second = Command::new("unshare")
        .args(["--net", "--", GUARDIAN, "serve", "--link-group", "5", "--socket"])
        .arg(node.dir.path().join("second.sock"))
        .arg("--cgroup")
        .arg(&node.ancestor.0)
        .stdin(Stdio::null())
        .output()
        .expect("ran");
    assert_eq!(second.status.code(), Some(1));
    let text = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(
        text.starts_with("holdfast-guardian: HF-IN-USE: ") && text.lines().count() == 1,
        "{text}"
    );
    let error = GuardianClient::connect(&node.dir.path().join("none.sock")).expect_err("nobody");
    assert_eq!(error.code(), holdfast_fence::Code::Guardian);
}

#[test]
fn a_path_that_is_no_cgroup_is_refused_and_nothing_is_made() {
    let dir = tempfile::tempdir().expect("a directory");
    let unified = holdfast_fence::find_unified().expect("mounted");
    let none = dir.path().join("none");
    for path in [none.as_path(), unified.as_path(), std::path::Path::new("relative")] {
        let refused = Command::new("unshare")
            .args(["--net", "--", GUARDIAN, "serve", "--link-group", "5", "--socket"])
            .arg(dir.path().join("guardian.sock"))
            .arg("--cgroup")
            .arg(path)
            .stdin(Stdio::null())
            .output()
            .expect("ran");
        let text = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(
            text.starts_with("holdfast-guardian: HF-CONFIG: ") && text.lines().count() == 1,
            "{text}"
        );
        assert!(!path.join("cgroup.kill").exists() && !none.exists());
    }
}

#[test]
fn wrong_use_is_one_line_with_a_code() {
    for line in ["", "frobnicate", "serve", "serve --frobnicate 1", "status", "enter -- true"] {
        let mut command = Command::new(GUARDIAN);
        let ran = command.args(line.split(' ')).stdin(Stdio::null()).output().expect("ran");
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert!(said.starts_with("holdfast-guardian: HF-INVALID-ARGUMENT: "), "{line}: {said}");
        assert_eq!((said.lines().count(), ran.status.code()), (1, Some(2)), "{line}: {said}");
    }
}

#[test]
fn the_socket_is_for_root_only() {
    let node = Node::start();
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(node.socket()).expect("there").permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
}
