//! The cgroups of one container, and what their files say.
//!
//! ```text
//! <hierarchy>/<cgroup_root>/protected | pinned
//!     <uid>            payload: the container's limits, its freezer, its kill switch
//!     <uid>/inner      what the container sees as its root cgroup
//!     <uid>.monitor    LXC's monitor
//!     <uid>.pivot      LXC's monitor while it clears up
//!     <uid>.helper     lxc-start and lxc-attach while they run below the guardian
//! ```
//! A container runs while its payload, its monitor *or its pivot* has a task: only then is its
//! volume free and its network link back. (Left to itself, LXC makes its pivot at the hierarchy's
//! root, out of the guardian's reach.)

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use holdfast_types::{ContainerUid, Protection};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, Mode, OFlags, openat};

use super::hierarchies::Hierarchies;
use super::io_error;
use crate::process::timespec;
use crate::{RuntimeError, Status};

/// Below which directory of the root a container's cgroups are.
pub(super) fn side(protection: Protection) -> &'static str {
    match protection {
        Protection::Protected => "protected",
        Protection::Pinned => "pinned",
    }
}

/// The cgroups of one container on one side.
#[derive(Debug, Clone)]
pub(super) struct Groups<'a> {
    hierarchies: &'a Hierarchies,
    /// `<cgroup_root>/<side>/<uid>`, as LXC's configuration wants it.
    payload: String,
    protection: Protection,
}

/// One reading of a `cgroup.events`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Events {
    pub(super) populated: bool,
    pub(super) frozen: bool,
}

impl<'a> Groups<'a> {
    pub(super) fn new(
        hierarchies: &'a Hierarchies,
        cgroup_root: &str,
        protection: Protection,
        uid: ContainerUid,
    ) -> Self {
        let payload = format!("{cgroup_root}/{}/{uid}", side(protection));
        Self { hierarchies, payload, protection }
    }

    /// The payload's path below every hierarchy.
    pub(super) fn payload(&self) -> &str {
        &self.payload
    }

    /// The monitor's path below every hierarchy.
    pub(super) fn monitor(&self) -> String {
        format!("{}.monitor", self.payload)
    }

    /// The payload's directory in one hierarchy.
    pub(super) fn payload_in(&self, hierarchy: &Path) -> PathBuf {
        hierarchy.join(&self.payload)
    }

    /// What the container is doing. A group that does not exist has no tasks.
    pub(super) fn status(&self) -> Result<Status, RuntimeError> {
        // The monitor moves to the pivot at its end: read in this order, it is not missed.
        for group in [&self.payload, &self.monitor(), &self.pivot()] {
            let Events { populated, frozen } = read_events(&self.unified(group))?;
            if populated {
                return Ok(Status::Running { protection: self.protection, frozen });
            }
        }
        Ok(Status::Stopped)
    }

    /// Whether a helper runs for it.
    pub(super) fn has_helper(&self) -> Result<bool, RuntimeError> {
        Ok(read_events(&self.unified(&self.helper()))?.populated)
    }

    /// Whether its own freezer, not an ancestor's, is closed.
    pub(super) fn own_freeze(&self) -> Result<bool, RuntimeError> {
        let file = self.unified(&self.payload).join("cgroup.freeze");
        match fs::read_to_string(&file) {
            Ok(text) => Ok(text.trim() == "1"),
            Err(e) if gone(&e) => Ok(false),
            Err(e) => Err(io_error("read", file)(e)),
        }
    }

    /// Whether the freezer of all containers of its side is closed: what is started then hangs.
    pub(super) fn side_is_frozen(&self) -> bool {
        let side = self.unified(&self.payload);
        let file = side.parent().map(|side| side.join("cgroup.freeze"));
        file.and_then(|file| fs::read_to_string(file).ok()).is_some_and(|text| text.trim() == "1")
    }

    /// Closes or opens its own freezer.
    pub(super) fn set_freeze(&self, frozen: bool) -> Result<(), RuntimeError> {
        let file = self.unified(&self.payload).join("cgroup.freeze");
        fs::write(&file, if frozen { "1" } else { "0" }).map_err(io_error("write", file))
    }

    /// Sends SIGKILL to every task of the payload: atomically, frozen or not.
    pub(super) fn kill_payload(&self) -> Result<(), RuntimeError> {
        kill_group(&self.unified(&self.payload))
    }

    /// Sends SIGKILL to the monitor and to helpers.
    pub(super) fn kill_monitor(&self) -> Result<(), RuntimeError> {
        for group in [self.monitor(), self.pivot(), self.helper()] {
            kill_group(&self.unified(&group))?;
        }
        Ok(())
    }

