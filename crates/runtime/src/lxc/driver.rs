//! [`LxcRuntime`]: what the other files of this module do, behind the trait.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use holdfast_types::{ContainerUid, Protection};

use super::groups::{Groups, side};
use super::hierarchies::{Carrier, Hierarchies};
use super::watcher::Watcher;
use super::{Enter, LxcConfig, init, io_error, logs};
use crate::{
    Changed, ExecOutput, ExecRequest, ExecSession, RunEvent, Runtime, RuntimeError, StartRequest,
    Started, Status, Stopped, Usage, Watching,
};

/// Runs containers with LXC 5. It keeps no state of its own about what runs: the cgroups say that,
/// so a new one adopts what an old one started.
pub struct LxcRuntime {
    pub(super) config: LxcConfig,
    pub(super) hierarchies: Arc<Hierarchies>,
    enter: Box<dyn Enter>,
    busy: Mutex<BTreeSet<ContainerUid>>,
    freed: Condvar,
}

/// Says of process 1 what the file `$0` holds, and becomes what follows the directory `$1`. There the
/// whole `/proc` stays in sight: nobody may mount one in a user namespace who sees none that is whole
/// (mount_namespaces(7)).
const SAY_ROOT: &str = r#"/bin/mount --bind /proc "$1" && /bin/mount --bind "$0" /proc/1/cgroup && shift && exec "$@""#;

/// Both sides that a container can be on.
pub(super) const SIDES: [Protection; 2] = [Protection::Protected, Protection::Pinned];

impl LxcRuntime {
    /// Checks that LXC and usable cgroups are here, and makes the directories.
    pub fn new(config: LxcConfig, enter: Box<dyn Enter>) -> Result<Self, RuntimeError> {
        for tool in ["lxc-start", "lxc-attach"] {
            if !program(tool).exists() {
                return Err(RuntimeError::MissingTool { tool: tool.to_owned(), package: "lxc" });
            }
        }
        let root_ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
        let root = &config.cgroup_root;
        let parts_ok = root.split('/').all(|part| !matches!(part, "" | "." | ".."));
        if !parts_ok || !root.chars().all(root_ok) {
            let why = "it is no relative path of plain characters";
            return Err(RuntimeError::Invalid { what: "the cgroup root", why });
        }
        let hierarchies = Arc::new(Hierarchies::discover()?);
        for dir in [&config.lxc_path, &config.log_dir] {
            fs::create_dir_all(dir).map_err(io_error("create", dir))?;
        }
        for side_dir in side_dirs(&hierarchies, &config.cgroup_root) {
            fs::create_dir_all(&side_dir).map_err(io_error("create", side_dir))?;
        }
        let busy = Mutex::default();
        let runtime = Self { config, hierarchies, enter, busy, freed: Condvar::new() };
        let proc = runtime.whole_proc();
        fs::create_dir_all(&proc).map_err(io_error("create", proc))?;
        let said = runtime.root_said();
        fs::write(&said, runtime.hierarchies.at_root()).map_err(io_error("write", said))?;
        Ok(runtime)
    }

