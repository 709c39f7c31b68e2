//! A node of its own for each test: directories, a cgroup root, a busybox root filesystem. All of
//! it is gone when the test ends, failed or not.
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its node has failed")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use holdfast_runtime::lxc::{Enter, LxcConfig, LxcRuntime, Unguarded};
use holdfast_runtime::{ExecOutput, ExecRequest, Runtime, RuntimeError, StartRequest};
use holdfast_types::{ContainerUid, Limits, Protection};

/// Longest that a test waits for anything.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) struct Node {
    pub(crate) dir: tempfile::TempDir,
    cgroup_root: String,
    pub(crate) runtime: LxcRuntime,
}

impl Node {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cgroup_root = format!("hf-test-{}", ContainerUid::generate());
        let config = config(dir.path(), &cgroup_root);
        let runtime = LxcRuntime::new(config, Box::new(Unguarded)).unwrap();
        Self { dir, cgroup_root, runtime }
    }

    /// What a daemon that starts now would have.
    pub(crate) fn another_runtime(&self) -> LxcRuntime {
        self.runtime_with(self.config())
    }

    pub(crate) fn runtime_with(&self, config: LxcConfig) -> LxcRuntime {
        LxcRuntime::new(config, Box::new(Unguarded)).unwrap()
    }

    pub(crate) fn runtime_with_enter(&self, enter: Box<dyn Enter>) -> LxcRuntime {
        LxcRuntime::new(self.config(), enter).unwrap()
    }

    pub(crate) fn config(&self) -> LxcConfig {
        config(self.dir.path(), &self.cgroup_root)
    }

    /// A start of a container whose init is this shell script.
    pub(crate) fn request(&self, script: &str) -> StartRequest {
        let rootfs = self.dir.path().join("rootfs");
        if !rootfs.exists() {
            busybox_rootfs(&rootfs);
        }
        StartRequest {
            uid: ContainerUid::generate(),
            hostname: "web".parse().unwrap(),
            protection: Protection::Protected,
            rootfs,
            mounts: Vec::new(),
            limits: Limits::default(),
            command: vec!["/bin/sh".into(), "-c".into(), script.into()],
            env: BTreeMap::new(),
            network: None,
        }
    }

    pub(crate) fn exec(&self, uid: ContainerUid, command: &[&str]) -> ExecOutput {
        let command = command.iter().map(|s| (*s).to_owned()).collect();
        let request = ExecRequest { command, ..Default::default() };
        self.runtime.exec(uid, &request, SOON).unwrap()
    }

    /// A directory of this node's cgroups in every hierarchy that has it.
    pub(crate) fn cgroups(&self, below: &str) -> Vec<PathBuf> {
        let path = Path::new(&self.cgroup_root).join(below);
        hierarchies().into_iter().map(|h| h.join(&path)).filter(|dir| dir.exists()).collect()
    }

    /// The one of a v1 and a v2 file of a group that exists, read.
    pub(crate) fn limit(&self, below: &str, names: &[&str]) -> String {
        let groups = self.cgroups(below);
        let files = groups.iter().flat_map(|dir| names.iter().map(move |name| dir.join(name)));
        let file = files.into_iter().find(|file| file.exists()).expect("no such limit");
        fs::read_to_string(file).unwrap().trim().to_owned()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for uid in self.runtime.list().unwrap_or_default().into_keys() {
            let _ = self.runtime.kill(uid);
        }
        for hierarchy in hierarchies() {
            remove_tree(&hierarchy.join(&self.cgroup_root));
        }
    }
}

/// A guardian's shape without its clock: the init of a pid, mount and network namespace.
pub(crate) struct Guardian {
    process: Child,
    init_pid: u32,
    ancestor: PathBuf,
}

impl Guardian {
    pub(crate) fn start(node: &Node) -> Self {
        let script = "set -e; mkdir -p $0; mount --rbind /sys/fs/cgroup $0; \
            mount -t sysfs sysfs /sys; mount --rbind $0 /sys/fs/cgroup; \
            ip link add hf-outer type veth peer name hf-inner; \
            ip addr add 10.99.0.1/24 dev hf-outer; ip link set hf-outer up; \
            echo ready; exec sleep infinity";
        let mut process = Command::new("unshare")
            .args(["--net", "--mount", "--propagation", "slave", "--pid", "--fork"])
            .args(["--kill-child", "--mount-proc", "sh", "-c", script])
            .arg(node.dir.path().join("aside"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0u8; 6];
        process.stdout.take().unwrap().read_exact(&mut ready).unwrap();
        let pid = process.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        let init_pid = children.trim().parse().unwrap();
        let ancestor = node.cgroups("protected").remove(0);
        Self { process, init_pid, ancestor }
    }

    pub(crate) fn enter(&self) -> Box<dyn Enter> {
        Box::new(Below { init_pid: self.init_pid, ancestor: self.ancestor.clone() })
    }

    pub(crate) fn has_link(&self, name: &str) -> bool {
        let target = self.init_pid.to_string();
        let show = ["-t", &target, "-n", "ip", "link", "show", name];
        let status = Command::new("nsenter").args(show).stdout(Stdio::null()).status();
        status.unwrap().success()
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

struct Below {
    init_pid: u32,
    ancestor: PathBuf,
}

impl Enter for Below {
    fn prefix(&self, _uid: ContainerUid, leaf: &str) -> Result<Vec<OsString>, RuntimeError> {
        let script = "/bin/mkdir -p $0 && echo $$ > $0/cgroup.procs && exec \"$@\"";
        let mut line: Vec<OsString> = vec!["/bin/sh".into(), "-c".into(), script.into()];
        line.push(self.ancestor.join(leaf).into());
        let target = self.init_pid.to_string();
        line.extend(["/usr/bin/nsenter", "-t", &target, "-p", "-m", "-n"].map(OsString::from));
        Ok(line)
    }
}

fn config(dir: &Path, cgroup_root: &str) -> LxcConfig {
    let mut config = LxcConfig::new(dir.join("lxc"), dir.join("log"), cgroup_root.to_owned());
    config.call_timeout = Duration::from_secs(2);
    config
}

pub(crate) fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + SOON;
    while !done() {
        assert!(Instant::now() < until, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Mount points of every hierarchy, the v2 one first.
fn hierarchies() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let of = |kind: &str| {
        let lines = mounts.lines().filter(|line| line.contains(kind));
        lines.filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from).collect::<Vec<_>>()
    };
    [of(" - cgroup2 "), of(" - cgroup ")].concat()
}

fn remove_tree(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    let _ = fs::remove_dir(group);
}

fn busybox_rootfs(root: &Path) {
    for dir in ["bin", "sbin", "dev", "proc", "sys", "tmp", "root", "etc", "run"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for applet in ["sh", "cat", "echo", "true", "false", "sleep", "id", "dd", "hostname", "head"] {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    let init = root.join("sbin/init");
    fs::write(&init, "#!/bin/sh\ntrap 'exit 0' TERM\nwhile :; do sleep 1 & wait $!; done\n")
        .unwrap();
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755)).unwrap();
}
