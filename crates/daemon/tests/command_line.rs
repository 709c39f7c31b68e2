//! What `holdfastd` says to a command line that is wrong.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic")]

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};

/// One line with a stable code, a non-zero exit, nothing on standard output.
#[test]
fn wrong_use_is_one_line_with_a_code() {
    for (line, code) in [
        ("--frobnicate", "HF-INVALID-ARGUMENT"),
        ("--config", "HF-INVALID-ARGUMENT"),
        ("--check=yes", "HF-INVALID-ARGUMENT"),
        ("--check extra", "HF-INVALID-ARGUMENT"),
        ("--check --config /nonexistent/holdfastd.toml", "HF-CONFIG"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfastd"));
        let ran = command.args(line.split(' ')).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8(ran.stderr).unwrap();
        assert!(said.starts_with(&format!("holdfastd: {code}: ")), "{line}: {said}");
        assert_eq!((said.lines().count(), ran.stdout.len()), (1, 0), "{line}: {said}");
        assert!(!ran.status.success(), "{line}");
    }
}

/// A witness in a directory of its own, which needs nothing of this machine.
fn configured(dir: &Path) -> PathBuf {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let file = dir.join("holdfastd.toml");
    let text = format!(
        "name = \"n1\"\nlisten = \"127.0.0.1:{port}\"\nadvertise = \"192.0.2.1:7443\"\n\
         data_dir = {data:?}\nsocket = {socket:?}\n[pool]\ndriver = \"none\"\n\
         [network]\nunderlay = \"192.0.2.1\"\n",
        data = dir.join("data"),
        socket = dir.join("socket"),
    );
    fs::write(&file, text).unwrap();
    file
}

fn doctor(config: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfastd"));
    command.arg("doctor").arg("--config").arg(config).args(more).output().unwrap()
}

/// Its memory has keys: nothing of it is written when it dies, whatever the limit of cores is.
#[test]
fn the_daemon_leaves_no_core() {
    let dir = tempfile::tempdir().unwrap();
    let config = configured(dir.path());
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfastd"));
    command.arg("--config").arg(config).current_dir(&dir).stderr(Stdio::null());
    let mut daemon = command.spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    while !dir.path().join("socket").exists() {
        assert!(Instant::now() < until, "it does not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = Pid::from_child(&daemon);
    let limit = getrlimit(Resource::Core);
    let most = Rlimit { current: limit.maximum, ..limit };
    prlimit(Some(pid), Resource::Core, most).unwrap();
    kill_process(pid, Signal::ABORT).unwrap();
    let ended = daemon.wait().unwrap();
    assert_eq!((ended.signal(), ended.core_dumped()), (Some(6), false));
}

#[test]
fn a_doctor_says_what_is_wrong_and_fails() {
    let dir = tempfile::tempdir().unwrap();
    let config = configured(dir.path());
    fs::create_dir(dir.path().join("data")).unwrap();
    fs::set_permissions(dir.path().join("data"), Permissions::from_mode(0o755)).unwrap();
    let looked = doctor(&config, &["--json"]);
    assert!(!looked.status.success() && looked.stderr.is_empty(), "{looked:?}");
    let told: serde_json::Value = serde_json::from_slice(&looked.stdout).unwrap();
    let finding = |name: &str| {
        let findings = told["findings"].as_array().unwrap().iter();
        findings.clone().find(|finding| finding["name"] == name).cloned()
    };
    assert_eq!(finding("config").unwrap()["grade"], "ok");
    assert_eq!(finding("port-listen").unwrap()["grade"], "ok");
    assert_eq!(finding("address-advertise").unwrap()["grade"], "warning");
    assert_eq!(finding("data-dir-mode").unwrap()["grade"], "problem");
    let cure = finding("data-dir-mode").unwrap()["do"].as_str().unwrap().to_owned();
    assert_eq!(cure, format!("chmod 0710 {}", dir.path().join("data").display()));
    assert!(finding("programs").is_none(), "a witness calls none");

    fs::set_permissions(dir.path().join("data"), Permissions::from_mode(0o700)).unwrap();
    let looked = doctor(&config, &[]);
    let text = String::from_utf8(looked.stdout).unwrap();
    assert!(looked.status.success(), "{text}");
    assert!(text.lines().last().unwrap().starts_with("0 problems and "), "{text}");
}

#[test]
fn a_doctor_goes_on_without_a_configuration() {
    let looked = doctor(Path::new("/nonexistent/holdfastd.toml"), &[]);
    assert_eq!(looked.status.code(), Some(1));
    let text = String::from_utf8(looked.stdout).unwrap();
    assert!(text.starts_with("PROBLEM  config"), "{text}");
    assert!(text.lines().any(|line| line.starts_with("ok       kernel ")), "{text}");
}