    /// Waits until the container does not run; false if the time is over before.
    pub(super) fn wait_empty(&self, timeout: Duration) -> Result<bool, RuntimeError> {
        let until = Instant::now() + timeout;
        while self.status()?.is_running() {
            for group in [&self.payload, &self.monitor(), &self.pivot()] {
                if !wait_until(&self.unified(group), until, |e| !e.populated)? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Waits until the payload has no task; false if the time is over before.
    pub(super) fn wait_payload_empty(&self, timeout: Duration) -> Result<bool, RuntimeError> {
        wait_until(&self.unified(&self.payload), Instant::now() + timeout, |e| !e.populated)
    }

    /// Waits until every task of the payload is frozen, or none must be.
    pub(super) fn wait_frozen(
        &self,
        frozen: bool,
        timeout: Duration,
    ) -> Result<bool, RuntimeError> {
        let done = |e: Events| e.frozen == frozen || !e.populated;
        wait_until(&self.unified(&self.payload), Instant::now() + timeout, done)
    }

    /// Every process of the payload, as this process's pid namespace numbers them.
    pub(super) fn tasks(&self) -> Vec<u32> {
        let mut found = Vec::new();
        collect_tasks(&self.unified(&self.payload), 0, &mut found);
        found
    }

    /// Removes the groups from every hierarchy. True if there was one.
    pub(super) fn remove(&self) -> Result<bool, RuntimeError> {
        let mut removed = false;
        for hierarchy in self.hierarchies.all() {
            for name in [self.payload.clone(), self.monitor(), self.pivot(), self.helper()] {
                removed |= remove_group(&hierarchy.join(name))?;
            }
        }
        Ok(removed)
    }

    /// The pivot's path below every hierarchy.
    pub(super) fn pivot(&self) -> String {
        format!("{}.pivot", self.payload)
    }

    fn helper(&self) -> String {
        format!("{}.helper", self.payload)
    }

    fn unified(&self, group: &str) -> PathBuf {
        self.hierarchies.unified().join(group)
    }
}

/// Reads a group's `cgroup.events`.
pub(super) fn read_events(group: &Path) -> Result<Events, RuntimeError> {
    let file = group.join("cgroup.events");
    match fs::read_to_string(&file) {
        Ok(text) => Ok(parse_events(&text)),
        Err(e) if gone(&e) => Ok(Events::default()),
        Err(e) => Err(io_error("read", file)(e)),
    }
}

fn parse_events(text: &str) -> Events {
    let is_set = |key: &str| text.lines().any(|line| line.strip_prefix(key) == Some(" 1"));
    Events { populated: is_set("populated"), frozen: is_set("frozen") }
}

/// Longest sleep between two looks. The kernel wakes us at every change (POLLPRI), but delays a
/// second change within 10 ms, and a group that is removed in that time wakes nobody.
const RECHECK: Duration = Duration::from_millis(30);

/// Waits for a condition on a group's events.
fn wait_until(
    group: &Path,
    until: Instant,
    done: impl Fn(Events) -> bool,
) -> Result<bool, RuntimeError> {
    let file = group.join("cgroup.events");
    let handle = match openat(CWD, &file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(handle) => handle,
        Err(e) if gone(&e.into()) => return Ok(done(Events::default())),
        Err(e) => return Err(io_error("open", file)(e.into())),
    };
    loop {
        if done(read_handle(&handle)) {
            return Ok(true);
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let mut fds = [PollFd::from_borrowed_fd(handle.as_fd(), PollFlags::PRI)];
        match poll(&mut fds, Some(&timespec(left.min(RECHECK)))) {
            Ok(_) | Err(rustix::io::Errno::INTR) => (),
            Err(e) => return Err(io_error("poll", file)(e.into())),
        }
    }
}

/// Reads from the start again, which also re-arms the poll. A removed group reads `ENODEV`.
fn read_handle(handle: &OwnedFd) -> Events {
    let mut buffer = [0u8; 128];
    let len = rustix::io::pread(handle, &mut buffer, 0).unwrap_or(0);
    parse_events(&String::from_utf8_lossy(&buffer[..len]))
}

fn kill_group(group: &Path) -> Result<(), RuntimeError> {
    let file = group.join("cgroup.kill");
    match fs::write(&file, "1") {
        Ok(()) => Ok(()),
        Err(e) if gone(&e) => Ok(()),
        Err(e) => Err(io_error("write", file)(e)),
    }
}

/// How deep and how many: a container can nest cgroups as it likes.
const MAX_DEPTH: usize = 32;
const MAX_TASKS: usize = 1 << 16;

fn collect_tasks(group: &Path, depth: usize, found: &mut Vec<u32>) {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    found.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
    if depth < MAX_DEPTH && found.len() < MAX_TASKS {
        subgroups(group).iter().for_each(|sub| collect_tasks(sub, depth + 1, found));
    }
}

fn subgroups(group: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(group) else { return Vec::new() };
    let dirs = entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
    dirs.map(|e| e.path()).collect()
}

/// Removes a group and those below it. The kernel lets go of a group a moment after its last task
/// ended, hence the few tries.
fn remove_group(group: &Path) -> Result<bool, RuntimeError> {
    if !group.exists() {
        return Ok(false);
    }
    for sub in subgroups(group) {
        remove_group(&sub)?;
    }
    let until = Instant::now() + Duration::from_secs(1);
    loop {
        match fs::remove_dir(group) {
            Ok(()) => return Ok(true),
            Err(e) if gone(&e) => return Ok(true),
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(e) => return Err(io_error("remove cgroup", group)(e)),
        }
    }
}

/// The group does not exist, or was removed under our hands.
fn gone(error: &io::Error) -> bool {
    let enodev = Some(rustix::io::Errno::NODEV.raw_os_error());
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == enodev
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_by_key() {
        let text = "populated 1\nfrozen 0\n";
        assert_eq!(parse_events(text), Events { populated: true, frozen: false });
        assert_eq!(parse_events("frozen 1\n"), Events { populated: false, frozen: true });
        assert_eq!(parse_events(""), Events::default());
    }

    #[test]
    fn a_group_that_does_not_exist_is_empty() {
        let nowhere = Path::new("/sys/fs/cgroup/no-such-group");
        assert_eq!(read_events(nowhere).unwrap(), Events::default());
        assert!(wait_until(nowhere, Instant::now(), |e| !e.populated).unwrap());
        assert!(!remove_group(nowhere).unwrap());
    }
}