    /// The groups of a container on one side.
    pub(super) fn groups(&self, protection: Protection, uid: ContainerUid) -> Groups<'_> {
        Groups::new(&self.hierarchies, &self.config.cgroup_root, protection, uid)
    }

    /// The groups of a running container, and what it is doing.
    pub(super) fn running(
        &self,
        uid: ContainerUid,
    ) -> Result<Option<(Groups<'_>, Status)>, RuntimeError> {
        for protection in SIDES {
            let groups = self.groups(protection, uid);
            let status = groups.status()?;
            if status.is_running() {
                return Ok(Some((groups, status)));
            }
        }
        Ok(None)
    }

    /// A command line of an `lxc-*` program.
    ///
    /// LXC puts a container's cgroups below those that it, or process 1, is in, in each hierarchy:
    /// below the guardian, in a service, in a lab's node that is somewhere else each time. A cgroup
    /// namespace of its own makes both read as `/`, so that the configured paths are the real ones.
    /// Where such a namespace is a boundary (`nsdelegate`: cgroups(7)) LXC could not leave it then; so
    /// there it gets a mount namespace, in which process 1 is said to be at the root.
    ///
    /// Its `PATH` has no `newuidmap`: with that in reach LXC
    /// insists on entries in `/etc/subuid`; as root it can write the maps by itself.
    pub(super) fn lxc_command(
        &self,
        tool: &str,
        protection: Protection,
        uid: ContainerUid,
        before: &[OsString],
    ) -> Result<Command, RuntimeError> {
        let mut line: Vec<OsString> = before.to_vec();
        if protection == Protection::Protected {
            line.extend(self.enter.prefix(uid, &format!("{uid}.helper"))?);
        }
        if self.hierarchies.delegates() {
            line.extend(
                ["/usr/bin/unshare", "--mount", "--propagation", "slave"].map(OsString::from),
            );
            line.extend(["/bin/sh", "-c", SAY_ROOT].map(OsString::from));
            line.extend([self.root_said(), self.whole_proc()].map(OsString::from));
        } else {
            line.extend(["/usr/bin/unshare", "--cgroup"].map(OsString::from));
        }
        line.push(program(tool).into());
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]).arg("-P").arg(&self.config.lxc_path);
        command.arg("-n").arg(uid.to_string());
        command.env_clear().env("PATH", "/usr/sbin:/sbin");
        Ok(command)
    }

    /// The file that says that a process is at the root of every hierarchy.
    fn root_said(&self) -> PathBuf {
        self.config.lxc_path.join("at-root")
    }

    /// Where `/proc` is seen whole by who sees a part of it covered.
    fn whole_proc(&self) -> PathBuf {
        self.config.lxc_path.join("whole-proc")
    }

    /// Waits for other changes of the same container to end, and holds new ones off. A kill does
    /// not come here: it must be able to cut a start or stop short.
    pub(super) fn exclusive(&self, uid: ContainerUid) -> Exclusive<'_> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        while !busy.insert(uid) {
            busy = self.freed.wait(busy).unwrap_or_else(PoisonError::into_inner);
        }
        Exclusive { runtime: self, uid }
    }

    pub(super) fn state_dir(&self, uid: ContainerUid) -> PathBuf {
        self.config.lxc_path.join(uid.to_string())
    }

    fn set_frozen(&self, uid: ContainerUid, frozen: bool) -> Result<Changed, RuntimeError> {
        let (groups, _) = self.running(uid)?.ok_or(RuntimeError::NotRunning(uid))?;
        if groups.own_freeze()? == frozen {
            return Ok(Changed::No);
        }
        groups.set_freeze(frozen)?;
        // Thawing below a frozen ancestor changes nothing that could be waited for.
        if frozen && !groups.wait_frozen(true, self.config.call_timeout)? {
            let after_ms = u64::try_from(self.config.call_timeout.as_millis()).unwrap_or(u64::MAX);
            let last_lines = "some task does not freeze".to_owned();
            return Err(RuntimeError::Timeout { what: "freezing", after_ms, last_lines });
        }
        Ok(Changed::Yes)
    }

    fn read_counter(
        &self,
        carrier: Option<Carrier<'_>>,
        groups: &Groups<'_>,
        v2: &str,
        v1: &str,
    ) -> Option<u64> {
        let (hierarchy, file) = match carrier? {
            Carrier::V2(hierarchy) => (hierarchy, v2),
            Carrier::V1(hierarchy) => (hierarchy, v1),
        };
        let text = fs::read_to_string(groups.payload_in(hierarchy).join(file)).ok()?;
        // Some files are one number, `cpu.stat` begins with "usage_usec N".
        text.lines().next()?.split_whitespace().last()?.parse().ok()
    }
}

/// While it lives, no other change of the container begins.
pub(super) struct Exclusive<'a> {
    runtime: &'a LxcRuntime,
    uid: ContainerUid,
}

impl Drop for Exclusive<'_> {
    fn drop(&mut self) {
        let mut busy = self.runtime.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.remove(&self.uid);
        self.runtime.freed.notify_all();
    }
}

impl Runtime for LxcRuntime {
    fn start(&self, request: &StartRequest) -> Result<Started, RuntimeError> {
        let _exclusive = self.exclusive(request.uid);
        self.start_container(request)
    }

    fn stop(&self, uid: ContainerUid, grace: Duration) -> Result<Stopped, RuntimeError> {
        let _exclusive = self.exclusive(uid);
        self.stop_container(uid, grace)
    }

    fn kill(&self, uid: ContainerUid) -> Result<Stopped, RuntimeError> {
        self.kill_container(uid)
    }

    fn status(&self, uid: ContainerUid) -> Result<Status, RuntimeError> {
        Ok(self.running(uid)?.map_or(Status::Stopped, |(_, status)| status))
    }

    fn list(&self) -> Result<BTreeMap<ContainerUid, Status>, RuntimeError> {
        let mut found = BTreeMap::new();
        for (protection, dir) in
            SIDES.into_iter().zip(side_dirs(&self.hierarchies, &self.config.cgroup_root))
        {
            for uid in uids_in(&dir)? {
                let status = self.groups(protection, uid).status()?;
                if status.is_running() {
                    found.insert(uid, status);
                }
            }
        }
        Ok(found)
    }

    fn entered(&self) -> Result<BTreeSet<ContainerUid>, RuntimeError> {
        let [protected, _] = side_dirs(&self.hierarchies, &self.config.cgroup_root);
        let mut found = BTreeSet::new();
        for uid in names_in(&protected)?.iter().filter_map(|name| uid_of_helper(name)) {
            if self.groups(Protection::Protected, uid).has_helper()? {
                found.insert(uid);
            }
        }
        Ok(found)
    }

    fn usage(&self, uid: ContainerUid) -> Result<Usage, RuntimeError> {
        let (groups, _) = self.running(uid)?.ok_or(RuntimeError::NotRunning(uid))?;
        let of = |controller| self.hierarchies.carrier(controller);
        let unified = Some(Carrier::V2(self.hierarchies.unified()));
        Ok(Usage {
            memory_bytes: self.read_counter(
                of("memory"),
                &groups,
                "memory.current",
                "memory.usage_in_bytes",
            ),
            // cpu.stat is in every v2 group, whoever carries the controller.
            cpu_us: self.read_counter(unified, &groups, "cpu.stat", "cpu.stat"),
            pids: self.read_counter(of("pids"), &groups, "pids.current", "pids.current"),
        })
    }

    fn freeze(&self, uid: ContainerUid) -> Result<Changed, RuntimeError> {
        let _exclusive = self.exclusive(uid);
        self.set_frozen(uid, true)
    }

    fn unfreeze(&self, uid: ContainerUid) -> Result<Changed, RuntimeError> {
        let _exclusive = self.exclusive(uid);
        self.set_frozen(uid, false)
    }

    fn exec(
        &self,
        uid: ContainerUid,
        request: &ExecRequest,
        deadline: Duration,
    ) -> Result<ExecOutput, RuntimeError> {
        self.attach_captured(uid, request, deadline)
    }

    fn exec_piped(
        &self,
        uid: ContainerUid,
        request: &ExecRequest,
    ) -> Result<ExecSession, RuntimeError> {
        self.attach_piped(uid, request)
    }

    fn console_tail(&self, uid: ContainerUid, max_bytes: u64) -> Result<Vec<u8>, RuntimeError> {
        logs::tail(&logs::console(&self.config.log_dir, uid), max_bytes)
    }

    fn forget(&self, uid: ContainerUid) -> Result<Changed, RuntimeError> {
        let _exclusive = self.exclusive(uid);
        if self.running(uid)?.is_some() {
            return Err(RuntimeError::StillRunning(uid));
        }
        let mut changed = logs::remove(&self.config.log_dir, uid)?;
        for protection in SIDES {
            changed |= self.groups(protection, uid).remove()?;
        }
        let dir = self.state_dir(uid);
        match fs::remove_dir_all(&dir) {
            Ok(()) => changed = true,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => (),
            Err(e) => return Err(io_error("remove", dir)(e)),
        }
        Ok(if changed { Changed::Yes } else { Changed::No })
    }

    fn watch(&self, sink: Box<dyn Fn(RunEvent) + Send>) -> Result<Box<dyn Watching>, RuntimeError> {
        let dirs = side_dirs(&self.hierarchies, &self.config.cgroup_root);
        Ok(Box::new(Watcher::start(dirs, sink)?))
    }
}

/// Where Debian's package puts LXC's programs.
fn program(tool: &str) -> PathBuf {
    Path::new("/usr/bin").join(tool)
}

/// The directories that hold containers' groups in the v2 hierarchy, in the order of [`SIDES`].
fn side_dirs(hierarchies: &Hierarchies, cgroup_root: &str) -> [PathBuf; 2] {
    SIDES.map(|protection| hierarchies.unified().join(cgroup_root).join(side(protection)))
}

/// The containers that have a group in a directory.
pub(super) fn uids_in(dir: &Path) -> Result<BTreeSet<ContainerUid>, RuntimeError> {
    Ok(names_in(dir)?.iter().filter_map(|name| uid_of_group(name)).collect())
}

fn names_in(dir: &Path) -> Result<Vec<String>, RuntimeError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(io_error("list", dir)(e)),
    };
    let names = entries.flatten().map(|entry| entry.file_name());
    Ok(names.filter_map(|name| name.into_string().ok()).collect())
}

/// The container that runs while a group has tasks: payload, monitor, pivot; helpers do not count.
pub(super) fn uid_of_group(name: &str) -> Option<ContainerUid> {
    let uid = [".monitor", ".pivot"].into_iter().find_map(|suffix| name.strip_suffix(suffix));
    uid.unwrap_or(name).parse().ok()
}

/// The container for which helpers run in a group.
fn uid_of_helper(name: &str) -> Option<ContainerUid> {
    name.strip_suffix(".helper")?.parse().ok()
}

/// The process that is a container's init, if it has one.
pub(super) fn init_pid(groups: &Groups<'_>) -> Option<u32> {
    init::find(&groups.tasks())
}
